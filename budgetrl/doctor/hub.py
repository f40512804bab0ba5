"""What doctor says of the network and the hub: can what a recipe names be downloaded here?"""

import urllib.error
import urllib.request
from collections.abc import Iterator

from budgetrl.doctor.check import Check, Level, level_of
from budgetrl.errors import BudgetRLError
from budgetrl.hub.layout import Need
from budgetrl.hub.pins import Pin, needs_of, settle_all
from budgetrl.hub.repo import endpoint, is_installed, is_offline, token
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.units import gib

TIMEOUT_S = 5.0
GATED_RECIPE = "llama3.2_r64"
"""The paper's only model that asks for its licence to be accepted."""


def hub_checks(recipe: Recipe) -> Iterator[Check]:
    """The network, the token, all that the recipe takes from the hub, and a gated model."""
    if not is_installed():
        fix = 'Install what training needs: pip install "budgetrl[train]".'
        yield Check("hub", False, "note", "huggingface_hub is not installed", "installed", fix)
        return
    needs = list(needs_of(recipe))
    gated = [need for need in needs_of(load_recipe(GATED_RECIPE).recipe) if need.what == "model"]
    asked = [*needs, *(need for need in gated if need not in needs)]
    reason = None if is_offline() else _unreachable()
    level = level_of(recipe)
    yield _network(reason, level if needs else "note")
    if reason is not None:
        return
    found = dict(zip(asked, settle_all(asked), strict=True))
    yield _token(list(found.values()))
    for need, result in found.items():
        yield _access(need, result, level if need in needs else "note")


def _network(reason: str | None, level: Level) -> Check:
    if is_offline():
        return Check("network", True, level, "the hub is not asked: offline", "the cache", "")
    found = f"{endpoint()} answers" if reason is None else f"{endpoint()}: {reason}"
    fix = "Mend the network (HTTPS_PROXY, HF_ENDPOINT), or bring the files in the hub's cache."
    return Check.of("network", reason is None, level, found, "the model hub", fix)


def _token(results: list[Pin | BudgetRLError]) -> Check:
    """Whether there is a token, and whether the hub knows it."""
    errors = [result for result in results if isinstance(result, BudgetRLError)]
    refused = next((error for error in errors if "refuses the token" in error.message), None)
    mine = token() is not None
    found = "set, and the hub refuses it" if refused else "set" if mine else "none"
    fix = refused.hint if refused else ""
    fix = fix or f"Make one at {endpoint()}/settings/tokens and set HF_TOKEN, or `hf auth login`."
    wanted = "a token, for gated models such as Llama"
    return Check.of("hub token", mine and refused is None, "note", found, wanted, fix)


def _access(need: Need, result: Pin | BudgetRLError, level: Level) -> Check:
    name = f"access to {need.repo.id}"
    if isinstance(result, BudgetRLError):
        return Check(name, False, level, result.message, "granted", result.hint)
    here = "all here" if not result.to_download else f"{gib(result.to_download)} to download"
    found = f"granted; commit {result.found.commit[:12]}, {here}"
    return Check(name, True, level, found, "granted", "")


def _unreachable() -> str | None:
    """Why the hub does not answer; None if it does, whatever it says."""
    try:
        with urllib.request.urlopen(f"{endpoint()}/api/models?limit=1", timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:  # URLError, timeouts, an unusable HF_ENDPOINT
        return str(getattr(error, "reason", error))
