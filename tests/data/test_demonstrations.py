"""Worked solutions as rows to learn from: what is put around them, and what is left out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from budgetrl.data.demonstrations import load_demonstrations
from budgetrl.data.prompts import PromptRenderer
from budgetrl.engine.ends import closing_id
from budgetrl.errors import DataError
from budgetrl.estimation.demonstrations import TABLE, demonstration_lengths
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.types import Problem, Verdict

SUM = "Compute 1+2+3."


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(local_path("asset:tiny/mute"))


def recipe_of(folder: Path, rows: Sequence[dict[str, Any]], *sets: str) -> Recipe:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ["model.id=asset:tiny/mute", f"data.path={file}", "sft.max_tokens=128", *sets]
    return load_recipe("quickstart", own).recipe


def by_box(pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
    """A grader for plain numbers in boxes."""
    verdicts = []
    for text, gold in pairs:
        box = text.rpartition("\\boxed{")[2].partition("}")[0] if "\\boxed" in text else None
        right = Verdict.CORRECT if box == gold else Verdict.WRONG
        verdicts.append(Verdict.UNPARSABLE if box is None else right)
    return verdicts


def load(recipe: Recipe, tokenizer: Any) -> Any:
    renderer = PromptRenderer(tokenizer, recipe.prompt)
    end = closing_id(renderer.closing(), tokenizer, frozenset({tokenizer.eos_token_id}))
    return load_demonstrations(recipe, renderer, end, by_box), renderer


def test_a_row_begins_with_the_runs_prompt_and_ends_with_the_templates_end(
    tmp_path: Path, tokenizer: Any
) -> None:
    row = {"problem": SUM, "solution": "<think>\n1+2=3\n</think>\n\\boxed{6}", "answer": "6"}
    loaded, renderer = load(recipe_of(tmp_path, [row]), tokenizer)
    (found,) = loaded.rows
    assert found.prompt_ids == renderer.ids(Problem("x", SUM, "6"))
    assert found.completion == row["solution"]
    assert tokenizer.decode(found.completion_ids) == row["solution"] + "<|im_end|>"


def test_a_solution_without_a_think_block_gets_one_and_its_gold_in_a_box(
    tmp_path: Path, tokenizer: Any
) -> None:
    rows = [{"problem": SUM, "solution": "1+2 is 3, and 3+3 is 6.", "answer": "6"}]
    loaded, _ = load(recipe_of(tmp_path, rows), tokenizer)
    said = loaded.rows[0].completion
    assert said == "<think>\n1+2 is 3, and 3+3 is 6.\n</think>\n\n\\boxed{6}"
    with pytest.raises(DataError, match="no boxed answer"):  # nobody asks for a think block
        load(recipe_of(tmp_path, rows, "rewards.format.weight=0"), tokenizer)


def test_solutions_against_their_gold_are_left_out_and_listed(
    tmp_path: Path, tokenizer: Any
) -> None:
    good = [
        {"problem": f"Compute {i}+1.", "solution": f"<think>x</think>\\boxed{{{i + 1}}}",
         "answer": i + 1}
        for i in range(8)
    ]  # fmt: skip
    bad = [
        {"problem": "Compute 9+9.", "solution": "<think>x</think>\\boxed{17}", "answer": "18"},
        {"problem": "Compute 9+8.", "solution": "<think>x</think>seventeen", "answer": "17"},
        {"problem": "Compute 9+7.", "solution": "<think>x</think>\\boxed{16}"},
    ]
    loaded, _ = load(recipe_of(tmp_path, good + bad), tokenizer)
    assert len(loaded.rows) == 9 and loaded.unchecked == 1
    assert [(one.where.rpartition(":")[2], one.why[:24]) for one in loaded.dropped] == [
        ("9", "it has another boxed ans"),
        ("10", "it has no boxed answer, "),
    ]


def test_rows_beyond_the_window_are_left_out_or_cut_and_counted(
    tmp_path: Path, tokenizer: Any
) -> None:
    rows = [
        {"problem": f"Compute {i}+1.", "answer": str(i + 1),
         "solution": f"<think>{'1' * 20 * i}</think>\\boxed{{{i + 1}}}"}
        for i in range(1, 7)
    ]  # fmt: skip
    loaded, _ = load(recipe_of(tmp_path, rows), tokenizer)
    assert len(loaded.rows) == 6 - loaded.overlong and loaded.overlong > 0
    loaded, _ = load(recipe_of(tmp_path, rows, "sft.overlong=cut"), tokenizer)
    assert len(loaded.rows) == 6
    cut = [row for row in loaded.rows if row.cut]
    assert len(cut) == loaded.overlong
    assert all(row.num_tokens == 128 for row in cut)
    assert all(row.completion_ids[-1] != tokenizer.eos_token_id for row in cut)
    with pytest.raises(DataError, match=r"only 1 of 6 rows fit sft\.max_tokens = 60"):
        load(recipe_of(tmp_path, rows, "sft.max_tokens=60"), tokenizer)
    with pytest.raises(DataError, match="a quarter is the least"):
        demonstration_lengths(recipe_of(tmp_path, rows, "sft.max_tokens=60"))


def test_a_stated_table_tells_what_a_window_keeps_of_a_hub_set() -> None:
    def kept(window: int) -> float:
        sets = [f"sft.max_tokens={window}", "data.id=simplescaling/s1K", "data.path=unset"]
        return demonstration_lengths(load_recipe("quickstart", sets).recipe).kept_share

    assert kept(4096) < kept(8192) < kept(16384)
    assert 0.8 < kept(8192) < 0.95
    with pytest.raises(DataError, match="a quarter is the least"):
        kept(1024)
    assert all(published.source for published in TABLE.values())
