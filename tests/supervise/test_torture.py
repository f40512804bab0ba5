"""Real kills, budgets, signals and full disks, in small: the short form of scripts/torture.py."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Two minutes on free cores; the limit is for those that are shared.
pytestmark = [pytest.mark.timeout(900), pytest.mark.torture]

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "torture.py"
COUNTS = {"kill": 4, "budget": 3, "sigterm": 1, "disk_full": 2}
OPTIONS = (
    "--kills",
    "4",
    "--budgets",
    "3",
    "--terms",
    "1",
    "--ints",
    "0",
    "--disk-full",
    "2",
    "--longest-budget",
    "25",
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the torture prints; shown when a test fails."""
    folder = tmp_path_factory.mktemp("torture") / "lab"
    command = [sys.executable, str(SCRIPT), *OPTIONS, "--keep", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stderr)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def faults(document: dict[str, Any], kind: str) -> list[str]:
    return [f for run in document["scenarios"] if run["kind"] == kind for f in run["faults"]]


@pytest.mark.parametrize("kind", ["kill", "budget", "sigterm", "disk_full"])
def test_nothing_is_lost_and_nothing_overruns(document: dict[str, Any], kind: str) -> None:
    assert faults(document, kind) == []


def test_every_harm_really_happened(document: dict[str, Any]) -> None:
    assert {kind: document["counts"][kind] for kind in COUNTS} == COUNTS


def test_no_file_holds_a_secret_of_the_environment(document: dict[str, Any]) -> None:
    assert [fault for fault in document["faults"] if "secret" in fault] == []
