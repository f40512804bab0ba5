"""The README.md of an exported folder: how to train from it, and what was left behind."""

import json
from collections.abc import Sequence

from budgetrl.export.keys import VERL
from budgetrl.export.limits import Left, Target
from budgetrl.export.rows import dump_recipe, is_local
from budgetrl.masking import MASK
from budgetrl.recipe.schema import Recipe
from budgetrl.rewards.own_files import is_own

_VERL_INSTALL = f"""\
verl wants an environment of its own: transformers below 5.11, and antlr 4.9, without which Hydra
cannot read its own grammar. math-verify runs with that antlr too.

```bash
pip install "verl[vllm]=={VERL}"
pip install budgetrl "math-verify[antlr4_9_3]==0.9.0"
```"""
_TRL_INSTALL = """\
```bash
pip install "budgetrl[train]"          # and vllm, where use_vllm is true
```"""
_RUN = {
    Target.VERL: "bash run.sh     # Hydra's overrides may follow",
    Target.TRL: "bash run.sh     # further arguments of `trl grpo` may follow",
}


def readme(recipe: Recipe, target: Target, left: Sequence[Left], gpus: int = 1) -> str:
    """Markdown."""
    parts = [
        f"# {recipe.name} for {'verl' if target is Target.VERL else 'TRL'}, {gpus} GPU"
        f"{'s' if gpus > 1 else ''}",
        f"{recipe.recipe.summary}".strip(),
        "## Train",
        _VERL_INSTALL if target is Target.VERL else _TRL_INSTALL,
        f"```bash\n{_RUN[target]}\n```",
        _data(recipe),
        _code(recipe),
        "## Left behind",
        _table(left),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _data(recipe: Recipe) -> str:
    if is_local(recipe):
        return "The rows are in the Parquet files here."
    return (
        "`prepare_data.py`, which run.sh calls where files are missing, downloads data sets and "
        "suites and writes their Parquet files, without training problems that a suite holds."
    )


def _code(recipe: Recipe) -> str:
    own = [reward.name for reward in recipe.rewards if is_own(reward.name)]
    if not own:
        return ""
    return (
        f"{', '.join(own)}: code of yours. Put its module on PYTHONPATH on every machine, and say "
        "that you want it to run with `export BUDGETRL_ALLOW_CODE=1`."
        + (
            f" Put back what stands as {MASK} in recipe.json."
            if MASK in dump_recipe(recipe)
            else ""
        )
    )


def _table(left: Sequence[Left]) -> str:
    if not left:
        return "Nothing."
    rows = [f"| `{one.key}` | {_cell(one.value)} | {one.why} |" for one in left]
    return "\n".join(["| recipe key | value | why |", "|---|---|---|", *rows])


def _cell(value: object) -> str:
    return "`" + json.dumps(value, ensure_ascii=False)[:60].replace("|", "\\|") + "`"
