"""One `eval` of the same target, suite and settings at a time: a second one would generate twice.

    with claimed(folder, target.policy_id, spec): ...      RunDirError if another process is at it

The lock is the kernel's and ends with its process, whatever is left of its file.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from budgetrl.errors import RunDirError
from budgetrl.files import lock_exclusively
from budgetrl.recipe.schema import Eval


@contextmanager
def claimed(folder: Path, who: str, spec: Eval) -> Iterator[None]:
    """Hold an evaluation.

    Args:
        folder: where its results go, such as `evals/aime24`; it exists.
        who: which weights answer.
        spec: suite and settings.

    Raises:
        RunDirError: another process makes the same evaluation.
    """
    asked = f"{who} {spec.model_dump_json()}"
    file = folder / f".{hashlib.sha256(asked.encode()).hexdigest()[:8]}.lock"
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not lock_exclusively(handle):
            raise RunDirError(
                f"{folder}: another process makes this evaluation of {spec.suite} now.",
                hint="Wait until it is over: the same command then shows what it stored.",
            )
        yield
        with suppress(OSError):
            file.unlink()
    finally:
        os.close(handle)
