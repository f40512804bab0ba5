"""How many passes an update takes, how large each is, and what the estimate charges for them.

One whole update of TRL's trainer for each way to compute it. `test_engine_unsloth` does the same
with the trainer that Unsloth patched, by `check_forwards` and `charged` of this file.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import test_grpo_oracle as harness
import torch

from budgetrl.estimation.passes import Passes
from budgetrl.estimation.scenario import make_scenario
from budgetrl.hardware import find_gpu
from budgetrl.recipe.schema import Recipe
from budgetrl.training.scoring import REFERENCE, keep_promises, promise
from budgetrl.training.stopper import StepAborted

TOLERANCE = 5e-6
"""Relative L2 distance from the float64 oracle; found between 2e-6 and 4e-6."""


class Cell(NamedTuple):
    """One way to compute an update."""

    kind: str
    beta: float
    skip: str
    fill: str = "rows"
    keep_rows: int | None = None

    def settings(self) -> dict[str, Any]:
        return {
            "grpo__loss_type": self.kind,
            "grpo__beta": self.beta,
            "signal__skip": f'"{self.skip}"',
            "batch__fill": f'"{self.fill}"',
            **({} if self.keep_rows is None else {"signal__keep_rows": self.keep_rows}),
        }

    def __str__(self) -> str:
        kept = f", keep_rows {self.keep_rows}" if self.keep_rows else ""
        return f"{self.kind}, beta {self.beta}, skip {self.skip}, fill {self.fill}{kept}"


KINDS = ("dapo", "grpo", "dr_grpo")
GRID = [
    # beta > 0 with exact is refused: rows that are left out would have a KL gradient.
    *(Cell(kind, 0.0, skip) for kind in KINDS for skip in ("off", "exact", "accuracy")),
    *(Cell(kind, 0.001, skip) for kind in KINDS for skip in ("off", "accuracy")),
    *(Cell(kind, 0.001, "accuracy", "tokens") for kind in KINDS),
    *(
        Cell(kind, 0.0, "exact", keep_rows=count)
        for kind, count in zip(KINDS, (2, 3, 2), strict=True)
    ),
]


def charged(recipe: Recipe) -> Passes:
    """What an estimate charges where the live rows are those of the test."""
    live = harness.live_groups(recipe.signal.skip)
    scenario = make_scenario(recipe, find_gpu("A40"))
    rows = (recipe.signal.keep_rows or harness.GROUP) / harness.GROUP
    return replace(scenario, live_share=rows * sum(live) / len(live)).passes()


def check_forwards(recipe: Recipe, forwards: Sequence[harness.Forward]) -> None:
    """No pass is larger than a micro-batch may be, and the estimate knows them all."""
    for one in forwards:
        assert one.rows * one.columns <= recipe.max_cells
        assert recipe.batch.fill == "tokens" or one.rows <= recipe.batch.micro_batch
    trained = [one for one in forwards if one.gradients]
    scored = [one for one in forwards if not one.gradients]
    passes = charged(recipe)
    assert sum(one.rows for one in trained) == passes.rows * passes.iterations
    assert sum(one.rows for one in scored) == passes.no_grad_rows
    if recipe.batch.fill == "rows":  # by tokens it is a matter of lengths
        assert len(trained) == passes.forwards * passes.iterations
        assert len(scored) == passes.forwards * passes.no_grad_passes


@pytest.mark.parametrize("cell", GRID, ids=str)
def test_no_pass_is_larger_than_the_micro_batch_and_gradients_agree(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "REWARDS", harness.SKIPPING)
    made = harness.train(tmp_path, **cell.settings())
    check_forwards(made.recipe, made.forwards)
    wanted = harness.expected_gradients(made)
    assert harness.distance(made.updates[0].gradients, wanted) <= TOLERANCE


def test_scoring_stops_between_two_micro_batches() -> None:
    scored: list[int] = []

    def score(model: Any, input_ids: torch.Tensor, mask: Any, width: int) -> Any:
        assert not torch.is_grad_enabled()
        scored.append(len(input_ids))
        return torch.ones(len(input_ids), width), None, None

    model = SimpleNamespace(
        ref_model=None, is_gradient_checkpointing=False, disable_adapter=nullcontext
    )
    trainer = SimpleNamespace(
        ref_model=None,
        model=model,
        args=SimpleNamespace(ref_model=None, gradient_checkpointing_kwargs=None),
        accelerator=SimpleNamespace(ref_model=None, unwrap_model=lambda model: model),
        _get_per_token_logps_and_entropies=score,
    )
    batches = [micro_batch(rows) for rows in (3, 0, 2)]
    keep_promises(trainer, batches, lambda: False)
    assert scored == [3, 2], "a micro-batch without rows has no pass"
    assert [float(batch[REFERENCE].sum()) for batch in batches] == [12, 0, 8]
    scored.clear()
    with pytest.raises(StepAborted):
        keep_promises(trainer, batches, lambda: len(scored) == 1)
    assert scored == [3]


def micro_batch(rows: int) -> dict[str, torch.Tensor]:
    prompt, completion = torch.ones(rows, 2), torch.ones(rows, 4)
    batch = {"prompt_ids": prompt, "prompt_mask": prompt}
    batch |= {"completion_ids": completion, "completion_mask": completion}
    return batch | {REFERENCE: promise(completion, 4)[0]}
