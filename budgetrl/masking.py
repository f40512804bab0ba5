"""Takes out of texts what must not be shared: keys, passwords, tokens in addresses, machine paths.

    masked(text)             keys of well-known forms, and what addresses hold besides host and path
    masked_tree(value)       the same for JSON; values of keys that name secrets go as a whole
    masked_command(argv)     a command line
    shareable(text)          masked, and without this machine's folders and user names

For all that people pass on: manifest, events, logs, reports, model cards. What a resumption needs
(recipe, plan) is kept as it is, in files that only their owner may read.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MASK = "[secret]"

_SECRET_NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:token|secrets?|passwords?|passwd|pwd|credentials?|authorization|bearer|"
    r"api_?keys?|access_?keys?|private_?keys?|secret_?keys?|webhooks?)$"
)
_COUNTED = re.compile(r"(?i)(?:max|min|num|answer|think|context|per)_tokens$|tokens_per")
_ASSIGNED = re.compile(
    r"(?i)(\b[\w.-]*(?:token|secret|password|passwd|credential|api_?key|access_?key|private_?key)\b"
    r"\s*[=:]\s*[\"']?)(?!\[secret)([^\s\"',;&]{6,})"
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
_PATH = re.compile(r"(?<![\w/.:~@\]-])(?:~|/)(?:[\w.@+~=-]+/)+[\w.@+~=-]*")
_ON_FINISH = "--on-finish"


def masked(text: str) -> str:
    """A text without keys, and addresses without credentials, queries and long random parts."""
    if "://" in text:
        text = _ADDRESS.sub(lambda found: found[1] + _address(found[2]), text)
    text = _KEYS.sub(MASK, text)
    text = _BEARER.sub(lambda found: f"{found[1]} {MASK}", text)
    return _ASSIGNED.sub(lambda found: found[1] + MASK, text)


def shareable(text: str) -> str:
    """The same, and of each absolute path only its last part."""
    return _PATH.sub(lambda found: _last_part(found[0]), masked(text))


def names_secret(key: str) -> bool:
    """Whether a key such as `tracker.api_key` names something secret."""
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
        flag, equals, _ = argument.partition("=")
        if before == _ON_FINISH:
            yield MASK
        elif (flag == _ON_FINISH and equals) or (equals and names_secret(flag)):
            yield f"{flag}={MASK}"
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
    return any(re.search(r"\d", piece) and re.search(r"[A-Za-z]", piece) for piece in pieces)


def _last_part(path: str) -> str:
    return f".../{path.rstrip('/').rpartition('/')[2]}"
