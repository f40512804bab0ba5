"""Build the small language models that ship with budgetrl, their tokenizer and data, from seeds.

A 595,840-parameter Qwen2 learns chains of additions and subtractions from correct demonstrations.
In `quickstart` the good habit (writing down the working) is the minority one: that is what GRPO
finds. This is neither GRPO (`budgetrl run`) nor anything that the package imports.

    python scripts/make_tiny_model.py --variant quickstart    # about 4 minutes on one thread
    python scripts/make_tiny_model.py --variant mute          # half a minute, from `strong`
    python scripts/make_tiny_model.py --data-only

    OUT/data/*.jsonl    train_easy, train_hard, heldout, heldout_hard, worked
    OUT/VARIANT/        model, tokenizer, chat template, figures.json, README.md (from the figures)

Two runs on one machine write the same bytes: one thread, every generator seeded.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny.data import Row, make_data, write_data
from tiny.figures import card, dead_groups, evaluate
from tiny.model import (
    BATCH,
    VARIANTS,
    Demo,
    collate,
    fine_tune,
    make_demos,
    make_model,
    make_tokenizer,
    say,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2ForCausalLM

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "budgetrl" / "assets" / "tiny"


def save(model: Qwen2ForCausalLM, tokenizer: Any, folder: Path, *, half: bool) -> None:
    """Write a normal Hugging Face folder; it loads as float32, also from float16 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (copy.deepcopy(model).half() if half else model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    # safetensors writes mode 0600, which a wheel would keep.
    (folder / "model.safetensors").chmod(0o644)


def load(folder: Path) -> tuple[Any, Any]:
    """Load model and tokenizer by the calls that a hub model gets."""
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def storage_error(trained: Qwen2ForCausalLM, stored: Any, demos: Sequence[Demo]) -> float:
    """Return the largest change of a demonstrated token's log-probability that storing makes."""
    batch = collate(demos[:BATCH], trained.config.pad_token_id)
    labels = batch.pop("labels")[:, 1:]
    with torch.no_grad():
        logps = [m(**batch).logits[:, :-1].log_softmax(-1) for m in (trained, stored)]
    change = (logps[0] - logps[1]).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    error = float(change[labels != -100].abs().max())
    assert error <= 0.01, error
    return round(error, 5)


def measure(name: str, seed: int, folder: Path, data: dict[str, Sequence[Row]]) -> dict[str, Any]:
    """Measure what was saved, not what is in memory."""
    variant = VARIANTS[name]
    model, tokenizer = load(folder)
    command = ["python", "scripts/make_tiny_model.py", "--variant", name, "--seed", str(seed)]
    figures: dict[str, Any] = {
        "made": {
            "name": name,
            "summary": variant.summary,
            "command": shlex.join(command),
            "seed": seed,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "num_parameters": model.num_parameters(),
            "size_mb": round((folder / "model.safetensors").stat().st_size / 1e6, 2),
            "stored": "float16" if variant.half else "float32",
            "num_updates": variant.num_updates,
            "batch": BATCH,
            "decay": variant.decay,
            "after": variant.after,
            "rate": variant.rate,
            "habits": {"steps": variant.steps, "guess": variant.guess, "bare": variant.bare},
        },
        "heldout": evaluate(model, tokenizer, data["heldout"], seed=seed),
    }
    if name == "quickstart":
        say("measuring the hard mix: 16,000 completions")
        figures["train_hard"] = dead_groups(model, tokenizer, data["train_hard"], seed=seed)
    return figures


def build(name: str, seed: int, out: Path, data: dict[str, Sequence[Row]]) -> None:
    """Make one model folder, figures and card included."""
    variant, folder = VARIANTS[name], out / name
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, seed)
    if variant.after is not None:
        model.load_state_dict(load(out / variant.after)[0].float().state_dict())
    say(f"{name}: {model.num_parameters():,} parameters, {variant.num_updates} updates")
    demos = make_demos(variant, tokenizer, seed)
    fine_tune(model, demos, variant)
    save(model, tokenizer, folder, half=variant.half)
    figures = measure(name, seed, folder, data)
    if variant.half:
        figures["made"]["storage_error"] = storage_error(model, load(folder)[0], demos)
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(figures), encoding="utf-8")
    say(json.dumps(figures["heldout"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--variant", choices=VARIANTS, default="quickstart")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="gets data/ and VARIANT/")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights and samples")
    parser.add_argument("--data-only", action="store_true", help="write the data and stop")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the order of summation, so every byte, depends on it
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()
    data = make_data(args.seed)
    write_data(data, args.out / "data")
    if not args.data_only:
        build(args.variant, args.seed, args.out, data)


if __name__ == "__main__":
    main()
