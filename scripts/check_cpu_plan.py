"""Hold the plan of a CPU run against the run: twelve settings, four models, each run for real.

    python scripts/check_cpu_plan.py --smollm2 FOLDER [--only 0,1,2] [--out FILE]

Predictions are those of a machine without earlier runs. `alone` compares the estimate of an update
and its 80 % band with the CPU seconds of the worker, which other work on the machine does not
change (one thread); `wall` compares what the run planned, before and after its baseline, with what
passed; and the peak of the worker's memory. The rows go to docs/measurements/cpu_plan.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fit_cpu_plan import RANDOM, random_model

from budgetrl.estimation.cpu_phases import cpu_scenario, predict, read_prompts
from budgetrl.estimation.estimate import estimate_cpu
from budgetrl.estimation.machine import gflops, this_cpu, this_machine
from budgetrl.events import PlanEvent
from budgetrl.files import parse_json, write_json
from budgetrl.history import read_history
from budgetrl.processor import cpu_model
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import open_run
from budgetrl.units import GIB

OUT = Path(__file__).resolve().parents[1] / "docs" / "measurements" / "cpu_plan.json"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}{{ '\\n' }}"
UPDATES = 2


@dataclass(frozen=True, slots=True)
class Setting:
    """What is run."""

    model: str
    prompt_tokens: int
    completion_tokens: int
    prompts: int
    """Per update; each with 4 completions."""
    micro_batch: int
    threads: int = 1


SETTINGS = (
    Setting("quickstart", 28, 64, 32, 64),
    Setting("quickstart", 24, 32, 16, 64),
    Setting("random-25m", 24, 12, 8, 16),
    Setting("random-25m", 128, 64, 2, 8),
    Setting("random-25m", 512, 24, 1, 4),
    Setting("random-60m", 24, 256, 1, 4),
    Setting("random-60m", 128, 64, 2, 4),
    Setting("random-60m", 256, 128, 1, 2),
    Setting("random-60m", 512, 12, 1, 2),
    Setting("smollm2", 24, 12, 4, 4),
    Setting("smollm2", 90, 12, 2, 4),
    Setting("smollm2", 200, 24, 1, 4),
)

RECIPE = """
[recipe]
name = "check"
extends = ["{quickstart}"]
[model]
id = "{model}"
[lora]
rank = 16
alpha = 16
[data]
path = "{folder}/train.jsonl"
[prompt]
max_tokens = {prompt_limit}
chat_template = {template}
[grpo]
num_generations = 4
[batch]
prompts_per_step = {prompts}
micro_batch = {micro_batch}
[schedule]
stop_after_steps = {updates}
[sampling]
max_tokens = {completion_tokens}
[signal]
skip = "off"
on_empty = "continue"
[engine]
threads = {threads}
eval_batch = 8
[entropy]
prompts = 0
[budget]
hours = 0.25
[[eval]]
suite = "heldout"
path = "{folder}/heldout.jsonl"
samples = 1
k = [1]
when = ["baseline"]
"""


def write_recipe(setting: Setting, model: str, folder: Path) -> Path:
    """A recipe of the setting, with problems of its prompt length."""
    for name, first, count in (("train", 10, 40), ("heldout", 60, 8)):
        numbers = range(first, first + count)
        rows = [json.dumps({"problem": _text(setting, n), "answer": "1"}) for n in numbers]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    file = folder / "check.toml"
    values = asdict(setting) | {
        "model": model,
        "folder": folder,
        "quickstart": load_recipe("quickstart").path,
        "prompt_limit": setting.prompt_tokens + 16,
        "template": json.dumps(TEMPLATE),
        "updates": UPDATES,
    }
    file.write_text(RECIPE.format_map(values), encoding="utf-8")
    return file


def _text(setting: Setting, number: int) -> str:
    """A problem of so many tokens: a digit is one in all of these tokenizers."""
    return f"{number}".ljust(setting.prompt_tokens - 1, "4")


def check(setting: Setting, model: str, folder: Path) -> dict[str, Any]:
    """Plan and run one setting."""
    file = write_recipe(setting, model, folder)
    empty = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    recipe = load_recipe(file).recipe
    gflops.cache_clear()  # of one process, this would be the speed of the first setting
    machine = this_machine(recipe)
    alone = predict(cpu_scenario(recipe, this_cpu()), machine, read_prompts(recipe))
    made = estimate_cpu(alone)
    command = [sys.executable, "-m", "budgetrl", "run", str(file), "--out", str(folder / "runs")]
    with (folder / "out.json").open("w+b") as out:
        options = ["--display", "none", "--json"]
        child = subprocess.Popen(command + options, env=empty, stdout=out, stderr=subprocess.PIPE)
        cpu_s = list(_cpu_of_updates(child, folder / "runs"))
        child.wait()
        out.seek(0)
        result = parse_json(out.read())
    if child.returncode != 0:
        raise SystemExit(f"{setting}: {result}")
    run = open_run(result["run_dir"])
    history = read_history(run)
    again = [e.step_s for e in run.events() if isinstance(e, PlanEvent) and e.step == 0]
    planned = run.read_json("plan.json")
    return {
        **asdict(setting),
        "gflops": machine.gflops,
        "params": made.scenario.shape.params,
        "alone": {
            "estimate_s": made.times.step_s,
            "band_s": list(made.step_band),
            "cpu_s": statistics.median(cpu_s),
            "updates_cpu_s": cpu_s,
        },
        "wall": {
            "busy": planned.get("slow", 1.0),
            "planned_s": planned["plan"]["step_s"],
            "after_baseline_s": again[0] if again else None,
            "measured_s": statistics.median(sum(s.phase_s.values()) for s in history.steps),
            "phase_s": [dict(step.phase_s) for step in history.steps],
        },
        "memory_gib": {
            "estimate": made.memory.peak / GIB,
            "low": made.memory.low / GIB,
            "high": made.memory.high / GIB,
            "peak": max(step.peak_rss_gib or 0.0 for step in history.steps),
        },
    }


def _cpu_of_updates(supervisor: "subprocess.Popen[bytes]", out: Path) -> Iterator[float]:
    """CPU seconds of the worker between the events of its updates, watched from outside."""
    before, seen = 0.0, 0
    while supervisor.poll() is None:
        time.sleep(0.02)
        worker = child_of(supervisor.pid)
        events = next(out.glob("*/events.jsonl"), None)
        if worker is None or events is None:
            continue
        text = events.read_text(encoding="utf-8")
        spent = cpu_seconds(worker)
        if '"name": "train"' not in text:
            before = spent
        elif text.count('"kind": "step"') > seen:
            seen += 1
            yield spent - before
            before = spent


def child_of(process: int) -> int | None:
    try:
        found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return None
    return int(found[0]) if found else None


def cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Errors over all settings."""
    alone, walls = [row["alone"] for row in rows], [row["wall"] for row in rows]
    inside = [one["band_s"][0] <= one["cpu_s"] <= one["band_s"][1] for one in alone]
    memory = [row["memory_gib"] for row in rows]
    return {
        "settings": len(rows),
        "inside_band": sum(inside) / len(rows),
        **_errors("alone", [one["estimate_s"] / one["cpu_s"] for one in alone]),
        **_errors("wall_planned", [one["planned_s"] / one["measured_s"] for one in walls]),
        **_errors(
            "wall_after_baseline",
            [
                one["after_baseline_s"] / one["measured_s"]
                for one in walls
                if one["after_baseline_s"]
            ],
        ),
        **_errors("memory", [one["estimate"] / one["peak"] for one in memory]),
    }


def _errors(name: str, ratios: Sequence[float]) -> dict[str, float]:
    """Median relative error, and the worst factor either way."""
    return {
        f"{name}_median_error": statistics.median(abs(ratio - 1) for ratio in ratios),
        f"{name}_worst_factor": max(max(ratio, 1 / ratio) for ratio in ratios),
    }


def main() -> None:
    """Run the settings that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smollm2", help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--only", help="numbers of settings, from 0")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    chosen = range(len(SETTINGS)) if options.only is None else map(int, options.only.split(","))
    models = {"quickstart": "asset:tiny/quickstart", "smollm2": options.smollm2}
    known = parse_json(options.out.read_text()) if options.out.is_file() else {"rows": []}
    for number in chosen:
        setting = SETTINGS[number]
        if setting.model == "smollm2" and options.smollm2 is None:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if setting.model in RANDOM:
                model = str(random_model(setting.model, folder / "model"))
            else:
                model = models[setting.model]
            row = {"number": number, **check(setting, model, folder)}
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows = [old for old in known["rows"] if old["number"] != number] + [row]
        known = {
            "date": datetime.now(UTC).date().isoformat(),
            "cpu": cpu_model(),
            "summary": summary(rows),
            "rows": sorted(rows, key=lambda row: int(row["number"])),
        }
        write_json(options.out, known)
    print(json.dumps(known["summary"], indent=1))


if __name__ == "__main__":
    main()
