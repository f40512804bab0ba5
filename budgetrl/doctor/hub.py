"""What doctor says of the network and the hub: can the models of a recipe be downloaded here?"""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator

from budgetrl.doctor.check import Check, Level
from budgetrl.hub.repo import token
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe

TIMEOUT_S = 5.0
GATED_RECIPE = "llama3.2_r64"
"""The paper's only model that asks for its licence to be accepted."""


def hub_checks(recipe: Recipe) -> Iterator[Check]:
    """The network, the token, and access to the recipe's model and to the gated one."""
    model, gated = recipe.model.id, load_recipe(GATED_RECIPE).recipe.model.id
    wanted = [name for name in dict.fromkeys((model, gated)) if not _is_here(name)]
    endpoint, mine = os.environ.get("HF_ENDPOINT", "https://huggingface.co"), token()
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    first = wanted[0] if wanted else gated
    answer = "HF_HUB_OFFLINE is set" if offline else _ask(endpoint, first, mine)
    yield network(endpoint, answer, needed=model in wanted)
    yield Check.of(
        "hub token",
        mine is not None,
        "note",
        "none" if mine is None else "set",
        "a token, for gated models such as Llama",
        "Make one at huggingface.co/settings/tokens and set HF_TOKEN, or run `hf auth login`.",
    )
    if isinstance(answer, int):
        for name in wanted:
            status = answer if name == first else _ask(endpoint, name, mine)
            yield access(name, status, needed=name == model)


def network(endpoint: str, answer: int | str, *, needed: bool) -> Check:
    """Whether the hub answers.

    Args:
        endpoint: the hub's address.
        answer: an HTTP status, or what went wrong.
        needed: the recipe's model has to be downloaded.
    """
    reached = isinstance(answer, int)
    found = f"{endpoint} answers" if reached else f"{endpoint}: {answer}"
    fix = "Mend the network (HTTPS_PROXY, HF_ENDPOINT), or bring the model in the hub's cache."
    return Check.of("network", reached, "gpu" if needed else "note", found, "the model hub", fix)


def access(model: str, status: int | str, *, needed: bool) -> Check:
    """Whether a model may be downloaded with the token that is set."""
    said = {200: "granted", 401: "refused: no valid token", 403: "refused: licence not accepted"}
    found = said.get(status, f"HTTP {status}") if isinstance(status, int) else status
    fix = f"Accept the licence at huggingface.co/{model}, and set HF_TOKEN to a token of yours."
    if status == 404:
        found, fix = "no such model, or a private one", "Check model.id, and set HF_TOKEN."
    level: Level = "gpu" if needed else "note"
    return Check.of(f"access to {model}", status == 200, level, found, "granted", fix)


def _ask(endpoint: str, model: str, token: str | None) -> int | str:
    """The status of the hub's own question of access, or why there is none."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{endpoint}/api/models/{model}/auth-check", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError) as error:  # URLError, timeouts, an unusable HF_ENDPOINT
        return str(getattr(error, "reason", error))


def _is_here(model: str) -> bool:
    """A local folder, an asset, or in the hub's cache."""
    if local_path(model).startswith("/"):
        return True
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(model, "config.json"), str)
