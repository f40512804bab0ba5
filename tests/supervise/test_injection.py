"""Hostile text has no effect: in grading, files, displays and reports, as data and in recipes.

The rows of injection_corpus.jsonl stand for what a dataset, a model or a recipe may hold. A payload
that works makes a file "injected", moves the cursor, or changes the structure of a page.
"""

import io
import json
import os
import subprocess
import sys
import time
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import synthetic_run as made
from run_builder import Story, build_run
from terminal import Terminal

from budgetrl import events
from budgetrl.account.text import scrub
from budgetrl.display.base import open_display
from budgetrl.errors import RecipeError
from budgetrl.history import read_history
from budgetrl.recipe.load import load_recipe
from budgetrl.report.write import write_report
from budgetrl.rewards.pool import GradingPool
from budgetrl.rundir import RunDir
from budgetrl.types import Verdict

ROOT = Path(__file__).resolve().parents[1]
ROWS = [json.loads(line) for line in (ROOT / "injection_corpus.jsonl").read_text().splitlines()]
CORPUS = {row["name"]: row["text"] * row["times"] for row in ROWS}
SHORT = {name: text for name, text in CORPUS.items() if len(text) < 3_000}
SECRET = "marker-of-a-secret-7d1e"


def short(kind: str) -> list[str]:
    return [SHORT[row["name"]] for row in ROWS if row["kind"] == kind and row["name"] in SHORT]


def files_of(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*")}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, in which a payload that works leaves a file."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_corpus_is_large_and_names_are_unique() -> None:
    assert len(CORPUS) == len(ROWS) >= 40


# --- grading


def test_a_hostile_completion_is_never_right_and_runs_nothing(here: Path) -> None:
    texts = list(CORPUS.values())
    pairs = [(text, "4") for text in texts]
    pairs += [(f"<think>x</think>\\boxed{{{text}}}", "-17") for text in texts]
    with GradingPool(timeout_s=0.5) as pool:
        graded = pool.grade(pairs)
        honest = pool.grade([("\\boxed{\\frac{1}{2}}", "0.5")])
    right = [pair[0][:80] for pair, row in zip(pairs, graded, strict=True) if _is_right(row)]
    assert right == []
    assert honest[0].verdict is Verdict.CORRECT, "the pool still works"
    assert files_of(here) == set()


def test_a_hostile_gold_answer_is_never_met_and_runs_nothing(here: Path) -> None:
    pairs = [("\\boxed{4}", text) for text in CORPUS.values()]
    with GradingPool(timeout_s=0.5) as pool:
        graded = pool.grade(pairs)
    assert [row for row in graded if _is_right(row)] == []
    assert files_of(here) == set()


def _is_right(row: object) -> bool:
    return getattr(row, "verdict", None) is Verdict.CORRECT


# --- files


def test_events_and_completions_stay_one_readable_line_each(tmp_path: Path) -> None:
    run, clock = made.create(tmp_path), made.Clock()
    with run.writer(clock.stamp) as writer:
        for text in CORPUS.values():
            writer.write(events.RunWarning(code=text, message=text))
    lines = (run.path / "events.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line)["message"] for line in lines[:-1]] == list(CORPUS.values())
    assert [event.message for event in run.events()] == list(CORPUS.values())  # type: ignore[attr-defined]
    run.write_completions(1, [{"problem": text, "completion": text} for text in CORPUS.values()])
    stored = run.completions_file(1).read_bytes().split(b"\n")
    assert [json.loads(line)["problem"] for line in stored[:-1]] == list(CORPUS.values())


# --- displays


@pytest.mark.parametrize("name", CORPUS)
def test_what_a_terminal_gets_is_one_printable_line(name: str) -> None:
    shown = scrub(CORPUS[name])
    hidden = {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert hidden == set()
    shown.encode("utf-8")


@pytest.mark.parametrize("kind", ["plain", "json"])
def test_displays_pass_no_control_characters_on(kind: Any, tmp_path: Path) -> None:
    run, clock = made.create(tmp_path), made.Clock()
    stream, errors = io.StringIO(), io.StringIO()
    with open_display(kind, stream, errors) as display, run.writer(clock.stamp) as writer:
        display.start(run)
        made.setup(writer, clock, 300)
        for number, text in enumerate(SHORT.values(), start=1):
            names = ("problem", "completion", "answer", "extracted", "verdict")
            step = made.make_step(number, 99, sample=dict.fromkeys(names, text))
            writer.write(step)
            writer.write(events.RunWarning(code=text, message=text))
            writer.write(events.Error(type=text, message=text, hint=text))
            display.message(text)
            display.tick()
        display.close(made.finish(run, writer, clock, 3, "budget", 300))
    told = stream.getvalue() + errors.getvalue()
    assert told
    controls = {c for c in told if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co")} - {"\n"}
    assert controls == set()


def test_the_live_view_sends_its_own_control_characters_only(tmp_path: Path) -> None:
    run = made.make_run(tmp_path / "runs")
    text = "".join(short("terminal")) + "seen"
    made.beat(run, made.Clock(140.0), time.time())
    with run.writer(made.Clock(140.0).stamp) as writer:
        for part in ("problem", "completion", "answer", "extracted", "verdict"):
            writer.write(made.make_step(35, 99, sample={part: text}))
        writer.write(events.RunWarning(code=text, message="warned " + text))
        terminal = Terminal(["-m", "budgetrl", "watch", str(run.path)], 200, 50)
        shown = terminal.shows("warned")
    terminal.end()
    assert "\u202e" not in "".join(shown.values())


# --- report


class Page(HTMLParser):
    """The tags and attributes of a page, and its addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.structure: set[tuple[str, str]] = set()
        self.addresses: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.structure |= {(tag, ""), *((tag, name) for name, _ in attrs)}
        links = {value for name, value in attrs if name in ("href", "src")}
        self.addresses |= {value.partition(":")[0] for value in links if value}


def page(out: Path, text: str) -> Page:
    """The report of a run whose problems, completions, names and messages are a text."""
    plain = text.replace("{", "{{").replace("}", "}}")
    in_toml = text.encode("utf-8", "replace").decode()
    story = Story(
        steps=4,
        model=in_toml,
        problem=plain + " {number}",
        completion=plain + " \\boxed{{{answer}}}",
        tables={"prompt": {"system": in_toml}, "paper": {"title": in_toml, "arxiv": in_toml}},
    )
    run = build_run(out, story)
    with run.writer(lambda: {"elapsed_s": 90.0, "spent_usd": 0.1, "attempt": 1}) as writer:
        writer.write(events.RunWarning(code=text, message=text))
        writer.write(events.Error(type=text, message=text, hint=text))
    write_report([run])
    shown = (run.path / "report" / "report.html").read_text(encoding="utf-8")
    assert not {c for c in shown if unicodedata.category(c) in ("Cc", "Cs")} - {"\n", "\t"}
    return Page(shown)


def test_a_page_has_the_structure_of_one_with_harmless_text(tmp_path: Path) -> None:
    harmless = page(tmp_path / "a", "seven plus five")
    for index, text in enumerate(["".join(short("html")), "".join(short("terminal"))]):
        hostile = page(tmp_path / f"b{index}", text)
        assert hostile.structure <= harmless.structure
        assert hostile.addresses <= harmless.addresses


# --- recipes


def named(key: str, name: str, folder: Path) -> str:
    """A recipe file in which a recipe or a suite has a name."""
    names = {"recipe": "x", "suite": "x", key: name}
    file = folder / "recipe.toml"
    file.write_text(
        f'[recipe]\nname = {json.dumps(names["recipe"])}\nextends = ["quickstart"]\n'
        f'[[eval]]\nsuite = {json.dumps(names["suite"])}\npath = "x.jsonl"\n',
        encoding="utf-8",
    )
    return str(file)


@pytest.mark.parametrize("key", ["recipe", "suite"])
def test_names_that_become_paths_are_plain_words(key: str, tmp_path: Path) -> None:
    assert load_recipe(named(key, "plain-word", tmp_path)).recipe.recipe.name
    for text in short("path") + short("html") + short("code"):
        with pytest.raises(RecipeError):
            load_recipe(named(key, text, tmp_path))


# --- a whole run


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDir]:
    """A short training on the corpus, with secrets in the environment, and where it took place."""
    folder = tmp_path_factory.mktemp("hostile")
    kept = {name: text for name, text in SHORT.items() if text.strip()} | {
        "5 MB line": CORPUS["5 MB line"]
    }
    rows = [{"id": text[:200], "problem": text, "answer": "4"} for text in kept.values()]
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "train.jsonl").write_text("".join(lines))
    suite = [json.dumps(row) + "\n" for row in rows if row["problem"].isascii()][::9]
    (folder / "suite.jsonl").write_text("".join(suite))
    toml = (
        '[recipe]\nname = "hostile"\nextends = ["quickstart"]\n'
        f"summary = {json.dumps(SHORT['script'] + SHORT['jinja'])}\n"
        '[data]\npath = "train.jsonl"\n'
        "[prompt]\nmax_tokens = 180\n"
        "[schedule]\nstop_after_steps = 2\n[entropy]\nprompts = 0\n"
        "[batch]\nprompts_per_step = 4\nmicro_batch = 16\n"
        '[[eval]]\nsuite = "heldout"\npath = "suite.jsonl"\nsamples = 1\nk = [1]\n'
    )
    (folder / "hostile.toml").write_text(toml)
    command = [sys.executable, "-m", "budgetrl", "run", "hostile.toml", "--hours", "10m"]
    command += ["--display", "json", "--out", "runs"]
    environment = os.environ | {"HF_TOKEN": SECRET, "WANDB_API_KEY": SECRET}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    for line in done.stdout.splitlines():
        json.loads(line)
    return folder, RunDir(next((folder / "runs").iterdir()))


def test_a_run_on_hostile_problems_ends_in_order(hostile_run: tuple[Path, RunDir]) -> None:
    _, run = hostile_run
    history = read_history(run)
    assert [step.step for step in history.steps] == [1, 2]
    assert history.finished is not None and history.finished.stop_reason == "completed"
    for file in run.path.rglob("*.json*"):
        texts = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
        assert all(isinstance(json.loads(text), dict | list) for text in texts), file


def test_a_run_writes_nothing_outside_its_directory(hostile_run: tuple[Path, RunDir]) -> None:
    folder, run = hostile_run
    inside = {"hostile.toml", "train.jsonl", "suite.jsonl", "runs", f"runs/{run.name}"}
    outside = {name for name in files_of(folder) if not name.startswith(f"runs/{run.name}/")}
    assert outside - inside == set()
    assert not Path("/tmp/injected").exists()


def test_secrets_of_the_environment_stay_there(hostile_run: tuple[Path, RunDir]) -> None:
    folder, _ = hostile_run
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []
