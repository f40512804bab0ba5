#!/usr/bin/env python3
"""Kill, squeeze and starve real runs, and count what is lost. Bounded, seeded, prints one JSON.

    python scripts/torture.py --passes 4 --json > torture.json

Each pass: kills -9 at random moments, random budgets with slow-downs, SIGTERMs and SIGINTs, and
full disks (a file-size limit), all against one uninterrupted reference run of the small model.
Besides: files of an interrupted run that are cut at a random byte (--cuts), and budgets of the
quickstart, three at a time, beside processes that burn (--loaded).
Signals and delays are real, so a seed repeats the choices and not the microseconds.
"""

import argparse
import json
import math
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from torture_cuts import cut_run, interrupted_run
from torture_lab import Lab, leaks
from torture_scenarios import (
    SLOW_DOWNS,
    Kill,
    Outcome,
    Reference,
    budget_run,
    burning,
    disk_run,
    kill_run,
    loaded_run,
    reference_run,
    signal_run,
)
from torture_warm import begin_warm

from budgetrl.supervise.worker import worker_environment

Scenario = Callable[[], Outcome]


def one_pass(
    lab: Lab, reference: Reference, options: argparse.Namespace, number: int
) -> Iterator[Scenario]:
    """All scenarios of a pass, decided by the seed."""
    for index, kills in enumerate(_grouped(_kills(options.kills, _rng(options, number, "kills")))):
        name = f"p{number}-kill{index}"
        yield partial(kill_run, lab, reference, name, _rng(options, name), kills)
    slow = list(SLOW_DOWNS)
    for index in range(options.budgets):
        name, rng = f"p{number}-budget{index}", _rng(options, number, f"budget {index}")
        # From too small for anything to the longest, evenly, so that few passes cover the range.
        longest = options.longest_budget
        budget_s = 1.0 + (index + rng.random()) * (longest - 1.0) / options.budgets
        kind = slow[(index + number) % len(slow)]
        yield partial(budget_run, lab, name, rng, kind, budget_s)
    for index in range(options.terms + options.ints):
        name, is_term = f"p{number}-signal{index}", index < options.terms
        sent = [signal.SIGTERM] if is_term else [signal.SIGINT] * (1 + index % 2)
        yield partial(signal_run, lab, reference, name, _rng(options, name), sent)
    for index in range(options.disk_full):
        name, what = f"p{number}-disk{index}", ("events", "checkpoint")[index % 2]
        yield partial(disk_run, lab, reference, name, _rng(options, name), what)


def cuts(
    lab: Lab, reference: Reference, options: argparse.Namespace, started: float
) -> Iterator[Outcome]:
    """One file cut in each of many copies of an interrupted run, as many as there is time for."""
    victim = interrupted_run(lab)
    if options.warm:
        begin_warm(lab.environment("warm") | worker_environment())
    for name in (f"cut{index}" for index in range(options.cuts)):
        if time.monotonic() - started < 60 * options.minutes:
            yield cut_run(lab, victim, reference, name, _rng(options, name))


def loaded(lab: Lab, options: argparse.Namespace) -> Iterator[Outcome]:
    """Random budgets, three at a time, beside processes that burn."""
    rng = _rng(options, "loaded")
    budgets = [rng.uniform(15.0, 120.0) for _ in range(options.loaded)]
    names = [f"loaded{index}" for index in range(options.loaded)]
    with burning(options.burners if budgets else 0), ThreadPoolExecutor(3) as pool:
        yield from pool.map(partial(loaded_run, lab), names, budgets)


def _kills(count: int, rng: random.Random) -> list[Kill]:
    """Four in ten while a checkpoint is written; worker, supervisor and both in turn."""
    kills = [
        Kill(("worker", "supervisor", "both")[i % 3], saving=i % 5 in (1, 3)) for i in range(count)
    ]
    rng.shuffle(kills)
    return kills


def _grouped(kills: Sequence[Kill], size: int = 2) -> Iterator[Sequence[Kill]]:
    """Kills of one run."""
    return (kills[i : i + size] for i in range(0, len(kills), size))


def _rng(options: argparse.Namespace, *parts: object) -> random.Random:
    return random.Random(f"{options.seed} {parts}")


def torture(lab: Lab, options: argparse.Namespace) -> dict[str, Any]:
    """All passes; the document that is printed."""
    started = time.monotonic()
    reference = reference_run(lab) if options.passes else None
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for number in range(options.passes):
            assert reference is not None
            futures = [pool.submit(run) for run in one_pass(lab, reference, options, number)]
            for future in futures:
                outcomes.append(future.result())
                _tell(outcomes[-1])
    if options.cuts:
        reference = reference or reference_run(lab)
        for outcome in cuts(lab, reference, options, started):
            outcomes.append(outcome)
            _tell(outcome)
    for outcome in loaded(lab, options):
        outcomes.append(outcome)
        _tell(outcome)
    kinds = ("kill", "budget", "sigterm", "sigint", "disk_full", "cut", "loaded")
    faults = [f"{o.name}: {fault}" for o in outcomes for fault in o.faults]
    faults += leaks(lab.root / "runs")
    return {
        "schema_version": 1,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": options.seed,
        "passes": options.passes,
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "shares_by_session": _shares_by_session(),
        },
        "reference_s": None if reference is None else round(reference.wall_s, 2),
        "seconds": round(time.monotonic() - started, 1),
        "counts": {kind: sum(o.count for o in outcomes if o.kind == kind) for kind in kinds},
        "failed": {kind: sum(bool(o.faults) for o in outcomes if o.kind == kind) for kind in kinds},
        "faults": faults,
        "scenarios": [asdict(outcome) for outcome in outcomes],
    }


def _shares_by_session() -> bool:
    """Whether Linux shares cores between sessions first, its default, or between all processes.

    Burning processes are of this session, and each worker of one of its own.
    """
    try:
        return int(Path("/proc/sys/kernel/sched_autogroup_enabled").read_text()) == 1
    except (OSError, ValueError):
        return False


def merged(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several documents of this script as one."""
    whole = documents[0] | {"seed": [document["seed"] for document in documents]}
    for key in ("counts", "failed"):
        whole[key] = {kind: sum(d[key][kind] for d in documents) for kind in documents[0][key]}
    for key in ("faults", "scenarios"):
        whole[key] = [entry for document in documents for entry in document[key]]
    whole["seconds"] = round(sum(document["seconds"] for document in documents), 1)
    return whole


def _tell(outcome: Outcome) -> None:
    state = "; ".join(outcome.faults) or "held"
    sys.stderr.write(
        f"{outcome.name}: {outcome.count} x {outcome.kind} {outcome.details}: {state}\n"
    )


@contextmanager
def _lab(keep: Path | None) -> Iterator[Lab]:
    if keep is not None:
        yield Lab.make(keep.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        yield Lab.make(Path(folder).resolve() / "lab")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; the defaults are those of a full pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--kills", type=int, default=25, help="in each pass, as those that follow")
    parser.add_argument("--budgets", type=int, default=20)
    parser.add_argument("--longest-budget", type=float, default=60.0, help="seconds")
    parser.add_argument("--terms", type=int, default=6)
    parser.add_argument("--ints", type=int, default=2)
    parser.add_argument("--disk-full", type=int, default=6)
    parser.add_argument("--cuts", type=int, default=0, help="files cut at a random byte")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no cut begins later")
    parser.add_argument("--warm", action="store_true", help="cuts: processes begin imported")
    parser.add_argument("--loaded", type=int, default=0, help="budgets beside burning processes")
    parser.add_argument("--burners", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="scenarios at the same time")
    parser.add_argument("--merge", type=Path, nargs="+", help="documents to print as one instead")
    parser.add_argument("--keep", type=Path, help="a new folder in which everything stays")
    parser.add_argument("--json", action="store_true", help="print the whole document")
    return parser.parse_args(arguments)


def main() -> int:
    """Torture; exit 1 if anything was lost."""
    options = parse()
    if options.merge:
        document = merged([json.loads(file.read_text()) for file in options.merge])
    else:
        with _lab(options.keep) as lab:
            document = torture(lab, options)
    shown = document if options.json else {k: document[k] for k in ("counts", "failed", "faults")}
    print(json.dumps(shown, indent=1))
    return 1 if document["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
