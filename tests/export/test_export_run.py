"""An adapter merged into its base: the same texts, the base's dtype, and what rounding takes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from budgetrl.cli import main
from budgetrl.engine.base import Request, SamplingSpec
from budgetrl.engine.merging import lora_layers
from budgetrl.engine.plain import PlainEngine
from budgetrl.errors import RefusedError
from budgetrl.evaluation.target import find_target
from budgetrl.export.folder import refuse_small_disk
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.training.checkpoints import save_trained

BASE = Path(local_path("asset:tiny/quickstart"))
GREEDY = SamplingSpec(temperature=0.0, top_p=1.0, max_tokens=24)
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def adapter_on(base: Path, folder: Path, size: float) -> Path:
    """An adapter whose B is not zero."""
    recipe = load_recipe("quickstart", (f"model.id={base}",)).recipe
    engine = PlainEngine.open(recipe)
    torch.manual_seed(3)
    for layer in lora_layers(engine.model):
        for matrix in layer.lora_B.values():
            torch.nn.init.normal_(matrix.weight, std=size)
    save_trained(engine.model, folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_on(BASE, tmp_path_factory.mktemp("adapter"), 0.02)


def texts(target: str) -> list[str]:
    """Greedy completions of 64 prompts."""
    found = find_target(target)
    engine = PlainEngine.open(found.recipe, found.adapter)
    requests = []
    for number in range(64):
        prompt = CHAT.format(f"{number} + {3 * number} = ?")
        ids = tuple(engine.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        requests.append(Request(str(number), ids, 0, number))
    made = engine.generate(requests, GREEDY, lambda: False)
    return [one.text for one in made if one is not None]


def export(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["export", str(source), "--to", "merged", "--out", str(out), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_merged_model_answers_as_base_and_adapter_do(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = export(adapter, tmp_path / "model", capsys)
    assert found["dtype"] == "float32"
    assert found["projection"] == pytest.approx(1.0, abs=1e-4)
    together, merged = texts(str(adapter)), texts(str(tmp_path / "model"))
    assert len(set(together)) > 8
    assert merged == together != texts(str(BASE))


def test_only_our_own_words_are_printed_beside_the_document(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    command = ["budgetrl", "export", str(adapter), "--to", "merged", "--out", str(out), "--json"]
    # A process of its own: libraries ask once whether they may draw progress bars.
    made = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert [made.returncode, json.loads(made.stdout)["dtype"]] == [0, "float32"]
    (told,) = made.stderr.splitlines()
    assert told.startswith("merging into ") and "MiB" in told


def test_the_bases_own_files_lie_beside_the_weights(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    export(adapter, out, capsys)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (BASE / name).read_bytes()
    assert not list(out.glob("adapter*"))


def test_what_bfloat16_loses_of_a_small_adapter_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = Path(shutil.copytree(BASE, tmp_path / "half"))
    weights = load_file(half / "model.safetensors")
    save_file({k: v.bfloat16() for k, v in weights.items()}, half / "model.safetensors")
    config = json.loads((half / "config.json").read_text()) | {"dtype": "bfloat16"}
    (half / "config.json").write_text(json.dumps(config))
    small = adapter_on(half, tmp_path / "small", 1e-6)
    lost = export(small, tmp_path / "lost", capsys)
    assert lost["dtype"] == "bfloat16"
    assert lost["projection"] < 0.98
    assert "Keep the adapter" in lost["warning"]
    stored = load_file(tmp_path / "lost" / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}
    large = export(adapter_on(half, tmp_path / "large", 0.05), tmp_path / "kept", capsys)
    assert large["projection"] > 0.98
    assert large["warning"] is None


def test_adapter_is_copied_with_its_configuration(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    assert main(["export", str(adapter), "--to", "adapter", "--out", str(out)]) == 0
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (out / name).read_bytes() == (adapter / name).read_bytes()
    assert (out / "adapter_model.safetensors").stat().st_nlink == 1


def test_a_model_or_an_existing_folder_or_a_full_disk_is_refused(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "x")
    assert main(["export", str(BASE), "--to", "merged", "--out", out]) == 2
    assert main(["export", str(BASE), "--to", "adapter", "--out", out]) == 2
    assert main(["export", str(adapter), "--to", "merged", "--out", str(tmp_path)]) == 2
    assert "nothing is written over" in capsys.readouterr().err
    with pytest.raises(RefusedError, match="the disk has"):
        refuse_small_disk(tmp_path / "x", 1e18)
