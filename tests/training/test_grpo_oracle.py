"""The gradients of the real trainer class, against GRPO written out in float64 (`grpo_oracle`)."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpo_oracle as oracle
import pytest
import torch
from transformers import TrainerCallback

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import load_problems
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.base import Rollout
from budgetrl.engine.plain import PlainEngine
from budgetrl.errors import TrainingError
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.training.clock import PhaseClock
from budgetrl.training.stage import TrainerParts
from budgetrl.training.trainer import BudgetMixin, build_trainer
from budgetrl.types import Completion, RewardBreakdown, Verdict

TOLERANCE = 2e-5
"""Relative L2 distance of two gradients. The trainer computes in float32: the oracle evaluated in
float32 is 3e-6 away from itself in float64, and the trainer was found 2e-6 to 6e-6 away. The
smallest mistake of interest, one token more in a divisor, is 4e-3."""

MAX_TOKENS = 24
REWARDS: tuple[tuple[float | None, ...], ...] = (
    (1.2, 0.2, 0.0, 1.0),
    (0.2, 0.2, 0.2, 0.2),
    (1.0, None, 0.0, 1.2),
    (None, None, None, 1.0),
    (None, None, None, None),
)
"""Mixed; all equal; with a faulty row; one live row; none."""
SKIPPING = (*REWARDS[:4], (0.2, 0.0, 0.2, 0.0))
"""The same with a group that has advantages, but no right answer: `accuracy` leaves it out."""
PROMPTS, GROUP = len(REWARDS), len(REWARDS[0])


class DictatedEngine(PlainEngine):
    """The plain engine with completions of the test's choice: uneven, some of them cut off."""

    def rollout(self, prompt_ids: Any, seeds: Any, *_: Any) -> Rollout:
        self.seen_prompts = [tuple(ids) for ids in prompt_ids]
        draw = random.Random(7)
        end = min(self.end_ids)
        self.drawn: list[list[int]] = []
        for row in range(len(prompt_ids)):
            length = (1, MAX_TOKENS, 2)[row] if row < 3 else draw.randint(1, MAX_TOKENS)
            ids = [draw.randrange(97, 123) for _ in range(length)]
            self.drawn.append(ids if length == MAX_TOKENS else [*ids[:-1], end])
        return Rollout(self.drawn, None, 0.0)


@dataclass
class Update:
    """What the trainer was about to do."""

    weights: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Forward:
    """One pass through the model."""

    rows: int
    columns: int
    gradients: bool


class Forwards(list[Forward]):
    """Every pass through a model, or the part of it before its head, from now on."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        model.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        rows, columns = (kwargs["input_ids"] if "input_ids" in kwargs else args[0]).shape
        self.append(Forward(rows, columns, torch.is_grad_enabled()))


class Witness(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Copies the adapter and its gradients right before each optimiser step."""

    def __init__(self) -> None:
        self.updates: list[Update] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trained = [(n, p) for n, p in kwargs["model"].named_parameters() if p.requires_grad]
        self.updates.append(
            Update(
                weights={name: p.detach().clone() for name, p in trained},
                gradients={name: p.grad.detach().clone() for name, p in trained},
            )
        )


@dataclass
class Training:
    recipe: Recipe
    model: Any
    prompts: list[tuple[int, ...]]
    completions: list[list[int]]
    recorded_advantages: list[float]
    updates: list[Update]
    forwards: Forwards


def train(folder: Path, steps: int = 1, **settings: Any) -> Training:
    """`steps` updates of the real trainer on the shipped model with a small random adapter."""
    sets = {
        "lora.rank": 4,
        "lora.alpha": 8,
        "engine.threads": 1,
        "grpo.num_generations": GROUP,
        "batch.prompts_per_step": PROMPTS,
        "batch.micro_batch": 5,  # four micro-batches, which cut through groups
        "sampling.max_tokens": MAX_TOKENS,
        "sampling.temperature": 0.9,
        "schedule.stop_after_steps": steps,
        "signal.skip": "off",
        "optimizer.max_grad_norm": 1e9,  # no clipping: it would hide a wrong scale
    }
    named = {key.replace("__", "."): value for key, value in settings.items()}
    recipe = load_recipe("quickstart", [f"{k}={v}" for k, v in (sets | named).items()]).recipe
    engine = DictatedEngine.open(recipe)
    renderer = PromptRenderer(engine.tokenizer, recipe.prompt)
    problems = load_problems(recipe.data, lambda golds: [None] * len(golds)).problems
    sampler = ProblemSampler(problems, recipe.seed, PROMPTS)
    parts = TrainerParts(
        recipe=recipe,
        engine=engine,
        sampler=sampler,
        renderer=renderer,
        reward=dictated_reward,
        clock=PhaseClock(time.monotonic),
        folder=folder,
        must_stop=lambda: False,
        rollout_over=lambda: False,
    )
    witness = Witness()
    trainer = build_trainer(parts, steps, [witness])
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in engine.model.named_parameters():
            if "lora_B.default" in name:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=noise))
    forwards = Forwards(engine.model.get_base_model().base_model)
    trainer.train()
    assert parts.record is not None
    prompts = [renderer.ids(problem) for problem in sampler.batch(0) for _ in range(GROUP)]
    assert engine.seen_prompts == prompts
    return Training(
        recipe=recipe,
        model=engine.model,
        prompts=prompts,
        completions=engine.drawn,
        recorded_advantages=parts.record.advantages,
        updates=witness.updates,
        forwards=forwards,
    )


def dictated_reward(
    completions: Sequence[Completion], golds: Sequence[str]
) -> list[RewardBreakdown]:
    return [
        RewardBreakdown(reward, {}, verdict(reward), None) for group in REWARDS for reward in group
    ]


def verdict(reward: float | None) -> Verdict:
    """Of a dictated reward: 1 for a right answer, 0.2 for its format."""
    if reward is None:
        return Verdict.ERROR
    return Verdict.CORRECT if reward >= 1 else Verdict.WRONG


def live_groups(skip: str) -> list[bool]:
    """Groups that [signal] skip leaves in the update."""
    known = [[reward for reward in group if reward is not None] for group in REWARDS]
    if skip == "accuracy":
        known = [[float(reward >= 1) for reward in group] for group in known]
    return [skip == "off" or len(set(group)) > 1 for group in known]


def expected_gradients(training: Training, update: int = 0) -> dict[str, torch.Tensor]:
    """By the oracle, on a float64 copy of the model, one unpadded row at a time.

    Args:
        training: with one rollout batch.
        update: which of its optimiser steps.
    """
    grpo, batch = training.recipe.grpo, training.recipe.batch
    model = copy.deepcopy(training.model).double().eval()
    with torch.no_grad():
        put(model, training.updates[0].weights)
        old = row_logps(model, training) if update else None
        with model.disable_adapter():
            reference = row_logps(model, training) if grpo.beta else None
        put(model, training.updates[update].weights)
    policy = row_logps(model, training)
    same = [logps.detach() for logps in policy]
    by_group = oracle.advantages(REWARDS, grpo.scale_rewards)
    advantages = [advantage for group in by_group for advantage in group]
    whole = [len(ids) < MAX_TOKENS for ids in training.completions]
    counted = [complete or not grpo.mask_truncated_completions for complete in whole]
    kept = [live for live in live_groups(training.recipe.signal.skip) for _ in range(GROUP)]
    if (count := training.recipe.signal.keep_rows) is not None:
        by_group, rows_kept = oracle.down_sampled(REWARDS, count, grpo.scale_rewards)
        advantages = [advantage for group in by_group for advantage in group]
        flat = [keep for group in rows_kept for keep in group]
        kept = [live and keep for live, keep in zip(kept, flat, strict=True)]
    parts = zip(policy, old or same, reference or same, advantages, counted, kept, strict=True)
    settings = oracle.Settings(
        grpo.loss_type, grpo.beta, MAX_TOKENS, grpo.epsilon, grpo.epsilon_high
    )
    rows = [oracle.Row(*part) for part in parts]
    first = update % batch.updates_per_rollout * training.recipe.completions_per_update
    loss = oracle.loss(rows[first : first + training.recipe.completions_per_update], settings)
    names = list(training.updates[0].weights)
    trained = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, [trained[name] for name in names])
    return dict(zip(names, gradients, strict=True))


def put(model: Any, weights: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.copy_(weights[name])


def row_logps(model: Any, training: Training) -> list[torch.Tensor]:
    """Log-probability of every completion token under the tempered distribution."""
    rows = []
    for prompt, completion in zip(training.prompts, training.completions, strict=True):
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
        logps = torch.log_softmax(logits / training.recipe.sampling.temperature, dim=-1)
        rows.append(logps.gather(1, torch.tensor(completion)[:, None])[:, 0])
    return rows


def distance(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """Relative L2 over all parameters."""
    gap = sum(float((found[name].double() - wanted[name]).square().sum()) for name in wanted)
    norm = sum(float(gradient.square().sum()) for gradient in wanted.values())
    assert norm > 0
    return math.sqrt(gap / norm)


@pytest.mark.parametrize("kind", ["grpo", "dapo", "dr_grpo"])
def test_gradients_of_four_micro_batches_agree(kind: str, tmp_path: Path) -> None:
    """Without scaling and with a large KL term; the rest of the ways is in test_passes."""
    settings = {"grpo__scale_rewards": "none", "grpo__beta": 0.1}
    training = train(tmp_path, grpo__loss_type=kind, **settings)
    assert distance(training.updates[0].gradients, expected_gradients(training)) <= TOLERANCE


def test_truncated_rows_can_be_left_out(tmp_path: Path) -> None:
    training = train(tmp_path, grpo__scale_rewards="batch", grpo__mask_truncated_completions="true")
    assert distance(training.updates[0].gradients, expected_gradients(training)) <= TOLERANCE


def test_a_second_update_on_the_same_completions_is_clipped(tmp_path: Path) -> None:
    training = train(
        tmp_path,
        grpo__num_iterations=2,
        grpo__epsilon_high=0.3,
        schedule__learning_rate=0.003,
    )
    wanted = expected_gradients(training, update=1)
    assert distance(training.updates[1].gradients, wanted) <= TOLERANCE
    unclipped = dataclasses.replace(training, recipe=with_epsilon(training.recipe, 1e9))
    assert distance(expected_gradients(unclipped, update=1), wanted) > 0.1


FEW_SHOT = (
    "Q: 1+1\nA: \\boxed{2}\n{% for m in messages if m.role == 'user' %}"
    "Q: {{ m.content }}\nA: {% endfor %}"
)


def test_updates_are_made_on_the_recipes_own_chat_template(tmp_path: Path) -> None:
    """TRL would render with the tokenizer's; `train` compares with the prompts of evaluations."""
    training = train(tmp_path, prompt__chat_template=json.dumps(FEW_SHOT))
    text = DictatedEngine.open(training.recipe).tokenizer.decode(training.prompts[0])
    assert text.startswith("Q: 1+1") and text.endswith("A: ")
    assert distance(training.updates[0].gradients, expected_gradients(training)) <= TOLERANCE


def test_a_model_without_a_chat_template_is_trained_with_the_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = DictatedEngine.open

    def bare(recipe: Recipe) -> DictatedEngine:
        engine = opened(recipe)
        engine.tokenizer.chat_template = None
        return engine

    monkeypatch.setattr(DictatedEngine, "open", bare)
    training = train(tmp_path, prompt__chat_template=json.dumps(FEW_SHOT))
    assert len(training.updates) == 1


def test_other_prompts_than_the_evaluations_end_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_more(self: Any, prompts: Sequence[str]) -> Any:
        ids, *rest = tokenize(self, prompts)
        return [ids[0], [*ids[1], 1], *ids[2:]], *rest

    tokenize = BudgetMixin._tokenize_prompts
    monkeypatch.setattr(BudgetMixin, "_tokenize_prompts", one_more)
    with pytest.raises(TrainingError, match="not those of the evaluations"):
        train(tmp_path)


def with_epsilon(recipe: Recipe, epsilon: float) -> Recipe:
    grpo = recipe.grpo.model_copy(update={"epsilon": epsilon, "epsilon_high": epsilon})
    return recipe.model_copy(update={"grpo": grpo})


def test_a_faulty_row_has_no_advantage_and_is_in_no_mean_and_no_deviation(tmp_path: Path) -> None:
    training = train(tmp_path)
    found = [training.recorded_advantages[i : i + GROUP] for i in range(0, PROMPTS * GROUP, GROUP)]
    live = [1.0, 0.0, 1.2]  # the third group without its faulty row
    mean, spread = statistics.fmean(live), statistics.stdev(live) + 1e-4
    expected = [(reward - mean) / spread for reward in live]
    assert [found[2][i] for i in (0, 2, 3)] == pytest.approx(expected, abs=1e-6)
    assert found[2][1] == 0.0
    assert found[3] == found[4] == [0.0] * GROUP
    oracle_says = oracle.advantages(REWARDS, "group")
    assert found == [pytest.approx(group, abs=1e-6) for group in oracle_says]


def test_the_oracle_divides_as_the_papers_do() -> None:
    """Two rows of 1 and 3 tokens at ratio 1: the loss is minus a weighted mean of advantages."""
    zeros = [torch.zeros(length, dtype=torch.float64) for length in (1, 3)]
    rows = [oracle.Row(z, z, z, advantage) for z, advantage in zip(zeros, (1.0, -2.0), strict=True)]
    losses = {
        kind: float(oracle.loss(rows, oracle.Settings(kind, beta=0.5, max_tokens=10)))
        for kind in ("grpo", "dapo", "dr_grpo")
    }
    assert losses == pytest.approx({"grpo": 0.5, "dapo": 1.25, "dr_grpo": 0.25})


def test_the_oracle_clips_on_the_side_that_pays_and_estimates_the_kl() -> None:
    old, new = (
        torch.zeros(4, dtype=torch.float64),
        torch.tensor([1.5, 0.5, 1.1, 0.9]).double().log(),
    )
    settings = oracle.Settings("dapo", beta=0.0, max_tokens=4, epsilon=0.2, epsilon_high=0.3)
    up = oracle.token_losses(oracle.Row(new, old, old, 1.0), settings)
    down = oracle.token_losses(oracle.Row(new, old, old, -1.0), settings)
    assert up.tolist() == pytest.approx([-1.3, -0.5, -1.1, -0.9])
    assert down.tolist() == pytest.approx([1.5, 0.8, 1.1, 0.9])
    kl = oracle.token_losses(
        oracle.Row(new, new, old, 0.0), dataclasses.replace(settings, beta=2.0)
    )
    expected = [2 * (1 / r + math.log(r) - 1) for r in (1.5, 0.5, 1.1, 0.9)]
    assert kl.tolist() == pytest.approx(expected)
