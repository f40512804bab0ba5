"""Every error a user can cause or meet, and the exit code that each one ends with.

An error says what went wrong, where, and (in `hint`) how to fix it; the command line prints it
without a traceback. Bugs are not in this tree: they raise Python's own exceptions.
"""

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line, the same for every command."""

    OK = 0
    """Done; a reached budget is a normal end."""
    FAILED = 1
    """The run failed, the hub or the way to it did, or budgetrl has a bug."""
    USER = 2
    """A bad recipe, flag or file."""
    REFUSED = 3
    """Would not fit, cannot be paid, or another run is in the way."""
    INTERRUPTED = 130
    """Ended by SIGINT, saved."""
    TERMINATED = 143
    """Ended by SIGTERM, saved."""


OUT_OF_MEMORY_EXIT = 76
"""Of a worker whose GPU memory was used up; its supervisor restarts it, users never see it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of GPU or machine was used up; by name, because torch is not imported."""
    names = {kind.__name__ for kind in type(error).__mro__}
    said = ("cuda error: out of memory", "can't allocate memory", "bad_alloc")
    text = str(error).lower()  # vLLM writes "CUDA Error" where it wakes up
    of_library = isinstance(error, RuntimeError) and any(part in text for part in said)
    return of_library or "OutOfMemoryError" in names or isinstance(error, MemoryError)


class BudgetRLError(Exception):
    """Base of all errors that budgetrl raises on purpose.

    Args:
        message: what is wrong, and where.
        hint: how to fix it, as one or more full sentences.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return type(self).__name__

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(BudgetRLError, ValueError):
    """A flag or argument that makes no sense."""

    exit_code = ExitCode.USER


class RecipeError(BudgetRLError, ValueError):
    """A recipe that cannot be read or holds a wrong value."""

    exit_code = ExitCode.USER


class DataError(BudgetRLError, ValueError):
    """Problems, suites or other input rows that cannot be used."""

    exit_code = ExitCode.USER


class NewerFormatError(DataError):
    """A file that a newer budgetrl wrote: whole, but not to be read by this one."""


class ModelError(BudgetRLError, ValueError):
    """A model, tokenizer or adapter that is missing or does not match."""

    exit_code = ExitCode.USER


class RunDirError(BudgetRLError, OSError):
    """A run directory that cannot be created, read or continued."""

    exit_code = ExitCode.USER


class ProtocolError(BudgetRLError, ValueError):
    """Two evaluations that must not be compared, because their protocols differ."""

    exit_code = ExitCode.USER


class RefusedError(BudgetRLError, RuntimeError):
    """A run that is not started, because it could not end well."""

    exit_code = ExitCode.REFUSED


class BudgetError(RefusedError):
    """The budget cannot pay for anything useful."""


class HardwareError(RefusedError):
    """The recipe needs a GPU that is absent, too small, or in use."""


class RewardError(BudgetRLError, RuntimeError):
    """Too many rewards of one step could not be computed."""


class TrainingError(BudgetRLError, RuntimeError):
    """Training cannot go on: non-finite losses, or a library that changed the recipe."""


class AbortedError(BudgetRLError):
    """Ctrl-C while nothing ran that could be saved."""

    exit_code = ExitCode.INTERRUPTED


def did_you_mean(word: str, known: Iterable[str], most: int = 1) -> str:
    """The beginning of a hint, "Did you mean quickstart? "; nothing where nothing is alike."""
    import difflib  # for mistakes alone

    near = difflib.get_close_matches(word, list(known), n=most)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def first_line(error: BaseException) -> str:
    """What a library's error says, short enough for a message of ours."""
    return str(error).strip().split("\n")[0][:300] or type(error).__name__
