"""Put a finished run and its report under docs/example_run/, for people to look at.

    python scripts/make_example_run.py runs/quickstart--...

Leaves out what nobody reads: optimiser state, logs, the completions between the first and the last
update. Paths of the machine that it ran on are cut. The report is made anew from what is left.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from budgetrl.report.write import write_report
from budgetrl.rundir import EVENTS, HEARTBEAT, MANIFEST, PLAN, RESOLVED, RESULT, RunDir, open_run

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "docs" / "example_run"
FILES = (RESOLVED, MANIFEST, PLAN, HEARTBEAT, RESULT, EVENTS, "recipe.toml")


def copy_run(source: RunDir, place: Path) -> RunDir:
    """A small copy of a run, without traces of the machine."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in FILES:
        (place / name).write_text(anonymous(source, source.path / name), encoding="utf-8")
    completions = sorted((source.path / "completions").glob("step_*.jsonl"))
    evaluations = sorted(source.path.glob("evals/*/baseline.*"))
    evaluations += sorted(source.path.glob("evals/*/final.*"))
    evaluations += sorted(source.path.glob("evals/*/eval-*.json"))  # without their completions
    for file in [completions[0], completions[-1], *evaluations]:
        copied = place / file.relative_to(source.path)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copied)
    run = RunDir(place)
    newest = source.checkpoints()[-1]
    with run.new_checkpoint(newest.step, resumable=False) as folder:
        shutil.copyfile(
            newest.path / "adapter_model.safetensors", folder / "adapter_model.safetensors"
        )
        config = json.loads((newest.path / "adapter_config.json").read_text(encoding="utf-8"))
        recipe = json.loads((source.path / RESOLVED).read_text(encoding="utf-8"))["recipe"]
        config["base_model_name_or_path"] = recipe["model"]["id"]
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return run


def anonymous(source: RunDir, file: Path) -> str:
    """A file's text with the checkout as `.` and the folder of the runs as `runs`."""
    text = file.read_text(encoding="utf-8")
    for path, short in ((source.path.parent, "runs"), (ROOT, "."), (Path.home(), "~")):
        text = text.replace(str(path), short)
    return text


def main() -> int:
    """Copy a run and write its report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run directory")
    options = parser.parse_args()
    run = copy_run(open_run(options.run), PLACE)
    for file in write_report([run]):
        print(file.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
