"""What may change between two attempts of a run: through the command line, with real updates.

One run in a folder full of traps is killed after its first update and resumed from another folder.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budgetrl.budget import Limits
from budgetrl.cli.options import accepted_of
from budgetrl.display.base import NoDisplay
from budgetrl.errors import BudgetRLError, ModelError, RecipeError, RunDirError, UsageError
from budgetrl.evaluation.target import find_target
from budgetrl.events import Changed
from budgetrl.history import read_history
from budgetrl.rundir import MANIFEST, RESOLVED, RESULT, RunDir, list_runs, open_run
from budgetrl.supervise.resume import continue_run
from budgetrl.supervise.standing import ChangedError

RECIPE = """
[recipe]
extends = ["quickstart"]
name = "attempts"

[model]
id = "./base"

[data]
path = "train.jsonl"

[batch]
prompts_per_step = 2
micro_batch = 16

[schedule]
stop_after_steps = 3
shape = "linear"

[sampling]
max_tokens = 24

[checkpoint]
every_steps = 1

[[rewards]]
name = "own:brevity"
weight = 0.1

[[eval]]
suite = "heldout"
path = "heldout.jsonl"
samples = 1
k = [1]

[entropy]
prompts = 1
"""
OWN = """
import helper

def brevity(num_tokens, **row):
    helper.wait_after_the_first_update()
    return helper.SCALE / num_tokens
"""
HELPER = """
import time
from pathlib import Path

SCALE = 2.0

def wait_after_the_first_update():
    while Path("{flag}").exists() and list(Path("{runs}").glob("*/checkpoints/step_000001")):
        time.sleep(0.01)
"""
TRAPS = ("random", "json", "statistics", "datasets", "peft", "torch", "numpy")


def budgetrl(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "budgetrl", *arguments, "--json"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def content(run: RunDir) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in run.path.rglob("*") if f.is_file() and f.suffix}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the run was started."""
    folder = tmp_path_factory.mktemp("home")
    assets = Path(__file__).resolve().parents[2] / "budgetrl" / "assets" / "tiny"
    shutil.copytree(assets / "quickstart", folder / "base")
    for name, source in (("train", "train_easy"), ("heldout", "heldout")):
        rows = (assets / "data" / f"{source}.jsonl").read_text().splitlines()[:12]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    for name in TRAPS:
        (folder / f"{name}.py").write_text("raise RuntimeError('the file of the user')\n")
    (folder / "attempts.toml").write_text(RECIPE)
    (folder / "own.py").write_text(OWN)
    (folder / "flag").touch()
    (folder / "helper.py").write_text(HELPER.format(flag=folder / "flag", runs=folder / "runs"))
    return folder


@pytest.fixture(scope="module")
def killed(home: Path) -> RunDir:
    """A run whose processes were killed in its second update."""
    command = [sys.executable, "-m", "budgetrl", "run", "attempts.toml", "--hours", "10"]
    command += ["--allow-code", "--display", "none", "--set", "rewards.own:brevity.timeout_s=60"]
    started = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not list((home / "runs").glob("*/checkpoints/step_000001")):
        assert started.poll() is None, started.communicate()[0]
        time.sleep(0.05)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    for process in (started.pid, *map(int, children)):
        os.kill(process, signal.SIGKILL)
    started.wait()
    (home / "flag").unlink()
    (run,) = list_runs(home / "runs")
    return run


@pytest.fixture
def restored(home: Path) -> Iterator[None]:
    """Puts back what a test changes in the folder."""
    names = ("train.jsonl", "own.py", "helper.py", "base/model.safetensors")
    kept = {name: (home / name).read_bytes() for name in names}
    yield
    for name, data in kept.items():
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(data)


def test_files_in_the_current_folder_stand_for_no_library(killed: RunDir) -> None:
    assert "the file of the user" not in (killed.path / "worker.log").read_text()
    assert [step.step for step in read_history(killed).steps][:1] == [1]


CHANGES = {
    "data": ("train.jsonl", '"answer": "', '"answer": "1', "data: data.path was "),
    "reward": ("helper.py", "2.0", "3.0", "reward: own:brevity helper.py was "),
    "model": ("base/model.safetensors", None, None, "model: model.safetensors was "),
}


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("part", CHANGES)
def test_what_is_not_as_it_was_is_refused_and_nothing_changes(
    killed: RunDir, home: Path, tmp_path: Path, part: str
) -> None:
    name, old, new, told = CHANGES[part]
    data = (home / name).read_bytes()
    changed = (
        data[:-4] + b"\x00\x01\x02\x03"
        if old is None
        else data.replace(old.encode(), str(new).encode())
    )
    assert changed != data
    (home / name).write_bytes(changed)
    before = content(killed)
    if part == "data":
        done = budgetrl("resume", str(killed.path), "--allow-code", cwd=tmp_path)
        assert done.returncode == 3, done.stderr
        error = json.loads(done.stdout)["error"]
        assert error["type"] == "ChangedError" and told in error["message"]
        assert f"--accept-changes {part}:" in error["hint"]
    else:
        with pytest.raises(ChangedError) as caught:
            resume(killed)
        assert told in caught.value.message and f"--accept-changes {part}:" in caught.value.hint
    assert content(killed) == before


@pytest.mark.usefixtures("restored")
def test_a_reward_that_is_gone_is_refused(killed: RunDir, home: Path) -> None:
    (home / "own.py").unlink()
    with pytest.raises(RecipeError, match="own:brevity: there is no module own") as caught:
        resume(killed)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "attempts",
    [
        None,
        [],
        [{"attempt": 1, "fingerprints": {"schema_version": 99}, "reward_files": {}, "changes": []}],
    ],
)
def test_fingerprints_of_another_format_are_refused(
    killed: RunDir, tmp_path: Path, attempts: Any
) -> None:
    copy = RunDir(Path(shutil.copytree(killed.path, tmp_path / "copy")))
    manifest = copy.read_json(MANIFEST) | {"attempts": attempts}
    if attempts is None:
        del manifest["attempts"]
    copy.write_json(MANIFEST, manifest)
    with pytest.raises(RunDirError, match="no fingerprints that this version can read") as caught:
        resume(copy)
    assert caught.value.exit_code == 2 and "that made it (0.1.0)" in caught.value.hint


@pytest.mark.parametrize("text", ["weights", "", "data,,rewards"])
def test_parts_that_a_run_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        accepted_of(text)
    assert "data,reward,model,versions" in caught.value.hint
    assert accepted_of("data, model") == {"data", "model"} and accepted_of(None) == set()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--set", "lora.rank=8"), "keeps its lora.rank; it shapes what was trained so far"),
        (("--set", "eval.heldout.path=x"), "another suite is another evaluation"),
        (("--set", "budget.usd_per_hour=1"), "in the books at the old price"),
        (("--set", "schedule.lerning_rate=1"), "did you mean learning_rate"),
        (("--set", "schedule.stop_after_steps=0"), "greater than or equal to 1"),
        (("--model", "nowhere"), "no model folder"),
    ],
)
def test_what_a_resumed_run_may_not_change_is_refused(
    killed: RunDir, arguments: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(BudgetRLError) as caught:
        resume(killed, *arguments)
    assert caught.value.exit_code == 2 and problem in str(caught.value)


def resume(run: RunDir, *arguments: str) -> None:
    """As the command, up to the first worker, in this process."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    sets = [given["--set"]] if "--set" in given else []
    before = content(run)
    try:
        continue_run(
            run,
            Limits(),
            NoDisplay(),
            time.monotonic(),
            allow_code=True,
            sets=sets,
            model=given.get("--model"),
        )
    finally:
        assert content(run) == before


@pytest.fixture(scope="module")
def resumed(killed: RunDir, home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same run, resumed from another folder: differently, and said so."""
    helper = home / "helper.py"
    helper.write_text(helper.read_text().replace("2.0", "3.0"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (home / "base").rename(elsewhere / "base")
    sets = {
        "schedule.learning_rate": 4e-4,
        "schedule.stop_after_steps": 4,
        "eval.heldout.temperature": 0.5,
    }
    done = budgetrl(
        *("resume", str(killed.path), "--allow-code", "--accept-changes", "reward"),
        *(part for key, value in sets.items() for part in ("--set", f"{key}={value}")),
        *("--model", "base"),
        cwd=elsewhere,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["stop_reason"], result["steps"]) == ("completed", 4)
    return open_run(killed.path)


def test_what_was_set_holds_from_the_next_update_on(resumed: RunDir) -> None:
    history = read_history(resumed)
    rates = [step.learning_rate for step in history.steps]
    shares = [1.0, 3 / 4, 2 / 4, 1 / 4]  # linear over four updates now
    assert rates[1:] == pytest.approx([4e-4 * share for share in shares[1:]], abs=1e-15)
    assert rates[0] == pytest.approx(1e-3)
    told = {event.key: (event.before, event.to) for event in history.changes}
    assert told["schedule.learning_rate"] == (1e-3, 4e-4)
    assert told["schedule.stop_after_steps"] == (3, 4)
    assert told["eval.heldout.temperature"] == (1.0, 0.5)
    assert Path(told["model.id"][1]).name == "base"
    resolved = resumed.read_json(RESOLVED)
    assert resolved["recipe"]["schedule"]["learning_rate"] == 4e-4
    assert resolved["sources"]["schedule.learning_rate"] == "changed for attempt 2"


def test_a_baseline_of_another_protocol_is_made_anew(resumed: RunDir) -> None:
    baselines = [e for e in read_history(resumed).evaluations if e.when == "baseline"]
    assert [e.temperature for e in baselines] == [1.0, 0.5]
    final = read_history(resumed).evaluation("final", "heldout")
    assert final is not None and final.temperature == 0.5
    assert (resumed.path / "evals" / "heldout" / "baseline.1.json").is_file()
    assert resumed.read_json(RESULT)["difference"]["heldout"]["pass_at"]["1"] is not None


def test_a_completed_run_asks_for_more_updates_and_pays_for_none(
    resumed: RunDir, tmp_path: Path
) -> None:
    before = content(resumed)
    with pytest.raises(UsageError, match="has made 4 updates") as caught:
        continue_run(resumed, Limits(360), NoDisplay(), time.monotonic(), allow_code=True)
    assert "--set schedule.stop_after_steps=8" in caught.value.hint
    assert content(resumed) == before


def test_eval_compares_the_base_that_moved_or_was_changed(resumed: RunDir, tmp_path: Path) -> None:
    base = Path(resumed.read_json(RESOLVED)["recipe"]["model"]["id"])
    assert find_target(str(resumed.path)).recipe.model.id == str(base)
    moved = Path(shutil.copytree(base, tmp_path / "moved"))
    found = find_target(str(resumed.path), base=str(moved))
    assert found.recipe.model.id == str(moved) and found.step == 4
    weights = base / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"\x01")
    with pytest.raises(ModelError, match=r"model\.safetensors differ"):
        find_target(str(resumed.path))
    weights.unlink()
    (base / "config.json").rename(base / "gone.json")
    with pytest.raises(ModelError, match=r"not in .* any more") as caught:
        find_target(str(resumed.path))
    assert "--model PATH" in caught.value.hint
    weights.write_bytes(kept)
    (base / "gone.json").rename(base / "config.json")
    with pytest.raises(UsageError, match="is no run"):
        find_target(str(moved), base=str(moved))


def test_an_accepted_change_is_in_manifest_and_events(resumed: RunDir) -> None:
    first, second = resumed.read_json(MANIFEST)["attempts"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    keys = ("own:brevity helper.py", "own:brevity own.py")
    was, now = (attempt["fingerprints"]["reward"] for attempt in (first, second))
    assert list(was) == list(now) == list(keys)
    assert was[keys[0]] != now[keys[0]] and was[keys[1]] == now[keys[1]]
    changed = [event for event in resumed.events() if isinstance(event, Changed)]
    (event,) = (event for event in changed if event.key.startswith("reward"))
    assert (event.key, event.before, event.to) == (
        f"reward: {keys[0]}",
        was[keys[0]],
        now[keys[0]],
    )
    assert event.attempt == 2
    lines = (resumed.path / "events.jsonl").read_text().splitlines()
    raw = [json.loads(line) for line in lines if '"kind": "changed"' in line]
    assert [line["key"] for line in raw] == [event.key for event in changed]
    assert raw[-1]["from"] == was[keys[0]] and "before" not in raw[-1]


def test_the_report_tells_what_was_changed(resumed: RunDir) -> None:
    told = (resumed.path / "report" / "report.md").read_text()
    assert "reward: own:brevity helper.py" in told and "since attempt" in told
