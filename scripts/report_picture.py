"""Take the picture of a report with Chromium: docs/pictures/report.png.

python scripts/report_picture.py [docs/example_run/report/report.html] [--dark]
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "example_run" / "report" / "report.html"
PICTURE = ROOT / "docs" / "pictures" / "report.png"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip


def main() -> int:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, nargs="?", default=PAGE)
    parser.add_argument("--out", type=Path, default=PICTURE)
    parser.add_argument("--size", default="1200,1845", help="pixels: width,height")
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args()
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        print("no Chromium on PATH", file=sys.stderr)
        return 1
    dark = ["--blink-settings=preferredColorScheme=0"] if options.dark else []
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, *FLAGS, *dark, f"--user-data-dir={profile}", f"--window-size={options.size}",
             f"--screenshot={options.out.resolve()}", options.page.resolve().as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
