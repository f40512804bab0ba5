"""SFT in a stage: TRL's loss and gradients on the run's own rows, and nothing left on the model."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import trl

from budgetrl.data.demonstrations import Demonstrations, load_demonstrations
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.ends import closing_id
from budgetrl.engine.plain import PlainEngine
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe, Stage, StageKind
from budgetrl.training.clock import PhaseClock
from budgetrl.training.leftovers import Leftovers
from budgetrl.training.progress import Progress
from budgetrl.training.sft import IGNORED, SftRecord, build_sft_trainer, micro_batches
from budgetrl.training.stage import TrainerParts
from budgetrl.types import Verdict

ROWS, UPDATES, RATE = 12, 2, 1e-3
WARM = Stage(name="warm", kind=StageKind.SFT, steps=UPDATES)
SETS = (
    *("model.id=asset:tiny/mute", "lora.rank=8", f"schedule.learning_rate={RATE}"),
    *("data.path=asset:tiny/data/worked.jsonl", f"data.limit={ROWS}"),
    *("sft.max_tokens=128", f"sft.rows_per_step={ROWS}", "sft.micro_batch=1"),
)


def part(*sets: str) -> Recipe:
    return load_recipe("quickstart", [*SETS, *sets]).recipe


def demonstrations(recipe: Recipe, engine: PlainEngine) -> tuple[Demonstrations, PromptRenderer]:
    renderer = PromptRenderer(engine.tokenizer, recipe.prompt)
    end = closing_id(renderer.closing(), engine.tokenizer, engine.end_ids)
    right = [Verdict.CORRECT] * ROWS
    return load_demonstrations(recipe, renderer, end, lambda pairs: right[: len(pairs)]), renderer


def ours(recipe: Recipe, folder: Path) -> tuple[Any, list[dict[str, Any]], TrainerParts]:
    """A model after some updates, what TRL logged of them, and the parts."""
    trainer, parts = our_trainer(recipe, folder)
    trainer.train()
    return parts.engine.model, trainer.state.log_history, parts


def our_trainer(recipe: Recipe, folder: Path) -> tuple[Any, TrainerParts]:
    engine = PlainEngine.open(recipe)
    loaded, renderer = demonstrations(recipe, engine)
    rows: Any = loaded.rows
    parts = TrainerParts(
        recipe=recipe,
        engine=engine,
        sampler=ProblemSampler(rows, recipe.seed, recipe.sft.rows_per_step),
        renderer=renderer,
        reward=lambda *_: [],
        clock=PhaseClock(lambda: 0.0),
        folder=folder,
        must_stop=lambda: False,
        rollout_over=lambda: False,
        progress=Progress(WARM),
    )
    return build_sft_trainer(parts, UPDATES, []), parts


def theirs(recipe: Recipe, folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    """The same by TRL alone, from texts."""
    trainer = their_trainer(recipe, folder, ROWS)
    trainer.train()
    return trainer.model, trainer.state.log_history


def their_trainer(recipe: Recipe, folder: Path, batch: int) -> Any:
    engine = PlainEngine.open(recipe)
    loaded, renderer = demonstrations(recipe, engine)
    texts = [
        {"prompt": renderer.text(row.problem), "completion": row.completion} for row in loaded.rows
    ]
    config = trl.SFTConfig(
        output_dir=str(folder),
        max_steps=UPDATES,
        per_device_train_batch_size=batch,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        max_grad_norm=1.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_length=128,
    )
    return trl.SFTTrainer(
        model=engine.model,
        args=config,
        train_dataset=datasets.Dataset.from_list(texts),
        processing_class=engine.tokenizer,
    )


@pytest.mark.parametrize("cells", ["sft.micro_batch=1", "sft.micro_batch=12"])
def test_loss_gradients_and_weights_are_trls(tmp_path: Path, cells: str) -> None:
    recipe = part(cells)
    model, logs, parts = ours(recipe, tmp_path)
    wanted_model, wanted = theirs(recipe, tmp_path)
    for mine, trls in zip(logs[:UPDATES], wanted[:UPDATES], strict=True):
        assert mine["loss"] == pytest.approx(trls["loss"], rel=5e-6)
        assert mine["grad_norm"] == pytest.approx(trls["grad_norm"], rel=5e-6)
    for mine_p, trls_p in zip(model.parameters(), wanted_model.parameters(), strict=True):
        assert torch.allclose(mine_p, trls_p, rtol=0, atol=5e-6)
    assert isinstance(parts.record, SftRecord)
    fields = parts.record.event_fields()
    last = wanted[UPDATES - 1]
    assert fields["token_accuracy"] == pytest.approx(last["mean_token_accuracy"], abs=1e-6)
    assert fields["entropy"] == pytest.approx(last["entropy"], rel=1e-5)


def test_nothing_of_the_trainer_stays_on_the_model(tmp_path: Path) -> None:
    recipe = part()
    engine = PlainEngine.open(recipe)
    before, clean = dict(vars(engine.model.get_base_model())), Leftovers.of(engine.model)
    loaded, renderer = demonstrations(recipe, engine)
    rows: Any = loaded.rows
    parts = TrainerParts(
        recipe=recipe,
        engine=engine,
        sampler=ProblemSampler(rows, 1, ROWS),
        renderer=renderer,
        reward=lambda *_: [],
        clock=PhaseClock(lambda: 0.0),
        folder=tmp_path,
        must_stop=lambda: False,
        rollout_over=lambda: False,
        progress=Progress(WARM),
    )
    build_sft_trainer(parts, 1, []).train()
    inner = engine.model.get_base_model()
    assert "forward" in vars(inner), "TRL's chunked loss stands there: else this test says nothing"
    clean.restore()
    assert "forward" not in vars(inner) and "forward" not in vars(engine.model)
    assert before.keys() >= {k for k in vars(inner) if k.endswith("forward")}
    row = torch.tensor([loaded.rows[0].prompt_ids])
    assert engine.model(input_ids=row, labels=row).logits is not None


def test_rows_are_cut_into_passes_of_equal_room() -> None:
    recipe = part()
    engine = PlainEngine.open(recipe)
    loaded, _ = demonstrations(recipe, engine)
    batches = micro_batches(loaded.rows, 8, 4 * 60, pad=0)
    shapes = [tuple(batch["input_ids"].shape) for batch in batches]
    assert len(shapes) == 8 and sum(rows for rows, _ in shapes) == ROWS
    assert all(rows * width <= 240 for rows, width in shapes)
    assert shapes[-1][0] == 0, "what is not needed is empty"
    for batch in batches:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            learnt = ids[labels != IGNORED].tolist()
            assert learnt[-1] == engine.tokenizer.eos_token_id
            text = engine.tokenizer.decode(learnt)
            assert text.startswith("<think>") and "\\boxed" in text
