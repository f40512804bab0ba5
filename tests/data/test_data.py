"""Problems from files, what they share with suites, and how they become prompts."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from budgetrl.data.overlap import NGRAM, find_overlap
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import LoadedProblems, load_problems, load_suite
from budgetrl.data.usable import Usable, load_usable
from budgetrl.errors import DataError, ExitCode, ModelError, RecipeError
from budgetrl.recipe.assets import asset_root, local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Columns, Data, Eval, Prompt
from budgetrl.recipe.window import check_window
from budgetrl.types import Problem

Write = Callable[[Sequence[Any]], str]


def check(answers: Sequence[str]) -> list[str | None]:
    """A gold answer must be a number here."""
    return [
        None if answer.strip().lstrip("-").isdigit() else f"{answer!r} is no number"
        for answer in answers
    ]


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"p{number}", "problem": f"1+{number}", "answer": str(number + 1)} | changes


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows (or raw lines) as JSONL and returns the path."""

    def write(rows: Sequence[Any]) -> str:
        lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in rows]
        path = tmp_path / "data.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n")
        return str(path)

    return write


def load(path: str, **data: Any) -> LoadedProblems:
    return load_problems(Data(path=path, **data), check)


def refusal(path: str, **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(path, **data)
    assert caught.value.exit_code == ExitCode.USER
    return str(caught.value)


# --- rows


def test_rows_become_problems_in_order(write: Write) -> None:
    rows = [row(1, level=3), row(2, answer=3), b"", row(3, problem=" padded ", id=None)]
    loaded = load(write(rows))
    assert loaded.problems == (
        Problem("p1", "1+1", "2", "3"),
        Problem("p2", "1+2", "3"),
        Problem("row-000002", "padded", "4"),
    )
    assert loaded.dropped == ()


def test_bad_rows_are_dropped_and_say_where_and_why(write: Write) -> None:
    bad = {
        51: (row(7, id="again", problem="1+7 "), "the problem occurs before"),
        52: (row(900, id="p7"), "the id 'p7' occurs before"),
        53: (row(901, answer=""), "the answer '' cannot be used: '' is no number"),
        54: (row(902, problem="  "), "the problem is empty or not text"),
        55: (row(903, answer=True), "the answer is neither text nor a number"),
        56: (row(904, problem=None), "the problem is empty or not text"),
        57: (row(905, answer=math.nan), "the answer is neither text nor a number"),
    }
    good = [row(number) for number in range(200)]
    path = write([*good[:50], *(line for line, _ in bad.values()), *good[50:]])
    loaded = load(path)
    assert len(loaded.problems) == 200
    assert [(d.where, d.why) for d in loaded.dropped] == [
        (f"{path}:{number}", why) for number, (_, why) in bad.items()
    ]


def test_more_than_five_percent_of_bad_rows_are_refused_and_listed(write: Write) -> None:
    good = [row(number) for number in range(95)]
    bad = [row(1000 + number, answer="x") for number in range(6)]
    assert len(load(write([*good, *bad[:5]])).dropped) == 5
    message = refusal(write([*good, *bad]))
    assert "6 of 101 rows cannot be used" in message
    assert "data.jsonl:96: the answer 'x' cannot be used: 'x' is no number" in message
    assert "data.jsonl:101: the answer 'x' cannot be used: 'x' is no number" in message
    assert len(load(write([*good, *bad[:5]]), limit=10).problems) == 10
    many = refusal(write([row(number, answer="x") for number in range(30)]))
    assert "and 10 more" in many


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "holds no rows"),
        ([b"", b"   "], "holds no rows"),
        ([row(1), b"{'id': 1}"], "data.jsonl:2: not JSON"),
        ([b"\xff\xfe\x00"], "data.jsonl:1: not JSON"),
        ([b"[" * 100_000], "data.jsonl:1: not JSON"),
        ([row(1), row(2), ["a", "list"]], "data.jsonl:3: not a JSON object"),
        ([{"question": "1+1", "answer": "2"}], "no column 'problem'; there are: answer, question"),
        ([row(1), {"problem": "1+2"}], "data.jsonl:2: no column 'answer'"),
    ],
)
def test_a_file_that_is_not_problems_is_refused_with_its_line(
    write: Write, rows: Sequence[Any], says: str
) -> None:
    assert says in refusal(write(rows))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "nope.jsonl: cannot be read" in refusal(str(tmp_path / "nope.jsonl"))
    assert "a folder without data" in refusal(str(tmp_path))


def test_columns_filter_and_limit_are_the_recipes(write: Write) -> None:
    rows = [
        {"q": f"1+{n}", "gold": n + 1, "uid": n, "kind": "easy" if n % 2 else "hard", "lv": n}
        for n in range(10)
    ]
    columns = Columns(problem="q", answer="gold", id="uid", level="lv")
    loaded = load(write(rows), columns=columns, filter={"kind": ("hard",)}, limit=2)
    assert loaded.problems == (Problem("0", "1+0", "1", "0"), Problem("2", "1+2", "3", "2"))
    assert "holds no rows" in refusal(write(rows), columns=columns, filter={"kind": ("odd",)})


def test_a_column_that_the_recipe_names_must_be_there(write: Write) -> None:
    assert "no column 'uid'" in refusal(write([row(1)]), columns=Columns(id="uid"))
    assert "no column 'lv'" in refusal(write([row(1)]), columns=Columns(level="lv"))


def test_the_fingerprint_is_of_ids_texts_and_answers(write: Write) -> None:
    def fingerprint(*rows: dict[str, Any]) -> str:
        return load(write(rows)).fingerprint

    base = fingerprint(row(1), row(2))
    assert base == fingerprint(row(1, level=4), row(2, other="x"))
    others = [
        fingerprint(row(2), row(1)),
        fingerprint(row(1), row(2, answer="9")),
        fingerprint(row(1), row(2, id="q")),
        fingerprint(row(1), row(2, problem="2+1")),
    ]
    assert len({base, *others}) == 5


def test_a_suite_with_a_single_bad_row_is_refused(write: Write) -> None:
    good = [row(number) for number in range(50)]
    path = write(good)
    assert len(load_suite(Eval(suite="mine", path=path), check).problems) == 50
    write([*good, row(7)])
    with pytest.raises(DataError, match=r"suite mine .*1 rows cannot be evaluated") as caught:
        load_suite(Eval(suite="mine", path=path), check)
    assert "data.jsonl:51: the problem occurs before" in str(caught.value)
    write([])
    with pytest.raises(DataError, match="holds no problems"):
        load_suite(Eval(suite="mine", path=path), check)


def test_shipped_files_are_named_by_asset_and_no_others() -> None:
    assert Path(local_path("asset:tiny/data/heldout.jsonl")).is_file()
    assert local_path("hub/model") == "hub/model"
    for ref in ("asset:nope", "asset:../errors.py", "asset:/etc/passwd"):
        with pytest.raises(RecipeError, match="ships no such asset"):
            local_path(ref)


# --- overlap


def problems(*texts: str) -> list[Problem]:
    return [Problem(f"p{i}", text, "1") for i, text in enumerate(texts)]


def test_copies_are_found_whatever_their_case_and_spaces_but_not_other_signs() -> None:
    suite = problems("Compute 7+5 - 2, please.")
    training = problems("compute  7 + 5-2 , PLEASE .", "Compute 7-5 - 2, please.", "Compute")
    found = find_overlap(training, {"heldout": suite})
    assert (found.exact, found.near) == ({"p0": "heldout"}, {})


def test_a_run_of_thirteen_words_is_a_near_match_and_twelve_are_none() -> None:
    assert NGRAM == 13
    suite = problems("Once " + " ".join("abcdefghijklmnop") + " end")
    thirteen = " ".join("bcdefghijklmn")
    twelve = "Other " + " ".join("bcdefghijklm") + " text"
    found = find_overlap(problems(thirteen, twelve), {"math500": suite})
    assert (found.exact, found.near) == ({}, {"p0": "math500"})


# --- prompts

OPENS_THINK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% endif %}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The shipped tiny tokenizer."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(local_path("asset:tiny/quickstart"))


def test_a_prompt_is_what_the_chat_template_makes_of_system_and_problem(tokenizer: Any) -> None:
    prompt = Prompt(system="Be brief.", template="Q: {problem}?")
    renderer = PromptRenderer(tokenizer, prompt)
    problem = Problem("p", "7+{5}", "12")
    assert renderer.messages(problem.text) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: 7+{5}?"},
    ]
    text = renderer.text(problem)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQ: 7+{5}?")
    assert text.endswith("<|im_start|>assistant\n")
    assert renderer.ids(problem) == tuple(tokenizer.encode(text, add_special_tokens=False))
    assert [m["role"] for m in PromptRenderer(tokenizer, Prompt()).messages("x")] == ["user"]


@pytest.mark.parametrize(
    ("prompt", "prefilled"),
    [
        (Prompt(), False),
        (Prompt(chat_template=OPENS_THINK), True),
        (Prompt(chat_template=OPENS_THINK, template_kwargs={"enable_thinking": False}), False),
        (Prompt(system="Write <think>", template="{problem} <think>"), False),
        (Prompt(chat_template="{{ messages[0].content }}", template="{problem}\n<think>"), True),
    ],
)
def test_a_template_that_opens_think_is_noticed(
    tokenizer: Any, prompt: Prompt, prefilled: bool
) -> None:
    assert PromptRenderer(tokenizer, prompt).prefilled is prefilled


def test_prompts_of_a_suite_may_be_longer_than_those_trained_on(
    tokenizer: Any, write: Write
) -> None:
    suite = write([row(1), row(2, problem="Compute " + "1+" * 40 + "1.", answer="41")])
    sets = [f"eval.heldout.path={suite}", "prompt.max_tokens=50", "sampling.max_tokens=20"]

    def usable(longer: int, window: int | None, *more: str) -> Usable:
        limits = [f"eval.heldout.max_tokens={longer}", *more]
        recipe = load_recipe("quickstart", [*sets, *limits]).recipe
        renderer = PromptRenderer(tokenizer, recipe.prompt)
        return load_usable(recipe, renderer, check, window)

    longest = usable(200, None).longest["heldout"]
    assert longest > 50
    least = -(-4 * longest // 3) - 50
    assert usable(least, least + 50).longest["heldout"] == longest, "a quarter is left"
    for window in (None, 2 * longest):
        with pytest.raises(DataError, match=f"suite heldout: a prompt has {longest} tokens") as got:
            usable(least - 4, window)
        assert f"Set prompt.max_tokens = {longest}." in got.value.hint
        usable(least - 4, window, f"prompt.max_tokens={longest}")
    with pytest.raises(DataError) as got:
        usable(least - 4, longest + 10)
    assert f"{longest}, and every max_tokens of [sampling] and [[eval]] <= 10." in got.value.hint
    shorter = (f"prompt.max_tokens={longest}", "sampling.max_tokens=10")
    check_window(load_recipe("quickstart", [*sets, *shorter]).recipe, longest + 10)
    usable(10, longest + 10, *shorter)
    with pytest.raises(DataError) as got:
        usable(20, longest)
    assert f"has {longest}: leave the problem out" in got.value.hint


def test_why_no_problem_is_left_is_said(tokenizer: Any, write: Write) -> None:
    suite = Path(write([row(1), row(2)]))
    same = suite.rename(suite.with_name("suite.jsonl"))
    other = write([row(1), row(3, problem="Compute " + "1+" * 40 + "1.", answer="41")])
    for training, told in (
        (same, "all 2 also stand in what the run is judged by (heldout)"),
        (other, "1 of 2 also stand in a suite, and the prompts of all others are longer"),
    ):
        sets = [f"data.path={training}", f"eval.heldout.path={same}", "prompt.max_tokens=50"]
        recipe = load_recipe("quickstart", [*sets, "sampling.max_tokens=20"]).recipe
        with pytest.raises(DataError) as got:
            load_usable(recipe, PromptRenderer(tokenizer, recipe.prompt), check, None)
        assert told in got.value.message and got.value.hint


def test_the_fingerprint_of_prompts_is_of_all_that_shapes_them(tokenizer: Any) -> None:
    def fingerprint(**prompt: Any) -> str:
        return PromptRenderer(tokenizer, Prompt(**prompt)).fingerprint()

    no_think = {"chat_template": OPENS_THINK, "template_kwargs": {"enable_thinking": False}}
    found = [
        fingerprint(),
        fingerprint(system="Be brief."),
        fingerprint(template="Q: {problem}"),
        fingerprint(chat_template=OPENS_THINK),
    ]
    assert len(set(found)) == len(found)
    assert fingerprint(max_tokens=9) == found[0]
    assert fingerprint(**no_think) == found[0], "it renders the same prompts"


def test_a_tokenizer_without_chat_template_is_refused_unless_the_recipe_gives_one() -> None:
    from transformers import PreTrainedTokenizerFast

    file = asset_root() / "tiny" / "quickstart" / "tokenizer.json"
    bare = PreTrainedTokenizerFast(tokenizer_file=str(file))
    with pytest.raises(ModelError, match="no chat template") as caught:
        PromptRenderer(bare, Prompt())
    assert "prompt.chat_template" in caught.value.hint
    assert PromptRenderer(bare, Prompt(chat_template=OPENS_THINK)).prefilled


@pytest.mark.parametrize(
    "template",
    ["{% for m in messages %}", "{{ raise_exception('no system role') }}", "{{ messages.x.y }}"],
)
def test_a_chat_template_that_cannot_be_rendered_is_a_user_error(
    tokenizer: Any, template: str
) -> None:
    with pytest.raises(ModelError, match="chat template") as caught:
        PromptRenderer(tokenizer, Prompt(chat_template=template))
    assert caught.value.exit_code == ExitCode.USER
