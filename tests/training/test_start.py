"""An adapter that a run goes on from, and the reference of its KL term."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from budgetrl.engine.plain import PlainEngine
from budgetrl.errors import ModelError, RecipeError
from budgetrl.evaluation.start import check_start
from budgetrl.recipe.load import load_recipe
from budgetrl.training.checkpoints import load_trained, save_trained, trained_weights
from budgetrl.training.scoring import REFERENCE, REFERENCE_ADAPTER, _policy

SETS = ("lora.rank=4", "lora.alpha=8", "model.id=asset:tiny/mute")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    engine = PlainEngine.open(load_recipe("quickstart", SETS).recipe)
    with torch.no_grad():
        for weight in trained_weights(engine.model).values():
            weight.add_(0.01)
    save_trained(engine.model, folder)
    return folder


def test_a_run_goes_on_from_the_adapters_weights(adapter: Path) -> None:
    recipe = load_recipe("quickstart", [*SETS, f"model.adapter={adapter}"]).recipe
    check_start(recipe)
    engine = PlainEngine.open(recipe, Path(recipe.model.adapter or ""))
    assert not engine.adapter_is_zero()
    assert any(parameter.requires_grad for parameter in engine.model.parameters())


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["lora.rank=8"], r"rank = 4.*lora\.rank gives 8"),
        (["lora.alpha=4"], r"alpha = 8\.0.*lora\.alpha gives 4"),
        (["model.id=asset:tiny/strong"], "was trained on .*mute, and model.id is"),
    ],
)
def test_an_adapter_of_another_shape_or_base_is_refused(
    adapter: Path, sets: list[str], says: str
) -> None:
    recipe = load_recipe("quickstart", [*SETS, f"model.adapter={adapter}", *sets]).recipe
    with pytest.raises(ModelError, match=says):
        check_start(recipe)


def test_a_folder_without_weights_is_refused(adapter: Path, tmp_path: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    recipe = load_recipe("quickstart", [*SETS, f"model.adapter={tmp_path}"]).recipe
    with pytest.raises(ModelError):
        check_start(recipe)


def test_a_reference_needs_the_adapter_that_it_is() -> None:
    with pytest.raises(RecipeError, match=r"needs model\.adapter"):
        load_recipe("quickstart", ["grpo.reference=adapter", "grpo.beta=0.1", "signal.skip=off"])


def test_the_reference_is_the_start_and_the_trained_adapter_keeps_its_gradients(
    adapter: Path,
) -> None:
    recipe = load_recipe("quickstart", [*SETS, f"model.adapter={adapter}"]).recipe
    engine = PlainEngine.open(recipe, adapter)
    model = engine.model
    model.add_adapter(REFERENCE_ADAPTER, model.peft_config["default"])
    load_trained(model, adapter, REFERENCE_ADAPTER)
    row = torch.tensor([[1, 2, 3, 4]])
    start = model(input_ids=row).logits.detach()
    with torch.no_grad():
        for weight in trained_weights(model).values():
            weight.mul_(3.0)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    trainer = type("T", (), {"ref_model": None, "model": model})()
    trainer.accelerator = type("A", (), {"unwrap_model": staticmethod(lambda m: m)})()
    with torch.no_grad(), _policy(trainer, REFERENCE):
        assert torch.allclose(model(input_ids=row).logits, start, atol=1e-6)
    assert not torch.allclose(model(input_ids=row).logits, start, atol=1e-3)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trainable


@pytest.mark.parametrize(
    ("changed", "sets", "says"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, [], r"is of q_proj, v_proj, and lora\.targets"),
        ({}, ['lora.targets=["q_proj"]'], "would not be trained"),
        ({"use_dora": True}, [], "more than plain LoRA: use_dora = true"),
        ({"modules_to_save": ["lm_head"]}, [], "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 32}}, [], "alpha_pattern"),
        ({"init_lora_weights": "pissa_niter_4"}, [], "init_lora_weights"),
    ],
)
def test_an_adapter_of_other_layers_or_another_kind_is_refused(
    adapter: Path, changed: dict[str, object], sets: list[str], says: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "other"))
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    recipe = load_recipe("quickstart", [*SETS, f"model.adapter={folder}", *sets]).recipe
    with pytest.raises(ModelError, match=says):
        check_start(recipe)


def test_dropout_is_the_recipes_and_not_that_of_the_adapter(adapter: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(adapter, tmp_path / "other"))
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_dropout": 0.1}))
    recipe = load_recipe("quickstart", [*SETS, f"model.adapter={folder}"]).recipe
    check_start(recipe)
    assert PlainEngine.open(recipe, folder).model.peft_config["default"].lora_dropout == 0.0
