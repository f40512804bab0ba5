"""The Unsloth engine without a GPU: its arguments, its loop over vLLM, and the patched trainer.

vLLM is not installed here: `FakeLLM` has its interface, and every call is checked against the
argument names in docs/arguments.json, which a script takes from the wheels. With vLLM itself, by
hand: test_unsloth_with_vllm.py.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from test_passes import GRID

from budgetrl.budget import Limits
from budgetrl.engine.base import SamplingSpec
from budgetrl.engine.ends import distinct_pad, only_ends
from budgetrl.engine.tested import version_sets
from budgetrl.engine.unsloth import UnslothEngine
from budgetrl.engine.unsloth_settings import (
    adapter_arguments,
    check_held,
    environment,
    loading_arguments,
    refuse_other_kinds,
    refuse_unkept,
    vllm_rank,
)
from budgetrl.engine.vllm_loop import draw, sampling_arguments
from budgetrl.errors import ModelError, RecipeError
from budgetrl.estimation.shapes import LINEARS
from budgetrl.evaluation.run import evaluate
from budgetrl.evaluation.suite import PromptedProblem, Suite, protocol_of
from budgetrl.plan import make_plan
from budgetrl.recipe.load import list_recipes, load_recipe
from budgetrl.recipe.schema import EngineName, Recipe
from budgetrl.training.trl_args import grpo_arguments
from budgetrl.types import Problem, Verdict

ROOT = Path(__file__).resolve().parents[2]
UNSLOTH = os.environ.get("BUDGETRL_UNSLOTH_CPU", f"{sys.prefix}/unsloth-cpu").split(os.pathsep)
KNOWN: dict[str, dict[str, list[str]]] = json.loads((ROOT / "docs/arguments.json").read_text())
SPEC = SamplingSpec(temperature=0.7, top_p=0.9, max_tokens=4, top_k=5, min_p=0.1)
END = 99
RECIPE = load_recipe("deepscaler_r256").recipe
PEFT_TAKES = ("r", "lora_alpha", "lora_dropout", "bias", "use_rslora", "target_modules")


def names(call: str) -> set[str]:
    """Arguments that every tested version of the call takes."""
    return set.intersection(*(set(calls[call]) for calls in KNOWN.values() if call in calls))


def unsloth_recipes() -> list[Recipe]:
    recipes = [load_recipe(name).recipe for name in list_recipes()]
    return [recipe for recipe in recipes if recipe.engine.name is EngineName.UNSLOTH]


# --- arguments


def test_every_argument_is_one_that_all_tested_versions_take() -> None:
    loading = names("FastLanguageModel.from_pretrained") | names("load_vllm")
    loading |= names("FastLlamaModel.from_pretrained")
    for recipe in unsloth_recipes():
        assert set(loading_arguments(recipe, "folder", None)) <= loading
        assert set(adapter_arguments(recipe)) <= names("FastLlamaModel.get_peft_model")
    assert set(sampling_arguments(SPEC, 1, [END])) <= names("SamplingParams")
    assert "load_tensors" in names("load_lora")


def test_arguments_were_taken_from_every_tested_version() -> None:
    held = [entry.versions for entry in version_sets(EngineName.UNSLOTH)]
    packages = {package.split()[0] for package in KNOWN}
    assert {f"{name} {versions[name]}" for versions in held for name in packages} == set(KNOWN)
    gpu = (ROOT / "scripts/constraints-gpu.txt").read_text().splitlines()
    cpu = (ROOT / "scripts/constraints-unsloth-cpu.txt").read_text().splitlines()
    assert {line for line in cpu if line[0] != "#"} <= set(gpu)


def test_nothing_of_the_paper_is_left_to_a_default() -> None:
    recipe = load_recipe("deepscaler_r256").recipe
    loading = loading_arguments(recipe, "folder", "bf16")
    assert loading["max_seq_length"] == 512 + 3584
    assert loading["load_in_4bit"] is False and loading["fast_inference"] is True
    assert loading["max_lora_rank"] == 256
    assert loading["max_num_seqs"] == 257, "256 would leave the choice to Unsloth"
    adapter = adapter_arguments(recipe)
    assert (adapter["r"], adapter["lora_alpha"], len(adapter["target_modules"])) == (256, 128, 7)
    variables = environment(recipe, Path("/run"))
    assert variables["UNSLOTH_COMPILE_LOCATION"].startswith("/run/")
    assert variables["UNSLOTH_VLLM_STANDBY"] == "1"
    assert variables["UNSLOTH_VLLM_NO_FLASHINFER"] == "1"
    assert variables["UNSLOTH_VLLM_STANDBY_UTIL_OVERRIDE"] == "1"
    assert variables["PYTORCH_ALLOC_CONF"] == "expandable_segments:False"


def test_ranks_are_served_by_the_next_allowed_one() -> None:
    assert [vllm_rank(rank) for rank in (1, 2, 8, 24, 257, 512)] == [1, 8, 8, 32, 320, 512]
    with pytest.raises(RecipeError, match="513"):
        vllm_rank(513)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("deepscaler_r64", "engine.chunked_prefill=false"),
        ("qwen3_8b_4bit", "engine.merged_rollouts=true"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(name: str, setting: str) -> None:
    refuse_unkept(load_recipe("deepscaler_r64", ["engine.merged_rollouts=true"]).recipe)
    with pytest.raises(RecipeError, match=r"cannot be kept"):
        refuse_unkept(load_recipe(name, [setting]).recipe)


def test_logits_are_cut_into_the_recipes_pieces_at_the_least() -> None:
    """Unsloth cuts them into rows times a multiplier, and ignores its number of chunks."""
    for micro, wanted in ((1, 8), (4, 2), (8, 1), (16, 1)):
        recipe = load_recipe("deepscaler_r256", [f"batch.micro_batch={micro}"]).recipe
        made = grpo_arguments(recipe, Path("/run"), 10)
        assert made["unsloth_logit_chunk_multiplier"] == wanted
        assert made["unsloth_grpo_mini_batch"] == 1 and "unsloth_num_chunks" not in made
    assert environment(RECIPE, Path("/run"))["UNSLOTH_GRPO_LOGPROB_RECOMPUTE"] == "1"


def test_end_tokens_are_read_from_the_models_own_file(tmp_path: Path) -> None:
    held = SimpleNamespace(eos_token_id=END)
    assert only_ends(str(tmp_path), held).eos_token_id == [END]
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6}')
    assert only_ends(str(tmp_path), held).eos_token_id == [END]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [99, 7], "top_k": 20}')
    found = only_ends(str(tmp_path), held)
    assert (found.eos_token_id, found.top_k) == ([99, 7], None)


@dataclass
class Padding:
    """A tokenizer's padding token, and its added ones."""

    added: dict[str, int]
    pad_token_id: int = END
    eos_token_id: int = END
    pad_token: str = "<|endoftext|>"

    def get_added_vocab(self) -> dict[str, int]:
        return self.added


def test_a_padding_token_ends_no_completion() -> None:
    """Qwen2.5 pads with a token that its generation_config.json has among the ends."""
    tokenizer = Padding({"<|endoftext|>": END, "<|vision_pad|>": 54, "<|image_pad|>": 55})
    distinct_pad(tokenizer, frozenset({END, 54}))
    assert tokenizer.pad_token_id == 55
    distinct_pad(tokenizer, frozenset({END}))
    assert tokenizer.pad_token_id == 55
    with pytest.raises(ModelError, match="no other token can pad"):
        distinct_pad(Padding({"<|endoftext|>": END}), frozenset({END}))


def test_a_window_that_is_too_short_is_named_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unsloth would refuse it after the model is paid for, with advice on RoPE."""
    monkeypatch.setitem(sys.modules, "unsloth", ModuleType("unsloth"))
    vllm = ModuleType("vllm")
    vllm.SamplingParams = SamplingParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    recipe = load_recipe("qwen3_r8", ["model.id=asset:tiny/quickstart"]).recipe
    with pytest.raises(RecipeError, match=r"the window of asset:tiny/quickstart is 256"):
        UnslothEngine.open(recipe, Path("run"))


def test_every_recipe_plans_on_a_laptop() -> None:
    for name in list_recipes():
        loaded = load_recipe(name)
        if loaded.recipe.engine.name is EngineName.UNSLOTH:
            assert make_plan(loaded, Limits(), gpu="A40", dry_run=True).plan.steps > 0
    command = [sys.executable, "-m", "budgetrl", "run", "qwen3_r8", "--dry-run", "--gpu", "A40"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


# --- the loop over vLLM


@dataclass
class Logprob:
    logprob: float


@dataclass
class CompletionOutput:
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]]
    finish_reason: str


@dataclass
class RequestOutput:
    request_id: str
    outputs: list[CompletionOutput]
    finished: bool


class SamplingParams:
    """Takes what vLLM's takes, and nothing else."""

    def __init__(self, **arguments: Any) -> None:
        assert set(arguments) <= names("SamplingParams")
        self.seed, self.max_tokens = 0, 0
        self.__dict__.update(arguments)


@dataclass
class FakeLLM:
    """vLLM's `LLM` and its engine in one: a token per request and step, made from the seed."""

    lengths: Sequence[int]
    """Tokens after which each request ends by itself."""
    at_once: int = 1000
    """Requests that run together; the others wait in the order in which they came."""
    requests: dict[str, tuple[int, int, list[int]]] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    asleep: bool = True
    folds: bool = False
    held_blocks: int = 0
    """Steps that have to pass before the prefix cache can be emptied."""
    vllm_config: Any = field(default_factory=lambda: held_by_vllm(RECIPE))

    @property
    def llm_engine(self) -> "FakeLLM":
        return self

    def is_sleeping(self) -> bool:
        return self.asleep

    def wake_up(self) -> None:
        assert self.asleep
        self.asleep = False
        self.calls.append("wake_up")

    def sleep(self, level: int) -> None:
        assert not self.requests and level == 1
        self.asleep = True
        self.calls.append("sleep")

    def reset_prefix_cache(self) -> bool:
        assert not self.asleep
        self.calls.append("reset_prefix_cache")
        return self.held_blocks <= 0

    def enqueue(self, prompts: Any, sampling_params: Any, **others: Any) -> list[str]:
        assert set(others) <= names("LLM.enqueue")
        assert others["lora_request"] == (None if self.folds else "adapter")
        assert not self.asleep
        self.calls.append("enqueue")
        assert all(set(prompt) == {"prompt_token_ids"} for prompt in prompts)
        rows = zip(sampling_params, self.lengths, strict=True)
        for number, (params, length) in enumerate(rows):
            name = f"{number + 40}-{number:08x}"  # a counter goes on from earlier calls
            self.requests[name] = (params.seed, min(length, params.max_tokens), [])
        return list(self.requests)

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def step(self) -> list[RequestOutput]:
        outputs = []
        if not self.requests:
            self.held_blocks -= 1
        for name, (seed, length, ids) in list(self.requests.items())[: self.at_once]:
            ids.append(END if len(ids) + 1 == length < 4 else seed + len(ids))
            done = len(ids) == length
            logprobs = [{token: Logprob(-0.5 * seed)} for token in ids]
            reason = "stop" if ids[-1] == END else "length"
            whole = CompletionOutput(list(ids), logprobs, reason if done else "")
            outputs.append(RequestOutput(name.partition("-")[0], [whole], done))
            if done:
                del self.requests[name]
        return outputs[::-1]  # in no particular order

    def abort_request(self, request_ids: list[str], **others: Any) -> None:
        assert set(others) <= names("LLMEngine.abort_request")
        self.aborted += [name for name in request_ids if name in self.requests]
        self.requests.clear()


def held_by_vllm(recipe: Recipe) -> Any:
    """vLLM's configuration if it did what it was told; attribute names as of vLLM 0.30."""
    asked = loading_arguments(recipe, "folder", torch.bfloat16)
    return SimpleNamespace(
        model_config=SimpleNamespace(
            max_model_len=asked["max_seq_length"],
            enable_sleep_mode=True,
            dtype=torch.bfloat16,
            logprobs_mode="processed_logprobs",
        ),
        scheduler_config=SimpleNamespace(
            max_num_seqs=asked["max_num_seqs"], enable_chunked_prefill=True
        ),
        cache_config=SimpleNamespace(enable_prefix_caching=True, gpu_memory_utilization=0.85),
        lora_config=SimpleNamespace(max_lora_rank=asked["max_lora_rank"]),
    )


def sample(llm: FakeLLM, stops_after: int = 100, prompt: Sequence[int] = (1, 2)) -> list[Any]:
    steps = iter(range(1000))
    prompts = [[1, 2]] * (len(llm.lengths) - 1) + [list(prompt)]
    seeds = [10 * (row + 1) for row in range(len(prompts))]
    drawn = draw(
        llm, SamplingParams, prompts, seeds, replace(SPEC, sequence_tokens=6), [END], "adapter",
        lambda: next(steps) + 1 >= stops_after,
    )  # fmt: skip
    found = dict(drawn)
    return [found.get(place) for place in range(len(prompts))]


def test_completions_come_back_in_order_with_their_log_probabilities() -> None:
    found = sample(FakeLLM([2, 9, 1], asleep=False))
    assert [one.ids for one in found] == [[10, END], [20, 21, 22, 23], [END]]
    assert [one.logps for one in found] == [[-5.0] * 2, [-10.0] * 4, [-15.0]]


def test_a_long_prompt_leaves_its_completion_less_room() -> None:
    found = sample(FakeLLM([9, 9], asleep=False), prompt=(1, 2, 3, 4, 5))
    assert [len(one.ids) for one in found] == [4, 1]


def test_a_time_limit_keeps_what_was_finished_and_aborts_the_rest() -> None:
    llm = FakeLLM([1, 9, 2, 9], asleep=False)
    found = sample(llm, stops_after=2)
    assert [one is not None for one in found] == [True, False, True, False]
    assert len(llm.aborted) == 2 and not llm.has_unfinished_requests()


def engine_over(llm: FakeLLM, recipe: Recipe) -> UnslothEngine:
    def load_lora(folder: str, **others: Any) -> str:
        assert set(others) <= names("load_lora") and not llm.asleep
        llm.calls.append("load_lora")
        return "adapter"

    peft = LoraConfig(**{k: v for k, v in adapter_arguments(recipe).items() if k in PEFT_TAKES})
    model = SimpleNamespace(
        vllm_engine=llm,
        load_lora=load_lora,
        peft_config={"default": peft},
        dtype=torch.bfloat16,
        config=SimpleNamespace(max_position_embeddings=4096),
        generation_config=SimpleNamespace(eos_token_id=END),
        named_parameters=lambda: [
            (f"layers.0.{name}.lora_A.default.weight", torch.zeros(1)) for name in LINEARS
        ],
    )
    tokenizer = SimpleNamespace(
        eos_token_id=END, pad_token_id=0, get_added_vocab=dict, decode=lambda ids, **_: str(ids)
    )
    return UnslothEngine(model, tokenizer, recipe, SamplingParams, Path("run"))


@pytest.mark.parametrize("stopped", [False, True])
def test_each_rollout_wakes_gives_the_adapter_draws_and_sleeps(stopped: bool) -> None:
    llm = FakeLLM([1, 9])
    engine = engine_over(llm, RECIPE)
    rollout = engine.rollout([[1], [2]], [5, 6], SPEC, lambda: stopped)
    assert llm.calls == ["wake_up", "load_lora", "enqueue", "reset_prefix_cache", "sleep"]
    assert llm.asleep and not llm.requests
    assert (rollout is None) == stopped
    if rollout is not None:
        assert rollout.ids == [[END], [6, 7, 8, 9]]
        assert rollout.logps == [[-2.5], [-3.0] * 4]
        assert rollout.switch_s is not None and set(rollout.switch_s) == {"wake", "sync", "sleep"}


def test_a_prefix_cache_that_stays_full_ends_the_run() -> None:
    """It would serve the next rollout keys of another adapter."""
    llm = FakeLLM([1], held_blocks=2)
    assert engine_over(llm, RECIPE).rollout([[1]], [5], SPEC, lambda: False) is not None
    assert llm.calls.count("reset_prefix_cache") == 3 and llm.asleep
    with pytest.raises(RuntimeError, match="would not empty its prefix cache"):
        engine_over(FakeLLM([1], held_blocks=9), RECIPE).rollout([[1]], [5], SPEC, lambda: False)


def evaluated(llm: FakeLLM, folder: Path, stops_after: int = 100) -> tuple[int, list[int]]:
    """Complete rounds of four over three problems, and how much was stored at each time."""
    steps, stored = iter(range(1000)), list[int]()
    problems = [Problem(f"p{i}", f"problem {i}", str(i)) for i in range(3)]
    prompted = [PromptedProblem(problem, problem.text, (1, 2)) for problem in problems]
    protocol = protocol_of(
        "suite", prompted, temperature=0.6, top_p=1.0, max_tokens=9, seed=1, grader="none"
    )
    result = evaluate(
        engine_over(llm, RECIPE),
        Suite(prompted, protocol, 4, (1,), 3),
        grader=NothingIsRight(),
        folder=folder,
        when="final",
        step=1,
        should_stop=lambda: next(steps) >= stops_after,
        on_progress=lambda progress: stored.append(progress.done),
    )
    return 0 if result is None else result.samples, stored


class NothingIsRight:
    """A grader."""

    def grade(self, rows: Sequence[tuple[str, str]]) -> list[Any]:
        return [SimpleNamespace(verdict=Verdict.WRONG, extracted=None) for _ in rows]


ONE_QUEUE = ["wake_up", "load_lora", "enqueue", "reset_prefix_cache", "sleep"]


def test_an_evaluation_is_one_queue_with_one_sleep_and_wake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three at a time were three batches before, each as slow as its longest."""
    monkeypatch.setattr("budgetrl.evaluation.run.STORED_AT_ONCE", 5)
    llm = FakeLLM([2, 9, 1] * 4, at_once=3)
    assert evaluated(llm, tmp_path) == (4, [5, 10, 12])
    assert llm.calls == ONE_QUEUE and llm.asleep


def test_a_deadline_keeps_the_whole_rounds_of_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetrl.evaluation.run.STORED_AT_ONCE", 5)
    llm = FakeLLM([2] * 12, at_once=4)
    assert evaluated(llm, tmp_path, stops_after=5) == (2, [5, 8])
    assert llm.calls == ONE_QUEUE and llm.asleep and not llm.requests
    again = FakeLLM([2] * 4, at_once=4)
    assert evaluated(again, tmp_path)[0] == 4, "what was finished is not made twice"


@pytest.mark.parametrize(
    ("table", "name", "held"),
    [
        ("scheduler_config", "max_num_seqs", 96),
        ("model_config", "max_model_len", 2048),
        ("model_config", "dtype", torch.float16),
        ("cache_config", "enable_prefix_caching", False),
        ("lora_config", "max_lora_rank", 64),
    ],
)
def test_what_vllm_holds_is_what_was_asked_for_or_no_run(table: str, name: str, held: Any) -> None:
    llm = FakeLLM([])
    model = engine_over(llm, RECIPE).model
    loading = loading_arguments(RECIPE, "folder", torch.bfloat16)
    check_held(model, RECIPE, loading)
    setattr(getattr(llm.vllm_config, table), name, held)
    with pytest.raises(ModelError, match=f"{name}: asked .*, vllm holds {held}"):
        check_held(model, RECIPE, loading)


def test_what_peft_and_the_model_hold_is_compared_too() -> None:
    model = engine_over(FakeLLM([]), RECIPE).model
    loading = loading_arguments(RECIPE, "folder", torch.bfloat16)
    model.peft_config["default"].lora_alpha, model.dtype = 16, torch.float32
    with pytest.raises(ModelError, match=r"lora_alpha: asked 128, peft holds 16\n.*float32"):
        check_held(model, RECIPE, loading)
    fused = [(f"{name}.lora_A.default.weight", torch.zeros(1)) for name in ("o_proj", "down_proj")]
    model.named_parameters = lambda: fused
    with pytest.raises(ModelError, match=r"layers with an adapter: asked .*'o_proj'\]"):
        check_held(model, RECIPE, loading)
    adapter = [("q_proj.lora_B.default.weight", torch.zeros(1, dtype=torch.bfloat16))]
    model.named_parameters = lambda: adapter
    with pytest.raises(ModelError, match=r"asked \['torch.float32'\], peft holds .*bfloat16"):
        check_held(model, RECIPE, loading)
    model.vllm_engine = None
    with pytest.raises(ModelError, match="without vLLM"):
        check_held(model, RECIPE, loading)


# --- the patched trainer


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What unsloth_on_cpu.py found, in a process of its own."""
    if not Path(UNSLOTH[0]).is_dir():
        pytest.skip(f"unsloth is not in {UNSLOTH[0]}; `bash scripts/install.sh dev` puts it there")
    folder = tmp_path_factory.mktemp("unsloth")
    paths = [*UNSLOTH, str(ROOT), str(ROOT / "tests")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/unsloth_on_cpu.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_patched_configuration_is_every_recipes(on_cpu: dict[str, Any]) -> None:
    assert on_cpu["trainer"] == "UnslothGRPOTrainer"
    assert on_cpu["changed"] == {}
    assert on_cpu["noticed"], "a value that Unsloth changes has to be noticed"


def test_the_preflight_halves_the_micro_batch_of_the_patched_trainer(
    on_cpu: dict[str, Any],
) -> None:
    assert on_cpu["micro_batch"] == 4


def test_the_patched_trainer_has_no_larger_pass_and_the_oracles_gradients(
    on_cpu: dict[str, Any],
) -> None:
    """The passes of every update are checked where they are made (test_passes.check_forwards)."""
    updates = on_cpu["updates"]
    others = {"another chat template", "the last of five optimiser steps"}
    assert set(updates) == {*map(str, GRID), *others}
    assert all(update["forwards"] > 1 for update in updates.values())
    # 1e-3 is what autocast may cost on a GPU; here, in float32, it was 5e-6.
    assert max(update["distance"] for update in updates.values()) <= 1e-3


def test_the_patched_sft_trainer_has_the_loss_and_gradients_of_the_completions(
    on_cpu: dict[str, Any],
) -> None:
    assert on_cpu["sft_trainer"] == "UnslothSFTTrainer"
    assert max(on_cpu["sft"].values()) <= 2e-5


def test_the_patched_trainer_distils_with_the_oracles_gradients(on_cpu: dict[str, Any]) -> None:
    """Also where the model, as Unsloth's does in training, ignores the mask of its padding."""
    assert len(on_cpu["distil"]) == 4
    assert max(on_cpu["distil"].values()) <= 1e-3


def test_a_tokenizer_that_lost_its_spaces_is_restored(on_cpu: dict[str, Any]) -> None:
    """Unsloth restores it itself unless it is told not to, as here."""
    assert on_cpu["tokenizer"] == {"unsloth": "12+7=19", "budgetrl": "12 + 7 = 19"}


@pytest.mark.parametrize(
    ("values", "told"),
    [({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"), ({"use_dora": True}, "use_dora = true"),
     ({"init_lora_weights": "pissa"}, "pissa"), ({"bias": "none", "modules_to_save": None}, None)],
)  # fmt: skip
def test_adapters_that_its_layers_cannot_hold_are_refused(
    values: dict[str, Any], told: str | None, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(values))
    if told is None:
        refuse_other_kinds(tmp_path)
        return
    with pytest.raises(ModelError, match=told):
        refuse_other_kinds(tmp_path)
