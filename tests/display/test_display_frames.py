"""Frames fit every terminal and say what matters, in every state of a run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic_run as made

from budgetrl import events
from budgetrl.account.live import LiveRun
from budgetrl.display.frame import frame
from budgetrl.display.glyphs import ASCII, MONOCHROME, UNICODE, Glyphs
from budgetrl.display.moment import Moment
from budgetrl.rundir import PLAN
from budgetrl.types import RunStatus

HEBREW = "\u05e9\u05dc\u05d5\u05dd"
HOSTILE = (
    f"\x1b[2J\x1b]0;owned\x07\u202e{HEBREW}\u202c 界界" + "e\u0301" * 20 + " \\boxed{1}\n" * 40
)


def starting(out: Path) -> made.RunDir:
    return made.create(out)


def loading(out: Path) -> made.RunDir:
    run, clock = made.create(out), made.Clock()
    with run.writer(clock.stamp) as writer:
        made.setup(writer, clock, 300, until="model")
    return run


def training(out: Path) -> made.RunDir:
    return made.make_run(out)


def warming(out: Path, steps: int = 3) -> made.RunDir:
    """In the first of two stages, which learns from demonstrations."""
    run, clock = made.create(out), made.Clock()
    document = made.plan(300.0)
    document["plan"]["stages"] = [
        {"name": "warm", "kind": "sft", "step_s": 0.6, "share": None, "requested": 20, "steps": 20},
        {"name": "rl", "kind": "grpo", "step_s": 3.1, "share": 1.0, "requested": None, "steps": 60},
    ]
    run.write_json(PLAN, document)
    begins = {"name": "warm", "training": "sft", "index": 0, "stages": 2}
    with run.writer(clock.stamp) as writer:
        made.setup(writer, clock, 300.0)
        writer.write(events.StageEvent(**begins, state="started", step=0))
        writer.write(events.Phase(name="train", state="started"))
        shown = {"problem": "1 + 1", "completion": "2", "answer": "2", "verdict": "shown"}
        for number in range(1, steps + 1):
            clock.elapsed_s += 0.6
            writer.write(
                made.make_step(
                    number, 400, groups=None, accuracy_mean=None, reward_mean=None, loss=0.4,
                    token_accuracy=0.93, sample=shown, stage="warm",
                )
            )  # fmt: skip
        writer.write(made.forecast(steps, 400, clock.elapsed_s, 200.0))
        if steps == 20:
            writer.write(events.StageEvent(**begins, state="ended", step=20, updates=20))
    return run


def troubled(out: Path) -> made.RunDir:
    run, clock = made.make_run(out), made.Clock(140.0)
    with run.writer(clock.stamp) as writer:
        for index in range(7):
            text = f"Number {index}: {HOSTILE}"
            writer.write(events.RunWarning(code=f"code_{index}", message=text))
        sample = {"problem": HOSTILE, "completion": HOSTILE, "answer": None, "verdict": "wrong"}
        for number in range(35, 45):
            writer.write(made.make_step(number, 75, sample=sample, reward_mean=None, groups=0))
        for suite in ("aime24", "aime25", "amc23", "math500"):
            writer.write(made.evaluation("step", 44, 0.5, suite))
        writer.write(events.Error(type="WorkerDied", message=HOSTILE))
    return run


def finished(out: Path) -> made.RunDir:
    return made.make_run(out, steps=69, of=69, end="budget")


def interrupted(out: Path) -> made.RunDir:
    return made.make_run(out, end="interrupted")


def failed(out: Path) -> made.RunDir:
    return made.make_run(out, steps=1, end="failed")


STATES: list[tuple[Callable[[Path], made.RunDir], RunStatus]] = [
    (starting, RunStatus.RUNNING),
    (loading, RunStatus.RUNNING),
    (training, RunStatus.RUNNING),
    (warming, RunStatus.RUNNING),
    (troubled, RunStatus.RUNNING),
    (finished, RunStatus.FINISHED),
    (interrupted, RunStatus.INTERRUPTED),
    (failed, RunStatus.FAILED),
    (training, RunStatus.CRASHED),
]


def moment(run: made.RunDir, status: RunStatus, glyphs: Glyphs = UNICODE, text: str = "") -> Moment:
    view = LiveRun(run)
    view.catch_up()
    return Moment(view, 0.0, status, glyphs, text)


def text_of(run: made.RunDir, status: RunStatus, columns: int, lines: int) -> str:
    return "\n".join(line.plain for line in frame(moment(run, status), columns, lines, "hint"))


@pytest.mark.parametrize(("make", "status"), STATES)
def test_every_frame_fits_its_terminal(
    make: Callable[[Path], made.RunDir], status: RunStatus, tmp_path: Path
) -> None:
    drawn = moment(make(tmp_path), status, text="a message")
    sizes = [(80, 24), (120, 40), (200, 60), (20, 6), (1, 1), (50, 10), (300, 11), (49, 90)]
    for columns, lines in sizes:
        rows = frame(drawn, columns, lines, "Ctrl-C leaves")
        assert 0 < len(rows) <= lines
        assert all(row.cell_len <= columns for row in rows), (columns, lines)
        assert all(row.plain.isprintable() for row in rows)


@pytest.mark.parametrize(("make", "status"), [state for state in STATES if state[0] != troubled])
def test_without_utf_8_everything_of_our_own_is_ascii(
    make: Callable[[Path], made.RunDir], status: RunStatus, tmp_path: Path
) -> None:
    for columns, lines in ((80, 24), (120, 40)):
        for row in frame(moment(make(tmp_path), status, ASCII), columns, lines, "hint"):
            assert row.plain.isascii(), row.plain


def test_one_look_at_80_by_24_says_everything_that_matters(tmp_path: Path) -> None:
    shown = text_of(training(tmp_path), RunStatus.RUNNING, 80, 24)
    for fact in (
        *("quickstart", "LoRA rank 8", "CPU, 2 threads", "training", "spent 2 m 12 s ($0.0147)"),
        *(
            "left 2 m 48 s ($0.0186)",
            "ends at 4 m 4",
            "updates 34 made",
            "about 41 more (37 to 44)",
        ),
        *("accuracy", "reward", "length", "entropy", "with signal", "3.1 s per update"),
        *("tokens/s", "rollout 1.7 s", "heldout pass@1", "22.5 % (19.0 to 26.0)", "last save"),
        *("What is", "graded", "hint", "setup 5.2 s", "baseline 21 s", "reserve 34 s"),
    ):
        assert fact in shown, fact


def test_the_forecast_follows_each_update_and_keeps_the_plans_range(tmp_path: Path) -> None:
    run, clock = training(tmp_path), made.Clock(140.0)
    with run.writer(clock.stamp) as writer:
        writer.write(made.make_step(35, 55))
    assert "about 20 more (18 to 21)" in text_of(run, RunStatus.RUNNING, 80, 24)
    with run.writer(clock.stamp) as writer:
        writer.write(events.Phase(name="final", state="started"))
    assert "more" not in text_of(run, RunStatus.RUNNING, 80, 24), "no update follows"


def test_a_warm_up_shows_its_loss_and_counts_its_own_updates(tmp_path: Path) -> None:
    shown = text_of(warming(tmp_path / "a"), RunStatus.RUNNING, 80, 24)
    for fact in ("training, warm (1 of 2)", "3 of 20 in warm   about 77 more", "loss         0.400",
                 "right tokens 93.0 %", "demonstration", "shown    2"):  # fmt: skip
        assert fact in shown, fact
    assert "graded" not in shown and "accuracy" not in shown
    between = text_of(warming(tmp_path / "b", steps=20), RunStatus.RUNNING, 80, 24)
    assert "updates 20 made   about 60 more" in between, "at the next stage's pace"


def test_setup_is_shown_by_phase_with_expected_seconds(tmp_path: Path) -> None:
    shown = text_of(loading(tmp_path), RunStatus.RUNNING, 80, 24)
    assert "loading the model" in shown
    assert "imports      4.1 s" in shown
    assert "of about 0.9 s" in shown
    assert "baseline     about 21 s" in shown
    assert "imports      about 4.1 s" in text_of(starting(tmp_path), RunStatus.RUNNING, 80, 24)


def test_a_download_says_how_far_it_is_before_whose_it_is(tmp_path: Path) -> None:
    run, clock = made.create(tmp_path), made.Clock()
    with run.writer(clock.stamp) as writer:
        writer.write(events.Phase(name="download", state="started", expected_s=40.0))
        repo = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
        writer.write(
            events.Download(
                repo=repo, commit="c0ffee", bytes=400 << 20, total_bytes=3 << 30, seconds=14.0
            )
        )
    shown = text_of(run, RunStatus.RUNNING, 80, 24)
    assert "0.4 GiB of 3.0 GiB, 28.6 MiB/s, about 1 m 34 s left  deepseek" in shown


def test_a_resumed_run_shows_its_setup_again_without_a_baseline(tmp_path: Path) -> None:
    run, clock = training(tmp_path), made.Clock(140.0)
    clock.attempt = 2
    with run.writer(clock.stamp) as writer:
        writer.write(events.Phase(name="imports", state="started", expected_s=4.0))
    shown = text_of(run, RunStatus.RUNNING, 100, 40)
    assert "of about 4.0 s" in shown and "attempt 2" in shown and "baseline     about" not in shown
    with run.writer(clock.stamp) as writer:
        writer.write(made.make_step(35, 75))
    assert "of about 4.0 s" not in text_of(run, RunStatus.RUNNING, 100, 40)


def test_the_end_says_outcome_bill_checkpoint_report_and_next_command(tmp_path: Path) -> None:
    shown = " ".join(text_of(finished(tmp_path), RunStatus.FINISHED, 100, 40).split())
    for fact in (
        "+38.7 points pass@1 on heldout, 95 % interval +33.8 to +43.6: better than before",
        "4 m 28 s ($0.0298) of 5 m 00 s ($0.0333), 89 %; the plan said 4 m 48 s ($0.0320)",
        "checkpoints/step_000069",
        "report/report.html",
        "budgetrl resume",
        "--hours 5m",
    ):
        assert fact in shown, fact
    assert "budgetrl resume" in text_of(interrupted(tmp_path), RunStatus.INTERRUPTED, 80, 24)
    assert "wrote no end, after 34 updates" in text_of(
        training(tmp_path), RunStatus.CRASHED, 80, 24
    )


def test_an_interrupted_run_says_whether_it_was_saved(tmp_path: Path) -> None:
    run = interrupted(tmp_path)
    shown = text_of(run, RunStatus.INTERRUPTED, 80, 24)
    assert "Interrupted, after 34 updates; the newest checkpoint is kept." in shown
    *events, last = (run.path / "events.jsonl").read_text().splitlines()
    last = last.replace('"checkpoints/step_000034"', "null")
    (run.path / "events.jsonl").write_text("\n".join([*events, last]) + "\n")
    shown = text_of(run, RunStatus.INTERRUPTED, 80, 24)
    assert "Interrupted, after 34 updates; nothing was saved." in shown


def test_warnings_come_before_other_panels_and_stay_until_they_are_resolved(tmp_path: Path) -> None:
    run = troubled(tmp_path)
    crowded = text_of(run, RunStatus.RUNNING, 80, 24)
    assert "Number 0" in crowded and "more warnings" in crowded and "spent" in crowded
    assert "setup 5.2 s" not in crowded, "the legend gives way"
    with run.writer(made.Clock(150.0).stamp) as writer:
        for index in range(7):
            writer.write(events.RunWarning(code=f"code_{index}", message="", resolved=True))
    assert "Number" not in text_of(run, RunStatus.RUNNING, 80, 24)


def test_the_newest_warning_is_not_cut(tmp_path: Path) -> None:
    run = training(tmp_path)
    advice = "lower the learning rate"
    with run.writer(made.Clock(140.0).stamp) as writer:
        for code in ("old", "new"):
            message = f"{code}: " + "something is wrong with the updates " * 5 + advice
            writer.write(events.RunWarning(code=code, message=message))
    shown = " ".join(text_of(run, RunStatus.RUNNING, 80, 24).split())
    assert f"{advice} [new]" in shown and "old: something" in shown
    assert "spent" in shown and "accuracy" in shown, "the completion gives way, not these"


def test_at_the_end_a_warning_is_a_line_that_leads_to_the_diagnosis(tmp_path: Path) -> None:
    run = finished(tmp_path)
    *before, last = (run.path / "events.jsonl").read_text().splitlines()
    (run.path / "events.jsonl").write_text("\n".join(before) + "\n")
    with run.writer(made.Clock(200.0).stamp) as writer:
        writer.write(events.RunWarning(code="plateau", message="18 updates to come: stop here"))
    made.append_raw(run, last)
    shown = text_of(run, RunStatus.FINISHED, 100, 30)
    assert "to come" not in shown and "at the end: plateau; see `budgetrl diagnose" in shown


def test_a_newer_schema_is_said(tmp_path: Path) -> None:
    run = training(tmp_path)
    made.append_raw(run, {"kind": "dream", "schema_version": 99, "t": 1.0, "elapsed_s": 1.0})
    assert "newer budgetrl" in text_of(run, RunStatus.RUNNING, 80, 24)


@pytest.mark.parametrize(("make", "status"), STATES)
def test_the_bill_adds_up(
    make: Callable[[Path], made.RunDir], status: RunStatus, tmp_path: Path
) -> None:
    bill = moment(make(tmp_path), status).bill
    paid = bill.setup + bill.baseline + bill.train + bill.end
    assert paid == pytest.approx(bill.paid)
    assert paid + bill.ahead + bill.reserve + bill.free == pytest.approx(
        max(bill.budget, bill.paid, bill.ends_at)
    )
    assert min(bill.setup, bill.baseline, bill.train, bill.end, bill.ahead, bill.free) >= 0


def test_without_colour_the_bars_parts_still_differ(tmp_path: Path) -> None:
    rows = frame(moment(training(tmp_path), RunStatus.RUNNING, MONOCHROME), 80, 24)
    bar = next(row.plain for row in rows if MONOCHROME.train * 5 in row.plain)
    for part in (MONOCHROME.setup, MONOCHROME.baseline, MONOCHROME.ahead, MONOCHROME.reserve):
        assert part in bar
