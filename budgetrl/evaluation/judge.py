"""Evaluate a target on suites: open the model, prove the adapter, render, run, collect.

    evaluate_target(find_target("runs/x"), suite_specs(...), out) -> [Evaluated]

The same call continues the same files: their names are a hash of target and protocol.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import load_suite
from budgetrl.data.usable import check_suite_prompts, remark_on_room
from budgetrl.engine import open_engine
from budgetrl.engine.base import Engine, StopCheck
from budgetrl.engine.thinking import Trajectories
from budgetrl.errors import DataError, RecipeError, RunDirError, UsageError
from budgetrl.estimation.share import with_share
from budgetrl.evaluation.claim import claimed
from budgetrl.evaluation.mending import set_aside
from budgetrl.evaluation.rounds import judge_rounds
from budgetrl.evaluation.rows import load_eval
from budgetrl.evaluation.run import Progress, evaluate, never
from budgetrl.evaluation.suite import PromptedProblem, Suite, prompted, suite_in
from budgetrl.evaluation.summary import summarise_stored
from budgetrl.evaluation.target import Target
from budgetrl.evaluation.think import Policy, think_budget, thinking
from budgetrl.hub.config import window_in
from budgetrl.hub.pins import OnDownload, Pins, bring, pin, pinned, untold
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Eval, Recipe
from budgetrl.recipe.window import check_window, fit_answers, window_of
from budgetrl.rewards.pool import GradingPool
from budgetrl.run_files import prompt_moment
from budgetrl.types import EvalResult, Problem, Protocol

OnProgress = Callable[[str, Progress], None]
"""Told the suite and how far it is."""
_REPORTED = (
    *("problems", "samples", "pass_at", "interval_95", "maj_at", "truncated_share"),
    *("completion_tokens_mean", "unparsable_share", "timeouts", "rounds", "think"),
)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One suite, and what came of it."""

    target: Target
    protocol: Protocol
    result: EvalResult | None
    """None: not one round is complete yet."""
    completions_file: Path
    equals_base: bool
    """The adapter is exactly zero, so the numbers are the base model's."""

    def to_json(self) -> dict[str, Any]:
        """As `budgetrl eval --json` prints it."""
        result = self.result.to_json() if self.result is not None else {"samples": 0}
        return {
            "suite": self.protocol.suite,
            "model": self.target.recipe.model.id,
            "adapter": None if self.target.adapter is None else str(self.target.adapter),
            "step": self.target.step if self.target.run is not None else None,
            "adapter_equals_base": self.equals_base if self.target.adapter is not None else None,
            **{key: result.get(key) for key in _REPORTED},
            "protocol": asdict(self.protocol),
            "completions_file": str(self.completions_file),
        }


def evaluate_target(
    target: Target,
    specs: Sequence[Eval],
    out: Path,
    should_stop: StopCheck = never,
    on_progress: OnProgress | None = None,
    on_remark: Callable[[str], None] | None = None,
    on_download: OnDownload = untold,
) -> list[Evaluated]:
    """Evaluate a target on every suite, in rounds; continues what is stored already.

    Args:
        target: of `find_target`.
        specs: of `suite_specs`.
        out: folder for results of targets that belong to no run.
        should_stop: cuts rounds.
        on_progress: called after every batch.
        on_remark: told once what users should know of the prompts.
        on_download: told how far a download is.

    Raises:
        HubError: the hub does not answer.
        DataError: a suite that cannot be read, or a grader that fails.
        ModelError: a model or adapter that is missing, does not fit, or is not applied.
        HardwareError: no GPU for an engine that needs one.
        UsageError: completions that do not fit the model's window.
        RunDirError: the folder cannot be written, or another process makes the same evaluation.
    """
    folder = out if target.run is None else target.run.evals
    for spec in specs:
        _check_writable(folder / spec.suite)
    with ExitStack() as claims:
        for spec in specs:
            who = f"{target.recipe.model.id} {target.adapter} {target.policy_id}"
            claims.enter_context(claimed(folder / spec.suite, who, spec))
        return _evaluate(target, specs, folder, should_stop, on_progress, on_remark, on_download)


def _evaluate(
    target: Target,
    specs: Sequence[Eval],
    folder: Path,
    should_stop: StopCheck,
    on_progress: OnProgress | None,
    on_remark: Callable[[str], None] | None,
    on_download: OnDownload,
) -> list[Evaluated]:
    # vLLM makes room for what is asked for here, which may be more than the recipe's own.
    asked = target.recipe.but({"eval": tuple(specs)})
    pins = pin(asked, training=False)
    bring(pins, on_download)
    asked = pinned(asked, pins)
    if not target.fits_window:
        asked = fit_answers(asked, _window(asked, pins))
    specs = asked.eval
    with ExitStack() as stack:
        pool = stack.enter_context(GradingPool())
        pool.start()
        suites = [(spec, load_suite(spec, pool.gold_problems).problems) for spec in specs]
        engine = open_engine(with_share(asked), folder.parent, target.adapter)
        stack.callback(engine.close)
        if not target.fits_window:
            _check_windows(target.recipe, specs, engine.context_tokens)
        renderer = _renderer(engine, target)
        items_of = [_prompted(renderer, problems) for _, problems in suites]
        if target.fits_window:
            longest = max(len(item.prompt_ids) for items in items_of for item in items)
            fitted = asked.but({"prompt.max_tokens": longest})
            specs = fit_answers(fitted, engine.context_tokens).eval
        remarks = [*renderer.remarks().values()] if renderer is not None else []
        for spec, items in zip(specs, items_of, strict=True):
            remarks += filter(None, [_check_prompts(target, spec, items, engine)])
        if on_remark is not None:
            for remark in remarks:
                on_remark(remark)
        first = [item.prompt_ids for item in items_of[0]]
        applied = target.adapter is not None and _applied(engine, first)
        date = None if renderer is None else renderer.date
        prefilled = renderer is not None and renderer.prefilled
        budgets = [think_budget(target.recipe, spec, engine, prefilled) for spec in specs]
        asks = [
            _asked(target, spec, suite_in(target.recipe, spec, items, engine, date, budget), folder)
            for spec, items, budget in zip(specs, items_of, budgets, strict=True)
        ]
        for ask in asks:
            if set_aside(ask.rows.with_suffix(".json")) and on_remark is not None:
                on_remark(f"{ask.rows.with_suffix('.json').name} is damaged: it is added up again")
        drawn = {spec.suite: Trajectories() for spec in specs}
        results = []
        for place, (ask, budget) in enumerate(zip(asks, budgets, strict=True)):
            later = zip(asks[place + 1 :], budgets[place + 1 :], strict=True)
            ahead = [b for other, b in later if b is not None and other.is_new_like(ask)]
            rows = target.recipe.engine.eval_batch
            policy = thinking(engine, budget, drawn[ask.spec.suite], ahead, rows)
            results.append(_one(target, ask, policy, pool, applied, should_stop, on_progress))
        order = [spec.suite for spec in specs]
        places = [(order.index(o.protocol.suite), o.protocol.max_tokens, o) for o in results]
        return [one for *_, one in sorted(places, key=lambda place: place[:2])]


class _Ask(NamedTuple):
    """A suite, what it asks, and where its completions go."""

    spec: Eval
    suite: Suite
    rows: Path

    def is_new_like(self, other: "_Ask") -> bool:
        """Whether it has all completions to come, and as many as another limit of its suite."""
        fixed = self.spec.rounds.until_width is None
        return self.spec.suite == other.spec.suite and fixed and not self.rows.exists()


def _asked(target: Target, spec: Eval, suite: Suite, folder: Path) -> _Ask:
    # Without what is not said, files of earlier versions keep their names.
    said = {key: value for key, value in asdict(suite.protocol).items() if value is not None}
    identity = json.dumps([target.policy_id, said])
    name = f"eval-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
    return _Ask(spec, suite, folder / spec.suite / f"{name}.jsonl")


def _one(
    target: Target,
    ask: _Ask,
    policy: Policy,
    pool: GradingPool,
    applied: bool,
    should_stop: StopCheck,
    on_progress: OnProgress | None,
) -> Evaluated:
    spec, suite, rows = ask
    protocol, place = suite.protocol, rows.parent
    equals_base = target.adapter is not None and not applied
    if equals_base and (base := _stored_baseline(place, protocol, spec)) is not None:
        return Evaluated(target, protocol, base[1], base[0], True)
    if rows.is_dir():
        raise _unwritable(rows, "a folder has its name")
    try:
        result = evaluate(
            policy,
            suite,
            grader=pool,
            folder=place,
            when=rows.stem,
            step=target.step,
            policy_id=target.policy_id,
            should_stop=should_stop,
            on_progress=None if on_progress is None else lambda done: on_progress(spec.suite, done),
        )
    except OSError as error:  # such as a full disk
        raise _unwritable(place, error.strerror or str(error)) from None
    return Evaluated(target, protocol, result, rows, equals_base)


def _check_writable(place: Path) -> None:
    """Better known before a model is loaded than after the first batch."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _unwritable(place, error.strerror or str(error)) from None


def _unwritable(place: Path, why: str) -> RunDirError:
    return RunDirError(
        f"{place}: results cannot be written there: {why}.",
        hint="Make room there; or, for a target of no run, give another folder with --out.",
    )


def _stored_baseline(place: Path, protocol: Protocol, spec: Eval) -> tuple[Path, EvalResult] | None:
    """The run's own evaluation of the base model, where it answers the same question whole."""
    try:
        stored = load_eval(place / "baseline.json")
    except DataError:
        return None
    made = judge_rounds(stored.rows, stored.problem_ids, spec.rounds)
    if stored.protocol != protocol or made.stopped_by is None:
        return None
    result = summarise_stored(stored, made.target, spec.k)
    return stored.completions_file, replace(result, rounds=made.to_json())


def _renderer(engine: Engine, target: Target) -> PromptRenderer | None:
    """As in the target's run; None where a script answers by problem, not by prompt."""
    if engine.tokenizer is None:
        return None
    moment = None if target.run is None else prompt_moment(target.run)
    return PromptRenderer(engine.tokenizer, target.recipe.prompt, moment)


def _prompted(
    renderer: PromptRenderer | None, problems: Sequence[Problem]
) -> list[PromptedProblem]:
    if renderer is None:
        return [PromptedProblem(problem, problem.text, ()) for problem in problems]
    return prompted(renderer, problems)


def _applied(engine: Engine, prompts: Sequence[Sequence[int]]) -> bool:
    if engine.model is None:
        return True
    from budgetrl.engine.applied import prove_applied  # loads torch

    return prove_applied(engine, prompts)


def _window(recipe: Recipe, pins: Pins) -> int | None:
    """The model's window, by its configuration."""
    if "model" in pins:
        return window_in(pins["model"].found)
    config = Path(local_path(recipe.model.id)) / "config.json"
    return window_of(config) if config.is_file() else None


def _check_windows(recipe: Recipe, specs: Sequence[Eval], window: int | None) -> None:
    """Completions must fit the model's window, by the limits that are asked for here."""
    longest = max(recipe.eval_tokens(spec) for spec in specs) - recipe.prompt.max_tokens
    try:
        check_window(recipe.but({"eval": (), "sampling.max_tokens": longest}), window)
    except RecipeError as error:
        room = (window or 0) - recipe.prompt.max_tokens
        fits = f"--max-tokens {room} fits." if room > 0 else "Give --recipe with shorter prompts."
        if any(spec.think is not None for spec in specs):
            fits = f"Thinking, closing text and answer have {room} tokens together."
        raise UsageError(error.message, hint=fits) from None


def _check_prompts(
    target: Target, spec: Eval, items: Sequence[PromptedProblem], engine: Engine
) -> str | None:
    """Prompts beyond a limit would be cut, or read past the window; says what others cost."""
    recipe, window = target.recipe, engine.context_tokens
    longest = max((len(item.prompt_ids) for item in items), default=0)
    completion = recipe.eval_tokens(spec) - recipe.prompt.max_tokens
    if target.fits_window:
        if window is None or longest + completion <= window:
            return None
        room = window - longest
        raise UsageError(
            f"suite {spec.suite}: a prompt has {longest} tokens; with {completion} for the "
            f"completion that is above the {window} of {recipe.model.id}.",
            hint=f"--max-tokens {room} fits." if room > 0 else "Give a suite of shorter problems.",
        )
    more = -(-4 * longest // 3) - recipe.prompt.max_tokens
    fits = window is None or recipe.prompt.max_tokens + more <= window
    hint = f"--max-tokens {more} or more fits." if fits else "Give a suite of shorter problems."
    check_suite_prompts(recipe, spec, longest, hint)
    return remark_on_room(recipe, spec, longest)
