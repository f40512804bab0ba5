"""Repositories of the hub by name, and what the hub says of one at a commit.

    Repo("model", "Qwen/Qwen3-0.6B", None)        as a recipe names it
    Found(repo, commit, files)                    as the hub, or its cache, has it

An id never means a folder: `./Qwen/Qwen3-0.6B` does, and `asset:NAME`. Imports no huggingface_hub.
"""

import os
import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal, NamedTuple, Self

Kind = Literal["model", "dataset"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class Repo:
    """A model or a data set of the hub."""

    kind: Kind
    id: str
    revision: str | None = None
    """Branch, tag or commit; None: main."""

    @property
    def label(self) -> str:
        """As messages name it."""
        at = "" if self.revision is None else f" at {self.revision[:12]}"
        return f"{'model' if self.kind == 'model' else 'data set'} {self.id!r}{at}"

    @property
    def page(self) -> str:
        """Its page on the hub."""
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.id}"

    @property
    def is_pinned(self) -> bool:
        """Whether its revision is a commit, which never changes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> Self:
        """The same repository at a commit."""
        return replace(self, revision=commit)


class RepoFile(NamedTuple):
    """A file of a repository."""

    path: str
    size: int
    """Bytes."""
    blob: str
    """Its name in the cache: SHA-256 of a large file, git's own SHA-1 of a small one."""

    @property
    def is_large(self) -> bool:
        """Stored outside git, so that `blob` is a SHA-256."""
        return len(self.blob) == 64


@dataclass(frozen=True, slots=True)
class Found:
    """A repository at one commit."""

    repo: Repo
    commit: str
    files: tuple[RepoFile, ...]

    @property
    def pinned(self) -> Repo:
        """The repository at this commit."""
        return self.repo.at(self.commit)

    def named(self, path: str) -> RepoFile | None:
        """The file of that path."""
        return next((file for file in self.files if file.path == path), None)


def is_hub_id(ref: str) -> bool:
    """Whether a model reference names a repository of the hub, not a folder or an asset."""
    return _ID.fullmatch(ref) is not None


def endpoint() -> str:
    """Address of the hub."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def is_offline() -> bool:
    """Whether the hub must not be asked."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.lower() in _TRUE


def is_installed() -> bool:
    """Whether huggingface_hub is there: estimates and reports run without it."""
    return find_spec("huggingface_hub") is not None


def token() -> str | None:
    """The user's token; None where there is none or its file cannot be read."""
    if not is_installed():
        return os.environ.get("HF_TOKEN")
    from huggingface_hub import get_token

    try:
        found: str | None = get_token()
    except OSError:
        return None
    return found
