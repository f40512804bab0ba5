"""Where a study or sweep is told from a single run; loads nothing of either."""

from pathlib import Path

STUDY = "study.json"


def is_study(path: Path) -> bool:
    """Whether a folder holds a study."""
    return (path / STUDY).is_file()
