"""Puts one frame together for a terminal of any size. Pure: a moment in, lines out.

80 x 24     one column; the completion goes first when rows are short
120 x 40    curves left, speed and evaluation right
20 x 5      a handful of words
"""

from dataclasses import replace

from rich.text import Text

from budgetrl.account.bill import more_updates
from budgetrl.account.outcome import STATUS_TONES
from budgetrl.account.text import scrub
from budgetrl.display import glyphs as g, model_panels, panels
from budgetrl.display.layout import Panel, beside, stack
from budgetrl.display.moment import Moment
from budgetrl.display.spark import chart
from budgetrl.display.typeset import fit, row
from budgetrl.types import RunStatus
from budgetrl.units import duration, percent

WIDE = 110
SMALL_WIDTH = 50
SMALL_HEIGHT = 10
MARGIN = 1
LEFT_SHARE = 0.5


def frame(moment: Moment, width: int, height: int, hint: str = "") -> list[Text]:
    """At most `height` lines of at most `width` cells."""
    if width < SMALL_WIDTH or height < SMALL_HEIGHT:
        return [fit(line, width, moment.glyphs) for line in _small(moment, width)[:height]]
    inner = width - 2 * MARGIN
    footer = panels.footer(moment, hint)
    lines = stack(_panels(moment, inner), inner, height - (footer is not None))
    if footer is not None:
        lines += [Text("")] * (height - 1 - len(lines)) + footer.draw(inner, 1)
    return [row(" " * MARGIN, line) for line in lines]


def _panels(moment: Moment, width: int) -> list[Panel]:
    found = [panels.header(moment), panels.warnings(moment, width), panels.end(moment, width)]
    found += [panels.budget(moment), panels.setup(moment)]
    learning = _kept(moment, "learning", model_panels.learning(moment))
    wide = width >= WIDE and learning is not None
    other_width = width - round(width * LEFT_SHARE) if wide else width
    others = [
        _kept(moment, "speed", model_panels.speed(moment)),
        _kept(moment, "evaluations", model_panels.evaluations(moment)),
        model_panels.completion(moment, other_width),
    ]
    if wide and learning is not None:
        right = [panel for panel in others if panel is not None]
        found.append(beside([learning], right, 3, LEFT_SHARE))
    else:
        found += [learning, *others]
    return [panel for panel in found if panel is not None]


def _kept(moment: Moment, name: str, panel: Panel | None) -> Panel | None:
    """A panel that depends on events alone, drawn once for each size until there is a new one."""
    if panel is None:
        return None

    def draw(width: int, rows: int) -> list[Text]:
        key = (name, width, rows)
        if key not in moment.view.drawn:
            moment.view.drawn[key] = panel.draw(width, rows)
        lines: list[Text] = moment.view.drawn[key]
        return lines

    return replace(panel, draw=draw)


def _small(moment: Moment, width: int) -> list[Text]:
    """The most important words, for a corner of a screen."""
    view, bill = moment.view, moment.bill
    accuracy = view.series["accuracy"]
    lines = [
        row(
            (scrub(view.name), g.STRONG), " ", (moment.doing, g.TONES[STATUS_TONES[moment.status]])
        ),
        row(("left ", g.LABEL), (duration(bill.left), g.STRONG)),
        row(("spent ", g.LABEL), duration(bill.paid)),
        row(("update ", g.LABEL), str(view.steps)),
    ]
    forecast = more_updates(view)
    if forecast is not None and moment.status is RunStatus.RUNNING:
        lines[3].append(f" ~{forecast[0]} more")
    if accuracy.last is not None:
        lines.append(row(("accuracy ", g.LABEL), percent(accuracy.last)))
        drawn = chart(accuracy.values(width), width, 1, moment.glyphs)
        lines.append(row((drawn[0], g.CURVES["accuracy"])))
    for warning in view.history.warnings.values():
        text = f"{moment.glyphs.warning} {scrub(warning.message)}"
        lines.insert(1, panels.marked_warning(text, moment.glyphs))
    if moment.message:
        lines.insert(1, row((scrub(moment.message), g.STRONG)))
    return lines
