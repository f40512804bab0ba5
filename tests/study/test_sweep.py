"""Sweeps: grids, plans over cards, who goes on, what the best is worth, and handing out trials."""

import contextlib
import io
import json
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from run_builder import Story, Suite, build_run

from budgetrl.budget import Limits
from budgetrl.cli import main
from budgetrl.display.base import GuardedDisplay, open_display
from budgetrl.errors import ExitCode, RunDirError
from budgetrl.recipe.load import load_recipe
from budgetrl.report.best import Point, best_of, pareto
from budgetrl.rundir import RunDir
from budgetrl.study.asha import next_trial, reaching, rungs_of
from budgetrl.study.execute import MOST_LOST, Pool, Sweeping
from budgetrl.study.plan import plan_sweep
from budgetrl.study.report import study_document
from budgetrl.study.specs import Asked, parse_grid, trials_of
from budgetrl.study.state import StudyDir, Sweep, open_study
from budgetrl.study.trial import Done, Job, bring_newer, run_trial
from budgetrl.study.watch import sweep_lines, sweep_screen, watch_sweep

GRID = {"lora.rank": [8, 32, 64], "schedule.learning_rate": [1e-4, 1e-3, 3e-3]}


def asked(grid: Any, split: Any = "time", seeds: int = 1) -> Asked:
    return Asked(
        family="quickstart", grid=grid, seeds=seeds, split=split, kind="sweep", metric="heldout",
        recipe="quickstart",
    )  # fmt: skip


def planned(seconds: float, split: Any = "time", slots: int = 1, seeds: int = 5) -> Sweep:
    grid = {"lora.rank": [8, 64]}
    specs = trials_of("quickstart", (), grid, seeds)
    return plan_sweep(asked(grid, split, seeds), specs, Limits(seconds, price=0.5), slots=slots)


# --- what is run


def test_values_of_a_grid_are_toml_else_text() -> None:
    texts = [
        "lora.rank=8, 64",
        "schedule.learning_rate=1e-6,3e-6",
        "lora.alpha_policy=fixed,rslora",
    ]
    assert parse_grid(texts) == {
        "lora.rank": [8, 64],
        "schedule.learning_rate": [1e-6, 3e-6],
        "lora.alpha_policy": ["fixed", "rslora"],
    }


def test_every_point_has_every_seed_and_seeds_come_last() -> None:
    specs = trials_of("quickstart", ("batch.prompts_per_step=8",), GRID, 2)
    assert [spec.seed for spec in specs] == [1] * 9 + [2] * 9
    recipe = specs[5].load().recipe
    assert (recipe.lora.rank, recipe.schedule.learning_rate, recipe.seed) == (32, 3e-3, 1)
    assert recipe.batch.prompts_per_step == 8
    assert specs[5].label == "quickstart, rank 32, learning_rate 0.003, seed 1"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--grid", "lora.rnk=8,64"), 2, "did you mean rank"),
        (("--grid", "lora.rank=8,8"), 2, "each of them once"),
        (("--grid", "lora.rank"), 2, "names no values"),
        (("--grid", "lora.rank=8", "--grid", "lora.rank=64"), 2, "twice"),
        (("--grid", "recipe.seed=1,2"), 2, "--seeds"),
        (("--grid", "budget.hours=1,2"), 2, "one budget"),
        (("--grid", "eval.heldout.temperature=0.5,1.0"), 3, "--allow-protocols"),
        (("--grid", "sampling.max_tokens=32,64"), 3, "eval.SUITE.max_tokens"),
        (("--grid", "lora.rank=8,0"), 2, "lora"),
        ((), 2, "needs a grid"),
        (("--grid", "lora.rank=8,64", "--metric", "aime24"), 2, "heldout"),
        (("--grid", "lora.rank=8,64", "--hours", "30s"), 3, "--hours"),
        (("--grid", "lora.rank=8,64", "--usd", "1"), 2, "price"),
        (("--grid", "lora.rank=8,64", "--asha"), 2, "at least 4 trials"),
        (("--grid", "lora.rank=8,64", "--on", "ray://host:10001"), 2, "--on ray"),
    ],
)
def test_bad_sweeps_are_refused_and_leave_nothing(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "sweep"
    assert main(["sweep", "quickstart", *arguments, "--out", str(out)]) == code
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_ray_must_be_there_in_the_version_that_was_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("budgetrl.study.cluster.RAY", "9.9.9")
    command = ["sweep", "quickstart", "--seeds", "2", "--on", "ray", "--out", str(tmp_path / "s")]
    assert main(command) == ExitCode.REFUSED
    assert 'pip install "budgetrl[sweep]"' in capsys.readouterr().err


def test_a_sweep_in_a_recipe_is_that_of_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[recipe]\nextends = ["quickstart"]\nname = "mine"\n'
        '[sweep]\nseeds = 2\nhours = 0.5\nmetric = "heldout"\n'
        '[sweep.grid]\n"lora.rank" = [8, 64]\nschedule.learning_rate = [1e-4, 1e-3]\n'
    )
    assert main(["sweep", str(mine), "--plan", "--json"]) == 0
    from_table = json.loads(capsys.readouterr().out)
    flags = ["--grid", "lora.rank=8,64", "--grid", "schedule.learning_rate=1e-4,1e-3"]
    flags += ["--seeds", "2", "--hours", "30m"]
    assert main(["sweep", "quickstart", *flags, "--plan", "--json"]) == 0
    from_flags = json.loads(capsys.readouterr().out)
    for key in ("budget", "smallest_detectable_difference", "over_seeds"):
        assert from_table[key] == from_flags[key]
    values = [[row["values"] for row in made["trials"]] for made in (from_table, from_flags)]
    assert values[0] == values[1] and len(values[0]) == 8


# --- the plan


@pytest.mark.parametrize("split", ["time", "steps", "asha"])
@pytest.mark.parametrize("slots", [1, 4])
def test_no_plan_spends_more_than_the_budget_over_all_cards(split: Any, slots: int) -> None:
    made = planned(3600.0, split, slots)
    assert made.total_s <= made.budget.wall_s
    if split != "asha":  # whose trials are not all run to their end
        ends = [0.0] * slots
        for trial in made.arms:  # the next card that is free takes the next trial
            ends[ends.index(min(ends))] += trial.row.budget_s
        assert slots * (max(ends) + made.report_s) <= made.budget.wall_s + 1e-6
    else:
        assert len(made.rungs) > 1 and made.wall_s < planned(3600.0, "steps", slots).wall_s
    baselines = [trial.row.baseline_s > 0 for trial in made.arms]
    assert baselines == [True] * slots + [False] * (10 - slots)


def test_what_a_sweep_can_tell_shrinks_with_seeds_and_is_unknown_over_one() -> None:
    one, three = planned(3600.0, seeds=1), planned(3600.0, seeds=3)
    assert three.detectable["heldout"] == pytest.approx(one.detectable["heldout"] / 3**0.5)
    assert one.detectable_over_seeds is None
    assert three.detectable_over_seeds == pytest.approx(2.776 * 0.05 * (2 / 3) ** 0.5, rel=1e-3)


# --- who goes on


def test_rungs_are_few_and_end_with_a_whole_run() -> None:
    assert rungs_of(60, 18) == (15, 60), "after 4 the best is not to be told"
    assert rungs_of(300, 100) == (75, 300)
    assert rungs_of(10, 9) == (4, 10)
    assert rungs_of(300, 3) == (300,)
    assert rungs_of(6, 18) == (6,)


@pytest.mark.parametrize("cards", [1, 2, 5])
def test_the_best_quarter_goes_on_whatever_the_order(cards: int) -> None:
    """Nobody is run twice at a rung, and no more than a quarter comes to the next."""
    rungs, worth = (4, 15, 60), list(range(18))
    random.Random(cards).shuffle(worth)
    scores: list[dict[int, float]] = [{} for _ in worth]
    busy: dict[int, int] = {}
    steps = 0
    while True:
        while len(busy) < cards and (work := next_trial(scores, rungs, busy)) is not None:
            index, rung = work
            assert index not in busy and rung not in scores[index]
            busy[index] = rung
        if not busy:
            break
        index = next(iter(busy))
        rung = busy.pop(index)
        steps += rung - max(scores[index], default=0)
        scores[index][rung] = worth[index] + rung / 100
    for level, rung in enumerate(rungs):
        assert 1 <= sum(rung in score for score in scores) <= reaching(18, level)
    if cards == 1:
        assert 60 in scores[worth.index(17)], "one card waits for all before anybody goes on"
        assert steps == 18 * 4 + 4 * 11 + 45


def test_a_trial_that_failed_goes_nowhere() -> None:
    scores = [{4: 0.9}, {4: 0.5}, {}, {4: 0.1}, {4: 0.2}]
    assert next_trial(scores, (4, 15), {}, out={2}) == (0, 15)
    assert next_trial(scores, (4, 15), {}, out={0, 2}) == (1, 15)
    assert next_trial([{4: 0.9, 15: 0.8}, {4: 0.5}], (4, 15), {}) is None


# --- the best, and what it is worth


def points(scores: list[tuple[float, ...]]) -> list[Point]:
    return [
        Point({"x": i}, (i,), one, (one[0] - 0.03, one[0] + 0.03)) for i, one in enumerate(scores)
    ]


def test_the_maximum_of_equal_points_is_shrunk_to_their_mean() -> None:
    """Over many sweeps of nine equal points the maximum is too high, the shrunken one is not."""
    generator = random.Random(0)
    maxima, shrunken, chance = [], [], []
    for _ in range(200):
        drawn = [tuple(generator.gauss(0.5, 0.02) for _ in range(3)) for _ in range(9)]
        best = best_of(points(drawn))
        assert best is not None
        maxima.append(best.point.score)
        shrunken.append(best.shrunken)
        chance.append(best.by_chance)
    assert fmean(maxima) - 0.5 == pytest.approx(fmean(chance), rel=0.1)
    assert abs(fmean(shrunken) - 0.5) < 0.4 * (fmean(maxima) - 0.5)


def test_real_differences_are_kept() -> None:
    best = best_of(points([(0.2, 0.21), (0.5, 0.49), (0.9, 0.91)]))
    assert best is not None and best.point.values == {"x": 2}
    assert best.shrunken == pytest.approx(0.905, abs=0.002)
    assert best.point.interval_95 == pytest.approx((0.905 - 0.0635, 0.9685), abs=1e-3)
    assert best_of([]) is None


def test_the_pareto_line_joins_what_nothing_cheaper_beats() -> None:
    def row(index: int, cost: float, score: float) -> dict[str, Any]:
        final = {"heldout": {"pass_at": {"1": score}}}
        return {"index": index, "spent": {"wall_s": cost}, "final": final}

    rows = [row(0, 30, 0.5), row(1, 10, 0.4), row(2, 20, 0.3), row(3, 40, 0.5), row(4, 50, 0.9)]
    assert pareto([*rows, {"index": 5, "spent": {"wall_s": 1}, "final": None}], "heldout") == [
        *(1, 0, 4)
    ]


# --- handing out trials


class MadeUp:
    """A pool whose trials are written down, not trained: the better the higher their rank."""

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.jobs: list[Job] = []
        self.lose: dict[int, int] = {}
        """By trial, how often its worker is lost."""
        self.until = 10**6
        """After so many trials somebody presses Ctrl-C."""
        self._running: list[Job] = []

    def start(self, job: Job) -> None:
        assert len(self._running) < self.slots and job.left_s > 0
        assert job.index not in [other.index for other in self._running]
        self.jobs.append(job)
        self._running.append(job)

    def finished(self) -> list[Done]:
        job = self._running.pop(0)
        if self.lose.get(job.index, 0) > 0:
            self.lose[job.index] -= 1
            return [Done(job.index, lost=True)]
        if len(self.jobs) > self.until:
            return [Done(job.index, exit_code=130)]
        self.write(job)
        return [Done(job.index)]

    def write(self, job: Job) -> None:
        recipe = job.loaded.recipe
        sets = dict(text.split("=") for text in job.sets)
        steps = int(sets.get("schedule.stop_after_steps", recipe.schedule.stop_after_steps or 60))
        rank, target = recipe.lora.rank, job.folder / job.run
        suites = {"heldout": Suite(problems=40, samples=2, after=0.4 + rank / 130, ks=(1,))}
        story = Story(name=recipe.name, rank=rank, seed=recipe.seed, steps=steps, suites=suites)
        made = build_run(job.folder / "made", story)
        if target.exists():  # it goes on
            target.rename(job.folder / "made" / f"before-{job.run}")
        made.path.rename(target)

    def stop(self, *, at_once: bool = False) -> None: ...


def sweep_at(path: Path, split: Any = "time", ranks: tuple[int, ...] = (8, 16, 32, 64)) -> StudyDir:
    grid, limits = {"lora.rank": list(ranks)}, Limits(3600, price=1.0)
    specs = trials_of("quickstart", (), grid, 1)
    return StudyDir.create(path, plan_sweep(asked(grid, split), specs, limits))


def hand_out(study: StudyDir, pool: Pool) -> ExitCode:
    """What is left of a sweep, without its report."""
    with study.held():
        return Sweeping(study, pool, time.monotonic()).hand_out_all()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudyDir]:
    """A sweep of four trials on two slots, and its report."""
    study = sweep_at(tmp_path_factory.mktemp("whole") / "sweep")

    def opened() -> GuardedDisplay:
        return open_display("none", sys.stdout, sys.stderr)

    with study.held():
        assert Sweeping(study, MadeUp(), time.monotonic()).run(opened) == ExitCode.OK
    yield open_study(study.path)


def test_the_document_of_a_sweep_is_what_scripts_rely_on(whole: StudyDir) -> None:
    document = study_document(whole)
    assert {"sweep_dir", "trials", "budget", "spent", "best"} <= document.keys()
    assert document["best"].keys() >= {"index", "values", "metric", "interval_95", "shrunken"}
    assert document["best"]["values"] == {"lora.rank": 64}
    trial = document["trials"][0]
    for key in ("index", "values", "seed", "run_dir", "status", "steps", "spent", "final"):
        assert key in trial
    assert [t["status"] for t in document["trials"]] == ["finished"] * 4
    assert not any(t["stopped_early"] for t in document["trials"])
    assert document["spent"]["usd"] == pytest.approx(document["spent"]["wall_s"] / 3600)
    assert any("too few" in note for note in document["notes"])


def test_its_report_has_the_grid_the_line_and_the_warning(whole: StudyDir) -> None:
    page = (whole.path / "report" / "report.html").read_text()
    for text in (
        "over the grid",
        "against the bill",
        "highest of 4",
        "nothing cheaper",
        "lora.rank",
    ):
        assert text in page
    assert (whole.path / "report" / "report.json").is_file()
    assert (whole.path / "report" / "report.md").is_file()


def test_watching_a_sweep_shows_a_line_for_each_trial(
    whole: StudyDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", str(whole.path), "--once"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5 and "rank 64, seed 1: finished, 60 updates" in shown[3]
    assert shown == sweep_lines(whole.path)


def test_a_watched_sweep_is_told_once_in_a_pipe_and_fits_a_terminal(whole: StudyDir) -> None:
    stream, waited = io.StringIO(), []
    with contextlib.ExitStack() as held:
        held.enter_context(whole.held())

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                held.close()

        watch_sweep(whole.path, stream, sleep)
    assert stream.getvalue().splitlines() == sweep_lines(whole.path), "not once for each second"
    assert len(waited) == 3
    few = sweep_screen(whole, 5)
    assert few[3:] == ["trials 3 to 4 of 4", sweep_lines(whole.path)[-1]]
    assert few[0].endswith("  rank, seed")
    assert few[2].startswith("  4  finished      60 updates  ")
    assert few[2].endswith("  64, 1"), "what tells trials apart is not cut"
    assert len(sweep_screen(whole, 10)) == 6


def test_a_sweep_that_was_cut_off_ends_with_the_same_table(tmp_path: Path, whole: StudyDir) -> None:
    study = sweep_at(tmp_path / "sweep")
    first = MadeUp(1)
    first.until = 2
    assert hand_out(study, first) == ExitCode.INTERRUPTED
    second = MadeUp(1)
    study = open_study(study.path)
    assert hand_out(study, second) == ExitCode.OK
    assert [job.index for job in first.jobs + second.jobs] == [0, 1, 2, 2, 3]
    told = [study_document(open_study(at.path)) for at in (study, whole)]
    assert [t["final"] for t in told[0]["trials"]] == [t["final"] for t in told[1]["trials"]]
    assert told[0]["best"] == told[1]["best"]


def test_a_lost_worker_goes_on_elsewhere_and_is_given_up_in_the_end(tmp_path: Path) -> None:
    study, pool = sweep_at(tmp_path / "sweep"), MadeUp()
    pool.lose = {0: MOST_LOST - 1, 1: MOST_LOST}
    hand_out(study, pool)
    document = study_document(study)
    assert [t["status"] for t in document["trials"]] == ["finished", "failed", *["finished"] * 2]
    assert "lost 3 times" in document["trials"][1]["error"]
    names = {job.run for job in pool.jobs if job.index == 0}
    assert len(names) == 1, "one run directory, however often it goes on"


def test_asha_ends_the_worse_early_and_they_are_whole(tmp_path: Path) -> None:
    study, pool = sweep_at(tmp_path / "sweep", "asha"), MadeUp(1)
    assert hand_out(study, pool) == ExitCode.OK
    document = study_document(study)
    assert [t["steps"] for t in document["trials"]] == [15, 15, 15, 60]
    assert [t["stopped_early"] for t in document["trials"]] == [True, True, True, False]
    assert {t["status"] for t in document["trials"]} == {"finished"}
    assert document["best"]["values"] == {"lora.rank": 64} and document["best"]["points"] == 1
    assert pool.jobs[-1].sets == ("schedule.schedule_steps=60", "schedule.stop_after_steps=60")
    assert pool.jobs[0].loaded.recipe.schedule.stop_after_steps == 15
    assert pool.jobs[0].loaded.recipe.schedule.schedule_steps == 60


def test_a_sweep_of_which_nothing_could_be_paid_has_failed(tmp_path: Path) -> None:
    study = sweep_at(tmp_path / "sweep")
    study.note_paid(study.sweep.budget.wall_s + 1.0)

    class Late(MadeUp):
        def start(self, job: Job) -> None:
            assert job.left_s <= 0
            self._running.append(job)

        def finished(self) -> list[Done]:
            return [Done(self._running.pop(0).index, error="BudgetError: nothing is left.")]

    with study.held():
        code = Sweeping(study, Late(), time.monotonic()).run(
            lambda: open_display("none", sys.stdout, sys.stderr)
        )
    assert code == ExitCode.FAILED
    assert [row["status"] for row in study_document(study)["trials"]] == ["failed"] * 4


def test_one_process_at_a_time_hands_out_trials(tmp_path: Path) -> None:
    study = sweep_at(tmp_path / "sweep")
    with study.held():
        assert open_study(study.path).is_held()
        with pytest.raises(RunDirError, match="another process"), open_study(study.path).held():
            pass
    assert not study.is_held()


@pytest.mark.parametrize(
    "words",
    [["sweep", "quickstart", "--grid", "lora.rank=8,16,32,64", "--on", "ray", "--out"], ["resume"]],
)
def test_a_sweep_that_another_process_runs_is_refused_before_anything_is_written(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    study = sweep_at(tmp_path / "sweep")
    before = {file: file.read_bytes() for file in study.path.iterdir()}
    with study.held():
        assert main([*words, str(study.path)]) == ExitCode.USER
    told = capsys.readouterr()
    assert "another process runs it" in told.err and told.out == ""
    after = {file: file.read_bytes() for file in study.path.iterdir() if file.name != "study.lock"}
    assert after == before


def test_a_sweep_of_another_recipe_is_not_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = sweep_at(tmp_path / "sweep")
    command = ["sweep", "quickstart", "--grid", "lora.rank=8,128", "--out", str(study.path)]
    assert main(command) == ExitCode.USER
    assert "another configuration" in capsys.readouterr().err


def test_a_study_of_an_older_budgetrl_is_read(tmp_path: Path) -> None:
    study = sweep_at(tmp_path / "sweep")
    document = json.loads((study.path / "study.json").read_text())
    document["schema_version"] = 1
    document["config"] = {
        "family": "quickstart", "ranks": [8], "alpha": ["equal_rank"], "seeds": 1, "split": "time"
    }  # fmt: skip
    for entry in document["arms"]:
        rank = entry["spec"].pop("values")["lora.rank"]
        entry["spec"] |= {"rank": rank, "alpha": "equal_rank"}
        del entry["scores"]
    (study.path / "study.json").write_text(json.dumps(document))
    spec = open_study(study.path).trials[0].spec
    assert spec.values == {"lora.rank": 8, "lora.alpha_policy": "equal_rank"}
    assert replace(spec, values={}).load().recipe == load_recipe("quickstart", spec.sets, 1).recipe


def test_a_trial_that_was_made_elsewhere_is_brought_from_its_second_copy(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", [f"checkpoint.mirror={tmp_path / 'mirror'}"]).recipe
    copy = build_run(tmp_path / "mirror", Story(end=None))
    (tmp_path / "here").mkdir()
    run = RunDir(tmp_path / "here" / copy.name)
    bring_newer(run, recipe)
    assert run.exists() and list(run.events()) == list(copy.events())
    copy.write_json("heartbeat.json", {"paid_s": 1e6, "attempt": 2, "t": 0.0})
    bring_newer(run, recipe)
    assert run.read_json("heartbeat.json")["paid_s"] == 1e6


def test_a_trial_that_another_process_still_runs_comes_later_and_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgetrl.study.trial.ORPHAN_S", 0.0)
    run = build_run(tmp_path, Story(end=None))
    job = Job(
        index=0, place="trial 1", folder=tmp_path, run=run.name, loaded=load_recipe("quickstart"),
        budget_s=60.0, end_t=time.time() + 60.0, most_s=60.0, usd_per_hour=None,
    )  # fmt: skip
    with run.supervised(), open_display("none", sys.stdout, sys.stderr) as display:
        assert run_trial(job, display) == Done(0, lost=True)
