"""A user's own reward, in a process that can be killed: it cannot hang, end or slow a training.

    own = OwnReward(spec, file)
    own(completion=..., gold=...) -> 0.5      RewardFault where it has no value

The other side is own_worker.py. A process that was killed is started anew for the next row.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from budgetrl.errors import RecipeError
from budgetrl.recipe.schema import Reward
from budgetrl.types import Verdict

START_TIMEOUT_S = 120.0
"""For the import of the user's module, which may load a model."""
_STANDARD_ERROR = 2
_COMMAND = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "import runpy; runpy.run_module('budgetrl.rewards.own_worker', run_name='__main__')"
)


class RewardFault(Exception):
    """A reward has no value for a row; says why, without its name."""


class OutOfMemoryError(RuntimeError):
    """A reward model did not fit beside the training; known by its name, as torch's own."""


class OwnReward:
    """Calls a function of the user's with one row at a time. Close it at the end.

    Args:
        spec: of the recipe.
        file: defines the function.
        quiet: what it prints, tracebacks too, is for nobody.
    """

    def __init__(self, spec: Reward, file: Path, quiet: bool = False) -> None:
        self._spec, self._file, self._quiet = spec, file, quiet
        self.name = spec.name
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self) -> None:
        """Import the module.

        Raises:
            RecipeError: that fails, or takes more than two minutes.
        """
        if self._process is None:
            try:
                self._start()
            except RewardFault as fault:
                raise RecipeError(
                    f"[[rewards]] {self._spec.name}: {fault}.",
                    hint=f"Its file is {self._file}; `budgetrl run RECIPE --dry-run --allow-code` "
                    "calls it once.",
                ) from None

    def __call__(self, **row: Any) -> float:
        """The value for a row.

        Raises:
            OutOfMemoryError: of the GPU, which is no fault of this row.
            RewardFault: it raised, took too long, ended its process, or returned no number.
        """
        if self._process is None:
            self._start()
        limit_s = self._spec.timeout_s
        value, problem, no_memory = self._ask(row, limit_s, f"took more than {limit_s:g} s")
        if no_memory:
            self.close()  # with what it holds of the GPU
            raise OutOfMemoryError(f"{self._spec.name} {problem}")
        if value is None:
            raise RewardFault(problem)
        return float(value)

    def close(self) -> None:
        """End the process; a further call would start a new one."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            with suppress(ProcessLookupError):  # with whatever it has started
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = self._channel = None

    def _start(self) -> None:
        self._channel, theirs = socket.socketpair()
        command = [
            sys.executable,
            "-c",
            _COMMAND,
            json.dumps([folder for folder in sys.path if folder]),
        ]
        self._process = subprocess.Popen(
            [*command, str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            # Its words go where this process's errors go.
            stdout=subprocess.DEVNULL if self._quiet else _STANDARD_ERROR,
            stderr=subprocess.DEVNULL if self._quiet else None,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C is for the trainer
        )
        theirs.close()
        asked = {
            "file": str(self._file),
            "name": self._spec.name,
            "parameters": self._spec.parameters,
        }
        late = f"importing it takes more than {START_TIMEOUT_S:g} s"
        (problem,) = self._ask(asked, START_TIMEOUT_S, late)
        if problem is not None:
            self.close()
            raise RewardFault(problem)

    def _ask(self, message: Any, limit_s: float, late: str) -> Any:
        """One line there and one back; without an answer the process is ended.

        Raises:
            RewardFault: there is no answer in time, or the process is gone.
        """
        channel, process = self._channel, self._process
        assert channel is not None and process is not None
        received, deadline = b"", time.monotonic() + limit_s
        try:
            channel.settimeout(limit_s)
            channel.sendall((json.dumps(message) + "\n").encode())
            while not received.endswith(b"\n"):
                channel.settimeout(max(0.001, deadline - time.monotonic()))
                data = channel.recv(65_536)
                if not data:
                    raise ConnectionResetError
                received += data
            return json.loads(received)
        except TimeoutError:
            self.close()
            raise RewardFault(late) from None
        except ConnectionError:
            with suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
            how = _how_it_ended(process.returncode)
            self.close()
            raise RewardFault(f"ended its process{how}") from None


def try_once(spec: Reward, file: Path, gold: str) -> float:
    """The value of a reward for a made-up completion with the right answer.

    Raises:
        RecipeError: it cannot be imported, or has no value.
    """
    own = OwnReward(spec, file)
    row = {"completion": f"<think>\nA made-up row.\n</think>\n\\boxed{{{gold}}}", "gold": gold}
    try:
        own.start()
        return own(**row, num_tokens=12, verdict=Verdict.CORRECT)
    except RewardFault as fault:
        raise RecipeError(
            f"[[rewards]] {spec.name}: {fault}.",
            hint=f"It was called once with a made-up row: {', '.join(row)}, num_tokens, verdict"
            f"{''.join(f', {name}' for name in spec.parameters)}; what it does not use it takes as "
            f"**_. See {file}.",
        ) from None
    finally:
        own.close()


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return ""
    return f" by {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"
