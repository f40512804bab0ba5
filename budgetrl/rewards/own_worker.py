"""The process in which a user's own reward runs: `python -m budgetrl.rewards.own_worker FD`.

One JSON line {file, name, parameters} comes first, and one line [null or problem] goes back once
the function is there. Then a line per completion comes in, and [value, problem, whether the GPU's
memory was short] goes back. The other side (`own`) kills this process when it takes too long.
Imports nothing heavy by itself.
"""

import asyncio
import importlib
import importlib.util
import inspect
import json
import math
import numbers
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from budgetrl.errors import is_out_of_memory
from budgetrl.masking import keep_secret, mask_output
from budgetrl.rewards.forkserver import end_with
from budgetrl.rewards.own_files import root_of
from budgetrl.types import Verdict


def serve(channel: socket.socket) -> None:
    """Call the function for one row after the other, until the other side closes."""
    with channel, channel.makefile("r", encoding="utf-8") as lines:
        asked = json.loads(next(lines))
        keep_secret(asked["parameters"])
        function: Any = None
        try:
            function = load_function(Path(asked["file"]), asked["name"])
            problem = None if callable(function) else "it is no function"
        except BaseException as error:  # a module may do anything, sys.exit() included
            problem = f"importing it raised {_told(error)}"
        _send(channel, [problem])
        for line in lines:
            row = json.loads(line)
            row["verdict"] = Verdict(row["verdict"])
            _send(channel, _value(function, row | asked["parameters"]))


def load_function(file: Path, name: str) -> Any:
    """Import the module of "module:function" from its file, and only that.

    The folder it lies in comes last on Python's path: a `random.py` or `json.py` in it is a file
    like any other, while helpers beside the module are found.
    """
    module_name, _, function_name = name.partition(":")
    root = root_of(file, module_name)
    sys.path.append(str(root))
    first = module_name.partition(".")[0]
    package = root / first / "__init__.py"
    place = package if package.is_file() else root / f"{first}.py"
    if place.is_file():
        spec = importlib.util.spec_from_file_location(first, place)
        assert spec is not None and spec.loader is not None
        sys.modules[first] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[first])
    return getattr(importlib.import_module(module_name), function_name)


def _value(
    function: Callable[..., Any], arguments: dict[str, Any]
) -> tuple[float | None, str, bool]:
    """What the function returns as a number, or why there is none."""
    try:
        return (*_number(function(**arguments)), False)
    except BaseException as error:  # sys.exit() in a reward is the reward's fault
        traceback.print_exc()
        return None, f"raised {_told(error)}", is_out_of_memory(error)


def _number(value: Any) -> tuple[float | None, str]:
    if inspect.iscoroutine(value) or asyncio.isfuture(value):
        getattr(value, "close", lambda: None)()
        return None, "returned a coroutine; a reward is a plain function, without async"
    if not isinstance(value, numbers.Real) and getattr(value, "size", None) is not None:
        count = value.numel() if hasattr(value, "numel") else value.size
        if count == 1:
            value = value.item()  # one number of numpy or torch
    if not isinstance(value, numbers.Real):
        return None, f"returned {type(value).__name__}, not a number"
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    return (number, "") if math.isfinite(number) else (None, f"returned {number}")


def _told(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)
    where = f" (line {place[-1].lineno} of {Path(place[-1].filename).name})" if place else ""
    return f"{type(error).__name__}: {str(error)[:300]}{where}"


def _send(channel: socket.socket, message: Any) -> None:
    channel.sendall((json.dumps(message) + "\n").encode())


if __name__ == "__main__":
    end_with(int(sys.argv[2]))
    mask_output()  # its words go into worker.log
    serve(socket.socket(fileno=int(sys.argv[1])))
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread that the user's code started keeps nobody waiting.
    os._exit(0)
