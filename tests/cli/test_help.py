"""`--help` of every command at 80 columns: whole words, and no value where none is taken."""

import inspect
import re
from collections.abc import Iterator

import pytest
import typer

from budgetrl.cli import app, main


def commands(group: object = None, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in (group or typer.main.get_command(app)).commands.items():  # type: ignore
        yield (*before, name)
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))


def docstring(words: tuple[str, ...]) -> str:
    command: object = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore
    made = getattr(command, "callback", None)
    return inspect.getdoc(inspect.unwrap(made)) or "" if made else ""


@pytest.mark.parametrize(
    ("words", "meant"), [(["rum"], "'run'"), (["recipes", "shw"], "'show'"), (["foo"], None)]
)
def test_a_misspelt_command_is_guessed(
    words: list[str], meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert f"No such command '{words[-1]}'." in told and "--help` shows" in told
    assert ("Did you mean" in told) == (meant is not None) and (meant or "") in told


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_says_what_the_code_says_in_whole_lines(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "<bool>" not in shown, "a switch takes no value"
    usage = next(line for line in shown.splitlines() if "Usage:" in line)
    assert re.findall(r"[{[]([a-z_]+)[}\]]", usage) == [], "named in capitals"
    told = " ".join(shown.split())
    assert " ".join(docstring(words).split()) in told, "no [word] is taken for markup"
    for paragraph in re.split(r"\n *\n", shown.split("╭")[0]):
        lines = [line.rstrip() for line in paragraph.splitlines() if line.strip()]
        assert all(len(line) > 55 for line in lines[:-1]), "lines are filled"
