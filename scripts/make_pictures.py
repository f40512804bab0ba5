"""Makes the README's pictures from a real run: the view in the middle of training and at its end.

    python scripts/make_pictures.py runs/quickstart--...  [--at 30]

It draws the same frames as `budgetrl watch --once` and writes them as SVG into docs/pictures/.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI, TerminalTheme

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from budgetrl.account.live import LiveRun  # noqa: E402
from budgetrl.display.frame import frame  # noqa: E402
from budgetrl.display.glyphs import UNICODE  # noqa: E402
from budgetrl.display.moment import SAMPLE_S, Moment  # noqa: E402
from budgetrl.events import Step, parse  # noqa: E402
from budgetrl.rundir import EVENTS, MANIFEST, PLAN, RESOLVED, RunDir, open_run  # noqa: E402
from budgetrl.types import RunStatus  # noqa: E402

THEME = TerminalTheme(
    (16, 20, 28),
    (214, 220, 228),
    [
        (16, 20, 28),
        (238, 108, 108),
        (126, 204, 132),
        (232, 190, 104),
        (104, 158, 240),
        (206, 140, 232),
        (96, 200, 210),
        (214, 220, 228),
    ],
    [(120, 132, 148), *MONOKAI.ansi_colors._colors[1:8]],
)


def main() -> None:
    """Write the pictures of one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--at", type=int, help="Update of the first picture.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    run = open_run(options.run)
    view = LiveRun(run)
    view.catch_up()
    at = options.at or view.steps * 2 // 3
    with tempfile.TemporaryDirectory() as folder:
        # The paths in the pictures are those of a run under ./runs.
        early = _prefix(run, at, Path(folder) / "early" / "runs" / run.name)
        ended = Path(folder) / "ended" / "runs" / run.name
        ended.parent.mkdir(parents=True)
        ended.symlink_to(run.path)
        _write(options.out / "watch.svg", early, RunStatus.RUNNING, (110, 24))
        _write(options.out / "finished.svg", RunDir(ended), view.status_at(), (110, 30))


def _prefix(run: RunDir, step: int, folder: Path) -> RunDir:
    """The run directory as it was right after an update."""
    folder.mkdir(parents=True)
    for name in (RESOLVED, PLAN, MANIFEST):
        if (run.path / name).exists():
            shutil.copy(run.path / name, folder / name)
    with (folder / EVENTS).open("wb") as kept:
        for line in run.tail_lines(0)[0]:
            event = parse(line)
            if isinstance(event, Step) and event.step > step:
                break
            kept.write(line + b"\n")
    return RunDir(folder)


def _write(file: Path, run: RunDir, status: RunStatus, size: tuple[int, int]) -> None:
    width, height = size
    view = LiveRun(run)
    view.catch_up()
    os.chdir(run.path.parent.parent)
    hint = "Ctrl-C saves and stops" if status is RunStatus.RUNNING else ""
    newest = SAMPLE_S * max(0, len(view.samples) - 1)
    lines = frame(Moment(view, newest, status, UNICODE), width, height, hint)
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in lines:
        console.print(line, soft_wrap=True)
    svg = console.export_svg(title=f"budgetrl watch {view.run.name}", theme=THEME)
    file.write_text(svg, encoding="utf-8")
    print(file)


if __name__ == "__main__":
    main()
