"""Which runs are seeds of one arm: same settings for learning, same evaluation protocols.

    groups_of(runs) -> [Group(runs, settings)]      in order of appearance
    apart(groups)   -> ["learning_rate 0.001", "learning_rate 0.0001"]

Money, places, names and what only changes speed may differ between the seeds of an arm.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.run import mapping
from budgetrl.recipe.base import Rank
from budgetrl.types import Protocol

_NO_LEARNING = {
    *("recipe", "paper", "expected", "stated", "inferred", "deviation"),
    *("engine", "checkpoint", "budget", "tracker", "sweep"),
}
"""Tables without influence on what is learnt; the seed is in [recipe]."""
_SHOWN = 3


@dataclass(slots=True)
class Group:
    """Runs that differ in the seed only."""

    name: str
    """Of the model."""
    settings: Mapping[str, Any]
    protocols: dict[tuple[str, str], Protocol] = field(default_factory=dict)
    """By suite and moment, as far as any of its runs has them."""
    runs: list[EvaluatedRun] = field(default_factory=list)

    def takes(self, run: EvaluatedRun, name: str, settings: Mapping[str, Any]) -> bool:
        """Adds a run that belongs here."""
        mine = _protocols(run)
        agree = all(self.protocols.get(key, mine[key]) == mine[key] for key in mine)
        if (self.name, self.settings) != (name, settings) or not agree:
            return False
        self.runs.append(run)
        self.protocols |= mine
        return True

    @property
    def rank(self) -> Rank | None:
        """LoRA rank, or "full"."""
        recipe = self.runs[0].recipe
        return recipe.lora.rank if recipe else None

    @property
    def scale(self) -> float | None:
        """alpha / r."""
        recipe = self.runs[0].recipe
        return recipe.lora.scale if recipe else None


def groups_of(runs: Iterable[EvaluatedRun]) -> list[Group]:
    """Seeds together, in order of appearance."""
    groups: list[Group] = []
    for run in runs:
        name, settings = model_name(run), _settings(run)
        if not any(group.takes(run, name, settings) for group in groups):
            group = Group(name, settings)
            group.takes(run, name, settings)
            groups.append(group)
    return groups


def apart(groups: Sequence[Group]) -> list[str]:
    """What tells groups of one model, rank and scale from each other; nothing for a single one."""
    if len(groups) < 2:
        return [""] * len(groups)
    sides: list[Mapping[str, Any]] = [group.settings for group in groups]
    if all(side == sides[0] for side in sides):
        sides = [_flat(_by_field(group.protocols)) for group in groups]
    keys = dict.fromkeys(key for side in sides for key in side)
    differing = [key for key in keys if any(s.get(key) != sides[0].get(key) for s in sides)]
    return [_listed(f"{key.split('.')[-1]} {side.get(key, '-')}" for key in differing)
            for side in sides]  # fmt: skip


def _listed(items: Iterable[str]) -> str:
    different = list(dict.fromkeys(items))
    return ", ".join(different[:_SHOWN]) + (", ..." if different[_SHOWN:] else "")


def model_name(run: EvaluatedRun) -> str:
    """The paper's name of the model, else the last part of its id."""
    if run.recipe is not None and run.recipe.paper is not None and run.recipe.paper.row:
        return run.recipe.paper.row
    return run.model.rstrip("/").split("/")[-1]


def _settings(run: EvaluatedRun) -> dict[str, Any]:
    """Everything that changes what is learnt, flat: {"schedule.learning_rate": 0.001}.

    How it is trained comes first, as what tells most.
    """
    tables = run.recipe.model_dump(mode="json") if run.recipe else dict(run.tables)
    tables = {name: table for name, table in tables.items() if name not in _NO_LEARNING}
    if run.recipe:
        lora = run.recipe.lora
        alpha = None if lora.is_full else lora.resolved_alpha
        tables["lora"] |= {"alpha": alpha, "alpha_policy": None, "scale": lora.scale}
    flat = _flat(tables)
    flat.pop("stages", None)  # without any; those of several are stages.0.name and so on
    if run.recipe:
        kinds = [stage.kind.value for stage in run.recipe.stages]
        flat = {"stages": " + ".join(kinds) or "grpo"} | flat
    for key in [key for key in flat if key.split(".")[0] == "eval" and key.endswith(".path")]:
        del flat[key]  # the protocol knows its problems
    flat.pop("model.id", None)
    flat.pop("batch.micro_batch", None)
    fingerprint = mapping(run.manifest.get("data")).get("fingerprint")
    place = flat.pop("data.path", None)
    flat["data"] = fingerprint or (place and Path(str(place)).name)
    return flat


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        items = [(str(number), inner) for number, inner in enumerate(value)]
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in items:
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else key)
    return flat


def _protocols(run: EvaluatedRun) -> dict[tuple[str, str], Protocol]:
    return {key: stored.protocol for key, stored in run.stored.items()}


def _by_field(protocols: Mapping[tuple[str, str], Protocol]) -> dict[str, Any]:
    return {f"{suite}.{when}": asdict(p) for (suite, when), p in protocols.items()}
