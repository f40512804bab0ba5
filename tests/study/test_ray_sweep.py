"""The pool of a Ray cluster: two nodes on this machine, real processes, some of them killed."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_builder import Story, build_run

from budgetrl.errors import BudgetRLError, HardwareError, RefusedError, UsageError
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import RunDir
from budgetrl.study.cluster import Cluster, open_cluster
from budgetrl.study.trial import Done, Job

ray = pytest.importorskip("ray")
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes with a core each."""
    from ray.cluster_utils import Cluster as Nodes

    quiet = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else they starve where the machine is busy
        nodes = Nodes(initialize_head=True, head_node_args=quiet)
        nodes.add_node(num_cpus=1, object_store_memory=100 << 20)
        yield nodes.address
        nodes.shutdown()


@pytest.fixture(scope="module")
def pool(address: str) -> Iterator[Cluster]:
    with open_cluster(address, cuda=False, most=8) as opened:
        yield opened


def job(run: RunDir, index: int) -> Job:
    """Of a trial that exists."""
    return Job(
        index=index, place=f"trial {index}", folder=run.path.parent, run=run.name,
        loaded=load_recipe("quickstart"), budget_s=60.0, end_t=time.time() + 600.0, most_s=600.0,
        usd_per_hour=None,
    )  # fmt: skip


def all_done(pool: Cluster, count: int) -> dict[int, Done]:
    found: dict[int, Done] = {}
    until = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < until:
        found |= {done.index: done for done in pool.finished()}
    return found


def worker_of(pool: Cluster, index: int) -> int:
    """The process in which a trial runs now."""
    actor = next(actor for running, actor in pool._running.values() if running.index == index)
    return int(ray.get(actor.process.remote(), timeout=PATIENCE_S))


def test_a_killed_worker_is_told_and_the_trial_goes_on_elsewhere(
    pool: Cluster, tmp_path: Path
) -> None:
    assert pool.slots == 2
    ended, cut = build_run(tmp_path, Story()), build_run(tmp_path, Story(end=None))
    with cut.supervised():  # as by the worker of a machine that was lost: the trial waits for it
        pool.start(job(ended, 0))
        pool.start(job(cut, 1))
        done = all_done(pool, 1)
        assert done == {0: Done(0)}, "what has ended stands"
        os.kill(worker_of(pool, 1), signal.SIGKILL)
        assert all_done(pool, 1) == {1: Done(1, lost=True)}
    for index in (2, 3, 4):  # one more than there are cores, as when a node is lost
        pool.start(job(build_run(tmp_path, Story()), index))
    assert all_done(pool, 3) == {i: Done(i) for i in (2, 3, 4)}, "nobody idle holds a core"


def test_a_cluster_without_cards_is_refused_for_a_gpu_recipe(pool: Cluster) -> None:
    with pytest.raises(HardwareError, match="has no GPU"):
        Cluster(ray, "ray", cuda=True, most=2).require()


def test_every_machine_must_see_the_sweep_or_the_second_copies(
    pool: Cluster, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match=r"checkpoint\.mirror") as caught:
        pool.check(tmp_path / "elsewhere", None)
    assert "storage that all machines share" in caught.value.hint
    pool.check(tmp_path / "elsewhere", str(tmp_path))
    (tmp_path / "study.json").write_text("{}")
    pool.check(tmp_path, None)


@pytest.mark.parametrize(
    ("address", "error", "says"),
    [
        ("127.0.0.1:1", RefusedError, "no Ray cluster answers"),
        ("127.0.0.1", UsageError, "HOST:PORT"),
        ("127.0.0.1:head", UsageError, "HOST:PORT"),
    ],
)
def test_nothing_answers_at_a_wrong_address(
    address: str, error: type[BudgetRLError], says: str
) -> None:
    with pytest.raises(error, match=says), open_cluster(address, cuda=False, most=1):
        pass


def test_a_sweep_whose_own_node_is_gone_goes_on_from_another(
    pool: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build_run(tmp_path, Story(end=None))
    with run.supervised():
        pool.start(job(run, 0))
        before = worker_of(pool, 0)
        monkeypatch.setattr(pool, "_node", "of a raylet that was killed")
        monkeypatch.setattr(pool, "_counted_at", 0.0)
        assert pool.slots == 2
        assert pool.finished() == []
        assert worker_of(pool, 0) != before, "it runs again, in a process of the new connection"
        os.kill(worker_of(pool, 0), signal.SIGKILL)
        assert all_done(pool, 1) == {0: Done(0, lost=True)}
