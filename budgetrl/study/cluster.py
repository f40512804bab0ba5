"""A Ray cluster as the pool of a sweep: one actor per card, or per core for CPU recipes.

    with open_cluster("ray", cuda=False, most=18) as pool:     "ray", "auto" or HOST:PORT
        run_sweep(study, pool, ...)

Ray starts processes, places them and says when one is gone; money, state and retries are ours
(docs/decisions/0006). The only importer of ray.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import budgetrl
from budgetrl.display.base import NoDisplay
from budgetrl.errors import HardwareError, RefusedError, UsageError, first_line
from budgetrl.study.place import STUDY
from budgetrl.study.trial import Done, Job, run_trial

RAY = "2.60.0"
"""The version that this is tested with."""
_OWN = ("ray", "auto")
"""No address: Ray finds the cluster, or starts one."""
STORE_BYTES = 100 << 20
"""Of shared memory: results of trials are a line each."""
WAIT_S = 0.25
ANSWER_S = 5.0
"""That the head of a cluster may take to be reached."""
COUNT_S = 2.0
"""Between two counts of what the cluster has."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # else 15: a trial would wait for whatever else the machine does
}


class TrialActor:
    """Runs trials one after another, in a process of Ray's."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def run(self, job: Job) -> Done:
        """A trial to its end; in another thread than `stop`."""
        return run_trial(job, NoDisplay(), self._stop)

    def stop(self) -> None:
        """Have the running trial save and leave."""
        self._stop.set()

    def process(self) -> int:
        """Its process id; answers as soon as there is a card for it."""
        return os.getpid()


class Cluster:
    """The pool of all cards of a Ray cluster."""

    def __init__(self, ray: Any, on: str, *, cuda: bool, most: int) -> None:
        self._ray, self._on, self._cuda, self._most = ray, on, cuda, most
        self._kind = "GPU" if cuda else "CPU"
        self._counted, self._counted_at = 0, -COUNT_S
        self._node, self._cut_off = ray.get_runtime_context().get_node_id(), False
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Job, Any]] = {}
        """Result to come -> its job and actor."""
        self._waiting: dict[Any, Any] = {}
        """Actors for which there may be no card yet -> what they answer once there is."""

    @property
    def slots(self) -> int:
        """See `Pool`: what is there now, as many as there are trials for."""
        if time.monotonic() - self._counted_at >= COUNT_S:
            self._counted_at = time.monotonic()
            alive = {n["NodeID"]: n["Resources"] for n in self._ray.nodes() if n["Alive"]}
            self._counted = int(sum(has.get(self._kind, 0) for has in alive.values()))
            self._cut_off = self._node not in alive
        return max(1, min(self._counted, self._most))

    def require(self) -> None:
        """Refuse a cluster that would never start a trial: Ray itself waits for ever.

        Raises:
            HardwareError: it has no card, or no core.
        """
        if self.slots and self._counted:
            return
        raise HardwareError(
            f"the Ray cluster has no {self._kind}, and every trial needs one.",
            hint="Add machines with cards (`ray start --address=HEAD:6379 --num-gpus=1`), or give "
            'a recipe with engine.device = "cpu".',
        )

    def warm(self) -> None:
        """Have a process with budgetrl ready on each machine while the trials are planned."""
        self._look_from_each("", None)

    def check(self, folder: Path, mirror: str | None) -> None:
        """Every machine must see the sweep's directory, or the place of second copies.

        Raises:
            RefusedError: one does not, or has another budgetrl.
        """
        looks = self._look_from_each(str(folder / STUDY), mirror)
        for host, has, sees, copies in self._ray.get(looks):
            if has != budgetrl.__version__:
                raise RefusedError(
                    f"{host} has budgetrl {has}, and this machine {budgetrl.__version__}.",
                    hint="Install the same version on all machines of the cluster.",
                )
            if not (sees or copies):
                raise RefusedError(
                    f"{host} sees neither {folder} nor a checkpoint.mirror: what it trained would "
                    "stay there.",
                    hint="Put --out on storage that all machines share, or name a shared folder "
                    "(a mounted bucket) with --set checkpoint.mirror=/PATH.",
                )

    def _look_from_each(self, study: str, mirror: str | None) -> list[Any]:
        """What every machine with a card will have seen."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = self._ray.remote(num_cpus=0)(_look)
        there = [n for n in self._ray.nodes() if n["Alive"] and n["Resources"].get(self._kind)]
        chosen = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in there]
        return [look.options(scheduling_strategy=on).remote(study, mirror) for on in chosen]

    def start(self, job: Job) -> None:
        """See `Pool`."""
        actor = self._idle.pop() if self._idle else self._new_actor()
        self._waiting[actor] = actor.process.remote()
        self._running[actor.run.remote(job)] = job, actor

    def finished(self) -> list[Done]:
        """See `Pool`."""
        if self._cut_off:
            self._reconnect()
        ready, _ = self._ray.wait(list(self._running), timeout=WAIT_S)
        return [self._outcome(result) for result in ready]

    def stop(self, *, at_once: bool = False) -> None:
        """See `Pool`."""
        for _, actor in self._running.values():
            if at_once:
                self._ray.kill(actor)
            else:
                actor.stop.remote()

    def _reconnect(self) -> None:
        """Ray starts nothing more for a process whose own node is gone: hang on another one.

        Its trials save and leave with it, and go on.

        Raises:
            RefusedError: this machine has no other node.
        """
        jobs = [job for job, _ in self._running.values()]
        for known in (self._running, self._waiting, self._idle):
            known.clear()
        self._ray.shutdown()
        try:
            _connect(self._ray, self._on)
        except RefusedError as error:
            hint = "Start it again, and go on with `budgetrl resume`."
            raise RefusedError(f"Ray on this machine is gone: {error.message}", hint=hint) from None
        self._node, self._cut_off = self._ray.get_runtime_context().get_node_id(), False
        for job in jobs:
            self.start(job)

    def _new_actor(self) -> Any:
        offline = os.environ.get("HF_HUB_OFFLINE")
        passed = {"runtime_env": {"env_vars": {"HF_HUB_OFFLINE": offline}}} if offline else {}
        kind = self._ray.remote(num_cpus=1, num_gpus=int(self._cuda), max_concurrency=2)
        return kind(TrialActor).options(**passed).remote()

    def _outcome(self, result: Any) -> Done:
        job, actor = self._running.pop(result)
        errors = self._ray.exceptions
        try:
            done: Done = self._ray.get(result)
        except errors.RayTaskError as error:
            done = Done(job.index, error=first_line(error.cause))
        except errors.RayError:  # the process or the machine is gone
            return Done(job.index, lost=True)
        finally:
            self._waiting.pop(actor, None)
        self._free(actor)
        return done

    def _free(self, actor: Any) -> None:
        """Keep it for the next trial; end it where another one waits for its card."""
        answers = list(self._waiting.values())
        up = self._ray.wait(answers, num_returns=len(answers), timeout=0)[0] if answers else []
        if len(up) < len(answers):
            self._ray.kill(actor)
        else:
            self._idle.append(actor)


def _look(study: str, mirror: str | None) -> tuple[str, str, bool, bool]:
    """Of the machine that this runs on: name, budgetrl, and what it sees of the sweep."""
    copies = mirror is not None and Path(mirror).is_dir()
    return os.uname().nodename, budgetrl.__version__, Path(study).is_file(), copies


@contextmanager
def open_cluster(on: str, *, cuda: bool, most: int) -> Iterator[Cluster]:
    """A Ray cluster: an existing one, or one of this machine alone, gone when the context ends.

    Args:
        on: "ray" for the cluster that this machine belongs to, or else this machine; or an address.
        cuda: trials need a card each, not a core.
        most: trials at the same time that there is work for.

    Raises:
        UsageError: no address.
        RefusedError: Ray is missing or of another version, or nothing answers at the address.
        HardwareError: the cluster has no card.
    """
    _check_version()
    if on.startswith("ray://"):
        raise UsageError(
            f"--on {on}: Ray's client port cannot carry a sweep.",
            hint="Run the command on a machine of the cluster, with --on ray.",
        )
    if on not in _OWN and not on.rpartition(":")[2].isdecimal():
        raise UsageError(
            f"--on {on}: neither local nor ray nor the HOST:PORT of a Ray cluster.",
            hint="Such as --on 10.0.0.5:6379; `ray status` on its head shows the address.",
        )
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    _connect(ray, on)
    try:
        pool = Cluster(ray, on, cuda=cuda, most=most)
        pool.require()
        pool.warm()
        yield pool
    finally:
        with suppress(ray.exceptions.RayError):
            ray.shutdown()


def _connect(ray: Any, on: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if on not in _OWN:  # Ray itself goes on asking for minutes
            host, _, port = on.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
        ray.init(address="auto" if on == "ray" else on, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        if on != "ray":
            raise RefusedError(
                f"--on {on}: no Ray cluster answers there: {first_line(error)}.",
                hint="`ray status` on its head shows the address; --on ray uses this machine.",
            ) from None
        cores = len(os.sched_getaffinity(0))
        ray.init(num_cpus=cores, object_store_memory=STORE_BYTES, include_dashboard=False, **quiet)


def _check_version() -> None:
    hint = f'Run `pip install "budgetrl[sweep]"` (ray=={RAY}), or leave --on out.'
    try:
        found = version("ray")
    except PackageNotFoundError:
        raise RefusedError("--on needs Ray, which is not installed.", hint=hint) from None
    if found != RAY:
        raise RefusedError(f"--on needs Ray {RAY}, and {found} is installed.", hint=hint)
