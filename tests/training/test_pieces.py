"""Log-probabilities of an update without all logits at once, where that gives the same numbers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import test_sft as learning
import torch
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GraniteConfig,
    GraniteMoeHybridConfig,
    HyperCLOVAXConfig,
)

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.logits import are_its_logits, logits_of
from budgetrl.engine.plain import PlainEngine
from budgetrl.engine.teacher import open_teacher
from budgetrl.errors import ModelError
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.training import trainer as trainer_module
from budgetrl.training.clock import PhaseClock
from budgetrl.training.sft import IGNORED, micro_batches
from budgetrl.training.stage import TrainerParts
from budgetrl.training.trainer import build_trainer
from budgetrl.types import Problem

SIZES: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "eos_token_id": 1, "bos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip


def saved(folder: Path, config: Any) -> Path:
    """A random model of an architecture, with the tokenizer of the start."""
    shutil.copytree(local_path("asset:tiny/quickstart"), folder)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def trainer_of(folder: Path, *sets: str) -> Any:
    recipe = load_recipe("quickstart", ["lora.rank=4", "lora.alpha=4", *sets]).recipe
    engine = PlainEngine.open(recipe)
    sampler = ProblemSampler([Problem("p", "1 + 1", "2")] * 16, 1, 16)
    renderer = PromptRenderer(engine.tokenizer, recipe.prompt)

    def never() -> bool:
        return False

    def reward(*_: Any) -> Any:
        raise AssertionError("nothing is graded here")

    clock = PhaseClock(lambda: 0.0)
    parts = TrainerParts(recipe, engine, sampler, renderer, reward, clock, folder, never, never)
    return build_trainer(parts, 1, [])


def inputs() -> dict[str, torch.Tensor]:
    ids = torch.arange(80).reshape(4, 20) + 60
    mask = torch.ones_like(ids)
    mask[1:, 12:] = 0
    return {
        "prompt_ids": ids, "prompt_mask": torch.ones_like(ids),
        "completion_ids": ids, "completion_mask": mask,
        "advantages": torch.tensor([1.0, -1.0, 0.5, 2.0]), "num_items_in_batch": mask.sum(),
    }  # fmt: skip


def gradients(trainer: Any) -> torch.Tensor:
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    trainer.compute_loss(trainer.model, inputs()).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def test_many_logits_never_exist_at_once_and_gradients_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "MANY_LOGITS", 4 * 20 * 256)
    trainer = trainer_of(tmp_path)
    noise = torch.Generator().manual_seed(1)
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=noise))
    applied: list[int] = []
    head = trainer.model.get_base_model().get_output_embeddings()
    head.register_forward_hook(lambda *_: applied.append(1))
    assert trainer.by_pieces
    pieces = gradients(trainer)
    assert not applied
    monkeypatch.setattr(trainer_module, "MANY_LOGITS", 4 * 20 * 512 + 1)
    whole = gradients(trainer)
    assert applied
    assert float((pieces - whole).norm() / whole.norm()) < 5e-6


@pytest.mark.parametrize("why", ["an adapter on the head", "logits are scaled"])
def test_heads_that_are_not_plain_are_applied_by_the_model(why: str, tmp_path: Path) -> None:
    """Granite divides its logits by a number that TRL's pieces do not know of."""
    if why == "an adapter on the head":
        assert not trainer_of(tmp_path, 'lora.targets=["q_proj", "lm_head"]').by_pieces
        return
    model = saved(tmp_path / "model", GraniteConfig(logits_scaling=4.0, **SIZES))
    assert not trainer_of(tmp_path, f"model.id={model}").by_pieces


SCALED: list[Any] = [
    GraniteConfig(logits_scaling=4.0, **SIZES),
    CohereConfig(logit_scale=0.25, **SIZES),
    FalconH1Config(
        lm_head_multiplier=0.5, mamba_d_ssm=64, mamba_d_state=8, mamba_n_heads=4, **SIZES
    ),
    Gemma2Config(final_logit_softcapping=0.2, head_dim=16, **SIZES),
]


@pytest.mark.parametrize("config", SCALED, ids=lambda config: config.model_type)
def test_logits_made_of_hidden_states_are_the_models_own(config: Any) -> None:
    """Of a distillation and of Unsloth's entropies: a wrong scale would raise no error."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    assert are_its_logits(model, logits_of(model))
    assert not are_its_logits(model, model.get_output_embeddings())


def test_an_sft_stage_learns_by_the_models_own_logits(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", GraniteConfig(logits_scaling=4.0, **SIZES))
    recipe = learning.part(f"model.id={model}")
    trainer, parts = learning.our_trainer(recipe, tmp_path)
    (batch,) = micro_batches(parts.sampler.batch(0), 1, 10_000, 0)
    tokens = (batch["labels"] != IGNORED).sum()
    found = trainer.compute_loss(trainer.model, batch, num_items_in_batch=tokens)
    logits = trainer.model(batch["input_ids"], batch["attention_mask"]).logits[:, :-1]
    wanted = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"][:, 1:].flatten()
    )
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_a_head_of_an_unknown_rule_is_no_teacher(tmp_path: Path) -> None:
    """HyperCLOVA X multiplies by what Granite of the same name divides by."""
    model = saved(tmp_path / "model", HyperCLOVAXConfig(logits_scaling=0.5, **SIZES))
    recipe = load_recipe(
        "quickstart_distill", [f"teacher.id={model}", "teacher.adapter=unset"]
    ).recipe
    with pytest.raises(ModelError, match=r"HyperCLOVAXForCausalLM.*by a rule that is not known"):
        open_teacher(recipe, PlainEngine.open(recipe))


def test_a_dense_model_that_is_written_as_a_mixture_is_trained_by_the_recipes_loss_alone(
    tmp_path: Path,
) -> None:
    """As Granite 4.0; TRL would add the loss of a router that is not there."""
    config = GraniteMoeHybridConfig(
        num_local_experts=0, layer_types=["attention"], mamba_n_heads=4, **SIZES
    )
    trainer = trainer_of(tmp_path, f"model.id={saved(tmp_path / 'model', config)}")
    assert bool(gradients(trainer).isfinite().all())


def test_a_model_that_counts_padding_is_not_trained(tmp_path: Path) -> None:
    """TRL pads on the left and gives no positions; answers are drawn at those without padding."""
    model = saved(tmp_path / "model", BioGptConfig(**SIZES))
    with pytest.raises(ModelError, match="BioGptForCausalLM counts padding as positions"):
        trainer_of(tmp_path, f"model.id={model}", 'lora.targets=["q_proj"]')
