"""Write the measured numbers of docs/measurements/*.json into README and pages; --check compares.

Every block between `<!-- begin:NAME -->` and `<!-- end:NAME -->` is made here from a file that a
bench or check script printed, from the estimates of the bundled recipes, or from docstrings, so no
number on a page is typed by hand.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from api_reference import reference
from check_alarms import figures, judge, load, table
from recipe_keys import recipe_keys
from speed_tables import engine, points, quickstart_pairs, speed_goals, time_to_accuracy
from ways_table import ways

from budgetrl.diagnosis.rules import RULES
from budgetrl.estimation.request import Request, answer
from budgetrl.recipe.load import list_recipes, load_recipe
from budgetrl.units import duration, gib, usd

ROOT = Path(__file__).resolve().parent.parent
MEASUREMENTS = ROOT / "docs" / "measurements"
DECISIONS = ROOT / "docs" / "decisions"
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    DECISIONS / "index.md",
)
Measured = dict[str, Any]


def quickstart(found: Measured) -> str:
    """Gain, steps and seconds of each seed."""
    lines = [
        "| seed | updates | pass@1 before | after | difference (95 % interval) | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["seeds"]:
        low, high = row["difference"]["interval_95"]["1"]
        gain = row["difference"]["pass_at"]["1"]
        lines.append(
            f"| {row['seed']} | {row['steps']} | {_percent(row['baseline']['pass_at']['1'])} "
            f"| {_percent(row['final']['pass_at']['1'])} | {100 * gain:+.1f} points "
            f"({100 * low:+.1f} to {100 * high:+.1f}) | {row['wall_s']:.0f} |"
        )
    text = (
        f"256 held-out problems, 4 samples each, before and after; {found['cpu']}, "
        f"{found['date']} (`scripts/bench_quickstart.py`):\n\n" + "\n".join(lines)
    )
    if found.get("budgets"):
        tried = found["budgets"]
        ran = [row for row in tried if not row["refused"]]
        text += (
            f"\n\nOf {len(tried)} runs with budgets from {tried[0]['budget_s']:.0f} to "
            f"{tried[-1]['budget_s']:.0f} seconds {found['overrun']} ended beyond the budget, "
            f"{len(tried) - len(ran)} were refused because nothing useful fitted, and "
            f"{sum(bool(row['has_final']) for row in ran)} of the other {len(ran)} have a final "
            "evaluation."
        )
    return text


def quickstart_line() -> str:
    """The quickstart's result in a sentence."""
    found = json.loads((MEASUREMENTS / "quickstart.json").read_text(encoding="utf-8"))
    before, after = (
        sorted({_percent(row[side]["pass_at"]["1"]) for row in found["seeds"]})
        for side in ("baseline", "final")
    )
    seconds = sorted(row["wall_s"] for row in found["seeds"])
    return (
        f"Measured on {found['date']} ({found['cpu']}), {len(found['seeds'])} seeds: "
        f"pass@1 on 256 held-out problems is {_ends(before)} before and {_ends(after)} after, in "
        f"{seconds[0]:.0f} to {seconds[-1]:.0f} seconds ([the whole table](docs/quickstart.md))."
    )


def _ends(texts: list[str]) -> str:
    """The first and the last of sorted texts, or the only one."""
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"


def grading(found: Measured) -> str:
    """Agreement, throughput and hostile rows."""
    cases, own, speed = found["agreement"], found["self_consistency"], found["throughput"]
    dressed = found["typography"]
    hostile = found["hostile"]
    return (
        f"Measured on {found['date']} (`scripts/bench_grading.py`): of {cases['rows']} published "
        f"cases {cases['as_expected']} are judged as expected, math-verify alone "
        f"{cases['math_verify_as_expected']} with {cases['math_verify_false_correct']} wrong "
        f"answers called right (ours: {len(cases['false_correct'])}). Gold answers of the four "
        f"suites against themselves: {own['correct']} of {own['pairs']}; in {dressed['variants']} "
        f"typographic variants {dressed['correct']}, of those against golds of other rows "
        f"{dressed['called_correct']} called correct. {speed['ratio']:.0f} "
        f"times the rows per second of math-verify in one process. {len(hostile['hostile'])} "
        f"hostile rows among 990 good ones change no verdict and cost "
        f"{hostile['mixed_s'] - hostile['clean_s']:.0f} s."
    )


def estimate(found: Measured) -> str:
    """Predictions against published runs, by kind of row."""
    names = {
        "decode": "tokens per second of generation",
        "step": "seconds per update, one GPU",
        "memory": "parts of the memory",
        "memory_total": "peak memory",
    }
    lines = [
        "| what | rows | covered | median error | inside the 80 % band |",
        "|---|---|---|---|---|",
    ]
    for key, name in names.items():
        row = found["summary"][key]
        lines.append(
            f"| {name} | {row['n']} | {row['covered']} | {_percent(row['median_abs_rel_error'])} "
            f"| {_percent(row['inside_band_share'])} |"
        )
    return (
        "Predictions against published measurements that nobody made for budgetrl "
        f"(`scripts/check_estimator.py`, {found['date']}; rows that the model does not cover are "
        "listed there with the reason):\n\n" + "\n".join(lines) + _left_out(found["left_out"])
    )


def _left_out(found: Measured) -> str:
    """Errors of published rows by constants that their source had no part in."""
    decode, adapter, step = (found[kind] for kind in ("decode", "LoRA", "step"))
    return (
        "\n\nRows kept back, each source predicted by constants that were fitted without it "
        "(`scripts/fit_estimator.py`, with the rows of `scripts/published_lora.jsonl`): generation "
        f"is off by {_percent(decode['median_abs_rel_error'])} in the median ({decode['n']} rows "
        f"of {decode['sources']} sources), with an adapter beside the weights by "
        f"{_percent(adapter['median_abs_rel_error'])} ({adapter['n']} rows of "
        f"{adapter['sources']} sources, the worst {_percent(adapter['largest_abs_rel_error'])}), "
        f"an update by {_percent(step['median_abs_rel_error'])} ({step['n']} rows). No published "
        "row has a rank of 64 or more and a wide batch, as the paper's recipes do."
    )


def plans(found: Measured) -> str:
    """The plan that each run was given, against its bill."""

    def errors(planned: str, paid: str) -> str:
        off = sorted(abs(row[planned] / row[paid] - 1) for row in found["rows"])
        return f"{_percent(median(off))} (nine in ten within {_percent(off[int(0.9 * len(off))])})"

    return (
        f"Plans of {len(found['rows'])} finished runs of the quickstart under many budgets, "
        f"against their bills ({found['cpu']}, {found['date']}, `scripts/collect_plans.py`): the "
        f"bill is off by "
        f"{errors('planned_total_s', 'paid_s')}, the seconds of an update by "
        f"{errors('planned_step_s', 'measured_step_s')}, in the median; some of the runs shared "
        "their cores with other work."
    )


def cpu_plan(found: Measured) -> str:
    """Plans of a CPU run by the model's size, each against its run."""
    told, worst = found["summary"], "worst_factor"
    return (
        f"Plans of CPU runs by the model's size alone, {told['settings']} settings of four models "
        f"from 0.6 to 135 million parameters, each run for real ({found['cpu']}, {found['date']}, "
        "`scripts/check_cpu_plan.py`; the cores had other work): the seconds of an update are off "
        f"by {_percent(told['alone_median_error'])} in the median (at most a factor of "
        f"{told[f'alone_{worst}']:.1f}; {_percent(told['inside_band'])} inside the 80 % band), the "
        f"peak of the memory by {_percent(told['memory_median_error'])} (a factor of "
        f"{told[f'memory_{worst}']:.2f})."
    )


def stage_plans(found: Measured) -> str:
    """Each stage of a CPU run: its plan over what it took."""
    names = {"sft": "SFT", "grpo": "GRPO", "distill": "distillation"}
    lines = ["| stage | planned on a new machine | planned by an earlier run |", "|---|---|---|"]
    for kind, name in names.items():
        cells = []
        for learnt in (False, True):
            rows = [
                row
                for row in found["rows"]
                if row["kind"] == kind and ("last finished run" in row["source"]) == learnt
            ]
            bill, alone = (median(row[key] for row in rows) for key in ("wall", "alone"))
            cells.append(f"{bill:.2f} ({alone:.2f}; {len(rows)})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    busy = sorted(row["busy"] for row in found["rows"])
    speeds = sorted(row["gflops"] for row in found["rows"])
    return (
        "Seconds of an update that each stage of `quickstart_warm` and `quickstart_distill` was "
        "planned to take, over its bill; in brackets, the plan alone over the CPU seconds at the "
        "speed that was planned with, and how many runs these are medians of. 1.00 is a plan that "
        f"held. On cores with {busy[0]:.0f} to {busy[-1]:.0f} times the work that they could do, "
        f"whose speed was {speeds[0]:.0f} to {speeds[-1]:.0f} GFLOP/s in the mean of a stage "
        f"({found['cpu']}, {found['date']}, `scripts/check_stage_plan.py`):\n\n" + "\n".join(lines)
    )


def signal(found: Measured) -> str:
    """Groups with signal per minute against plain TRL."""
    lines = [
        "| problems | plain TRL's groups with signal | groups with signal a minute "
        "| skipping alone (bound) | its updates a minute | held-out accuracy at equal time |",
        "|---|---|---|---|---|---|",
    ]
    for name, mix in found["mixes"].items():
        lines.append(
            f"| {name} | {_percent(mix['live_share'])} | {mix['ratio']:.2f}x "
            f"| {mix['skip_ratio']:.2f}x ({mix['bound']:.2f}x) "
            f"| {mix['skip_update_ratio']:.2f}x | {_accuracy_gain(mix)} |"
        )
    return (
        'With `signal.skip = "exact"` and `signal.order = "difficulty"`, against TRL\'s own '
        f"GRPOTrainer with the fastest of six settings, on the same model, data, learning rate "
        f"({found['learning_rate']:g}) and {found['seconds_per_side']:.0f} seconds of one core; "
        f"{found['seeds']} paired seeds, "
        f"{found['date']} (`scripts/bench_signal.py`):\n\n" + "\n".join(lines) + _other_rate()
    )


def _other_rate() -> str:
    """The same bench at the learning rate that plain TRL likes better."""
    other = json.loads((MEASUREMENTS / "signal_1e-3.json").read_text(encoding="utf-8"))
    return (
        f"\n\nAt a rate of {other['learning_rate']:g}, which suits plain TRL better, on `hard` "
        f"({other['date']}): {_accuracy_gain(other['mixes']['hard'])}. There skipping without the "
        f"order by difficulty collapsed in one of {other['seeds']} seeds, as the same updates do "
        "without skipping (recipes/LOG.md)."
    )


def _accuracy_gain(mix: Measured) -> str:
    """Plain TRL's accuracy and ours, and the difference with its interval."""
    gain = points(mix["accuracy_difference"], mix["interval_95"])
    return f"{_percent(mix['accuracy']['trl'])} -> {_percent(mix['accuracy']['ours'])}: {gain}"


def stages(found: Measured) -> str:
    """RL alone, a warm-up alone and both, seed by seed."""
    sides = {
        "rl": "GRPO alone",
        "warm": "SFT alone, all the time",
        "brief": "the warm-up alone",
        "both": "warm-up, then GRPO",
    }
    held = [side for side in sides if any(row["side"] == side for row in found["rows"])]
    seeds = sorted({row["seed"] for row in found["rows"]})
    lines = [
        f"| seed | {' | '.join(sides[side] for side in held)} |",
        f"|---|{'---|' * len(held)}",
    ]
    for seed in seeds:
        cells = []
        for side in held:
            rows = [r for r in found["rows"] if (r["seed"], r["side"]) == (seed, side)]
            cells.append(_gain(rows[0]) if rows else "not run")
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    minutes = found["rows"][0]["budget_s"] / 60
    start = found["rows"][0]["baseline"]["pass_at"]["1"]
    return (
        f"The start `mute` answers {_percent(start)} of 256 held-out problems. Change of pass@1 in "
        f"points with its 95 % interval, each side in {minutes:.0f} minutes of one core, "
        f"evaluations included; {found['cpu']}, {found['date']} (`scripts/bench_stages.py`):\n\n"
        + "\n".join(lines)
    )


def _gain(row: Measured) -> str:
    gain = row["difference"]["pass_at"]["1"]
    low, high = row["difference"]["interval_95"]["1"]
    made = " + ".join(str(count) for count in row["updates"].values())
    return f"{100 * gain:+.1f} ({100 * low:+.1f} to {100 * high:+.1f}), {made} updates"


def recipes() -> str:
    """What every bundled GPU recipe costs, by `budgetrl estimate` on the GPU that it names."""
    lines = [
        "| recipe | base model | rank | GPU | an update | updates: bought of wanted "
        "| hours and cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in list_recipes():
        recipe = load_recipe(name).recipe
        if recipe.engine.device == "cpu":
            continue
        made = answer(Request(recipe))
        assert made.affordable_band is not None, f"{name} has no budget"
        low, high = round(made.affordable_band.low), round(made.affordable_band.high)
        wanted = "as many as fit" if made.requested_steps is None else str(made.requested_steps)
        fits = "" if made.fits else " (does not fit)"
        lines.append(
            f"| {name} | {recipe.model.id.rpartition('/')[2]} | {recipe.lora.rank} "
            f"| {made.scenario.gpu.name}{fits} | {duration(made.times.step_s)} "
            f"| {made.affordable_steps} ({low} to {high}) of {wanted} "
            f"| {made.plan.total_s / 3600:.1f} h, {usd(made.usd)} |"
        )
    return "\n".join(lines)


def cards() -> str:
    """What every bundled GPU recipe asks of the memory of the GPU that it names."""
    lines = [
        "| recipe | GPU | usable | peak | at the high end | vLLM's share | of it a KV cache of |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in list_recipes():
        recipe = load_recipe(name).recipe
        if recipe.engine.device == "cpu":
            continue
        made = answer(Request(recipe))
        held = made.memory
        lines.append(
            f"| {name} | {made.scenario.gpu.name} | {gib(held.usable)} | {gib(held.peak)} "
            f"| {gib(held.high)} | {held.utilization:.2f} ({gib(held.reserved)}) "
            f"| {gib(held.kv_cache)} |"
        )
    return "Estimates, not measurements (`budgetrl estimate`):\n\n" + "\n".join(lines)


def decisions() -> str:
    """The records by number, each with its title."""
    records = sorted(DECISIONS.glob("[0-9]*.md"))
    titles = (record.read_text(encoding="utf-8").splitlines()[0] for record in records)
    return "\n".join(
        f"- [{title.lstrip('# ')}]({record.name})"
        for title, record in zip(titles, records, strict=True)
    )


def rules() -> str:
    """Each rule of a diagnosis, and how many recorded healthy runs it named."""
    judged = [judge(run) for run in load("all")]
    healthy = [one.named for one in judged if not one.run["ill"]]
    lines = [
        f"| rule | | when it speaks | of {len(healthy)} healthy runs |",
        "|---|---|---|---|",
    ]
    for rule in RULES:
        named = "-" if rule.severity == "info" else sum(rule.name in one for one in healthy)
        lines.append(f"| `{rule.name}` | {rule.severity} | {rule.rule} | {named} |")
    return "\n".join(lines)


def diagnosed() -> str:
    """What the rules said of runs that they had not seen."""
    judged = [judge(run) for run in load("judging")]
    return f"{figures(judged)}\n\n{table(judged)}"


COMPUTED: dict[str, Callable[[], str]] = {
    "rules": rules,
    "diagnosed": diagnosed,
    "recipes": recipes,
    "cards": cards,
    "speed_goals": speed_goals,
    "quickstart_line": quickstart_line,
    "reference": reference,
    "recipe_keys": recipe_keys,
    "decisions": decisions,
}


def hub_faults(found: Measured) -> str:
    """What a run says of every fault, its exit code, seconds and what it keeps."""
    lines = ["| the hub | exit | seconds | what is said |", "|---|---|---|---|"]
    for row in found["rows"]:
        said = "nothing: it goes on" if row["message"] is None else _said(row["message"])
        kept = row["kept_bytes"]
        if kept:
            said += f" ({kept / 1e6:.1f} MB of {row['total_bytes'] / 1e6:.1f} MB are kept)"
        lines.append(f"| {row['what']} | {row['exit_code']} | {row['seconds']:.0f} | {said} |")
    return (
        f"Runs with {found['budget_s']:.0f} s of budget, by an outside clock on busy cores, "
        f"{found['date']} (`scripts/hub_faults.py`); {len(found['beyond_budget'])} ended beyond "
        f"it, and {found['half_shown']} files were shown before they were whole:\n\n"
        + "\n".join(lines)
    )


def torture_loaded(found: Measured) -> str:
    """What random budgets beside burning processes bought, pass by pass."""
    lines = [
        "| cores are shared between | pass | latest end against its budget | exit 0 | of these "
        "without a final evaluation | made an update | exit 3, their budgets |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found["passes"]:
        runs = [scenario["details"] for scenario in one["scenarios"]]
        ended = [run for run in runs if run["exit_code"] == 0]
        refused = sorted(run["budget_s"] for run in runs if run["exit_code"] == 3)
        which = f" ({', '.join(f'{budget:.0f}' for budget in refused)} s)" if refused else ""
        shared = "sessions" if one["machine"]["shares_by_session"] else "processes"
        lines.append(
            f"| {shared} | seed {one['seed']} | {max(run['late_s'] for run in runs):+.1f} s "
            f"| {len(ended)} of {len(runs)} | {sum(not run['rounds'] for run in ended)} "
            f"| {sum(bool(run.get('steps')) for run in runs)} | {len(refused)}{which} |"
        )
    first = found["passes"][0]
    return (
        f"{first['date'][:10]}, {first['machine']['cores']} cores, three runs at a time beside ten "
        "processes that burn (`scripts/torture.py --passes 0 --loaded 20 --burners 10`). Linux "
        "shares cores between sessions first by default, and a worker has a session of its own; in "
        "a container, or with `kernel.sched_autogroup_enabled = 0`, between all processes, so that "
        "a run has a thirteenth of two cores:\n\n" + "\n".join(lines)
    )


def torture_cuts(found: Measured) -> str:
    """What became of interrupted runs of which one file was cut, by the kind of file."""
    kinds = {
        "events.jsonl": "`events.jsonl`",
        "evals": "an evaluation",
        "completions": "completions of an update",
        "checkpoints": "a file of a checkpoint",
    }
    rows: dict[str, list[Measured]] = {}
    for one in found["scenarios"]:
        top = one["details"]["file"].split("/")[0]
        rows.setdefault(kinds.get(top, "recipe, plan, manifest, heartbeat"), []).append(one)
    lines = [
        "| cut | trials | went on to the end | refused with a way on | lost and not said |",
        "|---|---|---|---|---|",
    ]
    for name, trials in sorted(rows.items(), key=lambda row: -len(row[1])):
        codes = [one["details"].get("exit_code") for one in trials]
        lines.append(
            f"| {name} | {len(trials)} | {codes.count(0)} | {codes.count(2)} "
            f"| {sum(bool(one['faults']) for one in trials)} |"
        )
    return (
        f"{found['date'][:10]}: {found['counts']['cut']} copies of a run that was killed in or "
        "after its fifth update, each with one file cut at a random byte, then looked at, resumed "
        "and looked at again (`scripts/torture.py --passes 0 --cuts`); an independent count of "
        "updates and completions agreed, or the report named what is missing, in "
        f"{found['counts']['cut'] - found['failed']['cut']}:\n\n" + "\n".join(lines)
    )


def sweep(found: Measured) -> str:
    """Overhead, faults, budgets and ASHA of sweeps on a Ray cluster."""
    lines = []
    for piece, kind in ("overhead", "trials of the quickstart"), ("full", "short trials"):
        if part := found.get(piece):
            one = part["found"]
            lines.append(
                f"- {one['finished']} of {one['trials']} {kind} in a 3 x 3 x 2 grid on two nodes: "
                f"{one['paid_s']:.0f} seconds of two cores were paid, {one['runs_s']:.0f} of them "
                f"by the runs; overhead {_percent(one['overhead'])} ({part['date']})."
            )
    if part := found.get("kills"):
        one = part["found"]
        same = (
            "the same table as without"
            if one["same_table"]
            else (f"{one['differing']} of {one['trials']} rows differ from those without")
        )
        lines.append(
            f"- The short ones with {one['killed'].count('worker')} workers and "
            f"{one['killed'].count('node')} of the nodes killed: {one['finished']} of "
            f"{one['trials']} trials finished in {one['run_directories']} run directories, {same} "
            f"({part['date']})."
        )
    if part := found.get("budgets"):
        rows = part["found"]
        over = sum(bool(row.get("over")) for row in rows)
        lines.append(
            f"- Of {len(rows)} sweeps with budgets from {min(row['budget_s'] for row in rows):.0f} "
            f"to {max(row['budget_s'] for row in rows):.0f} seconds {over} ended beyond the "
            f"budget, by an outside clock ({part['date']})."
        )
    if part := found.get("asha"):
        one = part["found"]
        (kept, _, found_at), (best, _, best_at) = one["kept"], one["best"]

        def point(values: Measured) -> str:
            return ", ".join(f"{key.split('.')[-1]} {value}" for key, value in values.items())

        lines.append(
            f"- The grid of quickstarts with `--asha`, rungs {one['rungs']}: "
            f"{_percent(one['runs_s'] / one['whole_s'])} of the seconds and "
            f"{_percent(one['updates'])} of the updates of the whole grid. Kept to the end: "
            f"{point(kept)} with {_percent(found_at)}, place {one['place']} "
            f"of {len(one['trials'])}; the best was {point(best)} with "
            f"{_percent(best_at)} ({part['date']})."
        )
    cpu = next(iter(found.values()))["cpu"]
    return f"On two cores ({cpu}, `scripts/bench_sweep.py`):\n\n" + "\n".join(lines)


def _said(message: str) -> str:
    """The first line, with the hub's real address for the test's."""
    text = re.sub(r"http://127\.0\.0\.1:\d+", "https://huggingface.co", message.splitlines()[0])
    return text.replace("|", "\\|")


BLOCKS: dict[str, Callable[[Measured], str]] = {
    "quickstart": quickstart,
    "grading": grading,
    "estimate": estimate,
    "plans": plans,
    "cpu_plan": cpu_plan,
    "stage_plans": stage_plans,
    "signal": signal,
    "engine": engine,
    "quickstart_pairs": quickstart_pairs,
    "time_to_accuracy": time_to_accuracy,
    "hub_faults": hub_faults,
    "torture_cuts": torture_cuts,
    "torture_loaded": torture_loaded,
    "sweep": sweep,
    "stages": stages,
    "ways": ways,
}


def updated(text: str) -> str:
    """A page with its blocks made anew; those that another script makes stay as they are."""
    for name in re.findall(r"<!-- begin:(\w+) -->", text):
        file = MEASUREMENTS / f"{name}.json"
        if name in COMPUTED:
            body = COMPUTED[name]()
        elif name in BLOCKS and file.exists():
            body = BLOCKS[name](json.loads(file.read_text(encoding="utf-8")))
        else:
            continue
        block = re.compile(rf"(<!-- begin:{name} -->\n).*?(<!-- end:{name} -->)", re.DOTALL)
        text = block.sub(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)
    return text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def main() -> int:
    """Update or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = updated(old)
        if old != new:
            stale.append(page.name)
        if not check:
            page.write_text(new, encoding="utf-8")
    if check:
        return int(bool(stale))
    print(f"updated: {', '.join(stale) or 'nothing, all is up to date'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
