"""`budgetrl grade`: its JSON, its tables, and files that are not as they should be."""

import json
from pathlib import Path
from typing import Any

import pytest

from budgetrl.cli.grade_file import grade_file
from budgetrl.errors import DataError, UsageError

KEYS = {"index", "verdict", "reward", "format", "extracted", "seconds"}


def write(path: Path, *lines: dict[str, Any] | bytes) -> Path:
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(encoded))
    return path


def graded(
    path: Path, capsys: pytest.CaptureFixture[str], expected_exit: int
) -> tuple[dict[str, Any], str]:
    assert grade_file(path, workers=1, timeout_s=3.0, as_json=True) == expected_exit
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def row(completion: str, gold: str, **more: Any) -> dict[str, Any]:
    return {"completion": completion, "gold": gold, **more}


def test_json_has_every_row_in_order_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path / "rows.jsonl",
        row(r"<think>a</think>\boxed{0.5}", r"\frac12", id=7),
        row(r"\boxed{2} and \boxed{3}", "2"),
        row("no box", "2"),
        row(r"\boxed{2}", ""),
        b"",
        {"response": r"\boxed{4}", "gold": "4"},
    )
    document, errors = graded(file, capsys, expected_exit=0)
    assert errors == ""
    assert all(set(one) >= KEYS for one in document["rows"])
    columns = {key: [one[key] for one in document["rows"]] for key in KEYS}
    assert columns["index"] == [0, 1, 2, 3, 4]
    assert columns["verdict"] == ["correct", "wrong", "unparsable", "error", "correct"]
    assert columns["reward"] == [1.0, 0.0, 0.0, None, 1.0]
    assert columns["format"] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert columns["extracted"] == ["0.5", "2, 3", None, "2", "4"]
    summary = document["summary"]
    assert {k: summary[k] for k in ("correct", "wrong", "unparsable", "timeout", "error")} == {
        **{"correct": 2, "wrong": 1, "unparsable": 1, "timeout": 0, "error": 1}
    }
    assert summary["rows_per_s"] > 0
    assert summary["seconds"] > 0


def test_bad_lines_are_named_and_the_rest_is_graded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path / "rows.jsonl",
        row(r"\boxed{5}", "5"),
        b"{oops",
        b"[1]",
        {"completion": "x"},
        {"completion": 1, "gold": "2"},
        {"completion": "x", "gold": None},
        b'{"completion": "\xff", "gold": "2"}',
        b"[" * 100_000,
        row(r"\boxed{6}", "5"),
    )
    document, errors = graded(file, capsys, expected_exit=2)
    assert [(one["index"], one["verdict"]) for one in document["rows"]] == [
        *((0, "correct"), (8, "wrong"))
    ]
    *lines, hint = errors.splitlines()
    assert [f"{file}:{number}:" in line for number, line in enumerate(lines, 2)] == [True] * 7
    assert all(line.startswith("DataError: ") for line in lines)
    assert document["error"]["exit_code"] == 2 and document["error"]["hint"] in hint
    assert f"{file}:4: lacks the key gold" in document["error"]["message"]


def test_bytes_that_are_no_text_still_give_valid_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path / "rows.jsonl",
        b"\xef\xbb\xbf" + json.dumps(row("\x00\x1b[31m\\boxed{5\x00}", "5")).encode(),
        row("\ud800 \\boxed{\ud800}", "5"),
        row("x" * 5_000_000 + r"\boxed{5}", "5"),
        b'{"completion": "\xe2\x80\xa8\\\\boxed{5}", "gold": "5"}\r',
    )
    document, _ = graded(file, capsys, expected_exit=0)
    assert [one["verdict"] for one in document["rows"]] == [
        "correct",
        "wrong",
        "correct",
        "correct",
    ]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        grade_file(write(tmp_path / "empty.jsonl"), workers=1, timeout_s=3.0, as_json=True)


def test_people_see_a_table_and_the_most_interesting_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row(rf"\boxed{{{i}}}", "1000") for i in range(20)]
    rows += [row(r"\boxed{1001}", "1000"), row("none", "7"), row(r"\boxed{1}", ""), rows[0]]
    rows += [row("\\boxed{\x1b[2J}", "8")]
    file = write(tmp_path / "rows.jsonl", *rows)
    assert grade_file(file, workers=1, timeout_s=3.0, as_json=False) == 0
    output = capsys.readouterr().out
    verdicts, _, failures = output.partition("Failures")
    assert "wrong" in verdicts
    assert "│ 23   │" in verdicts
    shown = [line.split()[1::2] for line in failures.splitlines() if line.startswith("│")]
    assert len(shown) == 10
    assert shown[0][:2] == ["22", "error"]
    assert shown[1][:3] == ["20", "wrong", "1001"]
    assert shown[-1][:2] == ["21", "unparsable"]
    assert "\x1b[2J" not in output


@pytest.mark.parametrize(("workers", "timeout_s"), [(0, 3.0), (1, 0.0), (1, float("inf"))])
def test_flags_that_make_no_sense_are_refused(
    tmp_path: Path, workers: int, timeout_s: float
) -> None:
    with pytest.raises(UsageError, match="--"):
        grade_file(write(tmp_path / "rows.jsonl"), workers, timeout_s, as_json=True)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            grade_file(path, workers=1, timeout_s=3.0, as_json=True)
