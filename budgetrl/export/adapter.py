"""The adapter of a run in a folder of its own, away from the run: weights, configuration, card."""

import shutil
from pathlib import Path

from budgetrl.account.evaluated import read_run
from budgetrl.checkpoint_files import read_checkpoint
from budgetrl.errors import UsageError
from budgetrl.evaluation.identity import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from budgetrl.evaluation.target import find_target
from budgetrl.export.folder import new_folder, refuse_existing, refuse_small_disk
from budgetrl.hub.pins import OnDownload, untold
from budgetrl.supervise.export import describe_adapter


def export_adapter_to(
    source: str, out: Path, base: str | None = None, on_download: OnDownload = untold
) -> list[Path]:
    """Copy the adapter that a run, or a checkpoint of one, stands for.

    Args:
        source: the run.
        out: a new folder.
        base: where the run's local base model lies now.
        on_download: told how far an adapter of the hub is.

    Raises:
        UsageError: the folder exists, or there is no adapter.
        RefusedError: the disk has no room.
    """
    refuse_existing(out)
    target = find_target(source, None, base, on_download)
    if target.adapter is None or not (target.adapter / ADAPTER_WEIGHTS).is_file():
        raise UsageError(
            f"{source} has no adapter.",
            hint="All weights were trained, or none: `--to merged` takes the whole model.",
        )
    refuse_small_disk(out, (target.adapter / ADAPTER_WEIGHTS).stat().st_size)
    checkpoint = read_checkpoint(target.adapter)
    with new_folder(out) as draft:
        for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
            shutil.copyfile(target.adapter / name, draft / name)
        if target.run is not None and checkpoint is not None:
            describe_adapter(read_run(target.run), checkpoint, draft)
        names = sorted(path.name for path in draft.iterdir())
    return [out / name for name in names]
