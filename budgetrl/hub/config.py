"""A model's `config.json`: from the hub's cache, else asked of the hub; a few kilobytes.

read_config("Qwen/Qwen3-4B", None) -> Config(values, source)    None offline and not cached
"""

from functools import cache
from typing import Any, NamedTuple

from budgetrl.errors import ModelError
from budgetrl.files import parse_json
from budgetrl.hub.fetch import fetch
from budgetrl.hub.lookup import cached, look_up
from budgetrl.hub.peek import read_range
from budgetrl.hub.repo import Found, Repo, is_installed, is_offline
from budgetrl.recipe.window import window_in_config

NAME = "config.json"


class Config(NamedTuple):
    """What a model says of itself, and where that was read."""

    values: dict[str, Any]
    source: str


@cache
def read_config(hub_id: str, revision: str | None) -> Config | None:
    """The configuration of a model of the hub; None where neither cache nor hub may be asked.

    Raises:
        ModelError: no such model or revision, no access, or its configuration is no JSON object.
        HubError: the hub does not answer.
    """
    repo = Repo("model", hub_id, revision)
    if not is_installed():
        return None
    here = cached(repo)
    if here is not None and here.named(NAME) is not None:
        return _read(here, "the hub's cache")
    if is_offline():
        return None
    found = look_up(repo)
    file = found.named(NAME)
    if file is None:
        raise ModelError(f"{repo.label} has no {NAME}.", hint=f"See {repo.page}/tree/main.")
    fetch(found, [file])
    return _read(found, "the hub")


def window_in(found: Found) -> int | None:
    """The window of a model of the hub; None where that is not in the usual place.

    Raises:
        ModelError, HubError: its configuration cannot be had or read.
    """
    return window_in_config(_read(found, "").values)


def _read(found: Found, place: str) -> Config:
    file = found.named(NAME)
    assert file is not None
    try:
        values = parse_json(read_range(found, file, 0, file.size))
    except ValueError as error:
        raise ModelError(f"{found.repo.label}: its {NAME} is not JSON: {error}.") from None
    if not isinstance(values, dict):
        raise ModelError(f"{found.repo.label}: its {NAME} is no JSON object.")
    return Config(values, f"{NAME} of {found.repo.id} at {found.commit[:12]}, from {place}")
