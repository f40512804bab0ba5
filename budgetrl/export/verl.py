"""A recipe as a folder that verl trains from: verl.yaml, run.sh, rows, and our reward.

    export_verl(recipe, out, gpus=8) -> Exported(files, mapped, unmapped)

Hydra adds the keys of a YAML file to its configuration without asking whether they exist, so run.sh
goes on with the version of verl alone that the keys were checked against.
"""

import shlex
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from budgetrl.export.folder import new_folder
from budgetrl.export.keys import GENERATION, GENERATION_KEY, VERL
from budgetrl.export.layout import Layout, layout_for
from budgetrl.export.limits import Left, Target, refuse, unmapped
from budgetrl.export.notes import readme
from budgetrl.export.rows import (
    RECIPE,
    TRAIN,
    dump_recipe,
    file_of,
    is_local,
    write_rows,
    write_train,
)
from budgetrl.export.table import ENTRIES
from budgetrl.export.yaml_text import to_yaml
from budgetrl.files import PUBLIC_MODE, write_atomic
from budgetrl.recipe.flat import flat_values
from budgetrl.recipe.schema import Recipe

CONFIG, SCRIPT, REWARD, PREPARE = "verl.yaml", "run.sh", "reward.py", "prepare_data.py"

_HEAD = f"""\
# {{name}} for verl {VERL}, written by `budgetrl export`. `bash run.sh --cfg job` prints all of it.
defaults:
  - ppo_trainer
  - _self_

hydra:
  searchpath:
    - pkg://verl.trainer.config

"""
_REWARD = '''\
"""The reward of recipe.json, as verl calls it."""

from pathlib import Path
from typing import Any

from budgetrl.export.reward import Scorer

SCORER = Scorer(Path(__file__).resolve().parent)


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **others: Any
) -> dict[str, float]:
    """`score`, which is trained on, `acc`, and each part of the reward."""
    return SCORER(solution_str, ground_truth)
'''
PREPARE_TEXT = '''\
"""Write the Parquet files of this folder that are missing; asks the hub for what is not here."""

from pathlib import Path

from budgetrl.export.rows import prepare

prepare(Path(__file__).resolve().parent, with_lengths={with_lengths})
'''
_SCRIPT = """\
#!/usr/bin/env bash
# Train with verl {version}. Further arguments are Hydra's: bash run.sh trainer.save_freq=10
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
python - <<'PYTHON'
from importlib.metadata import version

found = version("verl")
if found != "{version}":
    raise SystemExit(f"verl {{found}} is installed; the keys of verl.yaml are those of {version}, "
                     "and Hydra would take one that no longer exists without a word.")
PYTHON
for file in {files}; do
  [ -f "$here/$file" ] || {{ python "$here/prepare_data.py"; break; }}
done
exec python -m verl.trainer.main_ppo --config-path "$here" --config-name verl \\
  "data.train_files='$here/{train}'" \\
  "data.val_files=[{suites}]" \\
  "reward.custom_reward_function.path='$here/reward.py'" \\
  "trainer.default_local_dir='$here/checkpoints'" \\
{ends}  "$@"
"""


class Exported(NamedTuple):
    """What `budgetrl export RECIPE` says."""

    files: list[Path]
    mapped: dict[str, list[tuple[str, Any]]]
    """Recipe key -> keys of the other engine with their values."""
    unmapped: list[Left]

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "files": [str(file) for file in self.files],
            "mapped": {key: [list(pair) for pair in pairs] for key, pairs in self.mapped.items()},
            "unmapped": [left._asdict() for left in self.unmapped],
        }


def export_verl(recipe: Recipe, out: Path, gpus: int = 1) -> Exported:
    """Write a folder that verl trains a recipe from.

    Args:
        recipe: resolved.
        out: a new folder.
        gpus: that verl will have.

    Raises:
        RecipeError: verl has no equal of a value, or the batch cannot be cut for the GPUs.
        DataError: local data cannot be used.
        UsageError: the folder exists.
    """
    refuse(recipe, Target.VERL)
    layout = layout_for(recipe, gpus)
    mapped = mapped_values(recipe, layout)
    left = unmapped(recipe, patterns(), Target.VERL)
    config = _HEAD.format(name=recipe.name) + to_yaml(verl_values(recipe, layout))
    texts = {CONFIG: config, SCRIPT: _script(recipe), REWARD: _REWARD}
    texts["README.md"] = readme(recipe, Target.VERL, left, gpus)
    return Exported(write_export(recipe, out, texts, with_lengths=False), mapped, left)


def write_export(
    recipe: Recipe, out: Path, texts: Mapping[str, str], *, with_lengths: bool
) -> list[Path]:
    """Write the folder: these texts, the recipe, and the rows that are on this disk.

    `prepare_data.py` makes the other rows.
    """
    prepare = PREPARE_TEXT.format(with_lengths=with_lengths)
    with new_folder(out) as draft:
        for name, text in {**texts, PREPARE: prepare, RECIPE: dump_recipe(recipe)}.items():
            write_atomic(draft / name, text, 0o755 if name == SCRIPT else PUBLIC_MODE)
        if is_local(recipe):
            write_rows(recipe, draft)
        elif recipe.data.path is not None:
            write_train(recipe, draft / TRAIN)
        return [out / path.name for path in sorted(draft.iterdir())]


def verl_values(recipe: Recipe, layout: Layout) -> dict[str, Any]:
    """Every verl key that is written, with its value."""
    values: dict[str, Any] = {}
    for entry in ENTRIES:
        values |= entry.values(recipe, layout)
    return values


def patterns() -> set[str]:
    """Recipe keys that verl has an equal of; names of evaluations and rewards as *."""
    return {key for entry in ENTRIES for key in entry.recipe}


def mapped_values(recipe: Recipe, layout: Layout) -> dict[str, list[tuple[str, Any]]]:
    """Recipe key -> the verl keys that say the same, with their values."""
    mapped: dict[str, list[tuple[str, Any]]] = {}
    for key in flat_values(recipe):
        for entry in ENTRIES:
            pairs = list(entry.values(recipe, layout).items())
            if pairs and any(fnmatchcase(key, pattern) for pattern in entry.recipe):
                mapped.setdefault(key, []).extend(pairs)
    return mapped


def _script(recipe: Recipe) -> str:
    suites = [file_of(spec) for spec in recipe.eval]
    ends = [f"{GENERATION}/generation_config.json"] if recipe.sampling.stop else []
    return _SCRIPT.format(
        version=VERL,
        ends=f"  \"{GENERATION_KEY}='$here/{GENERATION}'\" \\\n" if ends else "",
        files=" ".join(map(shlex.quote, [TRAIN, *suites, *ends])),
        train=TRAIN,
        suites=",".join(f"'$here/{name}'" for name in suites),
    )
