"""The files for rented machines are well-formed, and say only what Docker and SkyPilot document."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from budgetrl.hardware import find_gpu
from budgetrl.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "scripts" / "Dockerfile"
IGNORED = ROOT / "scripts" / "Dockerfile.dockerignore"
SKYPILOT = [ROOT / "scripts" / name for name in ("skypilot.yaml", "skypilot_sweep.yaml")]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


INSTRUCTIONS = words(
    """ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL ONBUILD RUN SHELL STOPSIGNAL
    USER VOLUME WORKDIR"""
)
TASK_FIELDS = words(
    "name workdir num_nodes resources envs secrets volumes file_mounts setup run config"
)
RESOURCE_FIELDS = words(
    """infra accelerators accelerator_args cpus memory instance_type use_spot disk_size disk_tier
    network_tier max_hourly_cost ports image_id labels autostop any_of ordered job_recovery"""
)
MOUNT_FIELDS = {"name", "source", "store", "mode", "persistent", "config"}


def is_shell(script: str) -> bool:
    checked = subprocess.run(["bash", "-n"], input=script, text=True, check=False, timeout=10)
    return checked.returncode == 0


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments of each logical line."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    logical = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in logical if line.strip()]


def test_the_dockerfile_is_instructions_that_docker_knows() -> None:
    found = instructions()
    assert found[0][0] == "FROM"
    assert {name for name, _ in found} <= INSTRUCTIONS
    for name, arguments in found:
        if name == "RUN":
            assert is_shell(arguments), arguments
        if name in ("CMD", "ENTRYPOINT"):
            assert all(isinstance(word, str) for word in json.loads(arguments))
        if name == "ENV":
            assert all("=" in pair for pair in arguments.split())


def test_the_image_copies_what_is_there_and_what_the_build_needs() -> None:
    sources = [
        source
        for name, arguments in instructions()
        if name == "COPY"
        for source in arguments.split()[:-1]
    ]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {"pyproject.toml", "README.md", "LICENSE", "scripts", "recipes", "budgetrl"} <= set(
        sources
    )
    kept = {line[1:] for line in IGNORED.read_text().splitlines() if line.startswith("!")}
    assert kept == set(sources)


@pytest.fixture(scope="module", params=SKYPILOT, ids=lambda file: file.stem)
def task(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A SkyPilot task."""
    found: dict[str, Any] = yaml.safe_load(request.param.read_text())
    return found


def test_the_skypilot_task_has_documented_fields_only(task: dict[str, Any]) -> None:
    assert set(task) <= TASK_FIELDS
    assert set(task["resources"]) <= RESOURCE_FIELDS
    assert set(task["resources"]["autostop"]) <= {"idle_minutes", "down", "wait_for"}
    for mount in task["file_mounts"].values():
        assert set(mount) <= MOUNT_FIELDS
        assert mount["mode"] in {"MOUNT", "COPY", "MOUNT_CACHED"}
    for table in ("envs", "secrets"):
        assert all(isinstance(value, str) for value in task[table].values())


def test_its_scripts_are_shell_and_its_cards_and_recipe_are_known(task: dict[str, Any]) -> None:
    assert is_shell(task["setup"])
    assert is_shell(task["run"])
    cards = [card.rpartition(":")[0] for card in task["resources"]["accelerators"]]
    memory = [find_gpu({"A100": "A100-40GB SXM"}.get(card, card)).memory_gb for card in cards]
    recipe = load_recipe(task["envs"]["RECIPE"]).recipe
    assert recipe.engine.device == "cuda"
    assert min(memory) >= 40


def test_no_secret_is_in_them() -> None:
    for file in (DOCKERFILE, IGNORED, *SKYPILOT, ROOT / "docs" / "rent.md"):
        assert re.search(r"hf_[A-Za-z0-9]{8,}", file.read_text()) is None
