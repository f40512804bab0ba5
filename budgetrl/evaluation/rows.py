"""The files of an evaluation: completions in `<name>.jsonl`, how they came about in `<name>.json`.

    <name>.json   protocol and policy, written before the first completion; the result, at the end
    <name>.jsonl  one graded completion per line, appended as they are finished

Readers take either path. A *round* is complete when every problem has its sample of that number.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from budgetrl.errors import DataError, NewerFormatError
from budgetrl.files import parse_json, read_jsonl
from budgetrl.types import EvalResult, Protocol, Thinking, Verdict

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class EvalRow:
    """One graded completion of one problem."""

    problem_id: str
    sample: int
    """Round, from 0."""
    problem: str
    answer: str
    """The gold answer."""
    completion: str
    tokens: int
    truncated: bool
    verdict: Verdict
    extracted: str | None
    seed: int
    thinking: Thinking | None = None
    """Where thinking had a limit of its own."""

    @property
    def correct(self) -> bool:
        """Whether it counts as solved."""
        return self.verdict is Verdict.CORRECT

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """A line of the file.

        Raises:
            KeyError, TypeError, ValueError, OverflowError: the line is none of ours.
        """
        extracted = data.get("extracted")
        if min(data["sample"], data["tokens"]) < 0:
            raise ValueError("negative counts")
        return cls(
            problem_id=str(data["problem_id"]),
            sample=int(data["sample"]),
            problem=str(data.get("problem", "")),
            answer=str(data.get("answer", "")),
            completion=str(data["completion"]),
            tokens=int(data["tokens"]),
            truncated=bool(data["truncated"]),
            verdict=Verdict(data["verdict"]),
            extracted=None if extracted is None else str(extracted),
            seed=int(data["seed"]),
            thinking=None if data.get("thinking") is None else Thinking(**data["thinking"]),
        )


@dataclass(frozen=True, slots=True)
class StoredEval:
    """An evaluation as its two files tell it; finished or not."""

    path: Path
    """The `.json` file."""
    protocol: Protocol
    policy: str
    """Which weights answered."""
    problem_ids: tuple[str, ...]
    ks: tuple[int, ...]
    step: int
    rows: tuple[EvalRow, ...]
    seconds: float
    """Spent on it so far, over all calls that ended in order."""
    result: EvalResult | None

    @property
    def completions_file(self) -> Path:
        """The `.jsonl` file."""
        return self.path.with_suffix(".jsonl")

    @property
    def when(self) -> str:
        """baseline, step, final or eval."""
        return moment(self.path.stem)

    def rounds(self) -> int:
        """Complete rounds."""
        return complete_rounds(self.rows, self.problem_ids)


def moment(name: str) -> str:
    """ "step" of "step_000020", "eval" of "eval-0a1b2c3d"; other names as they are."""
    return name.split("_")[0].split("-")[0].split(".")[0]


def load_rows(path: Path) -> list[EvalRow]:
    """The graded completions of a `.jsonl` file, each (problem, sample) once, first one first.

    Torn and foreign lines are left out; a missing file has no rows.
    """
    found: dict[tuple[str, int], EvalRow] = {}
    if not path.is_file():
        return []
    for data in read_jsonl(path):
        try:
            row = EvalRow.from_json(data)
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        found.setdefault((row.problem_id, row.sample), row)
    return list(found.values())


def append_rows(path: Path, rows: Iterable[EvalRow]) -> None:
    """Append completions and make them durable; a torn last line is cut first."""
    names = [field.name for field in fields(EvalRow) if field.name != "thinking"]
    # Not asdict: its deep copies take longer than everything else here.
    flat = (
        {name: getattr(row, name) for name in names}
        | ({} if row.thinking is None else {"thinking": asdict(row.thinking)})
        for row in rows
    )
    lines = [json.dumps(values, ensure_ascii=True) + "\n" for values in flat]
    with path.open("ab+") as file:
        file.truncate(_whole_lines(file.fileno()))
        file.seek(0, os.SEEK_END)
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(handle: int) -> int:
    """Length of a file up to and including its last line feed."""
    position = os.fstat(handle).st_size
    while position > 0:
        start = max(0, position - 65536)
        newline = os.pread(handle, position - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def complete_rounds(rows: Sequence[EvalRow], problem_ids: Sequence[str]) -> int:
    """How many first rounds have a sample of every problem."""
    have = {(row.problem_id, row.sample) for row in rows}
    rounds = 0
    while problem_ids and all((problem, rounds) in have for problem in problem_ids):
        rounds += 1
    return rounds


def header(
    protocol: Protocol, policy: str, problem_ids: Sequence[str], ks: Sequence[int], step: int
) -> dict[str, Any]:
    """What `<name>.json` holds from the start on, besides `seconds` and `result`."""
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol": asdict(protocol),
        "policy": policy,
        "problem_ids": list(problem_ids),
        "k": list(ks),
        "step": step,
    }


def load_eval(path: Path, with_rows: bool = True) -> StoredEval:
    """An evaluation by either of its files.

    Args:
        path: the `.json` or the `.jsonl` file.
        with_rows: False leaves the completions unread.

    Raises:
        DataError: missing, not JSON, or of another shape.
    """
    if path.suffix not in (".json", ".jsonl"):
        raise DataError(
            f"{path}: is {'not an evaluation' if path.exists() else 'neither a run nor a file'}.",
            hint="Give a run, or a .json or .jsonl file under evals/<suite>/.",
        )
    file = path.with_suffix(".json")
    try:
        data = parse_json(file.read_bytes())
        if data["schema_version"] > SCHEMA_VERSION:
            raise NewerFormatError(
                f"{file}: written by a newer budgetrl (schema {data['schema_version']}).",
                hint="Update budgetrl to read it.",
            )
        result = data["result"]
        return StoredEval(
            path=file,
            protocol=Protocol.from_json(data["protocol"]),
            policy=str(data["policy"]),
            problem_ids=tuple(map(str, data["problem_ids"])),
            ks=tuple(int(k) for k in data["k"]),
            step=int(data["step"]),
            rows=tuple(load_rows(file.with_suffix(".jsonl"))) if with_rows else (),
            seconds=float(data["seconds"]),
            result=None if result is None else EvalResult.from_json(result),
        )
    except OSError as error:
        raise DataError(
            f"{path}: no completions of an evaluation, for {file.name} beside it cannot be read: "
            f"{error.strerror}."
            if path != file
            else f"{file}: cannot be read: {error.strerror}.",
            hint="Give a run, or a file under evals/<suite>/.",
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{file}: is damaged, or is not an evaluation of budgetrl.",
            hint="Its completions are in the .jsonl beside it. `budgetrl report` shows what a run "
            "recorded, and `budgetrl eval` evaluates its checkpoints again.",
        ) from None
