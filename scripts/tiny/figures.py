"""What a start model does before GRPO, measured, and the model card made from those figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from tiny.data import Row
from tiny.model import render_prompt

THOUGHT = re.compile(r"<think>\n(.*?)\n</think>\n\\boxed\{-?\d+\}", re.DOTALL)
BOXED = re.compile(r"\\boxed\{(-?\d+)\}")
HABITS = ("steps", "guess", "bare", "other")
MAX_NEW_TOKENS = 64
ROWS_PER_CALL = 256


@dataclass(frozen=True)
class Sample:
    """One completion, judged."""

    correct: bool
    habit: str
    num_tokens: int
    ended: bool
    """Whether it ended by itself within the token limit."""


Groups = list[list[Sample]]
"""One list of samples per problem."""


def judge(text: str, answer: str) -> tuple[bool, str]:
    """Return whether the last box holds the answer, and the habit that the completion shows."""
    boxes = BOXED.findall(text)
    thought = THOUGHT.fullmatch(text)
    if thought:
        habit = "steps" if "=" in thought[1] else "guess"
    else:
        habit = "bare" if BOXED.fullmatch(text) else "other"
    return bool(boxes) and boxes[-1] == answer, habit


def sample(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    num_samples: int,
    *,
    seed: int,
    temperature: float = 1.0,
) -> Groups:
    """Draw `num_samples` completions of each row; temperature 0 is greedy."""
    torch.manual_seed(seed)
    model.eval()
    how: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        how = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS,
        num_return_sequences=num_samples,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **how,
    )
    groups: Groups = []
    per_call = ROWS_PER_CALL // num_samples
    for chunk in (rows[i : i + per_call] for i in range(0, len(rows), per_call)):
        prompts = [render_prompt(tokenizer, row.problem) for row in chunk]
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        out = model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :]
        answers = [row.answer for row in chunk for _ in range(num_samples)]
        judged = list(judged_samples(out, tokenizer, answers))
        groups += [judged[i : i + num_samples] for i in range(0, len(judged), num_samples)]
    return groups


def judged_samples(out: Tensor, tokenizer: Any, answers: Sequence[str]) -> Iterator[Sample]:
    for ids, answer in zip(out.tolist(), answers, strict=True):
        ended = tokenizer.eos_token_id in ids
        length = ids.index(tokenizer.eos_token_id) + 1 if ended else len(ids)
        correct, habit = judge(tokenizer.decode(ids[:length], skip_special_tokens=True), answer)
        yield Sample(correct, habit, length, ended)


def mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def evaluate(model: Any, tokenizer: Any, rows: Sequence[Row], *, seed: int) -> dict[str, Any]:
    """Measure 4 samples per row at temperature 1.0 (seeded), and one greedy completion."""
    groups = sample(model, tokenizer, rows, 4, seed=seed)
    greedy = sample(model, tokenizer, rows, 1, seed=seed, temperature=0)
    flat = [s for group in groups for s in group]
    by_habit = {habit: [s.correct for s in flat if s.habit == habit] for habit in HABITS}
    return {
        "num_problems": len(rows),
        "num_samples": len(flat),
        "pass@1": mean([s.correct for s in flat]),
        "pass@4": mean([any(s.correct for s in group) for group in groups]),
        "greedy": mean([s.correct for (s,) in greedy]),
        "format": mean([s.habit in ("steps", "guess") for s in flat]),
        "ended": mean([s.ended for s in flat]),
        "mean_tokens": mean([s.num_tokens for s in flat]),
        "habit_share": {habit: mean([s.habit == habit for s in flat]) for habit in HABITS},
        "habit_pass@1": {habit: mean(right) for habit, right in by_habit.items() if right},
    }


def dead_groups(model: Any, tokenizer: Any, rows: Sequence[Row], *, seed: int) -> dict[str, Any]:
    """Measure how many groups of 8 at temperature 1.0 are all right or all wrong, by level."""
    groups = sample(model, tokenizer, rows, 8, seed=seed)
    dead = [len({s.correct for s in group}) == 1 for group in groups]
    by_level: dict[int, list[bool]] = {level: [] for level in sorted({row.level for row in rows})}
    for row, flag in zip(rows, dead, strict=True):
        by_level[row.level].append(flag)
    return {
        "num_groups": len(groups),
        "group_size": 8,
        "dead": mean(dead),
        "all_right": mean([all(s.correct for s in group) for group in groups]),
        "pass@1": mean([s.correct for group in groups for s in group]),
        "dead_by_level": {str(level): mean(flags) for level, flags in by_level.items()},
    }


CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# budgetrl tiny model: {name}

A Qwen2 of {num_parameters:,} parameters ({size_mb:.2f} MB, {stored}) that {summary}.
{half}It solves chains such as `Compute 7+5-8+2.` (3-6 terms, distinct digits, running total 0-20).
It ships with budgetrl so that GRPO can be seen to learn on a CPU in minutes; it has no other use.
It loads like any hub model: `AutoModelForCausalLM`, `AutoTokenizer`, chat template included.

## How it was made

    {command}

torch {torch}, transformers {transformers}, seed {seed}, one thread: {num_updates} updates of
{batch} correct demonstrations, habits steps/guess/bare = {mix}, Muon and AdamW,
{rate}{begun}. No outside data.

## What it does before GRPO

{num_problems} held-out problems x 4 samples, temperature 1.0 (`figures.json`):

| pass@1 | pass@4 | greedy | think format | mean tokens |
|---|---|---|---|---|
| {pass1} | {pass4} | {greedy} | {format} | {mean_tokens} |

| habit | share | right within it |
|---|---|---|
{habits}
{hard}
## Licence

Apache-2.0, model and data.
"""

HARD_CARD = """
On `data/train_hard.jsonl`, {dead:.1%} of the {num_groups:,} groups of {group_size} completions
carry no accuracy signal ({all_right:.1%} are all right, the others all wrong); pass@1 is {pass1}.
"""


def card(figures: dict[str, Any]) -> str:
    """Write the model card from the measured figures alone."""
    made, held, hard = figures["made"], figures["heldout"], figures.get("train_hard")
    habits = [
        f"| {habit} | {share} | {held['habit_pass@1'].get(habit, '-')} |"
        for habit, share in held["habit_share"].items()
    ]
    mix = made["habits"]
    error = made.get("storage_error")
    fields = made | {key: held[key] for key in ("num_problems", "greedy", "format", "mean_tokens")}
    fields |= {
        "mix": f"{mix['steps']}/{mix['guess']}/{mix['bare']}",
        "rate": "warm-up and " + ("linear decay to 10 %" if made["decay"] else "a constant rate"),
        "begun": f", from the model `{made['after']}` at {made['rate']:g} of the usual rates"
        if made.get("after")
        else "",
        "half": f"Storing it so moves log-probabilities of right tokens by at most {error}.\n"
        if error
        else "",
        "pass1": held["pass@1"],
        "pass4": held["pass@4"],
        "habits": "\n".join(habits),
        "hard": HARD_CARD.format(**hard, pass1=hard["pass@1"]) if hard else "",
    }
    return CARD.format(**fields)
