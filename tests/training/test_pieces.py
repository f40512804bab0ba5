"""Log-probabilities of an update without all logits at once, where that gives the same numbers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteConfig

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.plain import PlainEngine
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.training import trainer as trainer_module
from budgetrl.training.clock import PhaseClock
from budgetrl.training.stage import TrainerParts
from budgetrl.training.trainer import build_trainer
from budgetrl.types import Problem


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
    shutil.copytree(local_path("asset:tiny/quickstart"), tmp_path / "model")
    config = GraniteConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, logits_scaling=4.0, eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    assert not trainer_of(tmp_path, f"model.id={tmp_path / 'model'}").by_pieces
