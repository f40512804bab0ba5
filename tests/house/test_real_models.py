"""Prompts of real tokenizers and chat templates; `bash scripts/real_models.sh` makes them."""

import importlib.util
import json
import os
from datetime import datetime
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import load_suite
from budgetrl.data.usable import check_suite_prompts, remark_on_room
from budgetrl.engine.base import SamplingSpec
from budgetrl.engine.plain import PlainEngine
from budgetrl.engine.tokenizer import PROBE, load_tokenizer
from budgetrl.errors import ModelError
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Eval, Prompt
from budgetrl.recipe.window import check_window
from budgetrl.types import Problem

ROOT = Path(__file__).resolve().parents[2]
PLACE = os.environ.get("BUDGETRL_REAL_MODELS")
NAMES = (
    *("smollm2-135m-instruct", "qwen2.5-1.5b-instruct", "qwen2.5-math-1.5b", "qwen3-0.6b"),
    *("llama-3.2-1b-instruct", "r1-distill-qwen-1.5b", "r1-distill-llama-8b"),
)
TOKENIZERS = ("gemma-3-1b-it", "deepseek-v3", "gpt-oss-20b")
PROBLEM = Problem("p", PROBE.strip(), "1")

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(PLACE is None, reason="no real models: bash scripts/real_models.sh"),
]


@pytest.fixture(scope="module")
def checks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prompts", ROOT / "scripts/check_prompts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def folder(name: str) -> Path:
    assert PLACE is not None
    return Path(PLACE) / name


@cache
def tokenizer(name: str) -> Any:
    return load_tokenizer(str(folder(name)), load_recipe("quickstart").recipe)


def renderer(name: str, prompt: Prompt, moment: datetime | None = None) -> PromptRenderer:
    return PromptRenderer(tokenizer(name), prompt, moment)


@pytest.mark.parametrize("name", NAMES)
def test_trainer_evaluations_and_the_file_have_the_same_ids(
    checks: ModuleType, shared_data: Path, name: str
) -> None:
    """Of 7,621 real problems."""
    found = checks.compare_ids(folder(name), checks.problems_of(shared_data))
    assert found["problems"] == 7621
    assert (found["training"], found["scoring"], found["file"]) == (0, 0, 0)


@pytest.mark.parametrize("name", [*NAMES, *TOKENIZERS])
def test_a_family_does_to_a_prompt_what_the_page_says(checks: ModuleType, name: str) -> None:
    measured = json.loads(checks.MEASURED.read_text(encoding="utf-8"))
    assert checks.describe(folder(name)) == measured["families"][name]


def test_every_space_of_a_prompt_is_kept() -> None:
    made = renderer("r1-distill-llama-8b", Prompt(system="Think.\nThen answer."))
    text = made.text(PROBLEM)
    assert tokenizer("r1-distill-llama-8b").decode(made.ids(PROBLEM)) == text
    assert PROBLEM.text in text


def test_a_real_model_answers_what_it_is_asked() -> None:
    recipe = load_recipe(
        "quickstart", [f"model.id={folder('smollm2-135m-instruct')}", "engine.threads=1"]
    ).recipe
    engine = PlainEngine.open(recipe)
    ids = renderer("smollm2-135m-instruct", Prompt()).ids(
        Problem("p", "What is the capital of France?", "Paris")
    )
    greedy = SamplingSpec(temperature=0.0, top_p=1.0, max_tokens=24)
    drawn = engine.draw([ids], [0], greedy, lambda: False)
    assert "Paris" in engine.decode(drawn.ids[0])


@pytest.mark.parametrize(
    ("name", "early", "late"),
    [
        ("llama-3.2-1b-instruct", "29 Nov 2026", "30 Nov 2026"),
        ("gpt-oss-20b", "2026-11-29", "2026-11-30"),
    ],
)
def test_the_day_is_the_one_that_is_given(name: str, early: str, late: str) -> None:
    for day, date in ((29, early), (30, late)):
        made = renderer(name, Prompt(), datetime(2026, 11, day, 23, 59))
        assert made.date == date and date in made.text(PROBLEM)
    assert renderer("llama-3.2-1b-instruct", Prompt()).date == "26 Jul 2024"
    paper = load_recipe("llama3.2_r64").recipe.prompt
    assert renderer("llama-3.2-1b-instruct", paper).date is None
    assert "Today Date: 26 Jul 2024" in renderer("llama-3.2-1b-instruct", paper).text(PROBLEM)


@pytest.mark.parametrize("template", ["idefics3", "llava_next", "gemma"])
def test_templates_that_lose_what_they_are_given_are_refused(template: str) -> None:
    """In parts, in parts, and without a system turn."""
    import trl

    text = (Path(trl.__file__).parent / "chat_templates" / f"{template}.jinja").read_text()
    with pytest.raises(ModelError, match="the chat template"):
        renderer("qwen3-0.6b", Prompt(system="Think.", chat_template=text))


def test_math500_starts_on_a_window_of_4096(shared_data: Path) -> None:
    """Four of its prompts are longer than the 512 that training has, and their answers shorter."""
    recipe = load_recipe(
        "qwen2.5_math_r64",
        [
            *(f"model.id={folder('qwen2.5-math-1.5b')}", "engine.name=plain", "engine.device=cpu"),
            *("engine.threads=1", "lora.rank=4", "engine.gradient_checkpointing=false"),
        ],
    ).recipe
    engine = PlainEngine.open(recipe)
    check_window(recipe, engine.context_tokens)
    made = PromptRenderer(engine.tokenizer, recipe.prompt)
    spec = Eval(suite="math500", path=str(shared_data / "eval/math500.jsonl"))
    suite = load_suite(spec, lambda golds: [None] * len(golds))
    longest = max(len(made.ids(problem)) for problem in suite.problems)
    assert longest > recipe.prompt.max_tokens
    check_suite_prompts(recipe, spec, longest, "")
    assert f"so after {4096 - longest} instead of 3584" in str(
        remark_on_room(recipe, spec, longest)
    )
