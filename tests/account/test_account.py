"""One run is understood once: the terminal, the report, `--json` and a resumed run say the same."""

import ast
import io
import json
import re
from pathlib import Path

import pytest
from run_builder import Story, Suite, build_run

import budgetrl
from budgetrl.account.evaluated import read_run
from budgetrl.account.live import LiveRun
from budgetrl.account.outcome import ENDS, STATUS_TONES, ending
from budgetrl.account.result import result_of
from budgetrl.account.text import interval_text, points
from budgetrl.display.watch import print_frame
from budgetrl.report.sections import run_document
from budgetrl.report.write import write_report
from budgetrl.rundir import HEARTBEAT, RunDir
from budgetrl.types import Difference, RunStatus, StopReason

STORIES = {
    "learnt": Story(suites={"heldout": Suite(), "aime24": Suite(30, 4, 0.3, 0.35)}),
    "completed": Story(end="completed", steps=3),
    "no signal": Story(end="no_signal", steps=2),
    "interrupted": Story(end="interrupted", steps=1),
    "failed": Story(end="failed", usd_per_hour=None, steps=0),
    "crashed": Story(end=None, steps=4),
}


def live(run: RunDir) -> LiveRun:
    view = LiveRun(run)
    view.catch_up()
    return view


@pytest.mark.parametrize("beat", ['{"paid_s": "x"}', '{"paid_s": NaN}', "[3]", "{", '{"t": null}'])
def test_a_damaged_heartbeat_is_nothing_to_any_face(tmp_path: Path, beat: str) -> None:
    run = build_run(tmp_path, Story(steps=2))
    (run.path / HEARTBEAT).write_text(beat)
    told = live(run)
    write_report([run], tmp_path / "report", ["json"])
    (reported,) = json.loads((tmp_path / "report/report.json").read_text())["runs"]
    assert told.elapsed_s() == told.history.elapsed_s == reported["spent"]["wall_s"] > 0
    assert result_of(told)["spent"] == {"train_s": 6.0} | reported["spent"]
    print_frame(run, io.StringIO(), now=0.0)


@pytest.mark.parametrize("name", STORIES)
def test_terminal_report_and_json_say_the_same(name: str, tmp_path: Path) -> None:
    run = build_run(tmp_path, STORIES[name])
    told, read = live(run), read_run(run)
    said = ending(told, told.history.finished or told.status_at())
    terminal = " ".join(text for _, text in said)
    *differences, end = (text.text.removesuffix(".") for text in run_document(read).headline)
    stopped, _, paid = end.rpartition(" and ")
    assert stopped in terminal
    assert paid in terminal or told.history.finished is None
    for sentence in differences if read.differences else ():
        assert sentence in terminal
    assert (told.paid_s, told.paid_usd, told.steps) == (read.paid_s, read.paid_usd, read.steps)
    if told.history.finished is not None:
        assert result_of(told) == result_of(read)
        assert result_of(told)["spent"]["wall_s"] == read.paid_s


def test_every_end_has_one_sentence_and_every_status_one_colour() -> None:
    assert set(ENDS) == {*StopReason, RunStatus.CRASHED, RunStatus.RUNNING}
    assert set(STATUS_TONES) == set(RunStatus)
    for word in (*ENDS.values(), "not distinguishable from noise"):
        found = [file.name for file in _sources() if f'"{word}"' in file.read_text()]
        assert found == ["outcome.py"], word
    tables = [
        (file.name, node.lineno)
        for file in _sources()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Dict)
        and sum(ast.unparse(key).startswith("RunStatus.") for key in node.keys if key) > 2
    ]
    assert [name for name, _ in tables] == ["outcome.py"], "status colours"


def _sources() -> list[Path]:
    return sorted(Path(budgetrl.__file__).parent.rglob("*.py"))


def test_nothing_is_a_little_less_than_nothing() -> None:
    assert (points(-0.0004), points(0.0), points(-0.0006), points(None)) == (
        *("0.0", "0.0", "-0.1"),
        "-",
    )
    assert interval_text((-0.0001, 0.0321), signed=True) == "0.0 to +3.2"
    assert interval_text(None) == "no interval"


def test_no_change_is_shown_alike_on_both_faces(tmp_path: Path) -> None:
    run = build_run(tmp_path, Story(steps=2))
    events = (run.path / "events.jsonl").read_text().splitlines()
    last = json.loads(events[-1])
    last["difference"]["heldout"]["pass_at"]["1"] = -0.0002
    (run.path / "events.jsonl").write_text("\n".join([*events[:-1], json.dumps(last)]) + "\n")
    (run.path / "evals/heldout/final.jsonl").unlink()  # the report, too, has the recorded one
    (_, sentence), *_ = ending(live(run), live(run).history.finished or RunStatus.CRASHED)
    reported = run_document(read_run(run)).headline[0].text
    assert sentence.startswith("0.0 points") and reported.startswith("0.0 points")


def test_a_difference_is_one_type_with_numbers_for_k(tmp_path: Path) -> None:
    run = build_run(tmp_path, Story(steps=2))
    told = live(run).recorded_differences()["heldout"]
    assert told == read_run(run).differences["heldout"]
    assert {k: type(found) for k, found in told.items()} == {1: Difference, 4: Difference}
    (suite,) = result_of(live(run))["difference"].values()
    assert list(suite["pass_at"]) == ["1", "4"], "text at the edge only"


def test_no_number_is_turned_into_text_and_back() -> None:
    turned = re.compile(r"pass_at.*\[str\(|str\(k\)|int\(k\)")
    files = {file.name for file in _sources() if turned.search(file.read_text())}
    assert files <= {"types.py", "rows.py"}, "where JSON is read and written"
