"""The report of the example run draws accuracy against thinking tokens, before and after."""

from pathlib import Path

from budgetrl.account.evaluated import read_run
from budgetrl.report.document import Figures, Table
from budgetrl.report.thinking import thinking_blocks
from budgetrl.rundir import open_run

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "example_run"


def test_the_curve_has_both_sides_every_limit_and_tokens_per_right_answer() -> None:
    figures, table = thinking_blocks(read_run(open_run(EXAMPLE)))
    assert isinstance(figures, Figures) and isinstance(table, Table)
    (figure,) = figures.figures
    assert (
        figure.name == "thinking_heldout" and "before: " in figure.alt and "after: " in figure.alt
    )
    limits = [row[0] for row in table.rows if row[0]]
    assert limits == ["8", "16", "24", "32", "40", "48"]
    assert len(table.rows) == 2 * len(limits)
    assert table.head[5] == "tokens per right answer"
    # The longest limit: the trained model needs fewer tokens for a right answer than its base.
    before, after = (float(str(row[5]).replace(",", "")) for row in table.rows[-2:])
    assert after < before


def test_what_eval_added_without_limits_is_listed_as_before() -> None:
    text = (EXAMPLE / "report" / "report.md").read_text(encoding="utf-8")
    assert "## Accuracy and thinking" in text and "Further evaluations" not in text
