"""What a rule sees, in words and numbers."""

from typing import Any, NamedTuple


class Sign(NamedTuple):
    """Something that is wrong with a run."""

    says: str
    advice: str
    evidence: dict[str, Any]
