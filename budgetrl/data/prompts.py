"""Render problems as prompts with the tokenizer's chat template.

`prefilled` is detected from the template, not configured: some templates open `<think>` at the
end of the generation prompt, and the model's completion then lacks that tag.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from budgetrl.errors import ModelError
from budgetrl.recipe.schema import Prompt
from budgetrl.types import Problem

OPEN_THINK = "<think>"


class PromptRenderer:
    """Turns problems into messages, text and token ids.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prompt: the recipe's [prompt].

    Raises:
        ModelError: there is no chat template, in tokenizer or recipe, or it cannot be rendered.
    """

    def __init__(self, tokenizer: Any, prompt: Prompt) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self.chat_template: str | None = prompt.chat_template
        if self.chat_template is None and not getattr(tokenizer, "chat_template", None):
            name = getattr(tokenizer, "name_or_path", "the model")
            raise ModelError(
                f"the tokenizer of {name} has no chat template.",
                hint="Give one as prompt.chat_template, or use an instruction-tuned model.",
            )
        prompt_text = self._render(self.messages("x"))
        self.prefilled = prompt_text.rstrip().endswith(OPEN_THINK)
        """Whether the prompt already opens `<think>`."""

    def messages(self, problem_text: str) -> list[dict[str, str]]:
        """The conversation before the completion."""
        system = self._prompt.system
        head = [] if system is None else [{"role": "system", "content": system}]
        user = self._prompt.template.replace("{problem}", problem_text)
        return [*head, {"role": "user", "content": user}]

    def text(self, problem: Problem) -> str:
        """The rendered prompt."""
        return self._render(self.messages(problem.text))

    def ids(self, problem: Problem) -> tuple[int, ...]:
        """Token ids of the rendered prompt."""
        return self.encode(self.text(problem))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a rendered prompt, without a second start token."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def fingerprint(self) -> str:
        """Hash over everything that shapes a prompt besides the problem."""
        probe = self._render(self.messages("{problem}"))
        return hashlib.sha256(json.dumps(probe).encode()).hexdigest()[:16]

    @property
    def template_kwargs(self) -> Mapping[str, Any]:
        """Handed to the chat template."""
        return self._prompt.template_kwargs

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        from jinja2 import TemplateError

        try:
            rendered = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self.chat_template,
                add_generation_prompt=True,
                tokenize=False,
                **self._prompt.template_kwargs,
            )
        except TemplateError as error:
            raise ModelError(
                f"the chat template cannot be rendered: {error}.",
                hint="Some templates refuse a system turn: see prompt.system, "
                "prompt.chat_template and prompt.template_kwargs.",
            ) from None
        return str(rendered)
