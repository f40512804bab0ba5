"""Checkpoints of verl and TRL as targets of an evaluation: the adapter is judged, not its base."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from budgetrl.errors import ModelError
from budgetrl.evaluation.target import find_target
from budgetrl.recipe.assets import local_path

BASE = Path(local_path("asset:tiny/quickstart"))


def adapter(folder: Path, base: str | None) -> Path:
    """A PEFT adapter's files; verl's merger writes no base."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({"x.lora_A.weight": torch.zeros(4, 4)}, folder / "adapter_model.safetensors")
    return folder


def test_output_of_verls_merger_is_its_adapter_on_the_base_beside_it(tmp_path: Path) -> None:
    merged = Path(shutil.copytree(BASE, tmp_path / "merged"))
    inner = adapter(merged / "lora_adapter", None)
    for named in (merged, inner):
        target = find_target(str(named))
        assert target.adapter == inner
        assert target.recipe.model.id == str(merged)
        assert (target.recipe.lora.rank, target.recipe.lora.alpha) == (4, 8)


def test_adapter_without_a_base_takes_the_recipes_or_asks_for_one(tmp_path: Path) -> None:
    lone = adapter(tmp_path / "lone", None)
    assert find_target(str(lone), "quickstart").recipe.model.id == "asset:tiny/quickstart"
    with pytest.raises(ModelError, match="names no base model") as caught:
        find_target(str(lone))
    assert "--recipe" in caught.value.hint


@pytest.mark.parametrize("named", ["global_step_7", "global_step_7/actor"])
def test_pieces_of_verl_are_sent_to_its_merger(tmp_path: Path, named: str) -> None:
    actor = tmp_path / "global_step_7" / "actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "fsdp_config.json").write_text('{"world_size": 1}')
    with pytest.raises(ModelError, match="pieces") as caught:
        find_target(str(tmp_path / named))
    assert f"--local_dir {actor}" in caught.value.hint


def test_checkpoint_folder_of_trl_is_an_adapter_of_its_base(tmp_path: Path) -> None:
    saved = adapter(tmp_path / "checkpoint-25", str(BASE))
    (saved / "trainer_state.json").write_text("{}")
    shutil.copy(BASE / "tokenizer.json", saved)
    target = find_target(str(saved))
    assert (target.adapter, target.run) == (saved, None)
