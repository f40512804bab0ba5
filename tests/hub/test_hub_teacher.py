"""A teacher of the hub that cannot be had: refused with the way on, before anything is paid."""

import json
from pathlib import Path

import pytest
from hub_server import MEMBER, STRANGER, Hub
from hub_sets import model_files

from budgetrl.cli import main
from budgetrl.errors import ExitCode

TEACHER = "tiny/teacher"
RUN = ["run", "quickstart_distill", "--set", "teacher.adapter=unset", "--display", "none"]


def called(folder: Path, *more: str, teacher: str = TEACHER) -> int:
    return main([*RUN, "--set", f"teacher.id={teacher}", "--out", str(folder / "runs"), *more])


def nothing_was_paid(folder: Path, hub: Hub) -> bool:
    return not (folder / "runs").exists() and not hub.asked("safetensors")


@pytest.mark.parametrize(
    ("access", "token", "said", "way_on"),
    [
        ("gated", None, "is gated: its licence", "set HF_TOKEN"),
        ("gated", STRANGER, "account of your token has no access", "Ask for it at http"),
        ("private", None, "no such repository, or it is private", "needs a token"),
        ("", None, "no such repository", "Did you mean deepseek-ai/DeepSeek-R1-Distill-Qwen-7B?"),
        ("", "hf_nonsense", "refuses the token", "unset HF_TOKEN"),
    ],
)
def test_a_teacher_that_may_not_be_read(
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    access: str,
    token: str | None,
    said: str,
    way_on: str,
) -> None:
    hub.put("model", TEACHER, model_files())
    if access:
        hub.access("model", TEACHER, access)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    asked = TEACHER if access or token else "deepseek-ai/DeepSeek-R1-Distil-Qwen-7B"
    assert called(tmp_path, teacher=asked) == ExitCode.USER
    error = capsys.readouterr().err
    assert f"{asked!r}" in error and said in error and way_on in error
    assert nothing_was_paid(tmp_path, hub)
    monkeypatch.setenv("HF_TOKEN", MEMBER)
    assert called(tmp_path, "--dry-run") == ExitCode.OK


def test_a_teacher_without_its_revision_or_files_or_with_other_words(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = model_files()
    hub.put("model", TEACHER, files)
    assert called(tmp_path, "--set", "teacher.revision=v9") == ExitCode.USER
    assert "no revision 'v9'" in capsys.readouterr().err
    hub.put("model", "tiny/bare", {"README.md": "no model"})
    assert called(tmp_path, teacher="tiny/bare") == ExitCode.USER
    assert "tiny/bare" in capsys.readouterr().err
    held = json.loads(files["tokenizer.json"])
    words = held["model"]["vocab"]
    first, second = list(words)[20:22]
    words[first], words[second] = words[second], words[first]
    hub.put("model", "tiny/other", files | {"tokenizer.json": json.dumps(held)})
    assert called(tmp_path, teacher="tiny/other") == ExitCode.USER
    assert "another vocabulary: 4 entries differ" in capsys.readouterr().err
    assert nothing_was_paid(tmp_path, hub)
