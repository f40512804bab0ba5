"""Write docs/verl_keys.md from the mapping that `budgetrl export` uses; --check compares."""

import sys
from collections.abc import Iterator
from pathlib import Path

from budgetrl.export.keys import VERL, Entry
from budgetrl.export.limits import Target, limits_of
from budgetrl.export.table import ENTRIES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "verl_keys.md"
HEAD = f"""\
# verl, recipe, TRL and Unsloth: one setting, three names

The paper trained with verl; budgetrl trains with TRL, on a GPU by way of Unsloth. This table says
which key of a recipe stands for which verl key, what becomes of it, and what has no equal. It is
made by `scripts/verl_keys.py` of the same data that `budgetrl export RECIPE --to verl` writes
(`budgetrl/export/table.py`), and `scripts/check_verl.sh` holds it against verl {VERL} itself.
`budgetrl recipes show NAME --resolved` prints every value with its source.

`actor.`, `rollout.`, `model.` and `ref.` stand for `actor_rollout_ref.actor.` and so on.

| verl key | recipe key | TRL / Unsloth argument: remark |
|---|---|---|
"""
TAIL = """
## Without an equal

What `--to verl` and `--to trl` refuse, with exit code 2 and with what to set instead:

| recipe | verl | TRL's command |
|---|---|---|
"""
END = """
What only says how budgetrl spends its time is left behind and listed: `[budget]`, `[select]`,
`[entropy]`, `signal.order`, evaluations with a protocol of their own. In verl **dual clip** is
switched off, for neither the paper nor TRL names it, and **KL in the reward** too.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(map(_row, ENTRIES)) + TAIL + "".join(_refused()) + END


def _row(entry: Entry) -> str:
    verl = ", ".join(f"`{_short(key)}`" if " " not in key else key for key in entry.verl)
    recipe = ", ".join(f"`{key}`" for key in entry.recipe) or "none"
    remark = f": {entry.remark}" if entry.remark else ""
    return f"| {verl} | {recipe} | {entry.trl}{remark} |\n"


def _short(key: str) -> str:
    return key.removeprefix("actor_rollout_ref.")


def _refused() -> Iterator[str]:
    verl, trl = (
        {limit.what: limit.instead for limit in limits_of(target)}
        for target in (Target.VERL, Target.TRL)
    )
    for what in dict.fromkeys([*verl, *trl]):
        yield f"| {what} | {verl.get(what, 'there')} | {trl.get(what, 'there')} |\n"


def main() -> int:
    """Exit code 1 if --check finds a difference."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
