"""What a repository is and holds, asked of the hub, or of its cache where that suffices.

    look_up(repo) -> Found        commit, and every file with its size; access is proved
    cached(repo) -> Found | None  the same without a request

One request each, a second one for a gated or private repository. Nothing is downloaded.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from budgetrl.hub.errors import cache_folder, explain, not_cached, retry_after_s
from budgetrl.hub.repo import Found, Repo, RepoFile, endpoint, is_offline

TIMEOUT_S = 10.0
"""Of one request."""
PATIENCE_S = 20.0
"""After this long no request is tried again."""
_PASSING = (429, 500, 502, 503, 504)
_PAUSES_S = (1.0, 3.0)

Answer = TypeVar("Answer")


def look_up(repo: Repo) -> Found:
    """What the hub has at a repository's revision; offline, what its cache has.

    Raises:
        ModelError, DataError: no such repository, revision or access; not cached, while offline.
        HubError: the hub cannot be reached or has a fault, three times.
    """
    if is_offline():
        here = cached(repo)
        if here is None:
            raise not_cached(repo, [])
        return here
    return patiently(lambda: _ask(repo), repo)


def moved_to(repo: Repo) -> str | None:
    """The commit that a branch or tag names now; None where the hub does not say."""
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=endpoint()).repo_info(
            repo.id, repo_type=repo.kind, revision=repo.revision, timeout=TIMEOUT_S / 2
        )
    except Exception:  # whatever it is: the run has what it needs without this answer
        return None
    return str(info.sha)


def patiently(ask: Callable[[], Answer], repo: Repo, file: str | None = None) -> Answer:
    """An answer of the hub, asked for again where a fault may pass.

    Raises:
        BudgetRLError: as `explain` makes it.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    began = time.monotonic()
    for pause_s in (*_PAUSES_S, None):
        try:
            return ask()
        except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            wait_s = max(pause_s or 0.0, retry_after_s(error) or 0.0)
            late = time.monotonic() - began + wait_s > PATIENCE_S
            if pause_s is None or late or (status is not None and status not in _PASSING):
                raise explain(error, repo, file) from None
            time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _ask(repo: Repo) -> Found:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint())
    info = api.repo_info(
        repo.id,
        repo_type=repo.kind,
        revision=repo.revision,
        timeout=TIMEOUT_S,
        files_metadata=True,
    )
    if getattr(info, "gated", False) or info.private:
        api.auth_check(repo.id, repo_type=repo.kind)
    assert info.sha is not None
    files = [
        RepoFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else s.blob_id or "")
        for s in info.siblings or ()
    ]
    return Found(repo, info.sha, tuple(sorted(files)))


def cached(repo: Repo) -> Found | None:
    """What the cache holds of a repository's revision; None if nothing.

    Where huggingface_hub has kept the listing of the commit, files that are not here are in it too.
    """
    folder = repo_folder(repo)
    commit = repo.revision if repo.is_pinned else _ref(folder, repo.revision or "main")
    if commit is None or not (folder / "snapshots" / commit).is_dir():
        return None
    return Found(repo, commit, tuple(_listed(repo, commit) or _present(folder, commit)))


def request_of(found: Found, file: RepoFile, span: str | None) -> tuple[str, dict[str, str]]:
    """URL and headers with which a file, or the part `first-last` of it, is asked for."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    repo = found.repo
    url = hf_hub_url(
        repo.id, file.path, repo_type=repo.kind, revision=found.commit, endpoint=endpoint()
    )
    # What is packed on the way has no parts.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    return url, headers if span is None else headers | {"Range": f"bytes={span}"}


def repo_folder(repo: Repo) -> Path:
    """Where the cache keeps a repository."""
    from huggingface_hub.file_download import repo_folder_name

    return cache_folder() / str(repo_folder_name(repo_id=repo.id, repo_type=repo.kind))


def snapshot_folder(found: Found) -> Path:
    """Where the cache shows a repository's files as they are at one commit."""
    return repo_folder(found.repo) / "snapshots" / found.commit


def _ref(folder: Path, name: str) -> str | None:
    try:
        return (folder / "refs" / name).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def _listed(repo: Repo, commit: str) -> list[RepoFile]:
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        tree = get_cached_repo_tree(
            repo.id, repo_type=repo.kind, revision=commit, cache_dir=cache_folder()
        )
    except (CachedRepoTreeNotFoundError, OSError, ValueError):
        return []
    return sorted(RepoFile(f.path, f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in tree)


def _present(folder: Path, commit: str) -> list[RepoFile]:
    root = folder / "snapshots" / commit
    found = []
    for place, _, names in os.walk(root):
        for path in (Path(place) / name for name in names):
            if path.exists():  # a link may point at nothing
                blob = path.resolve().name
                found.append(RepoFile(path.relative_to(root).as_posix(), path.stat().st_size, blob))
    return sorted(found)
