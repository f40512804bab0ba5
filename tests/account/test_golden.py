"""What a run's faces print, word for word: report, frames, plain lines, tables and JSON.

The files beside this one are what was printed; a difference is either a fault or is meant. Meant
ones are written by `BUDGETRL_GOLDEN=write pytest tests/account/test_golden.py`, and read.
"""

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic_run as made
from run_builder import Story, Suite, build_run

from budgetrl.account.live import LiveRun
from budgetrl.budget import Budget
from budgetrl.cli import main
from budgetrl.display.frame import frame
from budgetrl.display.glyphs import UNICODE
from budgetrl.display.moment import Moment
from budgetrl.display.plain import PlainDisplay
from budgetrl.display.runs_table import print_runs, run_json, runs
from budgetrl.report.write import write_report
from budgetrl.rundir import RunDir, open_run
from budgetrl.study.report import study_document, write_study_report
from budgetrl.study.specs import Asked, TrialSpec
from budgetrl.study.state import Share, StudyDir, Sweep, Trial
from budgetrl.types import RunStatus

GOLDEN = Path(__file__).parent / "golden"
EXAMPLE = Path(__file__).resolve().parents[2] / "docs/example_run"
LEARNT = Story(suites={"heldout": Suite(), "aime24": Suite(30, 4, 0.3, 0.35, every=20)})


def example() -> RunDir:
    """The committed run."""
    return open_run(shutil.copytree(EXAMPLE, "runs/example_run"))


def report(run: RunDir) -> str:
    """Markdown, the page without pictures and style, and JSON."""
    files = {file.suffix: file.read_text() for file in write_report([run], Path("report"))}
    page = re.sub(r"(?s)<(style|svg)\b.*?</\1>|<img [^>]*>", "", files[".html"])
    return "\n".join((files[".md"], page, files[".json"]))


def frames(run: RunDir, status: RunStatus | None = None, now: float = 1e6) -> str:
    """The live view in three sizes."""
    view = LiveRun(run)
    view.catch_up()
    moment = Moment(view, now, status or view.status_at(now), UNICODE)
    drawn = [frame(moment, *size) for size in ((120, 50), (80, 24), (24, 8))]
    return "\n\n".join("\n".join(line.plain.rstrip() for line in lines) for lines in drawn)


def plain(run: RunDir) -> str:
    """Plain lines of all of a run, with its end."""
    stream = io.StringIO()
    display = PlainDisplay(stream)
    events = (run.path / "events.jsonl").read_bytes()
    (run.path / "events.jsonl").write_bytes(b"")
    display.start(run)
    (run.path / "events.jsonl").write_bytes(events)
    assert display.view is not None
    display.tick()
    display.close(display.view.history.finished)
    return stream.getvalue()


def listed() -> str:
    """`runs`, for people and programs."""
    for story in (LEARNT, Story(end=None), Story(end="interrupted", steps=7)):
        build_run(Path("runs"), story)
    found = sorted(runs(Path("runs")), key=lambda view: str(view.steps))
    stream = io.StringIO()
    print_runs(found, stream)
    return stream.getvalue() + json.dumps([run_json(view) for view in found], indent=1)


def compared() -> str:
    """`compare`, for people and programs."""
    a, b = (str(build_run(Path("runs"), Story(seed=seed)).path) for seed in (1, 2))
    return "".join(command("compare", a, b, *flags) for flags in ((), ("--json",)))


def command(*arguments: str) -> str:
    """What a command prints."""
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setattr("sys.stdout", stream)
        assert main(list(arguments)) == 0
        return stream.getvalue()


def study() -> StudyDir:
    """Three arms: one finished, one crashed, one that could not begin."""
    path = Path("study").resolve()
    path.mkdir()
    stories = (Story(rank=8, steps=80), Story(rank=32, end=None))
    names = [*(build_run(path, story).name for story in stories), None]
    arms = [
        Trial(
            TrialSpec("quickstart", (), 1, {"lora.rank": r}),
            Share("quickstart", r, 64 / r, budget_s=240.0, planned_steps=60, expected_s=200.0),
            run=name,
            error=None if name else "BudgetError: nothing is left",
        )
        for r, name in zip((8, 32, 128), names, strict=True)
    ]
    asked = Asked("quickstart", {"lora.rank": [8, 32, 128]})
    return StudyDir(
        path,
        Sweep(
            asked, Budget(800.0, 0.44), arms, report_s=10.0, detectable={"heldout": 0.08},
            outside_arms_s=5.0,
        ),
    )  # fmt: skip


def replicated() -> str:
    """A study's report and its JSON."""
    made = study()
    files = {file.suffix: file.read_text() for file in write_study_report(made, formats=["md"])}
    return files[".md"] + json.dumps(study_document(made), indent=1)


PRINTED: dict[str, Callable[[], str]] = {
    "report_example": lambda: report(example()),
    "report_learnt": lambda: report(build_run(Path("runs"), LEARNT)),
    "report_crashed": lambda: report(build_run(Path("runs"), Story(end=None))),
    "report_unpriced": lambda: report(build_run(Path("runs"), Story(usd_per_hour=None, steps=3))),
    "frames_example": lambda: frames(example()),
    "frames_running": lambda: frames(made.make_run(Path("runs")), RunStatus.RUNNING),
    "frames_finished": lambda: frames(made.make_run(Path("runs"), 69, 69, end="budget")),
    "frames_interrupted": lambda: frames(made.make_run(Path("runs"), end="interrupted")),
    "frames_crashed": lambda: frames(made.make_run(Path("runs"))),
    "watch_once": lambda: command("watch", str(build_run(Path("runs"), LEARNT).path), "--once"),
    "plain": lambda: plain(build_run(Path("runs"), LEARNT)),
    "runs": listed,
    "compare": compared,
    "replicate": replicated,
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_printed_is_what_was_printed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "50")
    text = PRINTED[name]().replace(str(tmp_path), "HERE")
    text = re.sub(r"\d{8}-\d{6}-*[0-9a-f]{6}", "NOW", text)
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("BUDGETRL_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()
