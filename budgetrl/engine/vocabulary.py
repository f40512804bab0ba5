"""Whether two tokenizers mean the same by every token: their words decide, not their sizes.

    check_vocabulary(student.get_vocab(), teacher.get_vocab(), "hub/teacher")
    words_of(tokenizer_json)        the same mapping from a file, without loading a tokenizer

No torch, so that it can be known before anything is paid.
"""

from collections.abc import Mapping
from typing import Any

from budgetrl.errors import ModelError
from budgetrl.files import parse_json


def check_vocabulary(ours: Mapping[str, int], theirs: Mapping[str, int], name: str) -> None:
    """Refuse a teacher that means another text by the same token.

    Args:
        ours: numbers of the student's words.
        theirs: the teacher's.
        name: of the teacher.

    Raises:
        ModelError: names the first such token.
    """
    if ours == theirs:
        return
    other = sorted(ours.items() ^ theirs.items(), key=lambda pair: (pair[1], pair[0]))
    word, number = other[0]
    raise ModelError(
        f"teacher {name!r} has another vocabulary: {len(other)} entries differ, such as token "
        f"{number} ({word!r}).",
        hint="Distil from a model of the same family, or use an SFT stage on its answers.",
    )


def words_of(tokenizer: bytes) -> dict[str, int] | None:
    """Words and their numbers in a `tokenizer.json`; None for a file that does not tell."""
    try:
        values: Any = parse_json(tokenizer)
        held = values["model"]["vocab"]
        # Unigram models list their words with scores.
        words = held if isinstance(held, dict) else {pair[0]: i for i, pair in enumerate(held)}
        added = {one["content"]: one["id"] for one in values.get("added_tokens") or ()}
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return {**words, **added}
