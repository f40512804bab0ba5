"""Make docs/measurements/plans.json from the table of plan against bill that runs append to.

    python scripts/collect_plans.py [~/.cache/budgetrl/estimates.jsonl ...]

Every finished run leaves a row there (supervise/ending.py); the README takes its figure from here.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from budgetrl.estimation.machine import user_cache_dir
from budgetrl.files import read_jsonl, write_json
from budgetrl.processor import cpu_model
from budgetrl.supervise.ending import ESTIMATES

OUT = Path(__file__).resolve().parents[1] / "docs" / "measurements" / "plans.json"


def main() -> None:
    """Read the tables, write one file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", type=Path, default=[user_cache_dir() / ESTIMATES])
    rows = [row for table in parser.parse_args().tables for row in read_jsonl(table)]
    date = datetime.now(UTC).date().isoformat()
    write_json(OUT, {"date": date, "cpu": cpu_model(), "rows": rows})
    json.dump({"rows": len(rows)}, sys.stdout)


if __name__ == "__main__":
    main()
