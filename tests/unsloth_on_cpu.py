"""What can be tried of Unsloth without a GPU, for test_engine_unsloth.py, in a process of its own.

Unsloth patches trl, transformers and peft for good, so it must not be imported beside other tests.
Prints one JSON: configurations compared, and updates of the patched trainer, whose passes are
counted and whose gradients are held against the oracle.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
os.environ.update(
    UNSLOTH_ALLOW_CPU="1",
    UNSLOTH_COMPILE_LOCATION=str(FOLDER / "compiled"),
    UNSLOTH_COMPILE_DISABLE="1",
    TORCHDYNAMO_DISABLE="1",
    UNSLOTH_GRPO_SEQ_PACKING="0",
    HF_HUB_OFFLINE="1",
)

import unsloth  # noqa: E402, F401, TID251
from unsloth import tokenizer_utils  # noqa: E402, TID251
from unsloth.models import rl  # noqa: E402, TID251

rl._patch_trl_rl_trainers("grpo_trainer")
rl._patch_trl_rl_trainers("sft_trainer")

sys.path.insert(0, str(Path(__file__).resolve().parent / "training"))

import test_distil as distilling  # noqa: E402
import test_grpo_oracle as harness  # noqa: E402
import test_passes as passes  # noqa: E402
import test_preflight as rehearsal  # noqa: E402
import test_sft as learning  # noqa: E402
import torch  # noqa: E402
import trl  # noqa: E402

from budgetrl.engine.plain import PlainEngine  # noqa: E402
from budgetrl.engine.tokenizer import restored  # noqa: E402
from budgetrl.errors import TrainingError  # noqa: E402
from budgetrl.recipe.assets import local_path  # noqa: E402
from budgetrl.recipe.load import list_recipes, load_recipe  # noqa: E402
from budgetrl.recipe.schema import EngineName  # noqa: E402
from budgetrl.training.trl_args import check_unchanged, grpo_arguments  # noqa: E402

# Without a GPU it would compute the reference's log-probabilities in float16: 5e-3 off with KL.
trl.GRPOTrainer._autocast_enabled, trl.GRPOTrainer._autocast_dtype = False, torch.float16

WITHOUT_GPU = {"use_cpu": True, "bf16": False, "fp16": False}


class PatchedEngine(harness.DictatedEngine):
    """Dictated completions, on a model that has what Unsloth's trainer calls on one."""

    name = EngineName.UNSLOTH

    def __init__(self, model: Any, *others: Any) -> None:
        model.for_training = lambda *a, **k: model.train()
        model.for_inference = lambda *a, **k: model.eval()
        model._unsloth_forced_float32 = True  # without a GPU it would choose float16
        model.get_base_model().base_model.register_forward_pre_hook(_drop_mask, with_kwargs=True)
        super().__init__(model, *others)


def _drop_mask(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """As unsloth/models/llama.py does in training: only padding on the right is unseen then."""
    return args, kwargs | ({"attention_mask": None} if module.training else {})


def changed_configurations() -> dict[str, str]:
    """Recipes of which the patched GRPOConfig holds something else, with what."""
    found = {}
    for name in list_recipes():
        recipe = load_recipe(name).recipe
        if recipe.engine.name is not EngineName.UNSLOTH:
            continue
        wanted = grpo_arguments(recipe, FOLDER, 300) | WITHOUT_GPU
        try:
            check_unchanged(wanted, trl.GRPOConfig(**wanted), "unsloth's GRPOConfig")
        except TrainingError as error:
            found[name] = error.message
    return found


def a_change_is_noticed() -> bool:
    """Unsloth turns scale_rewards off for dr_grpo: the comparison must see that."""
    recipe = load_recipe("deepscaler_r64", ['grpo.loss_type="dr_grpo"']).recipe
    wanted = grpo_arguments(recipe, FOLDER, 300) | WITHOUT_GPU
    try:
        check_unchanged(wanted, trl.GRPOConfig(**wanted), "unsloth's GRPOConfig")
    except TrainingError as error:
        return "scale_rewards" in error.message
    return False


def updates() -> dict[str, dict[str, Any]]:
    """One update of the patched trainer for each way to compute it.

    Relative distance of its gradients from the float64 oracle's, and its passes.
    """
    harness.DictatedEngine, harness.REWARDS = PatchedEngine, harness.SKIPPING
    ways: dict[str, dict[str, Any]] = {str(cell): cell.settings() for cell in passes.GRID}
    ways["another chat template"] = {"prompt__chat_template": json.dumps(harness.FEW_SHOT)}
    ways["the last of five optimiser steps"] = {
        "batch__updates_per_rollout": 5,
        "batch__micro_batch": 2,
        "grpo__epsilon_high": 0.3,
        "schedule__learning_rate": 0.003,
    }
    found = {}
    for name, settings in ways.items():
        scale = "none" if settings.get("grpo__loss_type") == "dr_grpo" else "group"
        made = harness.train(FOLDER, grpo__scale_rewards=scale, **settings)
        # The trained model's methods are patched; the oracle takes a fresh one.
        made.model = PlainEngine.open(made.recipe).model
        last = len(made.updates) - 1
        wanted = harness.expected_gradients(made, last)
        passes.check_forwards(made.recipe, made.forwards)
        found[name] = {
            "distance": harness.distance(made.updates[last].gradients, wanted),
            "forwards": len(made.forwards),
        }
    return found


def rehearsed_micro_batch() -> int:
    """What the preflight settles on with a memory for five rows, on the patched trainer."""
    rehearsal.PlainEngine = PatchedEngine  # type: ignore[misc]
    recipe = load_recipe("quickstart", [*rehearsal.SMALL, "batch.micro_batch=16"]).recipe
    with rehearsal.workbench(FOLDER, recipe, rehearsal.rehearse, limit=5) as (*_, build):
        return int(build().trainer.args.per_device_train_batch_size)


def sft_distances() -> dict[str, float]:
    """Of the patched SFT trainer's first update: relative distance of loss and gradient norm.

    From the mean log-likelihood of the completions' tokens, written out in float64.
    """
    learning.PlainEngine = PatchedEngine  # type: ignore[misc]
    recipe = learning.part("sft.micro_batch=2")
    _, logs, parts = learning.ours(recipe, FOLDER)
    model = PlainEngine.open(recipe).model.double()
    loss, tokens = torch.zeros((), dtype=torch.float64), 0
    for row in parts.sampler.batch(0):
        prompt, answer = row.prompt_ids, row.completion_ids  # type: ignore[attr-defined]
        ids = torch.tensor([[*prompt, *answer]])
        logps = model(input_ids=ids).logits[0].log_softmax(-1)
        loss = loss - logps[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).sum()
        tokens += len(answer)
    (loss / tokens).backward()
    norms = [parameter.grad.norm() for parameter in model.parameters() if parameter.requires_grad]
    wanted = {"loss": float(loss / tokens), "grad_norm": float(torch.stack(norms).norm())}
    return {name: abs(logs[0][name] / value - 1) for name, value in wanted.items()}


def distil_distances() -> dict[str, float]:
    """How far the patched trainer's gradients towards a teacher are from the oracle's."""
    distilling.harness.DictatedEngine = PatchedEngine
    found = {}
    for name, sets in distilling.WAYS.items():
        done = distilling.Distilled(FOLDER, *sets)
        wanted, _ = done.oracle()
        found[name] = harness.distance(done.update.gradients, wanted)
    return found


def restored_tokenizer() -> dict[str, Any]:
    """What Unsloth and budgetrl make of a Llama with a byte-level vocabulary."""
    os.environ["UNSLOTH_DISABLE_TOKENIZER_JSON_REPAIR"] = "1"
    folder = FOLDER / "llama"
    shutil.copytree(local_path("asset:tiny/quickstart"), folder)
    for name, changes in (
        ("config.json", {"model_type": "llama"}),
        ("tokenizer_config.json", {"tokenizer_class": "LlamaTokenizerFast"}),
    ):
        data = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(data | changes))
    loaded = tokenizer_utils.load_correct_tokenizer(str(folder), padding_side="left")
    recipe = load_recipe("quickstart", [f"model.id={folder}"]).recipe
    return {
        name: tokenizer.decode(tokenizer("12 + 7 = 19", add_special_tokens=False)["input_ids"])
        for name, tokenizer in (
            ("unsloth", loaded),
            ("budgetrl", restored(loaded, str(folder), recipe)),
        )
    }


def main() -> None:
    """Everything, as JSON on the last line."""
    found = {
        "trainer": trl.GRPOTrainer.__name__,
        "changed": changed_configurations(),
        "noticed": a_change_is_noticed(),
        "updates": updates(),
        "micro_batch": rehearsed_micro_batch(),
        "sft_trainer": trl.SFTTrainer.__name__,
        "sft": sft_distances(),
        "distil": distil_distances(),
        "tokenizer": restored_tokenizer(),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
