"""What the commits that only put the house in order did to its size, from git.

    .venv/bin/python scripts/house_size.py        writes docs/measurements/house.json

Such a commit says `House: NAME` in its message; those of the rooms of studies are named here. Lines
are those of budgetrl/*.py.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / "docs/measurements/house.json"
NAMES = ("account", "laws")
STUDIES = ("d33e926", "0092707", "4bb460f", "ec8a8e5")
"""Of studies, without a name: a room for the probe; one plan, state, report and executor."""
LIMIT = 400
"""Lines of a module that the house aims at."""


def git(*arguments: str) -> str:
    """What git prints."""
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def named(name: str) -> list[str]:
    """The commits that say a name."""
    return git("log", f"--grep=^House: {name}$", "--format=%h", "--reverse").split()


def changed(commits: list[str]) -> dict[str, Any]:
    """Lines that commits added and removed."""
    added = removed = 0
    for commit in commits:
        for row in git(
            "show", "--numstat", "--format=", commit, "--", "budgetrl/*.py"
        ).splitlines():
            more, less, _ = row.split("\t")
            added, removed = added + int(more), removed + int(less)
    return {"commits": commits, "added": added, "removed": removed, "net": added - removed}


def size(commit: str) -> int:
    """Lines of the package at a commit."""
    rows = git("grep", "-c", "", commit, "--", "budgetrl/*.py").splitlines()
    return sum(int(row.rpartition(":")[2]) for row in rows)


def main() -> None:
    """Count and write."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    found = {name: changed(named(name)) for name in NAMES} | {"studies": changed([*STUDIES])}
    every = [commit for part in found.values() for commit in part["commits"]]
    first = git("rev-list", "--no-walk=sorted", "--reverse", *every).split()[0]
    files = {str(f.relative_to(ROOT)): len(f.read_text().splitlines())
             for f in (ROOT / "budgetrl").rglob("*.py")}  # fmt: skip
    largest = max(files, key=lambda name: files[name])
    document = {
        "house": found,
        "net": sum(part["net"] for part in found.values()),
        "lines_before_the_first": size(f"{first}^"),
        "lines_now": sum(files.values()),
        "modules": len(files),
        "largest_module": {"file": largest, "lines": files[largest]},
        "modules_over_the_limit": sorted(f for f, lines in files.items() if lines > LIMIT),
    }
    FOUND.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
