"""A reward of one's own, attacked: false credit, missed answers, rewards that cannot be asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from budgetrl.cli import main

REWARDS = """
import time


def right(*, completion, gold, num_tokens, verdict, **_):
    return 1.0 if verdict == "correct" else 0.0


def substring(*, completion, gold, num_tokens, verdict):
    return 1.0 if gold in completion else 0.0


def longer(*, completion, num_tokens, **_):
    return min(1.0, num_tokens / 64)


def last(*, completion, **_):
    return float(completion[-1] == "}" and "boxed" in completion)


def other(prompts, completions):
    return [0.0]


def hangs(*, completion, **_):
    time.sleep(99 if not completion.strip() else 0)
    return 1.0
"""


@pytest.fixture
def asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    (tmp_path / "mine.py").write_text(REWARDS)
    rows = [{"problem": f"Compute {n}+{n}.", "answer": str(2 * n)} for n in (3, 8)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)

    def ask(*options: str) -> tuple[int, Any]:
        code = main(["diagnose", *options, "--json"])
        return code, json.loads(capsys.readouterr().out)

    return ask


def test_a_sound_reward_passes_and_a_substring_is_found_out(asked: Any) -> None:
    code, found = asked("--reward", "mine:right", "--data", "sums.jsonl")
    assert code == 0 and found["cases"] > 30
    assert found["false_credit"] == found["missed"] == found["errors"] == []
    code, found = asked("--reward", "mine:substring", "--data", "sums.jsonl")
    false = {one["case"] for one in found["false_credit"]}
    assert {"every gold boxed", "gold while thinking, another one boxed"} <= false
    assert {one["case"] for one in found["missed"]} == {"right answer as a fraction"}


def test_a_reward_that_ignores_the_answer_or_fails_on_odd_text_is_told(asked: Any) -> None:
    _, found = asked("--reward", "mine:longer", "--data", "sums.jsonl")
    assert {one["case"] for one in found["false_credit"]} == {"gold of another problem"}
    _, found = asked("--reward", "mine:last", "--data", "sums.jsonl")
    assert {one["case"] for one in found["errors"]} == {"nothing"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reward", "mine:other", "--data", "sums.jsonl"], "unexpected keyword argument"),
        (["--reward", "mine:hangs", "--data", "sums.jsonl"], "took more than"),
        (["--reward", "mine:none", "--data", "sums.jsonl"], "defines no none"),
        (["--reward", "mine", "--data", "sums.jsonl"], "not MODULE:FUNCTION"),
        (["--reward", "mine:right"], "needs problems with golds"),
        (["--reward", "mine:right", "--data", "gone.jsonl"], "no such file"),
        (["runs/x", "--reward", "mine:right"], "either a run, or --reward"),
        ([], "there is no run under runs"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    asked: Any, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr("budgetrl.rewards.battery.TIMEOUT_S", 0.3)
    code, found = asked(*options)
    assert code == 2
    assert message in found["error"]["message"]
