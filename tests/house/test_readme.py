"""The README's numbers come from the files that the benches wrote, and from nowhere else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_measured_number_is_that_of_its_file() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "update_readme.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, "run scripts/update_readme.py: " + done.stderr
