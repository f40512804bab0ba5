"""What docs/distil.md says of the runs of scripts/bench_ways.py; for scripts/update_readme.py."""

from typing import Any

from budgetrl.units import percent

Measured = dict[str, Any]
WAYS = {"grpo": "GRPO", "warm": "warm-up, then GRPO", "distil": "distillation"}


def ways(found: Measured) -> str:
    """All of it, in Markdown."""
    starts = dict.fromkeys(row["start"] for row in found["rows"])
    lines = [f"| start | seed | {' | '.join(WAYS.values())} |", f"|---|---|{'---|' * len(WAYS)}"]
    for start in starts:
        rows = [row for row in found["rows"] if row["start"] == start]
        known = (row["baseline"]["pass_at"]["1"] for row in rows if row.get("baseline"))
        before = percent(next(known, None))
        for seed in dict.fromkeys(row["seed"] for row in rows):
            by_way = {row["way"]: row for row in rows if row["seed"] == seed}
            cells = (outcome(by_way[way]) if way in by_way else "not run" for way in WAYS)
            lines.append(f"| `{start}`, {before} | {seed} | {' | '.join(cells)} |")
    text = (
        "Change of pass@1 in points on 256 held-out problems (2 samples each) with its 95 % "
        f"interval, by updates. Every run has {found['budget_s']:.0f} CPU seconds of one thread, "
        f"its evaluations included; {found['cpu']}, {found['date']} (`scripts/bench_ways.py`):\n\n"
        + "\n".join(lines)
    )
    return "\n\n".join([text, teacher_cost(found), seconds_to_goal(found), peaks(found)]).rstrip()


def outcome(row: Measured) -> str:
    """What one run gained, or how it failed."""
    if not row.get("difference"):
        return f"failed: {row.get('failed', row.get('stop_reason', 'no final evaluation'))}"
    ended = "" if row["stop_reason"] in ("budget", "completed") else f", {row['stop_reason']}"
    gain, (low, high) = row["difference"]["pass_at"]["1"], row["difference"]["interval_95"]["1"]
    made = " + ".join(str(count) for count in row["updates"].values())
    return f"{100 * gain:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), {made} updates{ended}"


def teacher_cost(found: Measured) -> str:
    """What made the teacher."""
    told = found["teacher"]
    return (
        f"The teacher of all rows is `quickstart` after {told['updates']} updates of GRPO "
        f"({percent(told['final']['pass_at']['1'])}). Its own training took {told['train_s']:.0f} "
        f"seconds, {told['wall_s']:.0f} with its evaluations, on a core that did nothing else; no "
        "row has them."
    )


def seconds_to_goal(found: Measured) -> str:
    """Seconds of training at which held-out accuracy first met the goal."""
    rows = [row for row in found["rows"] if row["start"] == "quickstart" and row.get("on_the_way")]
    needed = {(row["way"], row["seed"]): row["goal_s"] for row in rows}
    lines, halves = [], 0
    for seed in dict.fromkeys(row["seed"] for row in rows):
        times = {way: needed.get((way, seed)) for way in WAYS}
        cells = ("-" if s is None else f"{s:.1f}" for s in times.values())
        slow, fast = times["grpo"], times["distil"]
        ratio = None if slow is None or fast is None else fast / slow
        halves += ratio is not None and ratio <= 0.5
        of_grpo = "-" if ratio is None else f"{ratio:.2f}"
        lines.append(f"| {seed} | {' | '.join(cells)} | {of_grpo} |")
    head = [
        f"| seed | {' | '.join(WAYS.values())} | distillation / GRPO |",
        f"|---|{'---|' * len(WAYS)}---|",
    ]
    return (
        f"From `quickstart`, CPU seconds of updates until {percent(found['goal'])} of the held-out "
        "problems were right, read between evaluations of one sample every 3 updates and the final "
        "one of two (-: not reached, or not run); distillation needed at "
        f"most half of GRPO's in {halves} of "
        f"{len(lines)} seeds:\n\n" + "\n".join(head + lines)
    )


def peaks(found: Measured) -> str:
    """Memory of one micro-batch."""
    if "memory" not in found:
        return ""
    told = found["memory"]
    grpo, distil = (told["peak_bytes"][way] for way in ("grpo", "distil"))
    return (
        f"Peak memory of one micro-batch at a vocabulary of 151,936 ({told['rows']} answers of "
        f"{told['completion']} tokens, CPU, over what was held before): {distil / 2**20:.0f} MiB, "
        f"GRPO's {grpo / 2**20:.0f} MiB ({distil / grpo:.2f}x)."
    )
