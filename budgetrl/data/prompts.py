"""Render problems as prompts: one renderer for training, evaluations and every resumed attempt.

What the chat template makes of a prompt is looked at once, on a probe, not configured:
- `prefilled`: some templates open `<think>` at the end of the prompt, and the model's completion
  then lacks that tag;
- `date`: some print the day, which is that of `moment` then;
- a template that loses the problem or the system text is refused.
"""

import hashlib
import json
from datetime import datetime
from functools import lru_cache
from typing import Any

from budgetrl.data.template import PROBE, STANDARD_MOMENT, ChatTemplate
from budgetrl.errors import DataError, ModelError
from budgetrl.recipe.schema import Prompt
from budgetrl.types import Problem

OPEN_THINK, CLOSE_THINK = "<think>", "</think>"
KEPT = 4096
"""Prompts that are kept: an update asks several times for those of its problems, and a small data
set is rendered once."""


class PromptRenderer:
    """Turns problems into messages, text and token ids.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prompt: the recipe's [prompt].
        moment: the day for templates that print one: a run's start, or the same for everybody.

    Raises:
        ModelError: there is no chat template, in tokenizer or recipe, it cannot be rendered, or it
            leaves out the problem or the system text.
    """

    def __init__(self, tokenizer: Any, prompt: Prompt, moment: datetime | None = None) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        if prompt.chat_template is None and not getattr(tokenizer, "chat_template", None):
            name = getattr(tokenizer, "name_or_path", "the model")
            raise ModelError(
                f"the tokenizer of {name} has no chat template.",
                hint="Give one as prompt.chat_template, or use an instruction-tuned model.",
            )
        self._template = ChatTemplate(
            tokenizer, prompt.chat_template, prompt.template_kwargs, moment or STANDARD_MOMENT
        )
        self._made = lru_cache(KEPT)(self._make)
        self.encode = lru_cache(KEPT)(self._encode)
        """Token ids of a rendered prompt, without a second start token."""
        probe = self.messages(PROBE)
        text = self._template.render(probe)
        self._refuse_losses(text)
        self.prefilled = text.rstrip().endswith(OPEN_THINK)
        """Whether the prompt already opens `<think>`."""
        self.closed = text.rstrip().endswith(CLOSE_THINK)
        """Whether the prompt ends with a closed think block, as Qwen3's with thinking off."""
        self.date = self._template.date(probe)
        """What every prompt says of the moment, such as "30 Nov 2026"; None: nothing."""

    def messages(self, problem_text: str) -> list[dict[str, str]]:
        """The conversation before the completion."""
        return self._prompt.conversation(problem_text)

    def text(self, problem: Problem) -> str:
        """The rendered prompt.

        Raises:
            DataError: the template changes this problem.
        """
        return self._made(problem)[0]

    def ids(self, problem: Problem) -> tuple[int, ...]:
        """Token ids of the rendered prompt."""
        return self._made(problem)[1]

    def closing(self) -> str:
        """What the chat template prints after an answer; nothing where it cannot end with one."""
        return self._template.after_answer(self.messages(PROBE))

    def remarks(self) -> dict[str, str]:
        """What users should know of their prompts, by a short name."""
        found, probe = {}, self.messages(PROBE)
        if self.date is not None:
            found["prompt_date"] = (
                f"the chat template prints the date: every prompt says {self.date}, on whatever "
                "day it is made"
            )
            if self._template.takes_date_string(probe):
                found["prompt_date"] += "; prompt.template_kwargs.date_string sets another"
        if not self._template.opens_answer(probe):
            found["generation_prompt"] = (
                "the chat template does not open the model's turn, so the model may write on in "
                "the user's; prompt.chat_template can give one that honours add_generation_prompt"
            )
        return found

    def fingerprint(self) -> str:
        """Hash over everything that shapes a prompt besides the problem."""
        probe = self._template.render(self.messages("{problem}"))
        return hashlib.sha256(json.dumps(probe).encode()).hexdigest()[:16]

    def _make(self, problem: Problem) -> tuple[str, tuple[int, ...]]:
        text = self._template.render(self.messages(problem.text))
        if problem.text.strip() not in text:
            raise DataError(
                f"problem {problem.id}: the chat template changes its text.",
                hint="Leave the problem out, or give a template that keeps it as "
                "prompt.chat_template.",
            )
        return text, self.encode(text)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _refuse_losses(self, text: str) -> None:
        if PROBE not in text:
            raise ModelError(
                "the chat template leaves the problem out of the prompt, or changes it.",
                hint="Some templates want a turn in parts, as images need them: give a plain one "
                "as prompt.chat_template.",
            )
        system = self._prompt.system
        if system is not None and system.strip() not in text:
            raise ModelError(
                "the chat template leaves prompt.system out of the prompt, or changes it.",
                hint="Say it in prompt.template, which is the user's turn, and leave prompt.system "
                "out; or give a template that has a system turn as prompt.chat_template.",
            )
