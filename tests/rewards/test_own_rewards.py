"""Rewards of the user's own: whatever they do costs their rows, and names them."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from budgetrl.errors import RecipeError
from budgetrl.recipe.schema import Reward
from budgetrl.rewards.own import try_once
from budgetrl.rewards.own_files import check_function, source_hashes
from budgetrl.rewards.pool import GradedRow
from budgetrl.rewards.registry import RewardSum, build_reward, fault_lines, most_faults
from budgetrl.types import Completion, Verdict

TIMEOUT_S = 0.3
OWN = """
import os, random, sys, threading, time
import helper

def hangs(completion, **row):
    while completion == "bad": pass
    return 1

def sleeps_with_a_thread(completion, **row):
    threading.Thread(target=time.sleep, args=(60,)).start()
    return time.sleep(60 if completion == "bad" else 0) or 1

def exits(completion, **row):
    return sys.exit("bye") if completion == "bad" else 1

def leaves(completion, **row):
    return os._exit(7) if completion == "bad" else 1

def aborts(completion, **row):
    return os.abort() if completion == "bad" else 1

def raises(completion, **row):
    return {}["key"] if completion == "bad" else 1

def interrupts(completion, **row):
    if completion == "bad": raise KeyboardInterrupt
    return 1

def text(completion, **row):
    return "1.0" if completion == "bad" else 1

def nothing(completion, **row):
    return None if completion == "bad" else 1

def several(completion, **row):
    return [1.0, 0.5] if completion == "bad" else 1

def infinite(completion, **row):
    return 10 ** 400 if completion == "bad" else 1

async def waits(completion, **row):
    return 1

def empty(**row): return None
def whole(**row): return 1
def true(**row): return True
def numpy_number(**row):
    import numpy
    return numpy.float32(1)
def numpy_array(**row):
    import numpy
    return numpy.ones((1, 1), dtype=numpy.int64)
def numpy_bool(**row):
    import numpy
    return numpy.bool_(True)
def tensor(**row):
    import torch
    return torch.ones(1, requires_grad=True)

def helped(**row):
    assert random.random() < 1.0  # the library's, though a random.py lies beside this file
    return helper.one()
"""


class AllRight:
    """A grader that finds every answer correct."""

    def grade(self, rows: Sequence[tuple[str, str]]) -> Sequence[GradedRow]:
        return [GradedRow(Verdict.CORRECT, "1", 0.0) for _ in rows]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rewards")
    for name in ("random", "json", "statistics"):
        (folder / f"{name}.py").write_text("raise RuntimeError('the file of the user')\n")
    (folder / "helper.py").write_text("def one(): return 1\n")
    (folder / "own.py").write_text(OWN)
    return folder / "own.py"


@pytest.fixture
def rewards(file: Path) -> Iterator[Any]:
    made: list[RewardSum] = []

    def make(function: str, **spec: Any) -> RewardSum:
        name = f"own:{function}"
        reward = build_reward(
            [Reward(name=name, timeout_s=TIMEOUT_S, **spec)],
            prefilled=False,
            max_tokens=9,
            pool=AllRight(),
            allow_code=True,
            files={name: str(file)},
        )
        made.append(reward)
        return reward

    yield make
    for reward in made:
        reward.close()


FAULTS = {
    "hangs": "took more than 0.3 s",
    "sleeps_with_a_thread": "took more than 0.3 s",
    "exits": "raised SystemExit: bye (line",
    "leaves": "ended its process with exit code 7",
    "aborts": "ended its process by SIGABRT",
    "raises": "raised KeyError: 'key' (line",
    "interrupts": "raised KeyboardInterrupt",
    "text": "returned str, not a number",
    "nothing": "returned NoneType, not a number",
    "several": "returned list, not a number",
    "infinite": "returned inf",
    "waits": "returned a coroutine; a reward is a plain function, without async",
}


@pytest.mark.parametrize("function", FAULTS)
def test_a_faulty_reward_costs_its_row_and_is_named(rewards: Any, function: str) -> None:
    reward = rewards(function)
    completions = ["fine"] * 7 + ["bad"] + ["fine"] * 8
    made = reward([Completion(text, 3, False) for text in completions], ["1"] * 16)
    if function == "waits":  # for every row
        assert [b.total for b in made] == [None] * 16
        assert "was not asked again after 2 faults" in str(made[-1].fault)
    else:
        assert [b.total for b in made] == [1.0] * 7 + [None] + [1.0] * 8
    assert made[7].verdict is Verdict.ERROR
    assert FAULTS[function] in "; ".join(fault_lines(made)) and "own:" in str(made[7].fault)


def test_a_reward_that_hangs_for_every_row_is_asked_a_few_times_only(rewards: Any) -> None:
    reward, started = rewards("hangs"), time.monotonic()
    made = reward([Completion("bad", 3, False)] * 64, ["1"] * 64)
    asked = sum("took more than" in str(b.fault) for b in made)
    assert asked == most_faults(64) + 1 == 4
    assert time.monotonic() - started < 64 * TIMEOUT_S
    assert fault_lines(made)[0].startswith("own:hangs took more than 0.3 s (4 rows)")


@pytest.mark.parametrize(
    "function",
    ["whole", "true", "numpy_number", "numpy_array", "numpy_bool", "helped"],
)
def test_every_kind_of_one_number_will_do(rewards: Any, function: str) -> None:
    reward = build_one(rewards, function)
    (made,) = reward([Completion("x", 3, False)], ["1"])
    assert (made.total, made.fault) == (1.0, None)


def test_a_tensor_of_one_number_will_do(rewards: Any) -> None:
    (made,) = build_one(rewards, "tensor")([Completion("x", 3, False)], ["1"])
    assert (made.total, made.fault) == (1.0, None)


def build_one(rewards: Any, function: str) -> RewardSum:
    made: RewardSum = rewards(function)
    (_, part) = made.parts[f"own:{function}"]
    part.reward._spec = part.reward._spec.model_copy(update={"timeout_s": 60.0})  # type: ignore[attr-defined]
    return made


def test_what_a_reward_imports_beside_itself_belongs_to_its_source(file: Path) -> None:
    assert list(source_hashes("own:whole", file)) == ["helper.py", "own.py", "random.py"]


@pytest.mark.parametrize("seconds", [0.05, 0, -1, 601, "inf"])
def test_a_time_limit_is_between_a_tenth_of_a_second_and_ten_minutes(seconds: Any) -> None:
    with pytest.raises(ValidationError, match="timeout_s"):
        Reward.model_validate({"name": "own:whole", "timeout_s": float(seconds)})
    with pytest.raises(ValidationError, match="timeout_s is for functions of your own"):
        Reward.model_validate({"name": "accuracy", "timeout_s": 5.0})


RECIPE = """
[recipe]
extends = ["quickstart"]
name = "own"

[[rewards]]
name = "own:{function}"
timeout_s = 0.3
"""


def test_a_dry_run_calls_each_reward_once(file: Path) -> None:
    recipe = file.parent / "waits.toml"
    recipe.write_text(RECIPE.format(function="waits"))
    command = [sys.executable, "-m", "budgetrl", "run", str(recipe), "--dry-run", "--json"]
    done = subprocess.run(
        [*command, "--allow-code"], cwd=file.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "own:waits: returned a coroutine" in json.loads(done.stdout)["error"]["message"]
    assert try_once(Reward(name="own:helped", timeout_s=60.0), file, "1") == 1.0
    with pytest.raises(RecipeError, match="own:empty: returned NoneType"):
        try_once(Reward(name="own:empty", timeout_s=60.0), file, "1")
    with pytest.raises(RecipeError, match="defines no gone"):
        check_function("own:gone", file)


def test_a_reward_that_is_not_allowed_or_cannot_be_imported_is_refused(file: Path) -> None:
    spec = Reward(name="broken:f")
    broken = file.parent / "broken.py"
    broken.write_text("import sys\ndef f(**row): return 1\nsys.exit(3)\n")
    options: dict[str, Any] = {"prefilled": False, "max_tokens": 9, "pool": AllRight()}
    with pytest.raises(RecipeError, match="--allow-code"):
        build_reward([spec], **options, files={"broken:f": str(broken)})
    with pytest.raises(RecipeError, match=r"broken:f: importing it raised SystemExit: 3 \(line 3"):
        build_reward([spec], **options, allow_code=True, files={"broken:f": str(broken)})
