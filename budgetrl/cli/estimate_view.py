"""One estimate for people: a verdict, bars for memory and for one update, where the money goes.

    print_estimate(made, summary)        rich on a terminal, plain text elsewhere

Widths from 60 columns up; without colour the parts of a bar differ by character.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import TextWrapper
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from budgetrl.account.text import clipped
from budgetrl.estimation.advice import advise
from budgetrl.estimation.as_json import assumptions
from budgetrl.estimation.estimate import Estimate
from budgetrl.estimation.learning import SignalPace, paces
from budgetrl.estimation.memory import Verdict
from budgetrl.units import GIB, duration, hours, usd

_MIN_WIDTH, _MAX_WIDTH = 60, 100
_VERDICT = {
    Verdict.FITS: ("fits", "bold green"),
    Verdict.TIGHT: ("tight", "bold yellow"),
    Verdict.NO: ("does not fit", "bold red"),
}
_DIM = "dim"


class Ink(NamedTuple):
    """What bars are drawn with."""

    colour: bool
    """Without it the parts of a bar differ by character."""
    full: str = "█"
    eighths: str = " ▏▎▍▌▋▊▉"
    rest: str = "·"
    box: str = "■"


_ASCII = Ink(colour=False, full="#", eighths=" " * 8, rest=".", box="#")


class Part(NamedTuple):
    """A share of a bar."""

    name: str
    amount: float
    colour: str
    mark: str
    """Fills the bar where there is no colour."""


def print_estimate(
    made: Estimate, summary: str = "", beside: Estimate | None = None, probe: Path | None = None
) -> None:
    """Write an estimate to standard output, compared with another recipe's if there is one."""
    width = max(_MIN_WIDTH, min(_MAX_WIDTH, shutil.get_terminal_size((80, 24)).columns)) - 1
    console = Console(file=sys.stdout, width=width, highlight=False)
    ink = _ink(console.encoding, colour=console.color_system is not None)
    page = blocks(made, summary, width, ink)
    if made.fits and made.scenario.recipe.engine.device != "cpu":
        page.insert(-1, _indented(_learning(made, beside, probe, width - 2)))
    for block in page:
        console.print(block)


def blocks(made: Estimate, summary: str, width: int, ink: Ink) -> list[Text]:
    """The lines of the page, block by block."""
    inside = width - 2
    page = [_title(made, summary, inside)]
    page.append(_memory(made, inside, ink))
    if made.fits:
        page += [_update(made, inside, ink), _run(made, inside, ink), _outcome(made, inside)]
    page += [_advice(made, inside), _assumptions(made, inside)]
    return [_indented(block) for block in page if block.plain]


def _ink(encoding: str, *, colour: bool) -> Ink:
    """The richest characters that the output can carry."""
    ink = Ink(colour)
    try:
        f"{ink.full}{ink.eighths}{ink.rest}{ink.box}".encode(encoding)
    except (UnicodeError, LookupError):
        return _ASCII
    return ink


def _title(made: Estimate, summary: str, width: int) -> Text:
    word, style = _VERDICT[made.memory.verdict]
    name, gpu = made.scenario.recipe.name, made.scenario.gpu
    head = Text(f"{name}", style="bold")
    head.append(f" on {clipped(gpu.name, width - len(name) - len(word) - 8)}", style="default")
    line = _sides(head, Text(word, style=style), width)
    text = Text("\n").append_text(line).append("\n")
    lora = made.scenario.recipe.lora
    scale = "" if lora.scale is None else f", scale alpha/r {lora.scale:g}"
    text.append(f"{summary or made.scenario.shape.name}", style=_DIM)
    text.append(f"\n{lora.description}{scale}", style=_DIM)
    if made.memory.reason:
        text.append("\n")
        text.append_text(_wrapped(made.memory.reason, width, style.removeprefix("bold ")))
    return text


def _memory(made: Estimate, width: int, ink: Ink) -> Text:
    """Both phases on one scale, the card's size at its end."""
    memory = made.memory
    text = _heading("Memory", f"{_gib(memory.peak)} of {_gib(memory.usable)} GiB", width)
    text.append(f"80 % band {_gib(memory.low)} - {_gib(memory.high)} GiB\n", style=_DIM)
    state = memory.adapter + memory.gradients + memory.optimizer
    held = [
        Part("weights", memory.weights, "blue", "w"),
        Part("adapter, gradients, optimiser", state, "cyan", "a"),
        Part("teacher", memory.teacher, "bright_cyan", "t"),
    ]
    runtime = Part("runtime", memory.runtime, _DIM, "r")
    buffers = "vLLM buffers" if made.scenario.vllm else "buffers"
    generation = [
        *held,
        Part("KV cache", memory.kv_cache, "green", "k"),
        Part(buffers, memory.rollout_buffers, "magenta", "b"),
        runtime,
    ]
    held.append(Part("vLLM meanwhile", memory.beside_training, "magenta", "v"))
    training = [
        *held,
        Part("logits", memory.logits, "yellow", "l"),
        Part("activations", memory.activations, "red", "c"),
        runtime,
    ]
    phases = [("generating", generation), ("training", training)]
    if memory.reference:
        scored = Part("reference pass", memory.reference, "bright_yellow", "p")
        phases.insert(1, ("reference", [*held, scored, runtime]))
    scale = max(memory.usable, memory.peak)
    for name, parts in phases:
        together = sum(part.amount for part in parts)
        bar = stacked(parts, scale, width - 24, ink)
        text.append(f"{name:<11}").append_text(bar).append(f" {_gib(together):>5} GiB\n")
    every = [part for _, parts in phases for part in parts]
    seen = {part.name: part for part in every if part.amount >= 0.05 * GIB}
    text.append_text(_legend(list(seen.values()), width, ink))
    if memory.utilization is not None:
        stated = made.scenario.recipe.engine.gpu_memory_utilization is not None
        line = (
            f"vLLM takes {_gib(memory.reserved)} GiB, weights included: "
            f"engine.gpu_memory_utilization {memory.utilization:.2f}, "
            f"{'as the recipe says' if stated else 'what it needs'}"
        )
        text.append_text(_wrapped(line, width, _DIM))
    return text


def _update(made: Estimate, width: int, ink: Ink) -> Text:
    """Phases of one update, one bar each."""
    times, step = made.times, made.times.step_s
    text = _heading("One update", duration(step), width)
    low, high = duration(made.step_band.low), duration(made.step_band.high)
    tokens = made.tokens_per_step
    count = made.scenario.recipe.completions_per_step
    text.append(f"80 % band {low} - {high}; {count} completions, {tokens:,.0f} tokens\n", _DIM)
    rows = [
        ("rollout", times.rollout_s, "green"),
        ("rewards", times.reward_s, "yellow"),
        ("log-probs", times.logprob_s, "cyan"),
        ("update", times.update_s, "magenta"),
        ("other", times.other_s, _DIM),
    ]
    longest = max(seconds for _, seconds, _ in rows)
    for name, seconds, style in rows:
        bar = single(seconds / longest if longest else 0.0, width - 30, ink)
        text.append(f"{name:<11}").append(f"{bar:<{width - 30}}", style=style)
        text.append(f"{duration(seconds):>11}{seconds / step:>6.0%}\n")
    return text


def _run(made: Estimate, width: int, ink: Ink) -> Text:
    """Where the whole run's time and money go."""
    plan, times = made.plan, made.times
    budget = made.budget.wall_s if made.budget is not None else plan.total_s
    parts = [
        Part("setup", plan.setup_s, "blue", "s"),
        Part("baseline", plan.baseline_s, "cyan", "b"),
        Part(f"{made.steps} updates", plan.steps * times.step_s, "green", "#"),
        Part("evaluations", plan.step_evals_s, "yellow", "e"),
        Part("checkpoints", plan.saves_s + times.save_s, "red", "c"),
        Part("final", times.final_s + plan.report_s, "magenta", "f"),
    ]
    rest = budget - sum(part.amount for part in parts)
    scale = max(budget, plan.total_s)
    text = _heading("The run", _money(made), width)
    bar = stacked(parts, scale, width, ink)
    text.append_text(bar).append("\n")
    items = [(part, duration(part.amount)) for part in parts if part.amount >= 0.5]
    if rest > 60 and made.budget is not None:
        items.append((Part("left over", rest, _DIM, "."), duration(rest)))
    text.append_text(_legend([part for part, _ in items], width, ink, [t for _, t in items]))
    return text


def _outcome(made: Estimate, width: int) -> Text:
    """What the budget buys, in one or two sentences."""
    text = Text()
    affordable, band = made.affordable_steps, made.affordable_band
    if made.budget is not None and affordable is not None and band is not None:
        what = duration(made.budget.wall_s)
        if made.price is not None:
            what += f" ({usd(made.usd_of(made.budget.wall_s))})"
        text.append(f"{what} buys {affordable} updates", style="bold")
        text.append(f" ({band.low:.0f} - {band.high:.0f})", style=_DIM)
        asked = made.requested_steps
        text.append(f"; {asked} are wanted.\n" if asked is not None else ".\n")
    if made.scenario.recipe.paper is not None:
        share = f"{hours(made.evaluation_s):.1f}"
        note = f"Evaluations take about {share} h of it; the paper's 24 h are training alone."
        text.append_text(_wrapped(note, width, _DIM)).append("\n")
    if made.price is None:
        text.append_text(_wrapped("No price is known: give it with --price.", width, "yellow"))
    return text


def _learning(made: Estimate, beside: Estimate | None, probe: Path | None, width: int) -> Text:
    """Groups with signal for the time and the money, and beside another recipe."""
    ours = paces(made, probe)
    text = _heading("Groups with right and wrong answers", "", width)
    for number, pace in enumerate(ours):
        line = f"{pace.per_hour:.0f} an hour"
        if pace.per_usd is not None:
            line += f", {pace.per_usd:.0f} a dollar"
        line += f", if {pace.share.value:.0%} of those drawn are ({pace.share.source})"
        style = _DIM if number else "default"
        text.append("- ").append_text(_wrapped(line, width - 2, style, hang=2)).append("\n")
    if beside is not None:
        line = _compared(ours, paces(beside, probe), beside.scenario.recipe.name)
        text.append_text(_wrapped(line, width, "default")).append("\n")
    return text


def _compared(ours: Sequence[SignalPace], theirs: Sequence[SignalPace], name: str) -> str:
    """How much more one recipe's groups are than another's, at each share and in its own order."""
    alike = {pace.share: pace.per_hour for pace in ours}
    base, *ends = (pace for pace in theirs if pace.share in alike)
    line = f"{alike[base.share] / base.per_hour:.2f} times those of {name}"
    line += f" ({base.per_hour:.0f} an hour) at the same share"
    if ends:
        band = [f"{alike[p.share] / p.per_hour:.2f} at {p.share.value:.0%}" for p in ends]
        line += f" ({', '.join(band)})"
    known = {pace.share for pace in theirs}
    for pace in ours:
        if pace.share not in known:
            line += f"; {pace.per_hour / base.per_hour:.2f} times with the share of its order"
    return f"{line}."


def _advice(made: Estimate, width: int) -> Text:
    lines = advise(made)
    if not lines:
        return Text()
    text = _heading("To make it fit" if not made.fits else "To get more", "", width)
    for line in lines:
        text.append("- ").append_text(_wrapped(line, width - 2, "default", hang=2)).append("\n")
    return text


def _assumptions(made: Estimate, width: int) -> Text:
    text = _heading("Assumed", "", width)
    for key, value, source in assumptions(made):
        text.append_text(_wrapped(f"{key} {value}: {source}", width, _DIM, hang=2)).append("\n")
    if made.price is not None:
        dated = f", {made.price.date}" if made.price.date else ""
        line = f"price {usd(made.price.usd_per_hour)} per hour: {made.price.source}{dated}"
        text.append_text(_wrapped(line, width, _DIM, hang=2))
    return text


def stacked(parts: Sequence[Part], scale: float, width: int, ink: Ink) -> Text:
    """A bar of several parts; cells are dealt so that the parts add up to their sum."""
    bar = Text()
    edge, done = 0.0, 0
    for part in parts:
        edge += part.amount
        cells = round(min(1.0, edge / scale) * width) - done if scale > 0 else 0
        done += cells
        bar.append((ink.full if ink.colour else part.mark) * cells, style=part.colour)
    return bar.append(ink.rest * (width - done), style=_DIM)


def single(share: float, width: int, ink: Ink) -> str:
    """A bar with eighths of a cell at its end."""
    eighths = round(share * width * 8)
    whole, rest = divmod(eighths, 8)
    return ink.full * whole + (ink.eighths[rest] if rest else "")


def _legend(
    parts: Sequence[Part], width: int, ink: Ink, values: Sequence[str] | None = None
) -> Text:
    """What the colours of a bar mean, with amounts; as many to a line as fit."""
    shown = values or [f"{_gib(part.amount)}" for part in parts]
    text, used = Text(), 0
    for part, value in zip(parts, shown, strict=True):
        entry = f"{part.name} {value}"
        if used and used + len(entry) + 5 > width:
            text.append("\n")
            used = 0
        text.append(f"{ink.box if ink.colour else part.mark} ", style=part.colour)
        text.append(f"{part.name} ", style="default").append(f"{value}   ", style=_DIM)
        used += len(entry) + 5
    return text.append("\n")


def _money(made: Estimate) -> str:
    total = duration(made.plan.total_s)
    if made.price is None or made.usd is None:
        return total
    low, high = usd(made.usd_of(made.total_band.low)), usd(made.usd_of(made.total_band.high))
    return f"{total}, {usd(made.usd)} ({low} - {high})"


def _heading(left: str, right: str, width: int) -> Text:
    return _sides(Text(left, style="bold"), Text(right, style="bold"), width).append("\n")


def _sides(left: Text, right: Text, width: int) -> Text:
    gap = max(1, width - left.cell_len - right.cell_len) if right.plain else 0
    return Text().append_text(left).append(" " * gap).append_text(right)


def _wrapped(line: str, width: int, style: str, hang: int = 0) -> Text:
    """Words broken into lines; later lines hang in."""
    words = TextWrapper(width, subsequent_indent=" " * hang, break_long_words=False)
    words.break_on_hyphens = False
    return Text(words.fill(line), style=style)


def _indented(block: Text) -> Text:
    block.rstrip()
    lines = block.split("\n")
    for line in lines:
        line.rstrip()
    indented = [Text(" ").append_text(line) if line.plain else line for line in lines]
    return Text("\n").join(indented).append("\n")


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f}" if num_bytes < 99.95 * GIB else f"{num_bytes / GIB:.0f}"
