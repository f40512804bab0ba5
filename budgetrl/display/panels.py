"""The panels about the run itself: header, budget, setup, warnings, the end.

Each function takes a moment and gives a `Panel`, or None when there is nothing to say.
"""

import shlex
from collections.abc import Sequence

from rich.text import Text

from budgetrl.account.bill import Bill, more_updates, running_stage
from budgetrl.account.outcome import STATUS_TONES, ending
from budgetrl.account.run import mapping
from budgetrl.account.text import downloading, money, scrub, short_path
from budgetrl.display import glyphs as g
from budgetrl.display.layout import Panel
from budgetrl.display.moment import Moment
from budgetrl.display.spark import bar
from budgetrl.display.typeset import Part, clip, ends, fit, labelled, row, rule, wrap
from budgetrl.history import Span
from budgetrl.phases import PHASES, phase_label
from budgetrl.rundir import MANIFEST
from budgetrl.types import RunStatus
from budgetrl.units import duration

_BEFORE_TRAINING = [name for name, kind in PHASES.items() if kind.bill in ("setup", "baseline")]
_LESS_IMPORTANT = ("also", "stopped", "attempts", "best", "saved", "report", "bill", "error")
"""Labels of the end screen that go first where rows are short."""
LATE = 1.01
"""Times the budget: where an expected end counts as too late."""


def header(moment: Moment) -> Panel:
    """Recipe, model, rank, device, run directory, and what happens now."""

    def draw(width: int, rows: int) -> list[Text]:
        view = moment.view
        left = row(("budgetrl ", g.LABEL), (scrub(view.name), g.STRONG), "   ", _subject(moment))
        right = row((moment.doing, g.TONES[STATUS_TONES[moment.status]]))
        attempt = f"attempt {view.history.attempt}" if view.history.attempt > 1 else ""
        path = row((scrub(short_path(view.run.path)), g.LABEL))
        lines = [
            ends(left, right, width, moment.glyphs),
            ends(path, row((attempt, g.WARN)), width, moment.glyphs),
        ]
        return lines[:rows]

    return Panel(0, 1, 2, draw)


def _subject(moment: Moment) -> str:
    """Model, rank and device in one phrase."""
    recipe = moment.view.tables
    engine, budgeted = mapping(recipe.get("engine")), mapping(recipe.get("budget"))
    model = str(mapping(recipe.get("model")).get("id", "")).removeprefix("asset:")
    rank = mapping(recipe.get("lora")).get("rank")
    threads = engine.get("threads")
    gpu = moment.view.file(MANIFEST).get("gpu") or budgeted.get("gpu")
    device = "CPU" if engine.get("device") == "cpu" else str(_name(gpu) or "GPU")
    if device == "CPU" and threads:
        device += f", {threads} thread" + ("s" if threads != 1 else "")
    trained = "all weights" if rank == "full" else f"LoRA rank {rank}" if rank else ""
    parts = [model, trained, device if engine else ""]
    return scrub(f" {moment.glyphs.dot} ".join(part for part in parts if part))


def _name(gpu: object) -> object:
    return gpu.get("name") if isinstance(gpu, dict) else gpu


def budget(moment: Moment) -> Panel:
    """Time and money by phase: spent, left, where it will end; and what updates that buys."""
    bill = moment.bill

    def draw(width: int, rows: int) -> list[Text]:
        lines = [
            rule("budget", width, moment.glyphs, _budget_note(moment, bill)),
            _bar(bill, width, moment.glyphs),
            fit(_spent(moment, bill), width, moment.glyphs),
            fit(_updates(moment), width, moment.glyphs),
        ]
        if rows > len(lines):
            lines.insert(2, fit(_legend(bill, width, moment.glyphs), width, moment.glyphs))
        return lines[:rows]

    return Panel(2, 4, 5, draw)


def _bar(bill: Bill, width: int, glyphs: g.Glyphs) -> Text:
    look = _bar_look(glyphs)
    sizes = [(getattr(bill, name), name) for name in look]
    cells = bar(sizes, sum(size for size, _ in sizes), width)
    return row(*((look[name][0] * count, look[name][1]) for count, name in cells))


def _bar_look(glyphs: g.Glyphs) -> dict[str, tuple[str, str]]:
    return {
        "setup": (glyphs.setup, g.SETUP),
        "baseline": (glyphs.baseline, g.BASELINE),
        "train": (glyphs.train, g.TRAIN),
        "end": (glyphs.end, g.END),
        "ahead": (glyphs.ahead, g.TRAIN),
        "reserve": (glyphs.reserve, g.END),
        "free": (glyphs.free, g.LABEL),
    }


def _legend(bill: Bill, width: int, glyphs: g.Glyphs) -> Text:
    """What the bar's parts are; the expected ones go first when the line is short."""
    names = {"train": "training"}
    shown = {
        name: (look, f" {names.get(name, name)} {duration(getattr(bill, name))}  ")
        for name, look in _bar_look(glyphs).items()
        if getattr(bill, name) >= 0.05
    }
    for name in ("free", "ahead", "setup", "baseline"):
        if sum(1 + len(text) for _, text in shown.values()) <= width + 2:
            break
        shown.pop(name, None)
    return row(*(part for pair in shown.values() for part in pair))


def _budget_note(moment: Moment, bill: Bill) -> str:
    return money(bill.budget, moment.view.usd_of(bill.budget)) if bill.budget else ""


def _spent(moment: Moment, bill: Bill) -> Text:
    usd_of = moment.view.usd_of
    parts: list[Part] = [
        ("spent ", g.LABEL),
        (money(bill.paid, usd_of(bill.paid)), g.STRONG),
        ("   left " if moment.status is RunStatus.RUNNING else "   not used ", g.LABEL),
        (money(bill.left, usd_of(bill.left)), g.STRONG),
    ]
    if moment.status is RunStatus.RUNNING:
        late = bill.budget and bill.ends_at > LATE * bill.budget
        parts += [
            ("   ends at ", g.LABEL),
            (money(bill.ends_at, usd_of(bill.ends_at)), g.WARN if late else ""),
        ]
    return row(*parts)


def _updates(moment: Moment) -> Text:
    """Updates made, and how many more the budget buys, with its range."""
    view = moment.view
    made: list[Part] = [("updates ", g.LABEL), (str(view.steps), g.STRONG), (" made", g.LABEL)]
    now = view.history.phase_now()
    ending = view.history.finished is not None or (now is not None and now.name == "final")
    if moment.status is not RunStatus.RUNNING or ending:
        return row(*made)
    plan, forecast = view.plan, more_updates(view)
    asked, stage = plan.requested_steps if plan else None, running_stage(view)
    wanted = "" if asked is None else f" of {asked} asked for"
    if stage is not None:
        of = "" if stage.asked is None else f" of {stage.asked}"
        wanted += f", {view.steps - stage.first_step}{of} in {scrub(stage.name)}"
    told = ""
    if forecast is not None:
        more, low, high = forecast
        told = f"about {more} more" + (f" ({low} to {high})" if low != high else "")
    elif plan is not None:
        told = f"about {max(0, plan.steps - view.steps)} more by the plan"
    return row(*made, wanted, "   ", told)


def setup(moment: Moment) -> Panel | None:
    """Progress before the first update, with the seconds that each phase usually takes."""
    history = moment.view.history
    trained = bool(history.steps) and history.steps[-1].attempt == history.attempt
    if trained or moment.status is not RunStatus.RUNNING or history.finished is not None:
        return None
    spans = {span.name: span for span in history.spans if span.attempt == history.attempt}
    # A resumed run has its baseline already, a rehearsal takes a moment on a CPU, and most have
    # nothing to download.
    first = history.attempt == 1
    names = [n for n in _BEFORE_TRAINING if n in spans or (first and PHASES[n].always)]
    names += ["train"] if "train" in spans else []

    def draw(width: int, rows: int) -> list[Text]:
        lines = [rule("setup", width, moment.glyphs)]
        lines += [_setup_line(moment, name, spans.get(name), width) for name in names]
        return [fit(line, width, moment.glyphs) for line in lines[:rows]]

    return Panel(3, 3, len(names) + 1, draw)


def _setup_line(moment: Moment, name: str, span: Span | None, width: int) -> Text:
    label = "first update" if name == "train" else phase_label(name)
    if span is None:
        expected = getattr(moment.view.times, f"{name}_s", None)
        usual = f"about {duration(expected)}" if expected else ""
        return row((f"{moment.glyphs.todo} {label:<13}{usual}", g.LABEL))
    if span.seconds is not None:
        return row((f"{moment.glyphs.done} ", g.GOOD), f"{label:<13}{duration(span.seconds)}")
    since = max(0.0, moment.view.elapsed_s(moment.now) - span.started_s)
    now = moment.view.history.download
    if name == "download" and now is not None:
        told = downloading(now.repo, now.bytes, now.total_bytes, now.seconds)
        repo, _, far = scrub(told).rpartition(": ")  # a narrow terminal cuts the name
        start = row((f"{moment.glyphs.now} ", g.WARN), (f"{label:<13}", g.STRONG))
        return row(start, f"{far}  ", (repo, g.LABEL))
    plan = moment.view.plan if name == "train" else None
    expected = span.expected_s or (plan and plan.step_s)
    parts: list[Part] = [(f"{moment.glyphs.now} ", g.WARN), (f"{label:<13}", g.STRONG)]
    parts.append(f"{duration(since):<9}")
    room = min(40, width - 45)
    if expected:
        parts.append((f"of about {duration(expected):<9} ", g.LABEL))
        if room > 4:
            done = min(room, round(room * since / expected))
            parts += [(moment.glyphs.train * done, g.TRAIN)]
            parts += [(moment.glyphs.ahead * (room - done), g.LABEL)]
    return row(*parts)


def warnings(moment: Moment, width: int) -> Panel | None:
    """Everything that is not right, until it is.

    Args:
        moment: what to draw.
        width: columns it will get, for the rows it can use.
    """
    history = moment.view.history
    texts = [f"{warning.message} [{code}]" for code, warning in history.warnings.items()]
    if texts and moment.status is not RunStatus.RUNNING:  # what they advise was for the run
        run = shlex.quote(short_path(moment.view.run.path))
        texts = [f"at the end: {', '.join(history.warnings)}; see `budgetrl diagnose {run}`"]
    if history.newer_schema:
        texts.append("A newer budgetrl wrote this run; some of it may be missing here.")
    if history.errors and history.finished is None:
        error = history.errors[-1]
        texts.append(f"{error.type}: {error.message} {error.hint}".strip())
    if not texts:
        return None
    marked = [f"{moment.glyphs.warning} {scrub(text)}" for text in texts]
    whole = [wrap(text, width) for text in marked]

    def draw(width: int, rows: int) -> list[Text]:
        if len(marked) > rows:
            rest = f"{moment.glyphs.warning} and {len(marked) - rows + 1} more warnings"
            lines = [*marked[: rows - 1], rest]
        else:
            lines = _newest_whole(whole, rows, moment.glyphs)
        return [fit(marked_warning(line, moment.glyphs), width, moment.glyphs) for line in lines]

    # What to do about it stands at its end: the newest one is cut last.
    least = min(5, len(texts) - 1 + len(whole[-1]))
    return Panel(1, least, sum(map(len, whole)), draw)


def marked_warning(line: str, glyphs: g.Glyphs) -> Text:
    """Its mark in colour; its words in the terminal's own, since yellow on white is not read."""
    mark = glyphs.warning if line.startswith(glyphs.warning) else ""
    return row((mark, g.WARN), (line.removeprefix(mark), g.STRONG))


def _newest_whole(texts: Sequence[list[str]], rows: int, glyphs: g.Glyphs) -> list[str]:
    """A line at least of each text, and the rows that are left for the newest ones."""
    left = rows - len(texts)
    shown: list[str] = []
    for lines in reversed(texts):
        kept = clip(lines, 1 + left, glyphs)
        left -= len(kept) - 1
        shown = kept + shown
    return shown


def end(moment: Moment, width: int) -> Panel | None:
    """What came out, what it cost, what to type next.

    Args:
        moment: what to draw.
        width: columns it will get, for the rows it needs.
    """
    if moment.status is RunStatus.RUNNING:
        return None
    finished = moment.view.history.finished if moment.status is not RunStatus.CRASHED else None
    said = ending(moment.view, finished or moment.status)
    told = [(label, _wrapped(label, text, width)) for label, text in said]

    def draw(width: int, rows: int) -> list[Text]:
        kept = list(told)
        for less_important in _LESS_IMPORTANT:
            if sum(len(lines) for _, lines in kept) < rows:
                break
            kept = [(label, lines) for label, lines in kept if label != less_important]
        lines = [rule("outcome", width, moment.glyphs)]
        return [*lines, *(line for _, lines in kept for line in lines)][:rows]

    whole = 1 + sum(len(lines) for _, lines in told)
    return Panel(1, min(7, whole), whole, draw)


def _wrapped(label: str, text: str, width: int) -> list[Text]:
    style = g.STRONG if label in ("result", "next") else ""
    parts = wrap(scrub(text), max(8, width - 10))
    return [labelled("" if i else label, (part, style), 8) for i, part in enumerate(parts)]


def footer(moment: Moment, hint: str) -> Panel | None:
    """The program's last message, or what the keys do."""
    if not (moment.message or hint):
        return None

    def draw(width: int, rows: int) -> list[Text]:
        line = row((scrub(moment.message), g.STRONG) if moment.message else (hint, g.LABEL))
        return [fit(line, width, moment.glyphs)]

    return Panel(1 if moment.message else 9, 1, 1, draw)
