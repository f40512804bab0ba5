"""Takes out of texts what must not be shared: keys, passwords, tokens in addresses, machine paths.

    masked(text)             keys of well-known forms, what addresses hold besides host and path,
                             and values that this process knows to be secret (`keep_secret`)
    masked_tree(value)       the same for JSON; values of keys that name secrets go as a whole
    masked_command(argv)     a command line
    shareable(text)          masked, and without this machine's folders and user names
    mask_output()            all that this process prints

For all that people pass on: manifest, events, logs, reports, model cards. What a resumption needs
(recipe, plan) is kept as it is, in files that only their owner may read.
"""

import io
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

MASK = "[secret]"

_SECRET_NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:token|secrets?|passwords?|passwd|pwd|passphrase|credentials?|authorization|"
    r"bearer|cookies?|(?:api|access|private|secret)[_-]?keys?|webhooks?)$"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_COUNTED = re.compile(r"(?i)(?:max|min|num|answer|think|context|per)_tokens$|tokens_per")
_ASSIGNED = re.compile(
    r"(?i)(\b[\w.-]*(?:token|secret|password|passwd|passphrase|credential|webhook|"
    r"(?:api|access|private|secret)[_-]?key)\b[\"']?\s*[=:]\s*)"
    r"(?![\"']?\[secret)(?:\"[^\"]+\"|'[^']+'|[^\s\"',;&]{6,})"
)
_KEYS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[opsu]_[A-Za-z0-9]{16,}|"
    r"github_pat_[A-Za-z0-9_]{16,}|glpat-[A-Za-z0-9_-]{16,}|AKIA[A-Z0-9]{12,}|"
    r"xox[a-z]-[A-Za-z0-9-]{10,}|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]+)?|"
    r"[a-f0-9]{40}(?=@))"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+(?!\[secret)[A-Za-z0-9._~+/=-]{12,}")
_ADDRESS = re.compile(r"\b([a-zA-Z][a-zA-Z0-9+.-]*://)([^\s\"'<>]+)")
_RANDOM_LENGTH = 16
"""Of a piece of an address that is taken for a token, if it mixes letters and digits."""
_HEX = re.compile(r"(?i)(?:[0-9a-f]{4,}-){2,}[0-9a-f]{4,}")
"""The same in groups, such as a UUID."""
_FILE = re.compile(r"\bfile://[\w.-]*(/[^\s\"'<>]+)")
_PATH = re.compile(
    r"(?<![\w/.~@\]-])(?!//)(?:~|(?:\.\./)*\.\.)?/(?:[\w.@+~=-]+/)+[\w.@+~=-]*"
    r"|(?<![\w/.:~@\]-])/root(?![\w/-])"
)
_HOME = re.compile(r"/(?:home|Users)/[^/]+/?|/root/?")
_ON_FINISH = "--on-finish"
_KNOWN = re.compile(r"(?=.*[A-Z0-9])[\w.+/=:@~-]{6,}")
"""A value that is looked for in texts: no word that means itself elsewhere, such as "</think>"."""
_known: list[str] = []
"""Longest first, for one may be a part of another."""


def keep_secret(tables: Any) -> None:
    """From now on `masked` hides the values of keys that name secrets, wherever they stand.

    Args:
        tables: any JSON value, such as a recipe; or an environment.
    """
    found = {text for text in _secrets(tables, False) if _KNOWN.fullmatch(text)}
    _known[:] = sorted({*_known, *found}, key=len, reverse=True)


def _secrets(value: Any, named: bool) -> Iterator[str]:
    match value:
        case str():
            if named:
                yield value
        case Mapping():
            for key, inner in value.items():
                yield from _secrets(inner, named or names_secret(str(key)))
        case list() | tuple():
            for inner in value:
                yield from _secrets(inner, named)


def masked(text: str) -> str:
    """A text without keys, and addresses without credentials, queries and long random parts."""
    for secret in _known:
        text = text.replace(secret, MASK)
    if "://" in text:
        text = _ADDRESS.sub(lambda found: found[1] + _address(found[2]), text)
    text = _KEYS.sub(MASK, text)
    text = _BEARER.sub(lambda found: f"{found[1]} {MASK}", text)
    return _ASSIGNED.sub(lambda found: found[1] + MASK, text)


def shareable(text: str) -> str:
    """The same, and of each path from outside this folder only its last part."""
    text = _FILE.sub(lambda found: _last_part(found[1]), masked(text))
    return _PATH.sub(lambda found: _last_part(found[0]), text)


def names_secret(key: str) -> bool:
    """Whether a key such as `tracker.api_key` names something secret."""
    key = _HUMP.sub("_", key)
    return bool(_SECRET_NAME.search(key)) and not _COUNTED.search(key)


def masked_tree(value: Any, text: Any = masked) -> Any:
    """JSON with every text masked, and all values of keys that name secrets.

    Args:
        value: any JSON value.
        text: what is done with each text.
    """
    match value:
        case str():
            return text(value)
        case Mapping():
            return {key: _masked_value(str(key), inner, text) for key, inner in value.items()}
        case list() | tuple():
            return [masked_tree(inner, text) for inner in value]
    return value


def masked_command(argv: Sequence[str]) -> str:
    """A command line as it may be stored: without what is run at the end, and without secrets."""
    return shlex.join(_arguments(argv)).replace(f"'{MASK}'", MASK)


def _arguments(argv: Sequence[str]) -> Iterator[str]:
    before = ""
    for argument in argv:
        parts = argument.split("=")
        named = [n for n, part in enumerate(parts[:-1]) if part == _ON_FINISH or names_secret(part)]
        if before == _ON_FINISH:
            yield MASK
        elif named:  # KEY=VALUE, or --set=KEY=VALUE
            yield f"{'='.join(parts[: named[0] + 1])}={MASK}"
        else:
            yield masked(argument)
        before = argument


def _masked_value(key: str, value: Any, text: Any) -> Any:
    secret = names_secret(key) and isinstance(value, str | list | tuple | Mapping)
    return MASK if secret and value else masked_tree(value, text)


def _address(rest: str) -> str:
    """What follows `scheme://`, without credentials, query and random parts."""
    place, mark = re.split(r"[?#]", rest, maxsplit=1)[0], "?" if re.search(r"[?#]", rest) else ""
    host, slash, path = place.partition("/")
    user, at, host_only = host.rpartition("@")
    parts = [MASK if _is_random(part) else part for part in path.split("/")]
    shown_host = f"{MASK}@{host_only}" if at and user else host
    return shown_host + slash + "/".join(parts) + (f"{mark}{MASK}" if mark else "")


def _is_random(part: str) -> bool:
    """Whether a part of an address looks like a token: a long piece of letters and digits."""
    pieces = [piece for piece in re.split(r"[^A-Za-z0-9]", part) if len(piece) >= _RANDOM_LENGTH]
    mixed = (re.search(r"\d", piece) and re.search(r"[A-Za-z]", piece) for piece in pieces)
    return bool(_HEX.search(part)) or any(mixed)


def _last_part(path: str) -> str:
    if _HOME.fullmatch(path) or path.rstrip("/") == os.path.expanduser("~"):
        return "~"
    return f".../{path.rstrip('/').rpartition('/')[2]}"


LONGEST = 1 << 16
"""Characters of a line that is not ended; more is written as it is."""


class MaskedOutput(io.TextIOBase):
    """Writes whole lines, masked, to another stream: libraries put addresses into their errors.

    Only what Python prints; native code writes past it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._line = stream, ""

    def write(self, text: str) -> int:
        """Keep the text until its line is whole."""
        lines, mark, self._line = (self._line + text).rpartition("\n")
        if mark:
            self._stream.write(masked(lines) + mark)
        if len(self._line) > LONGEST:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write what there is of a line."""
        if self._line:
            self._stream.write(masked(self._line))
            self._line = ""
        self._stream.flush()

    def fileno(self) -> int:
        """Of the stream behind, for faulthandler and child processes."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True

    def isatty(self) -> bool:
        """Never: it is a log."""
        return False


def mask_output() -> None:
    """From now on all that this process prints is masked: it goes into logs, which people share."""
    # Such as WANDB_API_KEY; PWD is a folder.
    keep_secret({name: value for name, value in os.environ.items() if name != "PWD"})
    sys.stdout, sys.stderr = MaskedOutput(sys.stdout), MaskedOutput(sys.stderr)
