"""README and pages: every link leads somewhere, every command is one that exists.

Commands run in one process through the command line's own entry: `estimate` and `recipes` for
real, a run of the quickstart as `--dry-run`, everything else with `--help` behind it, which parses
its flags. Names of recipes and values given by `--set` are loaded.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from budgetrl.cli import app, main
from budgetrl.recipe.load import list_recipes, load_recipe

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "decisions").glob("*.md")),
    ROOT / "recipes" / "LOG.md",
]
MADE_ELSEWHERE = {"example", "ids", "families"}
"""Blocks that are code, or that scripts/check_prompts.py writes."""
FOREIGN = {
    "cd",
    "cp",
    "docker",
    "export",
    "git",
    "hf",
    "pip",
    "ray",
    "rsync",
    "sky",
    "source",
    "vllm",
}
"""Commands of others."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
README_LINES = 150
names = [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_the_readme_stays_short() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= README_LINES


def test_the_readme_shows_every_command() -> None:
    shown = set(re.findall(r"^\| \[?`budgetrl (\w+)", text_of(ROOT / "README.md"), re.MULTILINE))
    assert shown == set(typer.main.get_command(app).commands)


def test_every_page_is_in_the_index_and_every_block_has_one_place_and_one_maker() -> None:
    linked = set(re.findall(r"\]\(([\w.]+\.md)\)", text_of(DOCS / "index.md")))
    assert {page.name for page in DOCS.glob("*.md")} - {"index.md"} == linked
    blocks = [name for page in PAGES for name in re.findall(r"<!-- begin:(\w+) -->", text_of(page))]
    script = text_of(ROOT / "scripts" / "update_readme.py")
    made = set(re.findall(r'^    "(\w+)": \w+,$', script, re.MULTILINE))
    assert sorted(blocks) == sorted(made | MADE_ELSEWHERE)


def slug(heading: str) -> str:
    """The anchor that hosts of Markdown make from a heading."""
    words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return words.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(title) for title in re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)}


@pytest.mark.parametrize("page", names)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command of a page: blocks of bash, then code within sentences."""
    text = text_of(page)
    blocks = [body.replace("\\\n", " ") for kind, body in FENCE.findall(text) if kind == "bash"]
    spans = re.findall(
        r"`((?:\.venv/bin/|bash )?(?:budgetrl |scripts/)[^`]*)`", FENCE.sub("", text)
    )
    for line in [*"\n".join(blocks).splitlines(), *(" ".join(span.split()) for span in spans)]:
        words = shlex.split(line, comments=True)
        while words:
            end = next((at for at, word in enumerate(words) if word in ("&&", "|")), len(words))
            yield words[:end]
            words = words[end + 1 :]


@pytest.mark.parametrize("page", names[:-1])
def test_commands_of_a_page_are_ones_that_exist(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = {}
    for words in commands(page):
        own = [word.removeprefix(".venv/bin/") for word in words if word != "bash"]
        if own[0] in ("budgetrl", "pytest") or own[0].startswith("--"):
            code = 0 if own[0] == "pytest" else tried(own[own[0] == "budgetrl" :])
            said = capsys.readouterr().err
            if code:
                failed[shlex.join(words)] = said
        elif own[0] in ("python", "ruff") or own[0].startswith("scripts/"):
            files = [word for word in own if word.startswith("scripts/")]
            missing = [file for file in files if not list(ROOT.glob(file.split(":")[0]))]
            failed |= {shlex.join(words): "no such file"} if missing else {}
        elif own[0] not in FOREIGN and not own[0].endswith("/run.sh"):  # that `export` writes
            failed[shlex.join(words)] = "unknown command"
    assert failed == {}


def tried(arguments: list[str]) -> int:
    """The exit code of a command, as far as it can go without a GPU and at no cost."""
    if not arguments:
        return main(["--help"])
    if arguments[0].startswith("--"):
        whole = ["run", "quickstart", *arguments] if arguments[0] == "--on-finish" else arguments
        return main([*whole, "--help"])
    verb, *rest = arguments
    sets = [value for flag, value in pairwise(rest) if flag == "--set"]
    name = next((word for word in rest if not word.startswith("-")), "")
    if verb in ("run", "estimate") and (name in list_recipes() or Path(name).is_file()):
        load_recipe(name, sets)
        if verb == "estimate":
            return main(arguments)
        if name == "quickstart" and "--dry-run" in rest:
            return main(arguments)
    if verb == "recipes" and rest and not any(word.isupper() for word in rest):
        return main(arguments)
    return main([*arguments, "--help"])


@pytest.mark.parametrize("page", names[:-1])
def test_recipes_in_pages_load(page: Path, tmp_path: Path) -> None:
    head = f'[recipe]\nname = "page"\nextends = ["{ROOT}/recipes/quickstart.toml"]\n'
    bodies = [body for kind, body in FENCE.findall(text_of(page)) if kind == "toml"]
    for number, body in enumerate(bodies):
        file = tmp_path / f"{number}.toml"
        file.write_text(body if "[recipe]" in body else head + body, encoding="utf-8")
        load_recipe(file)


def test_the_picture_of_the_house_shows_its_rooms() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "architecture_picture.py"), "--print"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rooms = {line.split(" -> ")[0].removesuffix(" ->") for line in done.stdout.splitlines()}
    picture = text_of(DOCS / "pictures" / "rooms.svg")
    shown = set(re.findall(r'class="name"[^>]*>(\w+)<', picture))
    assert shown == rooms, "run scripts/architecture_picture.py"
