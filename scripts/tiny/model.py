"""The start model: tokenizer, architecture, and supervised fine-tuning on demonstrations.

All demonstrations are correct, in three habits: `steps` (one line of working per operation),
`guess` (only the answer inside the think block) and `bare` (no think block). GRPO is not here: that
is `budgetrl run`.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import tokenizers
import torch
from torch import Tensor
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

from tiny.data import IN_REACH, LEVELS, answer_of, draw_expression, is_heldout, working_lines

WORDS = ("Compute", "system", "user", "assistant", "\\boxed")
EOS, PAD, START = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
MAX_POSITIONS = 256
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
NUM_DEMOS, BATCH, WARM_UP = 20_000, 32, 40


@dataclass(frozen=True)
class Variant:
    """A start model: which habits its demonstrations show, and how long it learns from them."""

    steps: float
    guess: float
    bare: float
    num_updates: int
    decay: bool
    """Learning rate falls linearly to 10 % after the warm-up; without it the model slips more."""
    half: bool
    """Store the weights as float16; they load as float32 all the same (config.json says so)."""
    summary: str
    after: str | None = None
    """The variant whose shipped weights it starts from; None: untrained ones."""
    rate: float = 1.0
    """Share of the usual learning rates."""


VARIANTS = {
    "quickstart": Variant(
        0.4, 0.5, 0.1, 540, True, False, "guesses more often than it works, and works well"
    ),
    "strong": Variant(0.6, 0.3, 0.1, 600, True, True, "works more often than it guesses"),
    "cold": Variant(0.4, 0.5, 0.1, 540, False, True, "slips in many of its workings"),
    "specialist": Variant(0.0, 1.0, 0.0, 300, True, True, "never shows working"),
    "mute": Variant(
        *(0.0, 1.0, 0.0, 120, True, True, "could show its working, and never does"),
        after="strong",
        rate=0.1,
    ),
}


def make_tokenizer() -> Qwen2Tokenizer:
    """Make a byte-level BPE tokenizer of 288 tokens: 256 bytes, merges for five words, five added.

    AutoTokenizer gives every `qwen2` folder Qwen2's own normalizer, splitter and decoder, whatever
    tokenizer.json and `tokenizer_class` say (MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS in
    transformers). So this builds on exactly those and on the whole byte alphabet; any other
    pipeline would lose characters, silently, when loaded like a hub model.
    """
    vocab = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [(word[:i], word[i]) for word in WORDS for i in range(1, len(word))]
    vocab += [left + right for left, right in merges]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(vocab)},
        merges=merges,
        unk_token=None,  # every byte has a token
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [START]})
    tokenizer.add_tokens(["<think>", "</think>"])  # not special: decoding keeps them
    tokenizer.chat_template = CHAT_TEMPLATE
    assert len(tokenizer) == 288
    assert all(len(tokenizer.encode(word)) == 1 for word in WORDS)
    return tokenizer


def render_prompt(tokenizer: Any, problem: str) -> str:
    message = [{"role": "user", "content": problem}]
    return str(tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False))


def demonstration(expression: str, habit: str) -> str:
    """Return the right completion of an expression in one habit, without the end-of-turn token."""
    boxed = f"\\boxed{{{answer_of(expression)}}}"
    if habit == "bare":
        return boxed
    inside = working_lines(expression) if habit == "steps" else [answer_of(expression)]
    return "\n".join(["<think>", *inside, "</think>", boxed])


class Demo(NamedTuple):
    """A prompt with its completion, as tokens."""

    ids: list[int]
    num_prompt: int


def make_demos(variant: Variant, tokenizer: Any, seed: int) -> list[Demo]:
    """Draw NUM_DEMOS demonstrations, the in-reach levels equally often, from the train side."""
    rng = random.Random(f"sft-{seed}")
    shares = (variant.steps, variant.guess, variant.bare)
    demos: list[Demo] = []
    while len(demos) < NUM_DEMOS:
        expression = draw_expression(rng, LEVELS[IN_REACH[len(demos) % len(IN_REACH)]])
        if is_heldout(expression):
            continue
        (habit,) = rng.choices(("steps", "guess", "bare"), shares)
        prompt = tokenizer.encode(render_prompt(tokenizer, f"Compute {expression}."))
        completion = tokenizer.encode(demonstration(expression, habit) + EOS)
        demos.append(Demo(prompt + completion, len(prompt)))
    rng.shuffle(demos)
    return demos


def make_model(tokenizer: Any, seed: int) -> Qwen2ForCausalLM:
    """Make the untrained model: 595,840 float32 parameters."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,  # with four, concatenating the KV cache is half of decode time
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config).float()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


class Muon(torch.optim.Optimizer):  # type: ignore[misc]  # torch is Any to mypy here
    """Orthogonalised momentum for matrices (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    Unlike `torch.optim.Muon` it iterates in float32: a CPU has no fast bfloat16.
    """

    def __init__(
        self, params: Sequence[Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                buffer.lerp_(weight.grad, 1 - momentum)
                update = orthogonalised(weight.grad.lerp(buffer, momentum))  # Nesterov
                scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-lr * scale)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Push all singular values towards 1: five quintic Newton-Schulz iterations (as Muon)."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x if wide else x.T


def rate_factor(update: int, variant: Variant) -> float:
    """Return the share of the peak learning rate at an update, counted from 0."""
    if update < WARM_UP:
        return (update + 1) / WARM_UP
    if not variant.decay:
        return 1.0
    return 1.0 - 0.9 * (update - WARM_UP) / (variant.num_updates - WARM_UP)


def collate(demos: Sequence[Demo], pad_id: int) -> dict[str, Tensor]:
    """Pad on the right; only completion tokens carry a label."""
    width = max(len(ids) for ids, _ in demos)
    gaps = [width - len(ids) for ids, _ in demos]
    rows = list(zip(demos, gaps, strict=True))
    return {
        "input_ids": torch.tensor([ids + [pad_id] * gap for (ids, _), gap in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * gap for (ids, _), gap in rows]),
        "labels": torch.tensor([[-100] * n + ids[n:] + [-100] * gap for (ids, n), gap in rows]),
    }


def fine_tune(model: Qwen2ForCausalLM, demos: Sequence[Demo], variant: Variant) -> None:
    """Teach the demonstrations: Muon on matrices, AdamW on embeddings, norms and biases."""
    named = list(model.named_parameters())
    optimizers: list[torch.optim.Optimizer] = [
        Muon(
            [p for name, p in named if p.ndim == 2 and "embed" not in name],
            lr=0.03,
            momentum=0.95,
            weight_decay=0.1,
        ),
        torch.optim.AdamW(
            [p for name, p in named if p.ndim != 2 or "embed" in name],
            lr=3e-3,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
    ]
    peaks = [variant.rate * optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    started = time.process_time()
    model.train()
    for update in range(variant.num_updates):
        batch = collate(demos[update * BATCH : (update + 1) * BATCH], model.config.pad_token_id)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate_factor(update, variant)
            optimizer.step()
            optimizer.zero_grad()
        if (update + 1) % 20 == 0:
            spent = time.process_time() - started
            say(f"update {update + 1}/{variant.num_updates}  loss {loss:.3f}  {spent:.0f} CPU-s")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
