"""Run directories with made-up numbers, written as a worker writes them: what displays are tested
and pictured with.

    run = make_run(tmp_path, steps=34)                     in training
    run = make_run(tmp_path, steps=75, end="budget")       finished
"""

import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sample_events import Clock, Driver, ended, evaluation_event, plan_json, step_event, times_json

from budgetrl import events
from budgetrl.event_file import EventWriter
from budgetrl.rundir import HEARTBEAT, PLAN, RESOLVED, RunDir

RECIPE = {
    "recipe": {"name": "quickstart", "summary": "A model that learns in minutes", "seed": 1},
    "model": {"id": "asset:tiny/quickstart"},
    "lora": {"rank": 8},
    "engine": {"name": "plain", "device": "cpu", "threads": 2},
    "grpo": {"num_generations": 8},
    "batch": {"prompts_per_step": 16},
    "budget": {"hours": 0.1},
}
SETUP_S = {"imports": 4.1, "model": 0.8, "data": 0.3, "baseline": 21.0}
STEP_S = 3.1
FINAL_S = 22.0
REPORT_S = 4.0
PROBLEMS = (
    (
        "What is 12 + 7?",
        "19",
        "<think>\n12 + 7 = 19\n</think>\nThe answer is \\boxed{19}.",
        "correct",
    ),
    (
        "What is 46 - 19?",
        "27",
        "<think>\n46 - 19 = 37\n</think>\nThe answer is \\boxed{37}.",
        "wrong",
    ),
    ("What is 8 * 6?", "48", "8 * 6 is 8 + 8 + 8 + 8 + 8 + 8, so", "unparsable"),
)


def plan(budget_s: float, usd_per_hour: float | None = 0.4) -> dict[str, Any]:
    steps = max(0, int((budget_s - 26.2 - 33.6 - 5) / (STEP_S + 0.3)))
    plan = plan_json(
        budget_s=budget_s, setup_s=5.2, baseline_s=21.0, step_s=STEP_S, saves_s=0.3 * steps,
        reserve_s=1.3 * FINAL_S + 0.5, report_s=5.0, affordable_steps=steps,
        total_s=26.2 + steps * (STEP_S + 0.3) + FINAL_S + 5.5, usd_per_hour=usd_per_hour,
    )  # fmt: skip
    plan["steps"] = steps
    return {"plan": plan, "times": times_json(**{f"{k}_s": s for k, s in SETUP_S.items()})}


def make_step(number: int, of: int, remaining_s: float = 100.0, **changes: Any) -> events.Step:
    """An update of a run that learns."""
    draw = random.Random(number)
    share = number / max(1, of)
    accuracy = min(1.0, max(0.0, 0.22 + 0.5 * (1 - math.exp(-3 * share)) + draw.gauss(0, 0.03)))
    problem, answer, text, verdict = PROBLEMS[number % len(PROBLEMS)]
    values: dict[str, Any] = {
        "epoch": number * 16 / 2000,
        "reward_mean": accuracy + 0.2 * share,
        "reward_std": 0.4,
        "accuracy_mean": accuracy,
        "format_mean": 0.5 + 0.4 * share,
        "completion_tokens_mean": 38 + 14 * share + draw.gauss(0, 1.5),
        "entropy": 0.8 - 0.4 * share + draw.gauss(0, 0.02),
        "groups": 16,
        "groups_with_signal": max(1, round(12 - 6 * share + draw.gauss(0, 1))),
        "completions": 128,
        "tokens": 5600,
        "tokens_per_s": 3000 + draw.gauss(0, 60),
        "phase_s": {"rollout": 1.7, "reward": 0.1, "logprob": 0.1, "update": 1.0, "other": 0.2},
        "remaining_s": remaining_s,
        "forecast_steps": max(0, of - number),
        "sample": {
            "problem": problem,
            "completion": text,
            "answer": answer,
            "verdict": verdict,
            "extracted": answer if verdict == "correct" else None,
        },
    }
    return step_event(number, **(values | changes))


def evaluation(when: str, step: int, accuracy: float, suite: str = "heldout") -> events.Evaluation:
    return evaluation_event(
        suite=suite, when=when, step=step, problems=200, samples=4,
        pass_at={1: accuracy, 4: min(1.0, accuracy + 0.2)},
        interval_95={1: (accuracy - 0.035, accuracy + 0.035), 4: None},
    )  # fmt: skip


def create(out: Path, budget_s: float = 300.0, recipe: dict[str, Any] | None = None) -> RunDir:
    """A run directory as the supervisor leaves it before the worker starts."""
    resolved = recipe or RECIPE
    run = RunDir.create(out, resolved["recipe"]["name"])
    run.write_json(RESOLVED, {"recipe": resolved, "sources": {}})
    run.write_json(PLAN, plan(budget_s))
    return run


def beat(run: RunDir, clock: Clock, t: float) -> None:
    """A heartbeat at a Unix time."""
    run.write_json(HEARTBEAT, {"paid_s": clock.elapsed_s, "attempt": clock.attempt, "t": t})


def setup(writer: EventWriter, clock: Clock, budget_s: float, until: str = "baseline") -> None:
    """The events of the phases up to and with `until`, whose end is left out if it is not the
    baseline."""
    driver = Driver(writer, clock)
    writer.write(events.RunStarted(recipe="quickstart", budget_s=budget_s, usd_per_hour=0.4))
    for name, seconds in SETUP_S.items():
        if name == until != "baseline":
            return driver.begin(name, seconds, seconds * 1.1)
        with driver.phase(name, seconds, seconds * 1.1):
            if name == "baseline":
                writer.write(evaluation("baseline", 0, 0.225))
    return None


def train(
    writer: EventWriter, clock: Clock, first: int, last: int, of: int, budget_s: float
) -> None:
    """Updates with a checkpoint every ten and a forecast after each."""
    driver = Driver(writer, clock)
    for number in range(first, last + 1):
        left = budget_s - (clock.elapsed_s + STEP_S)
        driver.update(make_step(number, of, left), STEP_S)
        writer.write(forecast(number, of, clock.elapsed_s, left))
        if number % 10 == 0:
            driver.save(number, best=number == last)


def forecast(number: int, of: int, elapsed_s: float, left: float) -> events.PlanEvent:
    """The plan after an update."""
    more = max(0, of - number)
    return events.PlanEvent(
        step=number,
        step_s=STEP_S,
        reserve_s=29.0,
        remaining_s=left,
        forecast_steps=more,
        forecast_low=round(0.9 * more),
        forecast_high=round(1.08 * more),
        ends_at_s=elapsed_s + more * STEP_S + FINAL_S + REPORT_S,
    )


def finish(
    run: RunDir, writer: EventWriter, clock: Clock, steps: int, reason: str, budget_s: float
) -> events.RunFinished:
    """The end of a run; its last event is returned."""
    done = reason not in ("interrupted", "failed")
    baseline = {"heldout": {"pass_at": {"1": 0.225}, "interval_95": {"1": [0.19, 0.26]}}}
    final = {"heldout": {"pass_at": {"1": 0.612}, "interval_95": {"1": [0.577, 0.647]}}}
    difference = {
        "heldout": {"pass_at": {"1": 0.387}, "interval_95": {"1": [0.338, 0.436]}, "samples": 4}
    }
    writer.write(events.Phase(name="train", state="ended"))
    if done:
        with Driver(writer, clock).phase("final", FINAL_S, FINAL_S):
            writer.write(evaluation("final", steps, 0.612))
    last = ended(
        reason,
        steps,
        STEP_S,
        baseline=baseline,
        final=final if done else None,
        difference=difference if done else None,
        best_checkpoint=f"checkpoints/step_{steps:06d}",
    )
    writer.write(last)
    clock.elapsed_s += REPORT_S
    return last


def make_run(
    out: Path, steps: int = 34, of: int = 75, budget_s: float = 300.0, end: str | None = None
) -> RunDir:
    """A run after `steps` of `of` updates; with `end` (a stop reason) it is over."""
    run, clock = create(out, budget_s), Clock()
    with run.writer(clock.stamp) as writer:
        setup(writer, clock, budget_s)
        writer.write(events.Phase(name="train", state="started"))
        train(writer, clock, 1, steps, of, budget_s)
        if end is not None:
            finish(run, writer, clock, steps, end, budget_s)
            (run.path / "report" / "report.html").write_text("<html></html>")
    beat(run, clock, 0.0)
    return run


def append_raw(run: RunDir, *lines: str | bytes | dict[str, Any]) -> None:
    """Lines that no writer of ours would write."""
    with (run.path / "events.jsonl").open("ab") as file:
        for line in lines:
            data = json.dumps(line) if isinstance(line, dict) else line
            file.write((data.encode() if isinstance(data, str) else data) + b"\n")


@contextmanager
def running(run: RunDir, clock: Clock) -> Iterator[EventWriter]:
    """The lock of a run is held, so it counts as running."""
    with run.writer(clock.stamp) as writer:
        yield writer
