"""What torture.py works with: a small recipe, real processes, and checks of what a run left behind.

    lab = Lab.make(folder)                      recipe, data, a reward that can be slowed down
    process = lab.start_run("a"); process.kill("both"); process = lab.resume(run, "a")
    faults_of(run, reference)                   everything that differs, as sentences

Knows budgetrl by its command line and its run directory only.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budgetrl.checkpoint_files import damaged_files
from budgetrl.errors import RunDirError
from budgetrl.events import RunResumed, Step
from budgetrl.history import read_history
from budgetrl.rundir import HEARTBEAT, RunDir, list_runs

ROOT = Path(__file__).resolve().parent.parent
"""The checkout that is tortured."""
MARK = "BUDGETRL_TORTURE"
"""An environment variable by which processes of the torture are known."""
SECRET = "torture-secret-5f0c"
"""Stands in the environment as HF_TOKEN and WANDB_API_KEY; no file may hold it."""
STEPS = 8
SAVE_EVERY = 2
SAME = ("reward_mean", "accuracy_mean", "loss", "grad_norm", "entropy", "tokens", "learning_rate")
"""Fields of a step event that a resumed run repeats bit for bit."""
PATIENCE_S = 240.0
"""No process of the torture may take longer."""

RECIPE = """\
[recipe]
name = "torture"
extends = ["quickstart"]
[data]
limit = 12                        # three updates an epoch, so most kills fall into a later one
[batch]
prompts_per_step = 4
micro_batch = 16
[schedule]
stop_after_steps = {steps}
[signal]
order = "difficulty"              # the problem table is part of what must survive
[entropy]
prompts = 0
[checkpoint]
every_steps = {every}
[[eval]]
suite = "heldout"
path = "heldout.jsonl"
samples = 1
k = [1]
"""
SLOW_REWARD = """
[[rewards]]
name = "torture_reward:slow"
weight = 0.1
"""
REWARD = '''\
"""A reward that takes as long as the environment says, or blocks signals as native code does."""
import os, random, signal, time

def slow(completion, gold, **others):
    if os.environ.get("TORTURE_STUCK") and random.random() < 0.01:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1})
        time.sleep(600)
    time.sleep(float(os.environ.get("TORTURE_REWARD_S", "0")))
    return 0.0
'''
SITE = '''\
"""A slow disk: every fsync takes longer."""
import os, time

_fsync, _seconds = os.fsync, float(os.environ.get("TORTURE_FSYNC_S", "0"))

def fsync(file):
    time.sleep(_seconds)
    _fsync(file)

os.fsync = fsync
'''


@dataclass(frozen=True, slots=True)
class Lab:
    """A folder with everything that the runs read."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> "Lab":
        """Write recipes, problems and code."""
        code = root / "code"
        code.mkdir(parents=True)
        recipe = RECIPE.format(steps=STEPS, every=SAVE_EVERY)
        (root / "torture.toml").write_text(recipe)
        (root / "slow.toml").write_text(recipe + SLOW_REWARD)
        rows = [{"problem": f"Compute {a}+{b}.", "answer": a + b} for a, b in _sums()]
        (root / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (code / "torture_reward.py").write_text(REWARD)
        (code / "sitecustomize.py").write_text(SITE)
        (root / "logs").mkdir()
        return cls(root)

    def start_run(
        self,
        name: str,
        *,
        sets: Mapping[str, object] | None = None,
        budget_s: float = 1200.0,
        slow: Mapping[str, str] | None = None,
        file_limit_kib: int | None = None,
        recipe: str | None = None,
    ) -> "Process":
        """Start `budgetrl run`; its run directories lie under `out(name)`."""
        if recipe is None:
            recipe = str(self.root / ("torture.toml" if slow is None else "slow.toml"))
        arguments = ["run", recipe, "--hours", f"{budget_s:.2f}s", "--allow-code"]
        for key, value in (sets or {}).items():
            arguments += ["--set", f"{key}={value}"]
        arguments += ["--out", str(self.out(name))]
        return self._start(name, arguments, slow or {}, file_limit_kib)

    def resume(self, run: RunDir, name: str) -> "Process":
        """Start `budgetrl resume`."""
        return self._start(name, ["resume", str(run.path), "--allow-code"], {}, None)

    def out(self, name: str) -> Path:
        """The folder of a scenario's run directories."""
        return self.root / "runs" / name

    def run_of(self, name: str, process: "Process") -> RunDir | None:
        """The run directory, as soon as it is one; None if the process ends without."""
        while True:
            ended = process.ended()
            if runs := list_runs(self.out(name)):
                return runs[0]
            if ended:
                return None
            time.sleep(0.02)

    def _start(
        self, name: str, arguments: Sequence[str], slow: Mapping[str, str], limit: int | None
    ) -> "Process":
        command = [sys.executable, "-m", "budgetrl", *arguments, "--display", "none", "--json"]
        if limit is not None:
            command = ["bash", "-c", 'ulimit -S -f "$0"; exec "$@"', str(limit), *command]
        environment = self.environment(name) | slow
        return Process(command, environment, self.root / "logs" / name)

    def environment(self, name: str) -> dict[str, str]:
        """Of the processes of a scenario."""
        return os.environ | {
            MARK: str(self.root / name),
            "HF_TOKEN": SECRET,
            "WANDB_API_KEY": SECRET,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(self.root / "cache" / name),
            "PYTHONPATH": f"{self.root / 'code'}{os.pathsep}{ROOT}",
        }


def _sums() -> Iterator[tuple[int, int]]:
    return ((a, b) for a in range(2, 6) for b in range(3, 7))


class Process:
    """A supervisor as seen from outside, its output in files that orphans cannot hold open."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._stdout, self._stderr = log.with_suffix(".out"), log.with_suffix(".err")
        self.started = time.monotonic()
        with self._stdout.open("wb") as out, self._stderr.open("ab") as err:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=err, env=environment, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether the supervisor is gone."""
        return self._process.poll() is not None

    def wait(self, timeout_s: float = PATIENCE_S) -> tuple[int, float]:
        """The exit code as a shell tells it, and seconds from start to end."""
        code = self._process.wait(timeout_s)
        return (128 - code if code < 0 else code), time.monotonic() - self.started

    def send(self, number: signal.Signals) -> None:
        """A signal to the supervisor."""
        self._process.send_signal(number)

    def kill(self, whom: str) -> bool:
        """End "worker", "supervisor" or "both" by SIGKILL; False if there was nobody to kill."""
        worker = self.worker()
        if whom != "supervisor" and worker is None:
            return False
        if whom != "worker":
            self._process.kill()
        if whom != "supervisor" and worker is not None:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        if whom != "worker":
            self._process.wait()
        return True

    def worker(self) -> int | None:
        """The worker's process id."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        with suppress(OSError):
            for child in children.read_text().split():
                if b"budgetrl.training" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return None

    def result(self) -> dict[str, Any]:
        """The JSON document on standard output."""
        document: dict[str, Any] = json.loads(self._stdout.read_text())
        return document

    def errors(self) -> str:
        """Standard error of all processes of this scenario."""
        return self._stderr.read_text(errors="replace")


# --- checks: each returns what is wrong, as sentences


def series(run: RunDir) -> list[list[Any]]:
    """What must be equal, bit for bit, step by step."""
    return [[s.step, *(getattr(s, name) for name in SAME)] for s in read_history(run).steps]


def differences(run: RunDir, reference: RunDir) -> list[str]:
    """Where a finished run is not the reference: replayed, skipped or other updates."""
    found = []
    ours, wanted = series(run), series(reference)
    if [row[0] for row in ours] != [row[0] for row in wanted]:
        found.append(f"steps {[row[0] for row in ours]} instead of {[row[0] for row in wanted]}")
    elif ours != wanted:
        first = next(a[0] for a, b in zip(ours, wanted, strict=True) if a != b)
        found.append(f"the series differs from step {first} on")
    for file in sorted((reference.path / "completions").iterdir()):
        mine = run.path / "completions" / file.name
        if mine.exists() and mine.read_bytes() != file.read_bytes():
            found.append(f"{file.name}: other problems or completions")
    results = [read_history(each).evaluation("final", "heldout") for each in (run, reference)]
    if results[0] is None or results[1] is None or results[0].pass_at != results[1].pass_at:
        found.append("another final evaluation")
    return found


def lost_steps(run: RunDir, most: float = SAVE_EVERY) -> list[str]:
    """Resumptions that lost more than `most` updates, and time that ran backwards."""
    found, last, elapsed = [], 0, 0.0
    for event in run.events():
        if event.elapsed_s < elapsed:
            found.append(f"elapsed_s falls to {event.elapsed_s}")
        elapsed = event.elapsed_s
        if isinstance(event, RunResumed):
            if last - event.from_step > most:
                found.append(f"step {last} was reached, resumed from {event.from_step}")
            last = event.from_step
        elif isinstance(event, Step):
            last = event.step
    return found


def unreadable(run: RunDir, *, at_rest: bool) -> list[str]:
    """Files that no reader could use.

    Args:
        run: any run directory.
        at_rest: the run has ended in order, so that a torn last line or a half folder is a fault.
    """
    found = []
    for file in sorted(run.path.rglob("*.json*")):
        parts = file.relative_to(run.path).parts
        set_aside = file.suffix == ".damaged" or any(p.startswith((".", "unused_")) for p in parts)
        if file.is_file() and not set_aside:
            found += _broken(file, at_rest)
    for folder in (run.path / "checkpoints").iterdir():
        if folder.name.startswith("."):
            found += [f"{folder.name} was left behind"] if at_rest else []
        elif not (folder / "checkpoint.json").exists() and any(folder.iterdir()):
            found.append(f"{folder.name} is half a checkpoint")
    for checkpoint in run.checkpoints():
        found += [f"{checkpoint.path.name}/{name} is damaged" for name in damaged_files(checkpoint)]
    return found + leaks(run.path)


def _broken(file: Path, at_rest: bool) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            json.loads(text, parse_constant=_refuse)
            return []
        lines = text.split("\n")
        if lines[-1] and at_rest:
            return [f"{file.name}: a torn last line"]
        for line in lines[:-1]:
            json.loads(line, parse_constant=_refuse)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"{file}: {error}"]
    return []


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def leaks(folder: Path) -> list[str]:
    """Files that hold the secret of the environment."""
    secret = SECRET.encode()
    files = (file for file in folder.rglob("*") if file.is_file())
    return [f"{file} holds a secret" for file in files if secret in file.read_bytes()]


def wait_until_free(run: RunDir, mark: str, patience_s: float) -> float:
    """Seconds until no process of a scenario lives; infinite if that takes too long.

    A worker that was just started does not hold the run's lock yet.
    """
    start = time.monotonic()
    while run.is_locked() or processes_of(mark):
        if time.monotonic() - start > patience_s:
            return math.inf
        time.sleep(0.02)
    return time.monotonic() - start


def processes_of(mark: str) -> list[int]:
    """Living processes of a scenario."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if f"{MARK}={mark}".encode() in variables and state != "Z":
                found.append(int(folder.name))
    return found


def paid_seconds(run: RunDir) -> float:
    """What the heartbeat says was paid."""
    try:
        return float((run.read_json(HEARTBEAT) or {}).get("paid_s", 0.0))
    except RunDirError:
        return math.nan
