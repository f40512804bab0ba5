"""What becomes of a prompt in real tokenizers and chat templates: a table, and ids compared.

    python scripts/check_prompts.py MODELS DATA    measures, and writes both files
    python scripts/check_prompts.py --write        docs/prompts.md from measurements/prompts.json

MODELS is made by scripts/real_models.sh; DATA holds eval/*.jsonl and train/*.jsonl with problems.
The ids of every problem are taken from the trainer (what it hands to generation and what it scores
afterwards), from the renderer of evaluations, and from tokenizer.json without transformers.
"""

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import transformers
import trl
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.base import Rollout
from budgetrl.engine.ends import distinct_pad, only_ends
from budgetrl.engine.plain import PlainEngine
from budgetrl.engine.tokenizer import load_tokenizer
from budgetrl.errors import ModelError
from budgetrl.evaluation.suite import prompted
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Prompt, Recipe
from budgetrl.training.clock import PhaseClock
from budgetrl.training.recorder import StepRecord
from budgetrl.training.stage import TrainerParts
from budgetrl.training.trainer import build_trainer
from budgetrl.types import Completion, Problem, RewardBreakdown, Verdict

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ROOT / "docs" / "measurements" / "prompts.json"
PAGE = ROOT / "docs" / "prompts.md"
SUITES = ("math500", "aime24", "aime25", "amc23")
TRAINING = ("openrs_substitute_7000", "openrs_real_sample_21")
GROUP, AT_ONCE = 2, 64
SYSTEM, USER = "Put the answer in \\boxed{}.", "What is 7 + 5?"
SHORT_ENOUGH = 60


def recipe_of(folder: Path) -> Recipe:
    """The quickstart's recipe on a model, with the paper's prompt."""
    sets = (
        *(f"model.id={folder}", "model.dtype=bfloat16", "engine.threads=1", "signal.skip=off"),
        *(f"grpo.num_generations={GROUP}", f"batch.prompts_per_step={AT_ONCE}"),
        *(f"batch.micro_batch={GROUP * AT_ONCE}", "lora.rank=4", "sampling.max_tokens=8"),
    )
    recipe = load_recipe("quickstart", sets).recipe
    prompt = load_recipe("qwen3_r64").recipe.prompt
    return recipe.model_copy(update={"prompt": prompt})


def problems_of(data: Path) -> list[Problem]:
    """Every problem of the suites and of the training data."""
    files = [data / "eval" / f"{name}.jsonl" for name in SUITES]
    files += [data / "train" / f"{name}.jsonl" for name in TRAINING]
    numbers = count()
    return [
        Problem(f"p{next(numbers)}", json.loads(line)["problem"].strip(), "1")
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
    ]


# --- ids


class Listening(PlainEngine):
    """Answers with the end token at once, and keeps the prompts that it was given."""

    def rollout(self, prompt_ids: Any, *_: Any) -> Rollout:
        """One token for each prompt."""
        self.heard = [tuple(ids) for ids in prompt_ids]
        return Rollout([[min(self.end_ids)] for _ in prompt_ids], None, 0.0)

    def logp_gap(self, *_: Any) -> None:
        """Nothing was sampled."""


def reward(completions: Sequence[Completion], *_: Any) -> list[RewardBreakdown]:
    """Half of each group is right."""
    return [RewardBreakdown(row % 2, {}, Verdict.WRONG, None) for row in range(len(completions))]


def trained_ids(
    folder: Path, problems: Sequence[Problem]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What TRL's trainer hands to generation and what it scores afterwards, problem by problem."""
    recipe = recipe_of(folder)
    engine = Listening.open(recipe)
    renderer = PromptRenderer(engine.tokenizer, recipe.prompt)
    with tempfile.TemporaryDirectory() as place:
        parts = TrainerParts(
            recipe=recipe, engine=engine, sampler=ProblemSampler(problems, 1, AT_ONCE),
            renderer=renderer, reward=reward, clock=PhaseClock(time.monotonic),
            folder=Path(place), must_stop=lambda: False, rollout_over=lambda: False,
        )  # fmt: skip
        trainer = build_trainer(parts, 1, [])
        for first in range(0, len(problems), AT_ONCE):
            parts.record = StepRecord(1, GROUP)
            batch = trainer._roll_out(problems[first : first + AT_ONCE])
            scored = zip(batch["prompt_ids"], batch["prompt_mask"].bool(), strict=True)
            rows = [tuple(ids[mask].tolist()) for ids, mask in scored]
            yield from zip(engine.heard[::GROUP], rows[::GROUP], strict=True)


def compare_ids(folder: Path, problems: Sequence[Problem]) -> dict[str, int]:
    """In how many problems the ids differ, by what is compared."""
    recipe = recipe_of(folder)
    renderer = PromptRenderer(load_tokenizer(str(folder), recipe), recipe.prompt)
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    judged = prompted(renderer, problems)
    trained = list(trained_ids(folder, problems))
    assert len(judged) == len(trained) == len(problems)
    found = {"problems": len(problems), "tokens": 0, "training": 0, "scoring": 0, "file": 0}
    for item, (asked, scored) in zip(judged, trained, strict=True):
        found["tokens"] += len(item.prompt_ids)
        found["training"] += asked != item.prompt_ids
        found["scoring"] += scored != item.prompt_ids
        ids = tuple(raw.encode(item.prompt, add_special_tokens=False).ids)
        found["file"] += ids != item.prompt_ids
    return found


# --- the table


def describe(folder: Path) -> dict[str, Any]:
    """What a family's template and tokenizer do to a prompt."""
    recipe = recipe_of(folder)
    named = AutoTokenizer.from_pretrained(str(folder))
    tokenizer = load_tokenizer(str(folder), recipe)
    plain = PromptRenderer(tokenizer, Prompt(), datetime(2026, 11, 30))
    text = plain.text(Problem("p", USER, "12"))
    before, after = text.split(USER)
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    ends = set(only_ends(str(folder), transformers.PretrainedConfig(**kind)).eos_token_id or ())
    ends |= {tokenizer.eos_token_id}
    remark = plain.remarks().get("prompt_date", "")
    return {
        "system": system_place(tokenizer, before),
        "without_system": before,
        "date": plain.date,
        "date_string": "date_string" in remark,
        "opening": after,
        "prefilled": plain.prefilled,
        "ends": [tokenizer.convert_ids_to_tokens(number) for number in sorted(ends)],
        "padding": named.pad_token,
        "padding_gpu": padding_of_its_own(tokenizer, frozenset(ends)),
        "class": type(named).__name__,
        "kept_class": named.__class__ is tokenizer.__class__,
    }


def system_place(tokenizer: Any, without: str) -> str:
    """Where the system text goes."""
    try:
        renderer = PromptRenderer(tokenizer, Prompt(system=SYSTEM))
    except ModelError as error:
        return f"refused: {error.message}"
    before = renderer.text(Problem("p", USER, "12")).split(SYSTEM)[0]
    for word, place in (("developer", "a developer turn"), ("system", "a system turn")):
        if word in before.lower():
            return place
    return "the user's turn" if "user" in before.lower() else "before the first turn"


def padding_of_its_own(tokenizer: Any, ends: frozenset[int]) -> str | None:
    """What pads where padding must not be an end token; None: nothing can."""
    try:
        distinct_pad(tokenizer, ends)
    except ModelError:
        return None
    return str(tokenizer.pad_token)


def code(text: str | None) -> str:
    """A text as Markdown code, its middle left out where it is long."""
    if not text:
        return "-"
    shown = json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("|", "\\|")
    if len(shown) > SHORT_ENOUGH:
        shown = f"{shown[:28]} ... {shown[-28:]}"
    return f"`{shown}`"


def table(found: dict[str, Any]) -> str:
    """The families as rows: how a prompt is built, then how a completion ends."""
    built = [
        "| family | the system text goes to | date | before the problem, without one "
        "| after the problem |",
        "|---|---|---|---|---|",
    ]
    ended = [
        "| family | ends a completion | pads (plain; Unsloth) | AutoTokenizer's class |",
        "|---|---|---|---|",
    ]
    for name, row in found["families"].items():
        date = (
            "-"
            if row["date"] is None
            else (f"{row['date']} ({'`date_string`' if row['date_string'] else 'the clock'})")
        )
        opening = code(row["opening"]) + (" (opens `<think>`)" if row["prefilled"] else "")
        built.append(
            f"| {name} | {row['system']} | {date} | {code(row['without_system'])} | {opening} |"
        )
        pads = f"{code(row['padding'])}; {code(row['padding_gpu'])}"
        kept = "" if row["kept_class"] else " (wrong: tokenizer.json is used)"
        ends = ", ".join(map(code, row["ends"]))
        ended.append(f"| {name} | {ends} | {pads} | {row['class']}{kept} |")
    return "\n".join([*built, "", *ended])


def ids_text(found: dict[str, Any]) -> str:
    """The comparison of ids as a sentence."""
    rows = found["ids"]
    if not rows:
        return "Not measured yet."
    problems = {row["problems"] for row in rows.values()}
    apart = sum(row[key] for row in rows.values() for key in ("training", "scoring", "file"))
    tokens = sum(row["tokens"] for row in rows.values())
    return (
        f"Measured on {found['date']} with {found['versions']} (`scripts/check_prompts.py`): "
        f"{max(problems):,} real problems with each of {', '.join(rows)} ("
        f"{tokens:,} tokens), ids in generation, in the loss, in evaluations and by "
        f"`tokenizer.json` alone: {apart} differences."
    )


def write_page() -> None:
    """Put the measured blocks into the page."""
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    for name, body in (("families", table(found)), ("ids", ids_text(found))):
        block = re.compile(rf"(<!-- begin:{name} -->\n).*?(<!-- end:{name} -->)", re.DOTALL)
        text = block.sub(lambda match, body=body: f"{match[1]}{body}\n{match[2]}", text)
    PAGE.write_text(text, encoding="utf-8")


def measure(models: Path, data: Path) -> dict[str, Any]:
    """Everything; a model without weights has no row of ids."""
    folders = sorted(file.parent for file in models.glob("*/tokenizer.json"))
    problems = problems_of(data)
    with_weights = [folder for folder in folders if (folder / "model.safetensors").is_file()]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "versions": f"transformers {transformers.__version__} and trl {trl.__version__}",
        "families": {folder.name: describe(folder) for folder in folders},
        "ids": {folder.name: compare_ids(folder, problems) for folder in with_weights},
    }


def main() -> None:
    """Measure, or write the page anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--write", action="store_true", help="only write the page")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if not options.write:
        found = measure(options.models, options.data)
        MEASURED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
    write_page()


if __name__ == "__main__":
    main()
