"""Plain lines for logs and pipes: phases, updates at a sensible pace, evaluations, the end.

    [    12 s] model: done in 3.1 s
    [1 m 05 s] update 12 of 60  accuracy 38.1 %  reward 0.410  ...  left 3 m 05 s, about 48 more

Only ASCII of its own, so that every terminal and log shows it.
"""

from typing import TextIO

from budgetrl.account.bill import running_stage, updates_ahead
from budgetrl.account.live import LiveRun
from budgetrl.account.outcome import ending
from budgetrl.account.series import signal_share
from budgetrl.account.text import downloading, gate_words, money, score, scrub, short_path, updates
from budgetrl.display.output import Output
from budgetrl.events import (
    Changed,
    Checkpoint,
    Download,
    Error,
    Evaluation,
    Event,
    Phase,
    RunFinished,
    RunResumed,
    RunStarted,
    RunWarning,
    StageEvent,
    Step,
    changed_value,
)
from budgetrl.phases import PHASES, phase_label
from budgetrl.rundir import RunDir
from budgetrl.units import duration, percent, usd

PACE_S = 1.0
PACE_SHARE = 0.01
"""Between two update lines lie at least a second and one percent of the run so far: a run of five
minutes has at most 200 of them, one of a day 800."""
DOWNLOAD_PACE_S = 10.0
WORTH_A_LINE = 1 << 20
"""Bytes."""
SILENCE_S = 60.0
PATIENCE_S = 2.0


class PlainDisplay:
    """One line per thing that happened."""

    def __init__(self, stream: TextIO) -> None:
        self._out = Output(stream)
        self.view: LiveRun | None = None
        self._last_step_s = float("-inf")
        self._last_line_s = 0.0
        self._held: Step | None = None
        """The newest update that the pace left out."""

    def start(self, run: RunDir) -> None:
        """Say which run it is."""
        self.view = view = LiveRun(run)
        view.catch_up()
        self._line(f"run directory {scrub(short_path(run.path))}")
        plan = view.plan
        if plan:
            budget = money(view.budget_s, view.usd_of(view.budget_s))
            asked = plan.requested_steps
            wanted = f"; the recipe asks for {asked}" if asked is not None else ""
            self._line(f"budget {budget}: about {plan.affordable_steps} updates fit{wanted}")

    def tick(self) -> None:
        """Lines for what is new."""
        view = self.view
        if view is None:
            self._out.flush()
            return
        for event in view.read():
            self._show(event)
        if view.elapsed_s() - self._last_line_s >= SILENCE_S:
            self._still(view)
        self._out.flush()

    def message(self, text: str) -> None:
        """A line, after those for what is new."""
        self.tick()
        self._line(scrub(text))

    def close(self, end: RunFinished | None = None) -> None:
        """The last update, and the end."""
        self.tick()
        if self._held is not None:
            self._step(self._held)
        if end is not None and self.view is not None:
            for label, text in ending(self.view, end):
                self._line(f"{label}: {scrub(text)}")
        self._out.drain(PATIENCE_S)
        self._out.close()

    def _line(self, text: str, at_s: float | None = None) -> None:
        if self._held is not None:
            self._step(self._held)  # it was before this line
        elapsed = at_s if at_s is not None else self.view.elapsed_s() if self.view else 0.0
        self._last_line_s = elapsed
        self._out.write(f"[{duration(elapsed):>8}] {text}\n")

    def _still(self, view: LiveRun) -> None:
        span = view.history.phase_now()
        if span is not None:
            since = view.elapsed_s() - span.started_s
            usual = f" of about {duration(span.expected_s)}" if span.expected_s else ""
            self._line(f"{phase_label(span.name)}: still at it, {duration(since)}{usual}")

    def _show(self, event: Event) -> None:
        match event:
            case Step():
                self._paced(event)
            case StageEvent():
                stage = running_stage(self.view) if self.view is not None else None
                self._line(_stage(event, stage.asked if stage else None), event.elapsed_s)
            case Phase() if not PHASES[event.name].quiet:
                self._line(_phase(event), event.elapsed_s)
            case Download():
                self._downloaded(event)
            case Evaluation():
                self._line(scrub(_evaluation(event)), event.elapsed_s)
            case Checkpoint():
                best = ", the best so far" if event.best else ""
                self._line(f"checkpoint after update {event.step}{best}", event.elapsed_s)
            case Changed():
                text = scrub(f"{event.key}, {changed_value(event.before)} before, is now ")
                self._line(f"changed: {text}{scrub(changed_value(event.to))}", event.elapsed_s)
            case RunWarning():
                state = "warning lifted" if event.resolved else "warning"
                text = scrub(f"{event.message} [{event.code}]")
                self._line(f"{state}: {text}", event.elapsed_s)
            case Error():
                text = scrub(f"{event.type}: {event.message} {event.hint}".strip())
                self._line(f"error: {text}", event.elapsed_s)
            case RunStarted():
                self._line(f"run started: {scrub(event.recipe)}", event.elapsed_s)
            case RunResumed():
                self._held, self._last_step_s = None, float("-inf")
                at = f"attempt {event.attempt} goes on after update {event.from_step}"
                self._line(at, event.elapsed_s)
            case _:
                pass

    def _downloaded(self, event: Download) -> None:
        """A line now and then, and one at the end of each repository that is worth one."""
        whole = event.bytes >= event.total_bytes > WORTH_A_LINE
        if whole or event.elapsed_s - self._last_line_s >= DOWNLOAD_PACE_S:
            text = downloading(event.repo, event.bytes, event.total_bytes, event.seconds)
            self._line(scrub(text), event.elapsed_s)

    def _paced(self, step: Step) -> None:
        pace = max(PACE_S, PACE_SHARE * step.elapsed_s)
        if step.elapsed_s - self._last_step_s >= pace:
            self._step(step)
        else:
            self._held = step

    def _step(self, step: Step) -> None:
        self._held, self._last_step_s = None, step.elapsed_s
        more, asked = step.forecast_steps, None
        if self.view is not None:
            more = updates_ahead(self.view, step.step, more)
            asked = self.view.plan.requested_steps if self.view.plan else None
        self._line(_step(step, asked, more), step.elapsed_s)


def _phase(event: Phase) -> str:
    label = phase_label(event.name)
    if event.state == "ended":
        took = "" if event.seconds is None else f" in {duration(event.seconds)}"
        return f"{label}: done{took}"
    usual = f", about {duration(event.expected_s)}" if event.expected_s else ""
    return f"{label}: started{usual}"


def _stage(event: StageEvent, asked: int | None) -> str:
    which = f"stage {event.name} ({event.training}), {event.index + 1} of {event.stages}"
    if event.state == "ended":
        return f"{which}: {event.updates} updates in {duration(event.seconds)}"
    if event.state == "gate":
        return f"gate after {event.name}: {gate_words(event)}"
    until = "" if asked is None else f", {updates(asked)}"
    return f"{which}: {'begins' if event.state == 'started' else 'is made once more'}{until}"


def _evaluation(event: Evaluation) -> str:
    parts = [f"pass@{k} {score(v, event.interval_95.get(k))}" for k, v in event.pass_at.items()]
    rounds = f"{event.problems} problems x {event.samples}"
    from budgetrl.evaluation.rounds import said_of  # only where an evaluation has ended

    if said := said_of(event.rounds):
        rounds += f", {said}"
    at = "" if event.when == "baseline" else f" after update {event.step}"
    when = f"{event.suite} {event.when}{at}"
    return f"{when}: {', '.join(parts)}; {rounds}; {duration(event.seconds)}"


def _step(step: Step, asked: int | None, more: int) -> str:
    made = str(step.step) if asked is None else f"{step.step} of {asked}"
    where = "" if step.stage is None else f"{step.stage}: "
    if not step.groups:
        loss = "-" if step.loss is None else f"{step.loss:.3f}"
        learnt = f"loss {loss}  right tokens {percent(step.token_accuracy)}"
        return (
            f"{where}update {made}  {learnt}  tokens {step.completion_tokens_mean:.0f}"
            f"  {duration(sum(step.phase_s.values()))}"
            f"  left {duration(step.remaining_s)}, about {more} more"
        )
    reward = "-" if step.reward_mean is None else f"{step.reward_mean:.3f}"
    entropy = "" if step.entropy is None else f"  entropy {step.entropy:.2f}"
    learns = f"signal {percent(signal_share(step), 0)}"
    if step.kl_teacher is not None:
        same = percent(step.top1_agreement)
        learns = f"from teacher {step.kl_teacher:.3f} nats, same token {same}"
    spent = "" if step.spent_usd is None else f"  {usd(step.spent_usd)}"
    return (
        f"{where}update {made}  accuracy {percent(step.accuracy_mean)}  reward {reward}"
        f"  tokens {step.completion_tokens_mean:.0f}{entropy}  {learns}"
        f"  {duration(sum(step.phase_s.values()))}{spent}"
        f"  left {duration(step.remaining_s)}, about {more} more"
    )
