"""The plain engine on the shipped model: seeded draws, merging, stopping, entropy."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import load_problems
from budgetrl.engine.base import Request, SamplingSpec
from budgetrl.engine.merging import merged
from budgetrl.engine.plain import PlainEngine
from budgetrl.engine.sampling import SeededSampler, inverse_cdf
from budgetrl.errors import ModelError, RecipeError
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.types import Completion

RECIPE = load_recipe("quickstart", ["lora.rank=4", "lora.alpha=8", "engine.threads=1"]).recipe
SAMPLING = SamplingSpec(temperature=0.9, top_p=1.0, max_tokens=40)
CPU = torch.device("cpu")


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def engine() -> PlainEngine:
    """With an adapter that changes the model."""
    opened = PlainEngine.open(RECIPE)
    noise = torch.Generator().manual_seed(1)
    for name, weight in opened.model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(0.02 * torch.randn(weight.shape, generator=noise))
    return opened


@pytest.fixture(scope="module")
def requests(engine: PlainEngine) -> list[Request]:
    """Twelve problems whose prompts differ in length."""
    renderer = PromptRenderer(engine.tokenizer, RECIPE.prompt)
    problems = load_problems(RECIPE.data, lambda golds: [None] * len(golds)).problems[:12]
    made = [
        Request(problem.id, renderer.ids(problem), 0, seed=100 + number)
        for number, problem in enumerate(problems)
    ]
    assert len({len(request.prompt_ids) for request in made}) > 2
    return made


def texts(completions: Sequence[Completion | None]) -> list[str]:
    assert all(completion is not None for completion in completions)
    return [completion.text for completion in completions if completion is not None]


# --- the adapter


def test_merging_computes_the_same_and_puts_every_bit_back(engine: PlainEngine) -> None:
    model = engine.model
    tokens = torch.arange(20)[None] + 48
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        unmerged = model(tokens).logits
        with merged(model):
            inside = model(tokens).logits
        outside = model(tokens).logits
    assert not torch.equal(inside, unmerged)
    assert torch.allclose(inside, unmerged, atol=1e-4)
    assert torch.equal(outside, unmerged)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_weights_come_back_when_generation_fails(engine: PlainEngine) -> None:
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}

    def fail() -> bool:
        raise RuntimeError("the machine is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        engine.draw([[1, 2, 3]], [0], SAMPLING, fail)
    after = engine.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_fresh_adapter_is_zero_and_a_changed_one_is_not() -> None:
    fresh = PlainEngine.open(RECIPE)
    assert fresh.adapter_is_zero()
    changed = next(w for name, w in fresh.model.named_parameters() if "lora_B" in name)
    changed.data[0, 0] = 1e-30
    assert not fresh.adapter_is_zero()


# --- seeds


def test_completions_repeat_exactly_and_follow_their_seeds(
    engine: PlainEngine, requests: list[Request]
) -> None:
    first = engine.generate(requests, SAMPLING, never)
    torch.manual_seed(99)  # the global generator plays no part
    assert engine.generate(requests, SAMPLING, never) == first
    others = [Request(r.problem_id, r.prompt_ids, r.sample, r.seed + 1000) for r in requests]
    assert texts(engine.generate(others, SAMPLING, never)) != texts(first)


def test_a_completion_does_not_depend_on_the_batch_it_is_in(
    engine: PlainEngine, requests: list[Request]
) -> None:
    together = texts(engine.generate(requests, SAMPLING, never))
    halves = [*engine.generate(requests[:5], SAMPLING, never)]
    halves += engine.generate(requests[5:], SAMPLING, never)
    reverse = engine.generate(requests[::-1], SAMPLING, never)
    alone = engine.generate(requests[3:4], SAMPLING, never)
    assert texts(halves) == together
    assert texts(reverse)[::-1] == together
    assert texts(alone) == together[3:4]


@pytest.fixture
def shapes(engine: PlainEngine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Rows and tokens of each pass that is made."""
    found: list[tuple[int, ...]] = []
    model = engine.model.get_base_model()
    forward = type(model).forward

    def seen(self: object, input_ids: torch.Tensor, **given: object) -> object:
        found.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **given)

    seen.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(type(model), "forward", seen)
    return found


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_prompts_begin_with_is_read_once(
    engine: PlainEngine,
    requests: list[Request],
    shapes: list[tuple[int, ...]],
    temperature: float,
) -> None:
    sampling = dataclasses.replace(SAMPLING, temperature=temperature)
    prompts, stems, close = [], [], requests[0].prompt_ids[-3:]
    for request in requests[:3]:
        ids = (*request.prompt_ids, *requests[5].prompt_ids)
        lengths = [len(request.prompt_ids), len(ids) - 7]
        prompts += [ids, *[(*ids[:length], *close) for length in lengths], ids[:30]]
        stems += [0, *lengths, 29]
    prompts, stems = [*prompts, (5, 6, 7)], [*stems, 2]  # of which no longer one is there
    seeds = range(len(prompts))
    together = engine.draw(prompts, seeds, sampling, never, stems=stems)
    assert [shape[0] for shape in shapes[:2]] == [4, 13] and shapes[1][1] == 3
    alone = engine.draw(prompts, seeds, sampling, never)
    assert together.ids == alone.ids
    for one, other in zip(together.logps, alone.logps, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_prompt_is_read_once_and_rows_leave_as_they_end(
    engine: PlainEngine, requests: list[Request], shapes: list[tuple[int, ...]]
) -> None:
    prompts = [request.prompt_ids for request in requests[:3] for _ in range(8)]
    drawn = engine.draw(prompts, range(24), SAMPLING, never)
    assert shapes[0][0] == 3 and all(width == 1 for _, width in shapes[1:])
    going = [sum(len(ids) > step for ids in drawn.ids) for step in range(1, SAMPLING.max_tokens)]
    for wanted, (rows, _) in zip(going, shapes[1:], strict=False):
        assert wanted <= rows <= wanted + max(1, rows // 8)
    alone = [engine.draw([p], [s], SAMPLING, never).ids[0] for s, p in enumerate(prompts[:3])]
    assert alone == drawn.ids[:3]


def test_the_random_numbers_of_a_row_do_not_depend_on_the_rows_beside_it() -> None:
    """Not even where they draw numbers for the second time."""
    vocabulary, steps = 1_001, 70
    logits = torch.linspace(0.0, 3.0, vocabulary)

    def drawn(rows: int) -> list[int]:
        sampler = SeededSampler(SAMPLING, range(rows), CPU)
        scores = logits.expand(rows, vocabulary)
        return [int(sampler.draw(scores).id[0]) for _ in range(steps)]

    assert drawn(1) == drawn(2) == drawn(30)


# --- distributions


def test_temperature_zero_is_greedy_whatever_the_seed(
    engine: PlainEngine, requests: list[Request]
) -> None:
    greedy = SamplingSpec(temperature=0.0, top_p=1.0, max_tokens=20)
    drawn = engine.draw([r.prompt_ids for r in requests[:4]], [5, 6, 7, 8], greedy, never)
    config = GenerationConfig(
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=sorted(engine.end_ids),
        pad_token_id=engine.tokenizer.pad_token_id,
    )
    for request, ids in zip(requests, drawn.ids, strict=False):
        prompt = torch.tensor([request.prompt_ids])
        output = engine.model.generate(input_ids=prompt, generation_config=config)
        assert output[0, prompt.shape[1] :].tolist() == ids


def test_a_token_that_the_model_bars_is_never_drawn_and_harms_no_sum() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 0.0, 2.0]]).expand(500, -1)
    drawn = SeededSampler(SamplingSpec(1.0, 1.0, 1), range(500), CPU).draw(logits)
    assert set(drawn.id.tolist()) == {0, 2, 3}
    allowed = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64).log_softmax(0)
    assert drawn.entropy[0] == pytest.approx(float(-(allowed.exp() * allowed).sum()), rel=1e-6)
    place = {0: 0, 2: 1, 3: 2}[int(drawn.id[0])]
    assert float(drawn.logp[0]) == pytest.approx(float(allowed[place]), rel=1e-6)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_the_ends_of_the_distribution_are_tokens_that_have_weight(uniform: float) -> None:
    """Where sums are rounded, the number may be as large as the sum."""
    weights = torch.zeros(1, 3, 256)
    weights[0, 0, 7] = weights[0, 2, 3] = 1e-30
    weights[0, 1] = 0.1
    at = torch.tensor([uniform], dtype=torch.float64)
    token = int(inverse_cdf(weights, weights.sum(dim=-1), at))
    assert weights.flatten()[token] > 0
    assert token in {0.0: [7], 0.5: range(382, 386)}.get(uniform, [511, 512 + 3])


LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.0, -0.5, -1.0, -2.0, 0.5], dtype=torch.float64)


def tempered(temperature: float) -> torch.Tensor:
    return torch.softmax(LOGITS / temperature, dim=0)


def largest(probabilities: torch.Tensor, count: int) -> torch.Tensor:
    kept = probabilities >= probabilities.sort(descending=True).values[count - 1]
    return probabilities * kept / probabilities[kept].sum()


DISTRIBUTIONS: dict[str, tuple[SamplingSpec, torch.Tensor]] = {
    "plain": (SamplingSpec(1.0, 1.0, 1), tempered(1.0)),
    "hot": (SamplingSpec(1.7, 1.0, 1), tempered(1.7)),
    "cold": (SamplingSpec(0.6, 1.0, 1), tempered(0.6)),
    "top_k": (SamplingSpec(1.0, 1.0, 1, top_k=3), largest(tempered(1.0), 3)),
    # .42, .25, .15: the first two hold .67 of the mass, the third reaches .7
    "top_p": (SamplingSpec(1.0, 0.7, 1), largest(tempered(1.0), 3)),
    # at temperature 0.6 the first two are enough
    "cold top_p": (SamplingSpec(0.6, 0.7, 1), largest(tempered(0.6), 2)),
    # tokens with at least .3 of the largest probability
    "min_p": (SamplingSpec(1.0, 1.0, 1, min_p=0.3), largest(tempered(1.0), 3)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_tokens_are_drawn_from_the_distribution_that_was_asked_for(name: str) -> None:
    sampling, expected = DISTRIBUTIONS[name]
    rows, steps = 1000, 20
    sampler = SeededSampler(sampling, range(rows), CPU)
    scores = LOGITS.float().expand(rows, -1)
    tokens = [sampler.draw(scores).id for _ in range(steps)]
    counts = torch.bincount(torch.cat(tokens), minlength=len(LOGITS)).double()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    wanted = expected[possible] * rows * steps
    chi_square = float(((counts[possible] - wanted) ** 2 / wanted).sum())
    # 1 in 10,000 for 7 degrees of freedom, less for fewer; the seeds are fixed
    assert chi_square < 29.9


# --- limits


def test_max_tokens_ends_a_completion_and_marks_it_truncated(
    engine: PlainEngine, requests: list[Request]
) -> None:
    long = engine.generate(requests, SAMPLING, never)
    short = engine.generate(
        requests, SamplingSpec(SAMPLING.temperature, SAMPLING.top_p, max_tokens=12), never
    )
    assert all(completion is not None for completion in [*long, *short])
    for whole, cut in zip(long, short, strict=True):
        assert whole is not None and cut is not None
        assert whole.text.startswith(cut.text)
        assert cut.num_tokens == min(12, whole.num_tokens)
        assert cut.truncated == (whole.num_tokens > 12 or whole.truncated)
    assert {cut.truncated for cut in short if cut is not None} == {True, False}


def test_a_long_prompt_leaves_its_completion_less_room(
    engine: PlainEngine, requests: list[Request]
) -> None:
    """Prompt and completion together end at one length, as in vLLM; the rest is the same."""
    prompts, seeds = [r.prompt_ids for r in requests], [r.seed for r in requests]
    whole = engine.draw(prompts, seeds, SAMPLING, never).ids
    assert max(len(p) + len(c) for p, c in zip(prompts, whole, strict=True)) > 40
    ending = dataclasses.replace(SAMPLING, sequence_tokens=40)
    drawn = engine.draw(prompts, seeds, ending, never)
    for prompt, ids, found in zip(prompts, whole, drawn.ids, strict=True):
        assert found == ids[: 40 - len(prompt)]
    assert [len(logps) for logps in drawn.logps] == [len(ids) for ids in drawn.ids]
    made = engine.generate(requests, ending, never)
    cut = [len(p) + len(c) > 40 for p, c in zip(prompts, whole, strict=True)]
    assert [one.truncated for one in made if one is not None] == cut and len(set(cut)) == 2


def after(calls: int) -> Callable[[], bool]:
    """Says stop at the n-th time it is asked."""
    asked = iter(range(calls - 1))
    return lambda: next(asked, None) is None


def test_a_stop_leaves_finished_rows_and_none_for_the_others(
    engine: PlainEngine, requests: list[Request]
) -> None:
    whole = engine.generate(requests, SAMPLING, never)
    stopped = engine.generate(requests, SAMPLING, after(15))
    for full, row in zip(whole, stopped, strict=True):
        assert full is not None
        ended = full.num_tokens <= 15 and not full.truncated
        assert row == (full if ended else None)
    assert None in stopped and any(stopped)
    prompts, seeds = [r.prompt_ids for r in requests], [r.seed for r in requests]
    assert engine.rollout(prompts, seeds, SAMPLING, after(15)) is None
    assert engine.entropy(requests, SAMPLING, after(15)) is None


def test_a_stop_text_ends_a_completion_which_is_not_truncated(
    engine: PlainEngine, requests: list[Request]
) -> None:
    stop = "</think>"
    sampling = RECIPE.sampling.model_copy(update={"stop": (stop,)})
    stopping = PlainEngine(
        engine.model, engine.tokenizer, RECIPE.model_copy(update={"sampling": sampling})
    )
    free = engine.generate(requests, SAMPLING, never)
    held = stopping.generate(requests, SAMPLING, never)
    assert any(stop in text for text in texts(free))
    for whole, cut in zip(free, held, strict=True):
        assert whole is not None and cut is not None
        head, found, _ = whole.text.partition(stop)
        assert cut.text == head + found
        assert cut.truncated == (whole.truncated and not found)
        if found:
            ids = engine.tokenizer(cut.text, add_special_tokens=False).input_ids
            assert cut.num_tokens == len(ids)


def test_a_stop_text_that_is_no_token_is_refused(engine: PlainEngine) -> None:
    sampling = RECIPE.sampling.model_copy(update={"stop": ("The answer is",)})
    recipe = RECIPE.model_copy(update={"sampling": sampling})
    with pytest.raises(RecipeError, match=r"sampling\.stop: 'The answer is'"):
        PlainEngine(engine.model, engine.tokenizer, recipe)


# --- what is summed while drawing


def test_entropy_and_log_probabilities_equal_a_float64_forward_pass(
    engine: PlainEngine, requests: list[Request]
) -> None:
    """Exact entropy of the tempered distribution, before top-p cuts it."""
    sampling = SamplingSpec(temperature=0.9, top_p=0.95, max_tokens=40)
    prompts = [r.prompt_ids for r in requests]
    drawn = engine.draw(prompts, [r.seed for r in requests], sampling, never)
    reference = copy.deepcopy(engine.model).double().eval()
    entropies, logps = [], []
    for prompt, ids in zip(prompts, drawn.ids, strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        log_p = torch.log_softmax(logits / sampling.temperature, dim=-1)
        entropies.append(float(-(log_p.exp() * log_p).sum()))
        logps.append(float(log_p.gather(1, torch.tensor(ids)[:, None]).sum()))
    assert drawn.entropy_sum == pytest.approx(entropies, rel=1e-4)
    assert list(map(sum, drawn.logps)) == pytest.approx(logps, rel=1e-4)
    assert list(map(len, drawn.logps)) == list(map(len, drawn.ids))
    estimate = engine.entropy(requests, sampling, never)
    assert estimate is not None
    tokens = sum(map(len, drawn.ids))
    assert (estimate.completions, estimate.tokens) == (len(requests), tokens)
    assert estimate.mean_nats == pytest.approx(sum(entropies) / tokens, rel=1e-4)


def test_opening_says_what_is_missing(tmp_path: Path) -> None:
    for fault in (tmp_path / "absent", tmp_path):
        recipe = load_recipe("quickstart", [f"model.id={fault}"]).recipe
        with pytest.raises(ModelError, match=r"cannot be loaded"):
            PlainEngine.open(recipe)


@pytest.mark.parametrize("kept", [100, 100_000], ids=["header", "tensors"])
def test_weights_that_are_cut_off_are_named(tmp_path: Path, kept: int) -> None:
    shutil.copytree(local_path("asset:tiny/quickstart"), tmp_path / "model")
    with (tmp_path / "model" / "model.safetensors").open("r+b") as file:
        file.truncate(kept)
    recipe = load_recipe("quickstart", [f"model.id={tmp_path / 'model'}"]).recipe
    with pytest.raises(ModelError, match=r"model '.*/model': .* damaged or cut off") as caught:
        PlainEngine.open(recipe)
    assert "again" in caught.value.hint
