"""What went wrong with a repository, and the way on, in our words.

    except HUB_ERRORS as error: raise explain(error, repo) from None

The hub's own messages name codes and URLs; which of them mean what was read from huggingface_hub
1.33 (`utils/_http.py`): 401 on a public repository is a bad token, 401 without a token is a
private, gated or missing one.
"""

import difflib
import os
from pathlib import Path

from budgetrl.errors import BudgetRLError, DataError, ModelError, first_line
from budgetrl.hub.repo import Repo, endpoint, token

RETRY_LATER = "The same command goes on where this one stopped."


class HubError(BudgetRLError, OSError):
    """The hub, or the way to it, has a fault; what was downloaded is kept."""


class UnreachableError(HubError):
    """Nobody answers there at all."""


def explain(error: Exception, repo: Repo, file: str | None = None) -> BudgetRLError:
    """A library's error as one of ours.

    Args:
        error: of huggingface_hub or of the HTTP client below it.
        repo: what was asked for.
        file: of that repository.
    """
    from huggingface_hub import errors as hf

    status = getattr(getattr(error, "response", None), "status_code", None)
    match error:
        case hf.GatedRepoError():
            return _gated(repo)
        case hf.RevisionNotFoundError():
            return _no_revision(repo)
        case hf.EntryNotFoundError():
            return wrong(repo, f"{repo.label} has no file {file!r}.", f"See {repo.page}/tree/main.")
        case hf.RepositoryNotFoundError():
            return _no_repository(repo)
        case hf.HFValidationError():
            return wrong(repo, f"{repo.label}: no id of the hub.", "An id reads OWNER/NAME.")
    if status is None:
        return UnreachableError(
            f"{repo.label}: {endpoint()} cannot be reached: {_why(error)}.",
            hint="Mend the network (HTTPS_PROXY, HF_ENDPOINT), or bring the files in the hub's "
            f"cache: {cache_folder()}.",
        )
    return _of_status(status, error, repo, f" for {file}" if file else "")


def _of_status(status: int, error: Exception, repo: Repo, of_file: str) -> BudgetRLError:
    settings = f"{endpoint()}/settings/tokens"
    if status == 401:
        return wrong(
            repo,
            f"{repo.label}: the hub refuses the token that is set.",
            f"Make a new one at {settings} and set HF_TOKEN, or `hf auth login`; a public "
            "repository needs none (unset HF_TOKEN, `hf auth logout`).",
        )
    if status == 403:
        return wrong(
            repo,
            f"{repo.label}: the token that is set may not read it.",
            f"Give it the right to read this repository at {settings}.",
        )
    if status == 429:
        wait = retry_after_s(error)
        when = "in a few minutes" if wait is None else f"in {wait:.0f} s"
        free = "" if token() else " A token (HF_TOKEN) raises the limit."
        return HubError(
            f"{repo.label}: {endpoint()} limits how often it may be asked (HTTP 429).",
            hint=f"Try again {when}.{free} {RETRY_LATER}",
        )
    return HubError(
        f"{repo.label}: {endpoint()} answers with HTTP {status}{of_file}.",
        hint=f"The hub has a fault of its own: try again later. {RETRY_LATER}",
    )


def not_cached(repo: Repo, files: list[str]) -> BudgetRLError:
    """A repository that is not wholly in the cache, while the hub must not be asked."""
    listed = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if len(files) > 5 else "")
    lacking = f": it lacks {listed}" if files else ""
    kind = " --repo-type dataset" if repo.kind == "dataset" else ""
    return wrong(
        repo,
        f"{repo.label} is not in the hub's cache{lacking}, and offline the hub is not asked.",
        f"Leave --offline and HF_HUB_OFFLINE out; or run `hf download {repo.id}{kind}` where there "
        f"is a network, and copy its folder to {cache_folder()}.",
    )


def cache_folder() -> Path:
    """The hub's cache on this machine."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def retry_after_s(error: Exception) -> float | None:
    """Seconds after which a limited hub may be asked again; None where it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        return float(headers.get("Retry-After", ""))
    except ValueError:
        return None


def _gated(repo: Repo) -> BudgetRLError:
    if token() is None:
        return wrong(
            repo,
            f"{repo.label} is gated: its licence has to be accepted, and no token is set.",
            f"Accept it at {repo.page}, make a token at {endpoint()}/settings/tokens, and set "
            "HF_TOKEN or run `hf auth login`.",
        )
    return wrong(
        repo,
        f"{repo.label} is gated, and the account of your token has no access.",
        f"Ask for it at {repo.page} with that account; some owners take hours to answer.",
    )


def _no_revision(repo: Repo) -> BudgetRLError:
    return wrong(
        repo,
        f"{Repo(repo.kind, repo.id).label} has no revision {repo.revision!r}.",
        f"Its branches and tags: {repo.page}/tree/main. A commit that is gone can only come from "
        "the cache of a machine that has it.",
    )


def _no_repository(repo: Repo) -> BudgetRLError:
    near = difflib.get_close_matches(repo.id, _known(repo), n=1, cutoff=0.75)
    guess = f"Did you mean {near[0]}? " if near and near[0] != repo.id else ""
    whose = "a token (HF_TOKEN, or `hf auth login`)"
    if token() is not None:
        whose = "the token of somebody who may read it"
    here = ""
    if Path(repo.id).is_dir():
        here = f" There is a folder of that name here: write ./{repo.id} if you mean it."
    return wrong(
        repo,
        f"{repo.label}: {endpoint()} has no such repository, or it is private.",
        f"{guess}Check the id; a private one needs {whose}.{here}",
    )


def _known(repo: Repo) -> list[str]:
    from budgetrl.recipe.load import list_recipes, load_recipe
    from budgetrl.recipe.suites import SUITES

    recipes = [load_recipe(name).recipe for name in list_recipes()]
    if repo.kind == "model":
        named = (one for recipe in recipes for one in (recipe.model, recipe.teacher))
        return sorted({one.id for one in named if one is not None})
    data = {recipe.data.id for recipe in recipes if recipe.data.id}
    return sorted(data | {suite.id for suite in SUITES.values()})


def wrong(repo: Repo, message: str, hint: str) -> BudgetRLError:
    """A user's mistake about a model or a data set."""
    kind = ModelError if repo.kind == "model" else DataError
    return kind(message, hint=hint)


def _why(error: Exception) -> str:
    if os.environ.get("HTTPS_PROXY") and "roxy" in f"{type(error).__name__}{error}":
        return f"the proxy of HTTPS_PROXY refuses ({first_line(error)})"
    return first_line(error).rstrip(".")
