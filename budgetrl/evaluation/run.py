"""Evaluate a policy on a suite, in rounds that a budget may cut.

    for each round: every problem gets its next sample, seeded by (eval seed, problem, round)
      requests --policy--> completions --grader--> verdicts --append--> <name>.jsonl
      batch by batch; with vLLM all rounds in one queue, stored piece by piece as they are finished
    complete rounds --summarise--> <name>.json

A call continues what an earlier one has stored: a finished completion is never made twice. Not
here: loading suites and models, and events; callers do that.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from budgetrl.engine.base import (
    QueueingEngine,
    Request,
    SamplingSpec,
    StopCheck,
    sample_seed,
)
from budgetrl.errors import DataError, ProtocolError
from budgetrl.evaluation.compare import describe_differences
from budgetrl.evaluation.rounds import judge_rounds
from budgetrl.evaluation.rows import (
    EvalRow,
    append_rows,
    complete_rounds,
    header,
    load_eval,
    load_rows,
    moment,
)
from budgetrl.evaluation.suite import PromptedProblem, Suite
from budgetrl.evaluation.summary import summarise
from budgetrl.evaluation.think import Policy
from budgetrl.files import write_json
from budgetrl.recipe.eval_tables import rounds_of
from budgetrl.rewards.registry import Grader
from budgetrl.types import Completion, EvalResult, Protocol as EvalProtocol

STORED_AT_ONCE = 64
"""Completions of a queue that are graded and stored together: what a kill may lose."""


class Progress(NamedTuple):
    """How far an evaluation is."""

    done: int
    """Stored completions."""
    total: int
    elapsed_s: float
    """Of this call."""
    remaining_s: float | None
    """At this call's pace; None before anything was generated."""


def never() -> bool:
    """Stop check of an evaluation without a limit."""
    return False


def evaluate(
    policy: Policy,
    suite: Suite,
    *,
    grader: Grader,
    folder: Path,
    when: str,
    step: int,
    policy_id: str = "",
    should_stop: StopCheck = never,
    on_progress: Callable[[Progress], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    renew: bool = False,
) -> EvalResult | None:
    """Pass@k of a policy over all complete rounds; None if not even one is complete.

    Args:
        policy: answers the prompts, with the adapter that it has now.
        suite: what it is asked.
        grader: judges completions.
        folder: where the two files go, such as `evals/aime24`.
        when: their name: "baseline", "final", "step_000020", "eval-0a1b2c3d".
        step: update that the policy stands at.
        policy_id: which weights these are. Files of other weights under the same name are kept
            as `<name>.1.json` and so on, and a new evaluation begins.
        should_stop: asked before and during generation; cuts rounds, never problems.
        on_progress: called whenever completions were stored.
        clock: monotonic seconds.
        renew: files of another protocol are kept as those of other weights, instead of refused.

    Raises:
        DataError: no problems, an id twice, or a grader that fails on more than 5 % of them.
        ProtocolError: the stored evaluation of these weights has another protocol.
    """
    protocol, ids = suite.protocol, [item.problem.id for item in suite.problems]
    _check_ids(protocol.suite, ids)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{when}.json"
    seconds, result = _continue(file, protocol, policy_id, renew)
    state = header(protocol, policy_id, ids, suite.ks, step)
    write_json(file, state | {"seconds": seconds, "result": result and result.to_json()})
    rows = load_rows(file.with_suffix(".jsonl"))
    sampling = SamplingSpec(
        protocol.temperature,
        protocol.top_p,
        protocol.max_tokens,
        stop=suite.stop,
        sequence_tokens=suite.sequence_tokens,
    )
    started, made, wanted = clock(), 0, rounds_of(suite.rounds)
    standing = judge_rounds(rows, ids, wanted)
    while standing.stopped_by is None and not should_stop():
        target = standing.target
        total, stored = target * len(ids), sum(row.sample < target for row in rows) - made
        size = total if isinstance(policy, QueueingEngine) else suite.batch
        batches = _batches(suite.problems, rows, protocol.seed, range(standing.first, target), size)
        for new in _graded(policy, batches, sampling, grader, should_stop):
            append_rows(file.with_suffix(".jsonl"), new)
            rows += new
            made += len(new)
            if on_progress is not None:
                elapsed, left = clock() - started, total - stored - made
                on_progress(Progress(stored + made, total, elapsed, left * elapsed / made))
        if complete_rounds(rows, ids) < target:
            break
        standing = judge_rounds(rows, ids, wanted)
    seconds += clock() - started if made else 0.0
    rounds, result = min(standing.target, complete_rounds(rows, ids)), None
    if rounds:
        result = summarise(
            rows,
            ids,
            rounds,
            suite.ks,
            protocol=protocol,
            when=moment(when),
            step=step,
            seconds=seconds,
        )
        result = replace(result, rounds=standing.to_json())
    write_json(file, state | {"seconds": seconds, "result": result and result.to_json()})
    return result


def _check_ids(suite: str, ids: Sequence[str]) -> None:
    if not ids:
        raise DataError(f"suite {suite}: holds no problems.")
    if len(set(ids)) < len(ids):
        twice = sorted({identifier for identifier in ids if ids.count(identifier) > 1})
        raise DataError(f"suite {suite}: ids occur more than once: {', '.join(twice[:10])}.")


def _continue(
    file: Path, protocol: EvalProtocol, policy_id: str, renew: bool
) -> tuple[float, EvalResult | None]:
    """Seconds and result of the stored evaluation; other weights' files are moved aside."""
    if not file.exists():
        return 0.0, None
    stored = load_eval(file)
    if stored.policy != policy_id or (renew and stored.protocol != protocol):
        number = 1
        while file.with_suffix(f".{number}.json").exists():
            number += 1
        for old in (stored.completions_file, file):
            if old.exists():
                old.rename(old.with_suffix(f".{number}{old.suffix}"))
        return 0.0, None
    if stored.protocol != protocol:
        raise ProtocolError(
            f"{file} holds an evaluation under another protocol: "
            f"{describe_differences(stored.protocol, protocol)}.",
            hint="Put back what differs, or continue with the budgetrl that began it; "
            "`budgetrl eval` keeps evaluations under other protocols apart.",
        )
    return stored.seconds, stored.result


def _batches(
    prompted: Sequence[PromptedProblem],
    rows: Sequence[EvalRow],
    seed: int,
    samples: range,
    batch: int,
) -> Iterator[tuple[list[PromptedProblem], list[Request]]]:
    """What is missing, batch by batch, on a grid that does not depend on what is stored.

    A batch is a part of one round or several whole rounds, so that a stop costs no more rounds
    than it must.
    """
    have = {(row.problem_id, row.sample) for row in rows}
    rounds_at_once = max(1, batch // len(prompted))
    for first in range(0, len(samples), rounds_at_once):
        rounds = samples[first : first + rounds_at_once]
        cells = [(item, sample) for sample in rounds for item in prompted]
        for start in range(0, len(cells), max(batch, 1)):
            missing = [
                (item, sample)
                for item, sample in cells[start : start + batch]
                if (item.problem.id, sample) not in have
            ]
            if missing:
                yield [item for item, _ in missing], [_request(*cell, seed) for cell in missing]


def _graded(
    policy: Policy,
    batches: Iterable[tuple[Sequence[PromptedProblem], Sequence[Request]]],
    sampling: SamplingSpec,
    grader: Grader,
    should_stop: StopCheck,
) -> Iterator[list[EvalRow]]:
    """Rows as they are made, in pieces to be stored; ends early when it is to stop."""
    for items, requests in batches:
        if should_stop():
            return
        finished = 0
        for answered in _answered(policy, requests, sampling, should_stop):
            yield _grade(
                [(items[i], requests[i], completion) for i, completion in answered], grader
            )
            finished += len(answered)
        if finished < len(requests):
            return


def _request(item: PromptedProblem, sample: int, seed: int) -> Request:
    identifier = item.problem.id
    return Request(identifier, item.prompt_ids, sample, sample_seed(seed, identifier, sample))


def _answered(
    policy: Policy, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
) -> Iterator[list[tuple[int, Completion]]]:
    """Finished completions with the places of their requests, in pieces to be stored."""
    if isinstance(policy, QueueingEngine):
        finished = policy.stream(requests, sampling, should_stop)
        while piece := list(islice(finished, STORED_AT_ONCE)):
            yield piece
        return
    made = policy.generate(requests, sampling, should_stop)
    if whole := [(place, one) for place, one in enumerate(made) if one is not None]:
        yield whole


def _grade(
    answered: Sequence[tuple[PromptedProblem, Request, Completion]], grader: Grader
) -> list[EvalRow]:
    graded = grader.grade([(c.text, item.problem.answer) for item, _, c in answered])
    return [
        EvalRow(
            problem_id=item.problem.id,
            sample=request.sample,
            problem=item.problem.text,
            answer=item.problem.answer,
            completion=completion.text,
            tokens=completion.num_tokens,
            truncated=completion.truncated,
            verdict=verdict.verdict,
            extracted=verdict.extracted,
            seed=request.seed,
            thinking=completion.thinking,
        )
        for (item, request, completion), verdict in zip(answered, graded, strict=True)
    ]
