"""Run directories with made-up numbers, for reports: written through RunDir, as a worker does.

    run = build_run(tmp_path, Story(steps=60))                a finished run that learns
    run = build_run(tmp_path, Story(end=None))                one that crashed
    run = build_run(tmp_path, Story(rank=256, seed=2, suites={"aime24": Suite(30, 16, 0.3, 0.4)}))

Verdicts follow from a solve rate per problem, so intervals and differences are those of real data.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sample_events import (
    PHASES,
    Clock,
    Driver,
    ended,
    evaluation_event,
    plan_json,
    step_event,
    times_json,
)

from budgetrl import events
from budgetrl.account.ending import brief, differences
from budgetrl.evaluation.rows import EvalRow, append_rows, header
from budgetrl.evaluation.summary import summarise
from budgetrl.files import write_json
from budgetrl.rundir import HEARTBEAT, MANIFEST, PLAN, RESOLVED, RESULT, RunDir
from budgetrl.types import EvalResult, Protocol, Verdict

STEP_S = sum(PHASES.values())


@dataclass(frozen=True)
class Suite:
    """A suite and how well the model does before and after."""

    problems: int = 40
    samples: int = 4
    before: float = 0.35
    after: float = 0.75
    ks: tuple[int, ...] = (1, 4)
    every: int | None = None
    """Evaluated on the way, with the first round only."""


@dataclass(frozen=True)
class Story:
    """What happens in a run."""

    name: str = "quickstart"
    model: str = "asset:tiny/quickstart"
    rank: int = 64
    alpha: float = 64.0
    seed: int = 1
    steps: int = 40
    suites: dict[str, Suite] = field(default_factory=lambda: {"heldout": Suite()})
    end: str | None = "budget"
    """A stop reason; None: it crashes."""
    entropy: tuple[float, float] = (0.15, 0.03)
    usd_per_hour: float | None = 0.44
    tables: dict[str, Any] = field(default_factory=dict)
    """Further recipe tables."""
    temperature: float = 0.6
    eval_seed: int = 1000
    completion: str = "<think>\n7+5={answer}\n</think>\n\\boxed{{{answer}}}"
    problem: str = "Compute 7+5-{number}."
    length: tuple[float, float] = (20.0, 34.0)


def build_run(out: Path, story: Story = Story()) -> RunDir:
    """Write the whole directory of a run."""
    run = RunDir.create(out, story.name)
    run.write_json(RESOLVED, {"recipe": _recipe(story), "sources": {}})
    run.write_json(MANIFEST, {"budgetrl": "0.1.0", "packages": {"torch": "2.13.0"}, "gpu": None})
    (run.path / "recipe.toml").write_text(f'[recipe]\nname = "{story.name}"\n')
    run.write_json(PLAN, {"plan": _plan(story), "times": times_json()})
    clock = Clock(usd_per_hour=story.usd_per_hour)
    with run.writer(clock.stamp) as writer:
        _write(run, Driver(writer, clock), story)
    run.write_json(HEARTBEAT, {"paid_s": clock.elapsed_s + 2.0, "attempt": 1, "t": 0.0})
    return run


def _write(run: RunDir, driver: Driver, story: Story) -> None:
    driver.write(
        events.RunStarted(recipe=story.name, budget_s=240.0, usd_per_hour=story.usd_per_hour)
    )
    for name, seconds in (("imports", 4.0), ("model", 0.5), ("data", 0.4)):
        with driver.phase(name, seconds):
            pass
    results = {"baseline": _evaluate(run, driver, story, "baseline", 0)}
    _entropy(driver, story, "baseline", 0)
    driver.write(events.Phase(name="train", state="started"))
    for number in range(1, story.steps + 1):
        driver.update(_step(story, number, run), STEP_S)
        for name, suite in story.suites.items():
            if suite.every and number % suite.every == 0:
                _evaluate(run, driver, story, "step", number, only=name)
        if number % 20 == 0:
            driver.save(number)
    if story.end is None:
        return
    driver.write(events.Phase(name="train", state="ended", seconds=story.steps * STEP_S))
    done = story.end in ("budget", "completed", "no_signal")
    if done:
        results["final"] = _evaluate(run, driver, story, "final", story.steps)
        _entropy(driver, story, "final", story.steps)
    _finish(run, driver, story, results, done)


def _finish(
    run: RunDir,
    driver: Driver,
    story: Story,
    results: dict[str, dict[str, EvalResult]],
    done: bool,
) -> None:
    found = differences(run.path / "evals", results.get("final", {}))
    said = {when: brief(by_suite) for when, by_suite in results.items()}
    driver.write(
        ended(story.end or "failed", story.steps, STEP_S, difference=found or None, **said)
    )
    run.write_json(RESULT, {"schema_version": 1, "steps": story.steps, "stop_reason": story.end})


def _evaluate(
    run: RunDir,
    driver: Driver,
    story: Story,
    when: Any,
    step: int,
    only: str | None = None,
) -> dict[str, EvalResult]:
    seconds = 8.0 if when != "step" else 2.0
    phase: Any = {"step": "evaluation"}.get(when, when)
    stem = f"step_{step:06d}" if when == "step" else when
    results = {}
    with driver.phase(phase, seconds):
        for name, suite in story.suites.items():
            if only in (None, name):
                results[name] = write_eval(run.eval_folder(name), stem, story, name, suite, step)
                driver.write(_evaluation(results[name], when))
    return results


def write_eval(
    folder: Path, stem: str, story: Story, name: str, suite: Suite, step: int
) -> EvalResult:
    """The two files of one evaluation."""
    share = step / max(1, story.steps)
    mean = suite.before + (suite.after - suite.before) * share
    rounds = 1 if stem.startswith("step") else suite.samples
    rows = list(_rows(story, name, suite, mean, rounds, share))
    ids = [f"{name}-{i}" for i in range(suite.problems)]
    protocol = Protocol(
        name, "suite0", "prompt0", story.temperature, 0.95, 64, story.eval_seed, "exact-1"
    )
    result = summarise(
        rows, ids, rounds, suite.ks, protocol=protocol, when=stem.split("_")[0], step=step,
        seconds=8.0,
    )  # fmt: skip
    append_rows(folder / f"{stem}.jsonl", rows)
    state = header(protocol, f"step {step}", ids, suite.ks, step)
    write_json(folder / f"{stem}.json", state | {"seconds": 8.0, "result": result.to_json()})
    return result


def _rows(
    story: Story, name: str, suite: Suite, mean: float, rounds: int, share: float
) -> list[EvalRow]:
    found = []
    who = f"{story.seed} {story.rank}" if share else ""  # the base model has neither
    draw = random.Random(f"{story.model} {who} {name} {share:.3f}")
    for i in range(suite.problems):
        spread = random.Random(f"{name} {i}").gauss(0, 0.25)
        rate = min(1.0, max(0.0, mean + spread * min(1.0, 4 * mean * (1 - mean))))
        for sample in range(rounds):
            verdict = Verdict.CORRECT if draw.random() < rate else Verdict.WRONG
            if verdict is Verdict.WRONG and draw.random() < 0.2:
                verdict = Verdict.UNPARSABLE
            answer = str(12 - i) if verdict is Verdict.CORRECT else str(draw.randrange(20, 24))
            none = verdict is Verdict.UNPARSABLE
            found.append(
                EvalRow(
                    problem_id=f"{name}-{i}",
                    sample=sample,
                    problem=story.problem.format(number=i),
                    answer=str(12 - i),
                    completion="so the" if none else story.completion.format(answer=answer),
                    tokens=draw.randrange(18, 44),
                    truncated=none,
                    verdict=verdict,
                    extracted=None if none else answer,
                    seed=sample,
                )
            )
    return found


def _evaluation(result: EvalResult, when: Any) -> events.Evaluation:
    return evaluation_event(
        suite=result.suite, when=when, step=result.step, problems=result.problems,
        samples=result.samples, pass_at=dict(result.pass_at),
        interval_95=dict(result.interval_95), truncated_share=result.truncated_share,
        unparsable_share=result.unparsable_share,
        completion_tokens_mean=result.completion_tokens_mean,
        temperature=result.protocol.temperature, top_p=result.protocol.top_p,
        max_tokens=result.protocol.max_tokens, seconds=result.seconds,
    )  # fmt: skip


def _entropy(driver: Driver, story: Story, when: Any, step: int) -> None:
    nats = story.entropy[0 if when == "baseline" else 1]
    driver.clock.elapsed_s += 0.5
    driver.write(
        events.Entropy(
            when=when, step=step, completions=16, tokens=500, mean_nats=nats, temperature=1.0,
            seconds=0.5,
        )
    )  # fmt: skip


def _step(story: Story, number: int, run: RunDir) -> events.Step:
    draw = random.Random(f"{story.seed} {story.rank} {number}")
    share = number / max(1, story.steps)
    accuracy = min(1.0, max(0.0, 0.35 + 0.45 * min(1.0, 2 * share) + draw.gauss(0, 0.05)))
    first, last = story.entropy
    tokens = story.length[0] + (story.length[1] - story.length[0]) * share + draw.gauss(0, 1)
    if number in (1, story.steps):
        _completions(run, story, number, accuracy)
    return step_event(
        number,
        epoch=number * 16 / 2000,
        reward_mean=accuracy + 0.19,
        reward_std=0.4,
        accuracy_mean=accuracy,
        format_mean=0.95,
        completion_tokens_mean=tokens,
        truncated_share=max(0.0, 0.05 * (1 - share) + draw.gauss(0, 0.005)),
        entropy=first + (last - first) * share + draw.gauss(0, 0.004),
        entropy_kind="sampled",
        loss=draw.gauss(0, 0.02),
        groups=16,
        groups_with_signal=max(1, round(13 - 7 * share + draw.gauss(0, 1))),
        completions=128,
        tokens=int(128 * tokens),
        phase_s={name: s * draw.uniform(0.9, 1.1) for name, s in PHASES.items()},
        remaining_s=100.0,
    )


def _completions(run: RunDir, story: Story, number: int, accuracy: float) -> None:
    draw = random.Random(number)
    rows = []
    for i in range(16):
        right = draw.random() < accuracy
        rows.append(
            {
                "step": number,
                "problem_id": f"t{i}",
                "problem": story.problem.format(number=i),
                "answer": str(12 - i),
                "completion": story.completion.format(answer=12 - i if right else 99),
                "tokens": 30,
                "truncated": False,
                "verdict": "correct" if right else "wrong",
                "reward": 1.2 if right else 0.2,
            }
        )
    run.write_completions(number, rows)


def _recipe(story: Story) -> dict[str, Any]:
    suites = [
        {
            "suite": name,
            "path": f"{name}.jsonl",
            "samples": suite.samples,
            "k": list(suite.ks),
            "when": ["baseline", *(["step"] if suite.every else []), "final"],
            "every_steps": suite.every,
            "temperature": story.temperature,
            "seed": story.eval_seed,
        }
        for name, suite in story.suites.items()
    ]
    return {
        "recipe": {"name": story.name, "summary": "made up", "seed": story.seed},
        "model": {"id": story.model, "dtype": "float32"},
        "lora": {"rank": story.rank, "alpha": story.alpha},
        "data": {"path": "train.jsonl"},
        "schedule": {"learning_rate": 1e-3},
        "engine": {"name": "plain", "device": "cpu", "threads": 2},
        "sampling": {"max_tokens": 64},
        "batch": {"prompts_per_step": 16},
        "budget": {"hours": 240 / 3600, "usd_per_hour": story.usd_per_hour},
        "eval": suites,
        **story.tables,
    }


def _plan(story: Story) -> dict[str, Any]:
    return plan_json(
        budget_s=240.0, setup_s=6.0, baseline_s=9.0, step_s=3.2, saves_s=1.0, reserve_s=13.0,
        report_s=4.0, affordable_steps=60, requested_steps=story.steps,
        total_s=23.0 + 3.2 * story.steps, usd_per_hour=story.usd_per_hour,
    )  # fmt: skip
