"""Faults of a model hub against the real command line: what a run says, costs and keeps.

    python scripts/hub_faults.py [NAME...] [--json FILE]

Each fault is set on the hub of tests/hub_server.py, on 127.0.0.1; then `budgetrl run` trains a
tiny model by id, with data and a suite by id, inside ten minutes by an outside clock. What is kept
for a second try is counted, and files that are shown although they are not whole. docs/downloads.md
has the table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from hub_server import STRANGER, Hub  # noqa: E402
from hub_sets import model_files, put_sets  # noqa: E402
from test_hub_run import RECIPE  # noqa: E402

BUDGET_S = 600.0
MODEL = "tiny/quick"
WEIGHTS = "quick/resolve/.*model.safetensors"
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Case:
    """A fault, and how it is set."""

    name: str
    what: str
    """As the docs name it."""
    arrange: Callable[[Hub], None] = lambda hub: None
    sets: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def gated(hub: Hub) -> None:
    hub.access("model", MODEL, "gated")


def private(hub: Hub) -> None:
    hub.access("model", MODEL, "private")


def without_tokenizer(hub: Hub) -> None:
    (hub.root / "models" / MODEL / "main" / "tokenizer.json").unlink()


def passing(hub: Hub) -> None:
    hub.fault("api/models", "503")
    hub.fault("api/datasets/knoveleng", "429")
    hub.fault(WEIGHTS, "cut", after=MEGABYTE, times=2)
    hub.fault("tokenizer.json", "500", times=2)


def always(match: str, do: str, **more: Any) -> Callable[[Hub], None]:
    return lambda hub: hub.fault(match, do, times=-1, **more)


def after_a_part(do: str, **more: Any) -> Callable[[Hub], None]:
    """The first megabyte of the weights comes, then the fault lasts."""

    def arrange(hub: Hub) -> None:
        hub.fault(WEIGHTS, do, times=-1, **more)
        hub.fault(WEIGHTS, "cut", after=MEGABYTE)

    return arrange


CASES = (
    Case("passing", "single 503, 429, 500 and cut connections", passing),
    Case("no_network", "nothing answers", environment=(("HF_ENDPOINT", "http://127.0.0.1:9"),)),
    Case("offline", "offline, nothing in the cache", environment=(("HF_HUB_OFFLINE", "1"),)),
    Case("questions_500", "500 to every question", always("/api/", "500")),
    Case("questions_429", "429 to every question", always("/api/", "429", retry_after=90)),
    Case("suite_500", "500 for one suite alone", always("aime_2024", "500")),
    Case("bad_token", "a token that is not valid", environment=(("HF_TOKEN", "hf_old"),)),
    Case("gated", "gated model, no token", gated),
    Case("gated_stranger", "gated model, token without access", gated,
         environment=(("HF_TOKEN", STRANGER),)),
    Case("private", "private or misspelt model", private),
    Case("revision", "no such revision", sets=("model.revision=v9",)),
    Case("split", "no such split", sets=("data.split=test",)),
    Case("column", "no such column", sets=("data.columns.answer=gold",)),
    Case("tokenizer", "a model without a tokenizer", without_tokenizer),
    Case("weights_500", "500 for the weights", after_a_part("500")),
    Case("weights_429", "429 for the weights", after_a_part("429", retry_after=90)),
    Case("weights_403", "access taken away while downloading", after_a_part("403")),
    Case("stall", "a download that stands still", after_a_part("stall")),
    Case("cut", "a connection that is cut again and again", after_a_part("cut")),
    Case("damaged", "bytes that are not the file's", always(WEIGHTS, "wrong")),
    Case("slow", "a download too slow for the budget", always(WEIGHTS, "slow", after=2_000)),
)  # fmt: skip


def tried(case: Case, folder: Path) -> dict[str, Any]:
    """One fault through the command line."""
    with Hub(folder / "hub") as hub:
        put_sets(hub)
        hub.put("model", MODEL, model_files())
        case.arrange(hub)
        (folder / "r.toml").write_text(RECIPE)
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf")}
        environment |= {"HF_HUB_OFFLINE": "0", "XDG_CACHE_HOME": str(folder / "cache")}
        environment["HF_HUB_DOWNLOAD_TIMEOUT"] = "3"  # a stall is given up after six of them
        environment.pop("HF_TOKEN", None)
        environment |= dict(case.environment)
        command = [sys.executable, "-m", "budgetrl", "run", "r.toml", "--json"]
        command += ["--hours", f"{BUDGET_S:.0f}s", "--set", "schedule.stop_after_steps=1"]
        command += [part for value in case.sets for part in ("--set", value)]
        start = time.monotonic()
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - start
        return {
            "name": case.name,
            "what": case.what,
            "exit_code": done.returncode,
            "seconds": round(seconds, 1),
            **outcome(done, folder),
            "kept_bytes": sum(f.stat().st_size for f in folder.glob("hf/hub/*/blobs/*.part")),
            "total_bytes": len(model_files()["model.safetensors"]),
            "half_shown": half_shown(folder),
            "requests": len(hub.log),
        }


def outcome(done: "subprocess.CompletedProcess[str]", folder: Path) -> dict[str, Any]:
    """What was said, and whether a run was made."""
    document = json.loads(done.stdout or "{}")
    error = document.get("error") or {}
    for events in folder.glob("runs/*/events.jsonl"):
        for line in events.read_text().splitlines():
            event = json.loads(line)
            if event["kind"] == "error":
                error = {"type": event["type"], "message": event["message"], "hint": event["hint"]}
    said = {
        key: text and text.replace(f"{folder}/hf", "$HF_HOME")
        for key in ("message", "hint")
        for text in [error.get(key)]
    }
    return {"steps": document.get("steps"), "error": error.get("type"), **said}


def half_shown(folder: Path) -> int:
    """Files of a snapshot whose size is not the hub's: none of them may ever be used."""
    wrong = 0
    for link in folder.glob("hf/hub/models--*/snapshots/*/*"):
        source = folder / "hub" / "models" / MODEL / "main" / link.name
        wrong += source.exists() and link.stat().st_size != source.stat().st_size
    return wrong


def main() -> int:
    """Try the faults that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()
    rows = []
    for case in CASES:
        if options.names and case.name not in options.names:
            continue
        with tempfile.TemporaryDirectory() as name:
            row = tried(case, Path(name))
        rows.append(row)
        print(json.dumps(row), flush=True)
    late = [row["name"] for row in rows if row["seconds"] > BUDGET_S]
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "budget_s": BUDGET_S,
        "beyond_budget": late,
        "half_shown": sum(row["half_shown"] for row in rows),
        "rows": rows,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(bool(late or found["half_shown"]))


if __name__ == "__main__":
    sys.exit(main())
