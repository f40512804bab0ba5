"""What chat templates do to a prompt: losses are refused, the day that they print is pinned."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from budgetrl.budget import Budget
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.template import PROBE
from budgetrl.engine.plain import PlainEngine
from budgetrl.errors import DataError, ExitCode, ModelError, RunDirError
from budgetrl.evaluation.compare import describe_differences
from budgetrl.evaluation.judge import _renderer
from budgetrl.evaluation.suite import protocol_in
from budgetrl.events import RunWarning
from budgetrl.ledger import Ledger
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Prompt
from budgetrl.rewards.pool import GradingPool
from budgetrl.run_files import prompt_moment
from budgetrl.rundir import MANIFEST, RunDir
from budgetrl.study.trial import _share_baseline
from budgetrl.training.log import RunLog, stamp_of
from budgetrl.training.setup import Prepared, prepare
from budgetrl.training.stopper import Stopper
from budgetrl.types import Problem

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPENS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
USER = "{{ (messages | selectattr('role', 'equalto', 'user') | first).content }}"
# As Llama 3.2's and gpt-oss's do it.
DATED = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    '{% set date_string = strftime_now("%d %b %Y") %}{% else %}'
    '{% set date_string = "26 Jul 2024" %}{% endif %}{% endif %}'
    "Today Date: {{ date_string }}\n" + TURNS + OPENS
)
CLOCKED = (
    "{% macro now() %}Current time: {{ strftime_now('%Y-%m-%d %H:%M') }}\n{% endmacro %}"
    "{{ now() }}" + TURNS + OPENS
)
START = datetime(2026, 11, 29, 23, 59, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(local_path("asset:tiny/quickstart"))


# --- what is lost


@pytest.mark.parametrize(
    ("template", "lost"),
    [
        (TURNS.replace("m.content", "m.content[0]['text']") + OPENS, "the problem"),
        (TURNS.replace("m.content", "m.content[0].text") + OPENS, "the problem"),
        ("{% for m in messages %}{% for p in m.content if p.type %}{{ p.text }}{% endfor %}"
         "{% endfor %}" + OPENS, "the problem"),
        (TURNS.replace("m.content", "m.content | e") + OPENS, "the problem"),
        (TURNS.replace("m.content", "m.content | tojson") + OPENS, "the problem"),
        (TURNS.replace("m.content", "m.content | lower") + OPENS, "the problem"),
        (TURNS.replace("m.content", "m.content.split() | join(' ')") + OPENS, "the problem"),
        ("Q: " + USER + "\nA:", "prompt.system"),
    ],
)  # fmt: skip
def test_a_template_that_loses_what_it_is_given_is_refused(
    tokenizer: Any, template: str, lost: str
) -> None:
    with pytest.raises(ModelError, match=rf"chat template leaves {lost}") as caught:
        PromptRenderer(tokenizer, Prompt(system="Be brief.", chat_template=template))
    assert caught.value.exit_code == ExitCode.USER and "prompt." in caught.value.hint


def test_a_template_without_system_turn_serves_a_recipe_without_one(tokenizer: Any) -> None:
    renderer = PromptRenderer(tokenizer, Prompt(chat_template="Q: " + USER + "\nA:"))
    assert renderer.text(Problem("p", "7+5", "12")) == "Q: 7+5\nA:"
    assert renderer.remarks() == {}


def test_a_problem_that_the_template_changes_is_named(tokenizer: Any) -> None:
    drops = TURNS.replace("m.content", "m.content.split('</think>')[-1]") + OPENS
    renderer = PromptRenderer(tokenizer, Prompt(chat_template=drops))
    renderer.text(Problem("p", "7+5", "12"))
    with pytest.raises(DataError, match="problem q: the chat template changes its text"):
        renderer.text(Problem("q", "What does </think> mean?", "12"))


@pytest.mark.parametrize(
    ("template", "opens"),
    [
        (TURNS + OPENS, True),
        (TURNS, False),
        # Mistral's: one text for both, and it leads into the answer
        ("{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>{% else %}"
         "[INST] {{ m.content }}[/INST]{% endif %}{% endfor %}", True),
        ("{{ messages[0].content }}\nAnswer:", True),
        ("{% if messages[-1].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
         + TURNS, True),
    ],
)  # fmt: skip
def test_a_template_that_does_not_open_the_answer_is_remarked(
    tokenizer: Any, template: str, opens: bool
) -> None:
    remarks = PromptRenderer(tokenizer, Prompt(chat_template=template)).remarks()
    assert ("generation_prompt" in remarks) is not opens


# --- the day


@pytest.mark.parametrize(
    ("template", "date", "sets"),
    [(DATED, "29 Nov 2026", True), (CLOCKED, "2026-11-29 23:59", False)],
)
def test_a_template_that_prints_the_day_prints_the_one_it_is_given(
    tokenizer: Any, template: str, date: str, sets: bool
) -> None:
    renderer = PromptRenderer(tokenizer, Prompt(chat_template=template), START)
    assert renderer.date == date
    assert date in renderer.text(Problem("p", PROBE, "1"))
    remark = renderer.remarks()["prompt_date"]
    assert date in remark and ("template_kwargs.date_string" in remark) is sets
    other = PromptRenderer(tokenizer, Prompt(chat_template=template), datetime(2026, 11, 30))
    assert other.fingerprint() != renderer.fingerprint()


def test_without_a_run_the_day_is_the_same_for_everybody(tokenizer: Any) -> None:
    assert PromptRenderer(tokenizer, Prompt(chat_template=DATED)).date == "26 Jul 2024"


@pytest.mark.parametrize("arguments", [{"date_string": "26 Jul 2024"}, {}])
def test_a_day_that_the_recipe_names_is_no_day_of_ours(
    tokenizer: Any, arguments: dict[str, str]
) -> None:
    template = DATED if arguments else TURNS + OPENS
    prompt = Prompt(chat_template=template, template_kwargs=arguments)
    renderer = PromptRenderer(tokenizer, prompt, START)
    assert renderer.date is None and renderer.remarks() == {}


def test_the_llama_recipes_name_the_day_that_their_template_falls_back_to() -> None:
    for name in ("llama3.2_r64", "quick/llama3.2"):
        assert load_recipe(name).recipe.prompt.template_kwargs == {"date_string": "26 Jul 2024"}


@contextmanager
def prepared(run: RunDir, engine: Any, attempt: int) -> Iterator[Prepared]:
    ledger = Ledger(Budget(600.0), time.monotonic, time.monotonic(), 0.0)
    with run.writer(stamp_of(ledger, attempt)) as writer, GradingPool() as pool:
        log = RunLog(writer, ledger, {})
        yield prepare(run, engine._recipe, engine, pool, log, Stopper())


def test_a_run_keeps_the_day_of_its_start(tmp_path: Path) -> None:
    """On resume, in training, in its evaluations, and in those that are made of it later."""
    recipe = load_recipe("quickstart", ["engine.threads=1", "data.limit=8"]).recipe
    prompt = recipe.prompt.model_copy(update={"chat_template": DATED})
    engine: Any = PlainEngine.open(recipe.model_copy(update={"prompt": prompt}))
    run = RunDir.create(tmp_path, "dated")
    run.write_json(MANIFEST, {"created": "2026-11-29T23:59:30Z"})
    seen = []
    for attempt in (1, 2):
        with prepared(run, engine, attempt) as bench:
            trained = bench.renderer.text(bench.sampler.batch(0)[0])
            judged = bench.evaluator.suites["heldout"]
            seen.append((trained, [item.prompt_ids for item in judged]))
            spec = bench.evaluator.recipe.eval[0]
            protocol = protocol_in(engine._recipe, spec, judged, "", bench.renderer.date)
    assert seen[0] == seen[1] and "Today Date: 29 Nov 2026" in seen[0][0]
    warned = [event.code for event in run.events() if isinstance(event, RunWarning)]
    assert warned.count("prompt_date") == 1, "said once"
    assert run.read_json(MANIFEST)["prompt"]["date"] == protocol.date == "29 Nov 2026"
    target: Any = SimpleNamespace(run=run, recipe=engine._recipe)
    later = _renderer(engine, target)
    assert later is not None and later.date == "29 Nov 2026"
    alone = _renderer(engine, SimpleNamespace(run=None, recipe=engine._recipe))  # type: ignore[arg-type]
    assert alone is not None and alone.date == "26 Jul 2024"
    other = protocol_in(engine._recipe, spec, judged, "", "30 Nov 2026")
    assert "date (29 Nov 2026 and 30 Nov 2026)" in describe_differences(protocol, other)


def test_arms_that_share_a_baseline_share_its_day(tmp_path: Path) -> None:
    first, second = RunDir.create(tmp_path, "a"), RunDir.create(tmp_path, "b")
    first.write_json(MANIFEST, {"created": "2026-11-29T23:59:30Z"})
    second.write_json(MANIFEST, {"created": "2026-11-30T01:00:00Z"})
    _share_baseline(first, second)
    assert prompt_moment(second) == START == prompt_moment(first)
    second.write_json(MANIFEST, {"created": "yesterday"})
    with pytest.raises(RunDirError, match="'yesterday' is no time"):
        prompt_moment(second)
