"""The adapter folded into weights of few bits: taken out again, and not folded where it is lost."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_engine_unsloth import END, SPEC, FakeLLM, SamplingParams

from budgetrl.engine.base import SamplingSpec
from budgetrl.engine.folding import Folding
from budgetrl.engine.kept_share import LEAST
from budgetrl.engine.merging import lora_layers, merged
from budgetrl.engine.plain import PlainEngine
from budgetrl.engine.unsloth import UnslothEngine
from budgetrl.recipe.load import load_recipe
from budgetrl.training.alarms import Alarms
from budgetrl.training.recorder import StepRecord

EARLY = 1e-4
"""Size of the elements of B after some tens of updates."""
LARGE = 0.05
ROW = torch.tensor([[5, 6, 7, 8]])
DRAWN = SamplingSpec(temperature=1.0, top_p=1.0, max_tokens=4)


def engine_with(dtype: str, size: float) -> PlainEngine:
    engine = PlainEngine.open(load_recipe("quickstart", [f"model.dtype={dtype}"]).recipe)
    noise = torch.Generator().manual_seed(1)
    for name, weight in engine.model.named_parameters():
        if ".lora_B." in name:
            weight.data.copy_(size * torch.randn(weight.shape, generator=noise))
    engine.model.eval()
    return engine


@pytest.mark.parametrize(
    ("dtype", "size", "tolerance"), [("float32", EARLY, 1e-5), ("bfloat16", LARGE, 0.25)]
)
def test_folded_weights_answer_for_the_adapter_and_come_back_bit_for_bit(
    dtype: str, size: float, tolerance: float
) -> None:
    model = engine_with(dtype, size).model
    before = copy.deepcopy(model.state_dict())
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    with torch.no_grad():
        wanted = model(ROW).logits.float()
        with model.disable_adapter():
            base = model(ROW).logits.float()
            with Folding(model).folded() as share:
                assert share is None
                folded = model(ROW).logits.float()
                assert places == {n: weight.data_ptr() for n, weight in model.named_parameters()}
            again = model(ROW).logits.float()
    assert (folded - wanted).abs().max() < tolerance < (base - wanted).abs().max() / 3
    assert torch.equal(again, base)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("way", ["shared", "plain"])
def test_an_early_adapter_would_be_rounded_away_and_is_not_folded(way: str) -> None:
    model = engine_with("bfloat16", EARLY).model
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        wanted = model(ROW).logits
        with Folding(model).folded() if way == "shared" else merged(model, rollout=True) as share:
            assert share is not None and 0 < share < LEAST
            assert share == pytest.approx(projection(next(lora_layers(model))), abs=1e-3)
            assert torch.equal(model(ROW).logits, wanted), "the adapter is beside the weights"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def projection(layer: Any) -> float:
    """p = sum(f d) / sum(d d), in float64."""
    weight, delta = layer.get_base_layer().weight, layer.get_delta_weight("default").double()
    changed = (weight.double() + delta).to(weight.dtype).double() - weight.double()
    return float((changed * delta).sum() / delta.square().sum())


def test_an_adapter_of_zeros_is_folded_without_a_loss() -> None:
    with Folding(engine_with("bfloat16", 0.0).model).folded() as share:
        assert share is None


@pytest.mark.parametrize(
    ("dtype", "size", "inside", "rollouts"),
    [
        ("float32", EARLY, True, True),
        ("bfloat16", LARGE, False, True),
        ("bfloat16", EARLY, False, False),
    ],
)
def test_the_plain_engine_evaluates_few_bits_with_the_adapter_beside_them(
    dtype: str, size: float, inside: bool, rollouts: bool
) -> None:
    engine = engine_with(dtype, size)
    layer = next(lora_layers(engine.model))
    for rollout, folded in ((False, inside), (True, rollouts)):
        with merged(engine.model, rollout):
            assert layer.merged == folded
    made = engine.rollout([[5, 6]], [1], DRAWN, lambda: False)
    assert made is not None and (made.kept_share is None) == rollouts


@pytest.mark.parametrize(("size", "folds"), [(LARGE, True), (EARLY, False)])
def test_vllm_gets_the_adapter_beside_the_weights_where_folding_would_lose_it(
    size: float, folds: bool
) -> None:
    recipe = load_recipe("deepscaler_r64", ["engine.merged_rollouts=true"]).recipe
    llm, model = FakeLLM([1, 9]), engine_with("bfloat16", size).model

    def load_lora(folder: str, **_: Any) -> str:
        llm.calls.append("load_lora")
        return "adapter"

    model.vllm_engine, model.load_lora = llm, load_lora
    tokenizer = SimpleNamespace(
        eos_token_id=END, pad_token_id=0, get_added_vocab=dict, decode=lambda ids, **_: str(ids)
    )
    engine = UnslothEngine(model, tokenizer, recipe, SamplingParams, Path("run"))
    llm.folds = folds
    rollout = engine.rollout([[1], [2]], [5, 6], SPEC, lambda: False)
    assert rollout is not None and (rollout.kept_share is None) == folds
    assert ("load_lora" not in llm.calls) == folds
    llm.calls.clear()
    llm.folds = False
    evaluated = engine._all([[1], [2]], [5, 6], SPEC, lambda: False)
    assert evaluated is not None and "load_lora" in llm.calls, "evaluations never fold"


def test_it_is_said_once_with_the_share() -> None:
    alarms = Alarms({})
    lost = StepRecord(1, 4, kept_share=0.37)
    [alarm] = alarms.observe(lost)
    assert alarm.code == "not_folded" and "37%" in alarm.message
    assert alarms.observe(lost) == []
