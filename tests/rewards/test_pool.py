"""The grading pool: order, time limits, hostile answers, dying processes, memory."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import budgetrl
from budgetrl.errors import RewardError
from budgetrl.grading import rules
from budgetrl.rewards import pool as pool_module
from budgetrl.rewards.pool import GradingPool
from budgetrl.types import Verdict

HOSTILE = ("SLEEP", "COMPUTE", "COMPUTE IN C", "SLEEP AND FAIL")
"""Answers on which slow_grader.py spends a minute."""
SLOW = "slow_grader"
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(workers=2, timeout_s=1.0, grader=SLOW) as made:
        made.start()
        made.wait()
        yield made


def box(answer: str) -> str:
    return rf"so \boxed{{{answer}}}."


def processes_of(session_leader: int) -> list[int]:
    """Processes of a session that are alive and no zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session_leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def gone_within(seconds: float, session_leader: int) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not processes_of(session_leader):
            return True
        time.sleep(0.05)
    return False


def test_rows_are_graded_in_order_with_their_boxes(pool: GradingPool) -> None:
    rows = [(box("0.5"), r"\frac12"), ("no box", "5"), (box("x"), "y"), (box("1"), ""), ("", "{")]
    graded = pool.grade(rows)
    verdicts = ["correct", "unparsable", "wrong", "error", "error"]
    assert [row.verdict.value for row in graded] == verdicts
    assert [row.extracted for row in graded] == ["0.5", None, "x", "1", None]
    assert pool.grade([]) == []
    assert graded[1].seconds == 0.0, "no answer to a whole number needs no process"


def test_golds_are_checked_within_the_time_limit(pool: GradingPool) -> None:
    golds = ["5", "", "{1", r"\frac{1}{2}", HOSTILE[0], "++", HOSTILE[1], "x"]
    problems = pool.gold_problems(golds)
    assert [gold for gold, why in zip(golds, problems, strict=True) if why is None] == [
        *("5", r"\frac{1}{2}", "x")
    ]
    assert problems[1:3] == ["it is empty", "a brace or bracket is not closed"]
    assert problems[4] == problems[6] == "reading it takes more than 1 s"
    assert problems[5] == "it cannot be read"


def test_a_power_or_factorial_equals_its_own_text_without_being_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rules, "_read_gold", lambda gold: pytest.fail("it was read"))
    assert rules.judge("2^{10}", "2^{10}") is rules.judge("7!", "7!") is Verdict.CORRECT


def test_verdicts_are_those_of_many_rows_of_every_kind(pool: GradingPool) -> None:
    answers = [f"0.{i:03d}" for i in range(1, 300)]
    graded = pool.grade([(box(answer), r"\frac{1}{8}") for answer in answers])
    assert [a for a, row in zip(answers, graded, strict=True) if row.verdict == "correct"] == [
        "0.125"
    ]


def test_equal_answers_are_judged_once(pool: GradingPool) -> None:
    graded = pool.grade([(f"{i} {box(HOSTILE[0])}", "5") for i in range(20)])
    assert {row.verdict for row in graded} == {Verdict.TIMEOUT}
    assert len({row.seconds for row in graded}) == 1, "one time limit was waited for"


def test_progress_counts_every_row_once(pool: GradingPool) -> None:
    counts: list[int] = []
    pool.grade([(box("5"), "5"), (box("x"), "x"), (box("x"), "x"), ("", "x")], counts.append)
    assert sum(counts) == 4


def test_hostile_answers_cost_their_time_limit_and_nothing_else(pool: GradingPool) -> None:
    good = [(box(rf"\frac{{{i}}}{{7}}"), rf"\frac{{{2 * i}}}{{14}}") for i in range(1, 200)]
    rows = list(good)
    for place, answer in enumerate(HOSTILE):
        rows.insert(40 * place, (box(answer), "5"))
    graded = pool.grade(rows)
    hostile = [graded[40 * place].verdict for place in range(len(HOSTILE))]
    assert hostile == [Verdict.TIMEOUT] * len(HOSTILE)
    assert sum(row.verdict is Verdict.CORRECT for row in graded) == len(good)
    assert all(graded[40 * place].seconds >= 1.0 for place in range(len(HOSTILE)))


def test_bytes_that_are_no_text_are_graded_like_any_other(pool: GradingPool) -> None:
    rows = [
        (f"\x00\ud800\x1b[31m {box('5')}", "5"),
        (box("5\x00"), "5"),
        (box("\ud800"), "5"),
        ("x" * 5_000_000 + box("5"), "5"),
        (box("(" * 2_000 + "5" + ")" * 2_000), "5"),
        (box("5" * 1_000_000), "5"),
        (box('__import__("os").abort()'), "5"),
    ]
    verdicts = [row.verdict.value for row in pool.grade(rows)]
    assert verdicts == ["correct", "correct", "wrong", "correct", "wrong", "wrong", "wrong"]


@needs_proc
def test_a_worker_that_is_killed_is_replaced_and_its_answer_judged(pool: GradingPool) -> None:
    server = pool._start_worker
    assert server is not None
    session = server._process.pid
    for victim in processes_of(session):
        if victim != session:
            os.kill(victim, signal.SIGKILL)
    rows = [(box(f"0.{i}"), f"{i}/10") for i in range(1, 9)]
    assert {row.verdict for row in pool.grade(rows)} == {Verdict.CORRECT}


@needs_proc
def test_a_killed_fork_server_is_replaced(pool: GradingPool) -> None:
    server = pool._start_worker
    assert server is not None
    os.kill(server._process.pid, signal.SIGKILL)
    assert gone_within(5, server._process.pid)
    assert pool.grade([(box("0.5"), "1/2")])[0].verdict is Verdict.CORRECT


def test_an_answer_that_ends_every_worker_is_given_up(pool: GradingPool) -> None:
    stop = threading.Event()

    def kill_busy_workers() -> None:
        while not stop.wait(0.05):
            for worker in list(pool._workers):
                if worker.job is not None:
                    worker.kill_process()

    killer = threading.Thread(target=kill_busy_workers)
    killer.start()
    try:
        graded = pool.grade([(box(HOSTILE[0]), "5")])
    finally:
        stop.set()
        killer.join()
    assert graded[0].verdict is Verdict.TIMEOUT
    assert graded[0].seconds < 1.0
    assert pool.grade([(box("0.5"), "1/2")])[0].verdict is Verdict.CORRECT


def test_several_threads_share_a_pool(pool: GradingPool) -> None:
    results: dict[int, list[Verdict]] = {}

    def grade(number: int) -> None:
        rows = [(box(f"{number}.5"), rf"\frac{{{2 * number + 1}}}{{2}}")] * 2
        results[number] = [row.verdict for row in pool.grade(rows)]

    threads = [threading.Thread(target=grade, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [Verdict.CORRECT] * 2 for i in range(6)}


@needs_proc
def test_closing_leaves_no_process() -> None:
    pool = GradingPool(workers=2, timeout_s=30.0)
    pool.start()
    pool.wait()
    assert pool._start_worker is not None
    session = pool._start_worker._process.pid
    assert len(processes_of(session)) == 3
    pool.close()
    assert gone_within(5, session)


@needs_proc
def test_killing_the_parent_in_the_middle_of_grading_leaves_no_process() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r})\n"
        "from budgetrl.rewards.pool import GradingPool\n"
        f"pool = GradingPool(workers=2, timeout_s=60.0, grader={SLOW!r})\n"
        "pool.start()\n"
        "pool.wait()\n"
        "print(pool._start_worker._process.pid, flush=True)\n"
        f"pool.grade([(r'\\boxed{{{HOSTILE[0]}}}', '5'), (r'\\boxed{{{HOSTILE[1]}}}', '5')])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    session = int(parent.stdout.readline())
    time.sleep(0.5)
    assert len(processes_of(session)) == 3
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone_within(5, session)


@needs_proc
def test_memory_and_processes_do_not_grow(pool: GradingPool) -> None:
    server = pool._start_worker
    assert server is not None
    session = server._process.pid

    def resident_mib() -> float:
        pages = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in processes_of(session)]
        return sum(map(int, pages)) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def grade(start: int) -> None:
        pool.grade([(box(f"{i}x+{i + 1}"), f"{i + 1}+{i}x") for i in range(start, start + 200)])

    grade(0)
    pool.grade([(box(answer), "5") for answer in HOSTILE[:2]])
    grade(200)
    before_mib = resident_mib()
    grade(400)
    assert resident_mib() - before_mib < 30
    assert len(processes_of(session)) <= 3
    states = [
        Path(f"/proc/{pid}/status").read_text()
        for pid in map(int, filter(str.isdecimal, os.listdir("/proc")))
        if Path(f"/proc/{pid}").exists()
    ]
    children = [text for text in states if f"PPid:\t{session}\n" in text]
    assert not any("State:\tZ" in text for text in children)


def test_workers_are_replaced_after_many_answers(
    pool: GradingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_MAX_JOBS", 3)
    before = set(map(id, pool._workers))
    rows = [(box(f"0.{i}"), f"{i}/10") for i in range(1, 10)]
    assert {row.verdict for row in pool.grade(rows)} == {Verdict.CORRECT}
    assert set(map(id, pool._workers)) != before


def test_a_pool_that_cannot_start_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with GradingPool(workers=1) as broken, pytest.raises(RewardError, match="math_verify"):
        broken.grade([(box("x"), "x")])


@pytest.mark.parametrize(("workers", "timeout_s"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_a_pool_without_workers_or_time_is_refused(workers: int, timeout_s: float) -> None:
    with pytest.raises(ValueError, match="finite time limit"):
        GradingPool(workers, timeout_s)


def test_grade_works_in_any_thread() -> None:
    verdicts: list[Verdict] = [budgetrl.grade(r"\boxed{\frac{1}{3}}", r"\frac{1}{3}")]
    other = threading.Thread(
        target=lambda: verdicts.append(budgetrl.grade(r"\boxed{0.3}", r"\frac{1}{3}"))
    )
    other.start()
    other.join()
    assert verdicts == [Verdict.CORRECT, Verdict.WRONG]


def test_grading_needs_neither_torch_nor_the_main_module(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import sys\n"
        "import budgetrl\n"
        "print('ran')\n"
        r"print(budgetrl.grade(r'\boxed{0.5}', r'\frac12'))" + "\n"
        "print([name for name in ('torch', 'math_verify', 'sympy') if name in sys.modules])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(budgetrl.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines() == ["ran", "correct", "[]"]


def test_a_parent_that_leaves_early_leaves_no_traceback() -> None:
    ours, theirs = socket.socketpair()
    arguments = [json.dumps(sys.path), str(theirs.fileno()), str(os.getpid()), SLOW]
    server = subprocess.Popen(
        [sys.executable, "-c", pool_module._COMMAND, *arguments],
        pass_fds=[theirs.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    select.select([ours], [], [])
    ours.close()  # with its greeting unread, which resets the connection
    assert server.communicate()[1] == ""
    assert server.returncode == 0
