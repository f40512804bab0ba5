"""When somebody else ends this process: `--until TIME`, or the end of a batch job.

    end = end_of(until, os.environ, time.time(), started_s)    None: nobody does

A batch scheduler kills what runs at its job's end, paid or not, saved or not. Slurm tells the end
as SLURM_JOB_END_TIME; older ones (22.05) do not, and are asked with squeue.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from budgetrl.errors import UsageError
from budgetrl.units import duration

SQUEUE_S = 5.0
"""That asking the scheduler may take."""
_CLOCK = ("%H:%M", "%H:%M:%S")


@dataclass(frozen=True, slots=True)
class End:
    """An end that no budget moves."""

    wall_s: float
    """From the start of this process, from which a budget counts."""
    source: Literal["scheduler", "command line"]
    says: str


def end_of(
    until: str | None, environment: Mapping[str, str], now: float, age_s: float
) -> End | None:
    """The sooner of --until and the job's end.

    Args:
        until: "18:30" (the next one), "2026-12-01T06:00", or unix seconds.
        environment: where a batch scheduler tells of its job.
        now: unix seconds.
        age_s: of this process.

    Raises:
        UsageError: no time, or one that is over.
    """
    found: list[tuple[float, End]] = []
    if until is not None:
        found.append(_end(_parsed(until, now), f"--until {until}", "command line", now, age_s))
    job = _job_end(environment)
    if job is not None:
        found.append(_end(job[0], f"the job's end ({job[1]})", "scheduler", now, age_s))
    return min(found, key=lambda one: one[0])[1] if found else None


def _end(
    at: float, what: str, source: Literal["scheduler", "command line"], now: float, age_s: float
) -> tuple[float, End]:
    shown = datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")
    left = at - now
    says = f"{what} is at {shown}, in {duration(max(0.0, left))}: no budget goes beyond it"
    return at, End(age_s + left, source, says)


def _parsed(text: str, now: float) -> float:
    """Unix seconds of a time.

    Raises:
        UsageError: it is none, or it is over.
    """
    at = _clock_time(text, now) or _unix(text) or _iso(text)
    if at is None:
        raise UsageError(
            f"--until {text!r} is no time.",
            hint="Give 18:30 (the next one), 2026-12-01T06:00, or unix seconds.",
        )
    if at <= now:
        raise UsageError(f"--until {text}: that is over.", hint="Give a time to come.")
    return at


def _clock_time(text: str, now: float) -> float | None:
    for form in _CLOCK:
        try:
            time = datetime.strptime(text, form).time()
        except ValueError:
            continue
        today = datetime.fromtimestamp(now)
        at = datetime.combine(today.date(), time)
        return (at if at > today else at + timedelta(days=1)).timestamp()
    return None


def _unix(text: str) -> float | None:
    return float(text) if text.isdigit() and 9 <= len(text) <= 11 else None


def _iso(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _job_end(environment: Mapping[str, str]) -> tuple[float, str] | None:
    """End of the batch job that this process is part of, and who says so."""
    told, job = environment.get("SLURM_JOB_END_TIME", ""), environment.get("SLURM_JOB_ID", "")
    if (at := _unix(told.strip())) is not None:
        return at, "SLURM_JOB_END_TIME"
    if not job.isdigit():
        return None
    command = ["squeue", "-h", "-j", job, "-o", "%e"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=SQUEUE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # no squeue here, or a scheduler that is busy
        return None
    at = _iso(asked.stdout.strip())
    return None if at is None else (at, f"squeue, job {job}")
