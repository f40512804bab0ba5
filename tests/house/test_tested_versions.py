"""Only versions that were tried together train, unless somebody insists."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from budgetrl.engine.tested import nearest_set, refuse_untested, version_sets
from budgetrl.errors import ExitCode, RefusedError
from budgetrl.recipe.schema import EngineName

ROOT = Path(__file__).resolve().parents[2]
GOOD: dict[str, str | None] = dict(version_sets("unsloth")[0].versions)


def test_the_tested_set_is_accepted_with_any_local_build() -> None:
    refuse_untested(EngineName.UNSLOTH, GOOD | {"torch": "2.13.0+cu130"})
    refuse_untested(EngineName.SCRIPTED, {})


def test_a_second_tested_set_is_as_good() -> None:
    second = version_sets("unsloth")[1].versions
    assert second != version_sets("unsloth")[0].versions
    refuse_untested(EngineName.UNSLOTH, dict(second))
    with pytest.raises(RefusedError, match=r"unsloth 2026\.10\.9 \(tested: 2026\.10\.7\)"):
        refuse_untested(EngineName.UNSLOTH, dict(second) | {"unsloth_zoo": "2026.10.7"})


@pytest.mark.parametrize(
    ("package", "found", "said"),
    [
        ("vllm", "0.33.0", "vllm 0.33.0 (tested: 0.30.0)"),
        ("trl", "1.15.0", "trl 1.15.0 (tested: 1.14.2)"),
        ("unsloth", "2026.11.1", "unsloth 2026.11.1 (tested: 2026.10.7)"),
        ("bitsandbytes", None, "bitsandbytes is not installed (tested: 0.50.2)"),
    ],
)
def test_another_version_is_refused_with_the_command_that_mends_it(
    package: str, found: str | None, said: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        refuse_untested(EngineName.UNSLOTH, GOOD | {package: found})
    assert said in caught.value.message
    assert "bash scripts/install.sh gpu" in caught.value.hint
    assert caught.value.exit_code is ExitCode.REFUSED


def test_a_gpu_run_needs_the_cuda_build_of_torch() -> None:
    plain = dict(version_sets("plain")[0].versions) | {"torch": "2.13.0+cpu"}
    refuse_untested(EngineName.PLAIN, plain)
    with pytest.raises(RefusedError, match=r"torch 2.13.0\+cpu .*install.sh gpu"):
        refuse_untested(EngineName.PLAIN, plain, cuda=True)


def test_a_package_that_no_engine_can_do_without_is_not_to_be_forced() -> None:
    refuse_untested(EngineName.UNSLOTH, GOOD | {"vllm": None, "trl": "1.15.0"}, forced=True)
    with pytest.raises(RefusedError, match=r"not installed: torch, peft\..*Run bash"):
        refuse_untested(EngineName.UNSLOTH, GOOD | {"torch": None, "peft": None}, forced=True)


def test_the_nearest_set_is_named() -> None:
    assert nearest_set("unsloth", GOOD).differences(GOOD) == []
    (only,) = nearest_set("unsloth", GOOD | {"numpy": "1.0", "vllm": "0.31.0"}).differences(
        GOOD | {"vllm": "0.31.0"}
    )
    assert (only.package, only.found, only.wanted) == ("vllm", "0.31.0", "0.30.0")


@pytest.mark.parametrize(("engine", "name"), [("plain", "train"), ("unsloth", "gpu")])
def test_what_install_sh_installs_is_a_tested_set(engine: str, name: str) -> None:
    lines = (ROOT / "scripts" / f"constraints-{name}.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    first = version_sets(engine)[0]
    assert {p: pins[canonicalize_name(p)] for p in first.versions} == first.versions
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = {
        line.split("==")[0]
        for extra in {"train", name}
        for line in extras[extra]
        if "budgetrl" not in line
    }
    assert named == set(first.versions)


def test_run_refuses_and_force_versions_goes_on(tmp_path: Path) -> None:
    """A newer trl, as a careless `pip install -U` leaves it: found before the tested one."""
    newer = tmp_path / "site" / "trl-9.9.9.dist-info"
    newer.mkdir(parents=True)
    (newer / "METADATA").write_text("Metadata-Version: 2.1\nName: trl\nVersion: 9.9.9\n")
    command = [sys.executable, "-m", "budgetrl", "run", "quickstart", "--hours", "2s"]
    environment = os.environ | {"PYTHONPATH": str(newer.parent)}

    def run(*more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, *more, "--out", str(tmp_path / "runs")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    refused = run()
    assert refused.returncode == ExitCode.REFUSED
    assert "trl 9.9.9 (tested: 1.14.2)" in refused.stderr
    assert "bash scripts/install.sh train" in refused.stderr
    forced = run("--force", "versions")
    assert "tested" not in forced.stderr
    assert "pays for nothing useful" in forced.stderr, "it went on to the budget"
    assert not (tmp_path / "runs").exists()
