"""`budgetrl doctor`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from budgetrl.cli.options import Json, Out


def doctor(out: Out = Path("runs"), as_json: Json = False) -> int:
    """Look at this machine: can the quickstart run here, can the GPU path, and if not, why."""
    from budgetrl.doctor import can_run, examine

    checks = examine(out)
    quickstart, gpu = can_run(checks, "quickstart"), can_run(checks, "gpu")
    if as_json:
        found = [asdict(check) for check in checks]
        sys.stdout.write(json.dumps({"ok": quickstart, "gpu_ok": gpu, "checks": found}) + "\n")
        return 0 if quickstart else 1
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("", "check", "found", "wanted", "what to do"):
        table.add_column(title, overflow="fold")
    for check in checks:
        bad = "[yellow]-[/]" if check.level != "quickstart" else "[red]x[/]"
        mark = "[green]+[/]" if check.ok else bad
        table.add_row(mark, check.name, check.found, check.wanted, check.fix)
    console = Console()
    console.print(table)
    console.print()
    console.print(_sentence("The quickstart (CPU)", quickstart, "budgetrl run quickstart"))
    console.print(_sentence("The GPU path", gpu, "budgetrl run deepscaler_r256"))
    return 0 if quickstart else 1


def _sentence(what: str, ok: bool, command: str) -> str:
    if ok:
        return f"[green]{what} can run here:[/] {command}"
    return f"[yellow]{what} cannot run here[/]; see what to do above."
