"""What updates buy: groups with signal (right and wrong answers) for an hour and a dollar.

    pace = signal_pace(made)                 at an assumed share of groups
    pace = signal_pace(made, probed(file))   at the share that a probe's solve rates give

A group whose answers are all right or all wrong teaches nothing, so updates of two recipes are not
alike; groups with signal are. Where the others are left out, an update's seconds depend on them.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from budgetrl.data.difficulty import read_rates
from budgetrl.errors import DataError
from budgetrl.estimation.estimate import Estimate
from budgetrl.estimation.phases import make_phases
from budgetrl.estimation.scenario import LIVE_GROUPS, signal_shares
from budgetrl.recipe.schema import Recipe
from budgetrl.types import Problem

HOUR_S = 3600.0
LOW, HIGH = 0.22, 0.8
"""Shares that were seen: Open-RS before training (78 % without signal), and later."""
ORDER_ODDS = 3.7
"""What the order by difficulty multiplies the odds of a group with signal by: 28 % became 59 % at
the least on `hard` (docs/measurements/signal.json, 2026-11-29); on `easy`, nothing."""
_ORDER_SOURCE = "as the order by difficulty was measured on hard problems of a tiny model"


@dataclass(frozen=True, slots=True)
class Share:
    """Share of groups with signal among those rolled out."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class SignalPace:
    """Groups with signal that are trained on."""

    share: Share
    per_hour: float
    """Of training, at the expected seconds of an update with that share."""
    per_usd: float | None

    def to_json(self) -> dict[str, Any]:
        """For `estimate --json`."""
        return {
            "share": self.share.value,
            "source": self.share.source,
            "per_hour": self.per_hour,
            "per_usd": self.per_usd,
        }


ASSUMED = Share(LIVE_GROUPS, "assumed, in every order")


def signal_pace(made: Estimate, share: Share = ASSUMED) -> SignalPace:
    """Groups with signal per hour and dollar of a GPU recipe, at a share."""
    recipe = made.scenario.recipe

    def seconds(of_groups: float) -> float:
        live, rollouts = signal_shares(recipe, of_groups)
        scenario = replace(made.scenario, live_share=live, rollout_factor=rollouts)
        return make_phases(scenario, made.memory).times(None).step_s

    # What an earlier run has measured scales both alike.
    step_s = made.times.step_s * seconds(share.value) / seconds(LIVE_GROUPS)
    wanted = share.value * (signal_shares(recipe, share.value)[1])
    per_hour = recipe.batch.prompts_per_step * min(1.0, wanted) * HOUR_S / step_s
    hourly = made.usd_of(HOUR_S)
    return SignalPace(share, per_hour, per_hour / hourly if hourly else None)


def paces(made: Estimate, probe: Path | None = None) -> list[SignalPace]:
    """The expected pace first, then the two ends of what was seen, and that of its order.

    Or, by a probe, the pace in the recipe's order first, then that in uniform order.

    Raises:
        DataError: the probe's file is no table of solve rates.
    """
    if probe is not None:
        recipe = made.scenario.recipe
        orders = dict.fromkeys((recipe.signal.order, "uniform"))
        recipes = [recipe.but({"signal.order": order}) for order in orders]
        return [signal_pace(made, probed(ordered, probe)) for ordered in recipes]
    found = [ASSUMED, Share(LOW, "the least seen"), Share(HIGH, "the most seen")]
    if made.scenario.recipe.signal.order == "difficulty":
        odds = ORDER_ODDS * LIVE_GROUPS / (1 - LIVE_GROUPS)
        found.append(Share(odds / (1 + odds), _ORDER_SOURCE))
    return [signal_pace(made, share) for share in found]


def probed(recipe: Recipe, file: Path) -> Share:
    """The share that a table of `budgetrl probe` gives, in the order of the recipe.

    Raises:
        DataError: it is no such table.
    """
    rates = read_rates(file, recipe.signal.decay, "--from-probe")
    ids, size = rates.problems(), recipe.grpo.num_generations
    if not ids:
        raise DataError(f"--from-probe {file}: a table without problems.")
    chances = [rates.chance_of_signal(Problem(name, "", ""), size) for name in ids]
    uniform = fmean(chances)
    source = f"solve rates of {len(ids)} problems, {file}"
    if recipe.signal.order != "difficulty":
        return Share(uniform, source)
    # Drawn with the square of their chance as weight, as the sampler does (data.sampler).
    weights = [chance**2 for chance in chances]
    drawn = sum(w * c for w, c in zip(weights, chances, strict=True)) / max(1e-12, sum(weights))
    explore = recipe.signal.explore
    return Share(explore * uniform + (1 - explore) * drawn, f"{source}, by difficulty")
