"""Recipes: merging, overriding, where values are from, and every way to get one wrong."""

import copy
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings, strategies as st

from budgetrl.errors import BudgetRLError, ExitCode, RecipeError, UsageError
from budgetrl.recipe.load import list_recipes, load_recipe, recipes_root

Write = Callable[..., Path]

MINIMAL = """
[recipe]
name = "minimal"
[model]
id = "asset:tiny/quickstart"
[lora]
rank = 8
alpha = 8
[data]
path = "train.jsonl"
[schedule]
learning_rate = 1e-3
[engine]
name = "plain"
device = "cpu"
threads = 1
[[rewards]]
name = "accuracy"
[[rewards]]
name = "format"
weight = 0.2
[[eval]]
suite = "mine"
path = "test.jsonl"
samples = 4
[[stated]]
key = "lora.rank"
where = "2.3"
[[inferred]]
key = "schedule.learning_rate"
source = "the code"
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a recipe file and returns its path."""

    def write(text: str | bytes, name: str = "mine.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def problem_of(path: Path | str, *sets: str) -> str:
    """The message of a recipe that must be refused as a user's mistake."""
    with pytest.raises((RecipeError, UsageError)) as caught:
        load_recipe(path, sets)
    assert caught.value.exit_code == ExitCode.USER
    return str(caught.value)


# --- layers


def test_every_bundled_recipe_loads() -> None:
    assert "quickstart" in list_recipes()
    for name, path in list_recipes().items():
        assert load_recipe(name).path == path
        assert load_recipe(path).recipe.name


def test_a_later_base_wins_and_the_file_itself_wins_over_all(write: Write) -> None:
    write(MINIMAL, "base.toml")
    write("[lora]\nrank = 16\nalpha = 32\n[sampling]\ntop_p = 0.5", "a.toml")
    write("[lora]\nalpha = 64\n[sampling]\ntop_p = 0.6", "b.toml")
    path = write(
        '[recipe]\nname = "mine"\nextends = ["base", "a.toml", "b"]\n[sampling]\ntop_p = 0.7'
    )
    loaded = load_recipe(path)
    assert loaded.recipe.name == "mine"
    assert (loaded.recipe.lora.rank, loaded.recipe.lora.alpha) == (16, 64)
    assert loaded.recipe.sampling.top_p == 0.7
    assert loaded.recipe.schedule.learning_rate == 1e-3
    assert loaded.text == path.read_text()


def test_bundled_recipes_can_be_extended_by_name_but_not_in_a_circle(write: Write) -> None:
    path = write('[recipe]\nname = "mine"\nextends = ["quickstart"]\n[lora]\nrank = 8')
    assert load_recipe(path).recipe.lora.rank == 8
    write('[recipe]\nname = "a"\nextends = ["b"]', "a.toml")
    write('[recipe]\nname = "b"\nextends = ["a"]', "b.toml")
    assert "extends itself" in problem_of(path.parent / "a.toml")
    write('[recipe]\nname = "c"\nextends = ["nope"]', "c.toml")
    assert "extends = 'nope': no such file" in problem_of(path.parent / "c.toml")
    write('[recipe]\nname = "d"\nextends = "a"', "d.toml")
    assert "must be a list" in problem_of(path.parent / "d.toml")
    write(f'[recipe]\nname = "e"\nextends = ["{"e" * 300}"]', "e.toml")
    assert "File name too long" in problem_of(path.parent / "e.toml")
    for number in range(20):
        extends = f'extends = ["f{number + 1}", "f{number + 1}"]' if number < 19 else ""
        write(f'[recipe]\nname = "f"\n{extends}', f"f{number}.toml")
    assert "extends more than 100 files" in problem_of(path.parent / "f0.toml")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (f"[lora]\nrank = {'9' * 5000}", "not valid TOML"),
        (f"[x{'.a' * 3000}]\nb = 1", "not valid TOML"),
        (f"[lora]\nrank = {'{a=' * 300}1{'}' * 300}", "too deep in one another"),
    ],
)
def test_what_is_too_large_for_a_recipe_is_refused_in_one_line(
    write: Write, table: str, says: str
) -> None:
    problem = problem_of(write(f'[recipe]\nname = "x"\nextends = ["quickstart"]\n{table}'))
    assert says in problem and len(problem) < 500


def test_a_byte_order_mark_does_not_matter(write: Write) -> None:
    path = write('\ufeff[recipe]\nname = "x"\nextends = ["quickstart"]')
    assert load_recipe(path).recipe.name == "x"


def test_arrays_of_tables_merge_by_their_key(write: Write) -> None:
    write(MINIMAL, "base.toml")
    path = write(
        '[recipe]\nname = "mine"\nextends = ["base"]\n'
        '[[eval]]\nsuite = "aime24"\nsamples = 8\n'
        '[[eval]]\nsuite = "mine"\ntemperature = 1.0\n'
        '[[rewards]]\nname = "format"\nweight = 0.5\n'
    )
    recipe = load_recipe(path).recipe
    assert [(e.suite, e.samples, e.temperature) for e in recipe.eval] == [
        ("mine", 4, 1.0),
        ("aime24", 8, 0.6),
    ]
    assert [(r.name, r.weight) for r in recipe.rewards] == [("accuracy", 1.0), ("format", 0.5)]


def test_one_file_may_not_name_an_element_twice(write: Write) -> None:
    again = '[[eval]]\nsuite = "mine"\npath = "other.jsonl"\n'
    assert "[[eval]] 'mine' occurs twice" in problem_of(write(MINIMAL + again))
    write(MINIMAL, "base.toml")
    extended = f'[recipe]\nname = "mine"\nextends = ["base"]\n{again}'
    assert load_recipe(write(extended)).recipe.eval[0].path.endswith("other.jsonl")
    assert "occurs twice" in problem_of(write(extended + again))


def test_relative_paths_are_seen_from_the_file_that_states_them(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(MINIMAL, "base/base.toml")
    path = write('[recipe]\nname = "mine"\nextends = ["base/base"]')
    monkeypatch.chdir("/")
    recipe = load_recipe(path).recipe
    assert recipe.data.path == str(tmp_path / "base" / "train.jsonl")
    assert recipe.eval[0].path == str(tmp_path / "base" / "test.jsonl")
    assert recipe.model.id == "asset:tiny/quickstart"
    monkeypatch.chdir(tmp_path)
    assert load_recipe(path, ["data.path=x.jsonl"]).recipe.data.path == str(tmp_path / "x.jsonl")


# --- overrides


def test_an_override_is_toml_or_else_a_string() -> None:
    recipe = load_recipe(
        "quickstart",
        [
            "lora.rank=8",
            "schedule.learning_rate=2e-4",
            "prompt.system=Think. Then answer.",
            'sampling.stop=["</a>", "b"]',
            "engine.gradient_checkpointing=true",
            "recipe.summary=",
            "eval.heldout.samples=8",
            "rewards.format.weight=0",
            "prompt.template_kwargs.enable_thinking=false",
        ],
        seed=7,
    ).recipe
    assert (recipe.lora.rank, recipe.schedule.learning_rate, recipe.seed) == (8, 2e-4, 7)
    assert recipe.prompt.system == "Think. Then answer."
    assert (recipe.sampling.stop, recipe.recipe.summary) == (("</a>", "b"), "")
    assert recipe.engine.gradient_checkpointing is True
    assert [(e.suite, e.samples, e.k) for e in recipe.eval] == [("heldout", 8, (1, 4))]
    assert recipe.rewards[1].weight == 0
    assert recipe.prompt.template_kwargs == {"enable_thinking": False}


def test_an_element_whose_name_holds_dots_can_be_overridden(write: Write) -> None:
    path = write(MINIMAL + '[[rewards]]\nname = "my.rewards:brevity"\n')
    loaded = load_recipe(path, ["rewards.my.rewards:brevity.weight=0.3"])
    assert loaded.recipe.rewards[2].weight == 0.3


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("lora.rank", "not of the form"),
        ("lora=3", "not of the form"),
        (".rank=3", "not of the form"),
        ("eval.aime24.samples=4", "one of: heldout. New elements are added in files"),
        ("rewards.formt.weight=0", "one of: accuracy, format"),
        ("rewards.format=0", "names no value"),
    ],
)
def test_an_override_changes_only_what_is_there(override: str, says: str) -> None:
    assert says in problem_of("quickstart", override)


# --- provenance


def test_every_value_says_where_it_is_from(write: Write) -> None:
    loaded = load_recipe(write(MINIMAL), ["sampling.top_p=0.9", "eval.mine.samples=2"])
    wanted = {
        "lora.rank": "paper 2.3",
        "schedule.learning_rate": "inferred: the code",
        "lora.alpha": "file",
        "lora.dropout": "default",
        "sampling.top_p": "command line",
        "eval.mine.samples": "command line",
        "eval.mine.suite": "file",
        "eval.mine.seed": "default",
    }
    assert {key: loaded.sources[key] for key in wanted} == wanted


def test_setting_a_value_again_drops_what_was_said_of_the_old_one(write: Write) -> None:
    write(MINIMAL, "base.toml")
    path = write(
        '[recipe]\nname = "mine"\nextends = ["base"]\n[lora]\nrank = 4\n'
        '[[deviation]]\nkey = "lora.rank"\npaper = 8\nhere = 4\nwhy = "smaller"\n'
    )
    loaded = load_recipe(path)
    assert [entry.key for entry in loaded.recipe.stated] == []
    assert loaded.sources["lora.rank"] == "deviation: smaller"
    loaded = load_recipe(path, ["lora.rank=2", "schedule.learning_rate=1e-4"])
    assert (loaded.recipe.stated, loaded.recipe.inferred, loaded.recipe.deviation) == ((), (), ())
    assert loaded.sources["lora.rank"] == "command line"


def test_provenance_must_be_true(write: Write) -> None:
    wrong = '[[deviation]]\nkey = "lora.alpha"\npaper = 32\nhere = 16\nwhy = "half"\n'
    unknown = '[[stated]]\nkey = "lora.rnk"\nwhere = "2.3"\n'
    message = problem_of(write(MINIMAL + wrong + unknown))
    assert "here = 16, but the recipe resolves to 8" in message
    assert "[[stated]] lora.rnk: no such key; did you mean lora.rank?" in message


# --- mistakes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the recipe is empty"),
        ("# only a comment\n", "the recipe is empty"),
        (b"\x7fELF\x02\xff\xfe\x00", "not UTF-8 text"),
        ("[recipe]\nname = 'größe'".encode("latin-1"), "not UTF-8 text (byte 19)"),
        ("[recipe\n", "not valid TOML"),
        ("\x00\x01", "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(write: Write, content: str | bytes, says: str) -> None:
    path = write(content)
    message = problem_of(path)
    assert says in message
    assert message.startswith(str(path))


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("nope.toml", "no recipe file 'nope.toml'"),
        ("quikstart", "Did you mean quickstart"),
        ("", "no recipe given"),
        ("/", "is a folder"),
        ("x" * 5000, "cannot be a recipe file"),
        ("~no-such-user/x.toml", "cannot be a recipe file"),
    ],
)
def test_a_recipe_that_is_not_there_is_named(ref: str, says: str) -> None:
    assert says in problem_of(ref)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("lora.rank=0", "[lora] rank = 0: input should be greater than or equal to 1"),
        ("lora.rank=8.5", "[lora] rank = 8.5: "),
        ("lora.rank=many", "[lora] rank = 'many': a rank is a number"),
        ("lora.dropout=nan", "[lora] dropout = nan"),
        ("sampling.temperature=-1", "[sampling] temperature = -1: input should be greater than 0"),
        ("schedule.learning_rate=nan", "[schedule] learning_rate = nan"),
        ("schedule.learning_rate=inf", "[schedule] learning_rate = inf"),
        ("grpo.num_generations=1", "[grpo] num_generations = 1"),
        ("grpo.loss_type=ppo", "'grpo', 'dapo', 'dr_grpo' or 'bnpo'"),
        ("budget.hours=0", "[budget] hours = 0"),
        ("budget.usd_per_hour=-0.1", "[budget] usd_per_hour = -0.1"),
        ("batch.micro_batch=7", "batch.micro_batch = 7 does not divide 128"),
        ("prompt.template=Solve it.", "must contain {problem} exactly once"),
        ("data.path=unset", "exactly one of data.id (hub) and data.path"),
        ("eval.heldout.k=[8]", "k = 8 needs at least as many samples (4)"),
        ("engine.name=unsloth", 'needs engine.device = "cuda"'),
        ("engine.threads=many", """threads = 'many': must be a number of threads, or "auto\"."""),
        ("lora.rnk=4", "[lora] rnk: unknown key; did you mean rank"),
        ("rewards.format.weigth=1", "[[rewards]] format weigth: unknown key; did you mean weight"),
        ("eval.heldout.samples={max = 8, mix = 2}", "samples mix: unknown key; did you mean min"),
        ("lorra.rank=4", "command line: [lorra]: unknown key; did you mean lora"),
        ("data.path=~no-such-user/x", "is not a path"),
        (
            "checkpoint.keep_completions=0",
            "keep_completions = 0: input should be 'all' or 'sampled', or greater than or",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_place(override: str, says: str) -> None:
    assert says in problem_of("quickstart", override)


def test_all_problems_come_at_once_each_with_the_file_that_wrote_it(write: Write) -> None:
    base = write(MINIMAL.replace("rank = 8", "rank = 0") + "[shedule]\nx = 1\n", "base.toml")
    path = write(
        '[recipe]\nname = "mine"\nextends = ["base"]\n'
        '[grpo]\nnum_generation = 4\n[engine]\nthreads = "2"\n'
    )
    message = problem_of(path, "schedule.learning_rate=-1")
    assert message.startswith(f"{path}: 5 problems:")
    assert re.search(rf"{base}: \[lora\] rank = 0", message)
    assert re.search(rf"{base}: \[shedule\]: unknown key; did you mean schedule", message)
    assert re.search(rf"{path}: \[grpo\] num_generation: .*did you mean num_generations", message)
    assert re.search(rf"{path}: \[engine\] threads = '2'", message)
    assert re.search(r"command line: \[schedule\] learning_rate = -1", message)


def test_what_is_missing_is_named(write: Write) -> None:
    message = problem_of(write("[recipe]\nname = 'x'\n[lora]\nalpha = 1\n"))
    for table in ("[model] is missing", "[data] is missing", "[lora] rank is missing"):
        assert table in message


JUNK = [0, -1, 1e400, float("nan"), "", "x", "~nobody/x", [], [1], ["a"], {}, {"a": 1}, True, "\0"]
ODD_ARRAYS: list[Any] = [
    [{}],
    [{"name": [1]}],
    [{"suite": 1}],
    [{"key": ["a"]}],
    [{"key": "a"}] * 2,
]
BASE = tomllib.loads((recipes_root() / "quickstart.toml").read_text())
PLACES = [(table,) for table in [*BASE, "stated", "inferred", "deviation", "expected", "nope"]]
PLACES += [(t, key) for t in BASE if isinstance(BASE[t], dict) for key in [*BASE[t], "extends"]]


@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(JUNK + ODD_ARRAYS)),
        min_size=1,
        max_size=3,
    )
)
@settings(max_examples=60, deadline=None)
def test_no_broken_recipe_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[str, ...], Any]]
) -> None:
    tables = copy.deepcopy(BASE)
    for place, junk in changes:
        node = tables if len(place) == 1 else tables.get(place[0])
        if isinstance(node, dict):
            node[place[-1]] = junk
    path = tmp_path_factory.getbasetemp() / "broken.toml"
    path.write_text(tomlkit.dumps(tables))
    for sets in ((), ("lora.rank=8", "eval.heldout.seed=4")):
        try:
            load_recipe(path, sets)
        except BudgetRLError as error:
            assert error.exit_code == ExitCode.USER
            assert str(error)
