"""A chat template, rendered as of one moment, and what it does to what it is given.

    template = ChatTemplate(tokenizer, prompt.chat_template, prompt.template_kwargs, moment)
    template.render(messages) -> text        template.date(messages) -> "30 Nov 2026" or None

Some templates print the present day, so the clock that they read is stopped: else prompts would
change at midnight, inside a run and between two evaluations. No token ids here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from budgetrl.errors import ModelError

Messages = Sequence[Mapping[str, str]]

STANDARD_MOMENT = datetime(2024, 7, 26, 12)
"""Where no run has a start of its own: the day that Llama 3's templates fall back to."""
PROBE = "Für welche $x < 3$ gilt $\\frac{x}{2} + 1 = \\sqrt{4}$?  “π & 中”\n\n  'x' = ?"
"""A problem as templates have to keep it: spaces, lines, LaTeX, signs, letters beyond ASCII."""
ANSWER = "budgetrl-answer"
_INSTANTS = (datetime(2001, 2, 3, 4, 5, 6), datetime(2022, 11, 30, 17, 48, 59))
"""They differ in year, month, day, weekday, hour, minute and second."""


class StoppedClock:
    """Stands for transformers' `strftime_now` in a template, and remembers what it said."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment
        self.said: list[str] = []

    def __call__(self, form: str) -> str:
        """The moment in a form of `strftime`."""
        self.said.append(self._moment.strftime(form))
        return self.said[-1]


class ChatTemplate:
    """A template with its arguments and a stopped clock.

    Args:
        tokenizer: of Hugging Face; its own template is used where no other is given.
        source: Jinja text, or None.
        arguments: handed to the template.
        moment: what it is told when it asks for the time.
    """

    def __init__(
        self, tokenizer: Any, source: str | None, arguments: Mapping[str, Any], moment: datetime
    ) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self._arguments = arguments
        self._moment = moment

    def render(self, messages: Messages) -> str:
        """The prompt that ends where the model goes on.

        Raises:
            ModelError: the template cannot be rendered.
        """
        return self._render(messages, StoppedClock(self._moment))

    def date(self, messages: Messages) -> str | None:
        """What the prompt says of the moment; None if it is the same at any other."""
        if self._same_at_all_times(messages):
            return None
        clock = StoppedClock(self._moment)
        self._render(messages, clock)
        return ", ".join(dict.fromkeys(clock.said))

    def takes_date_string(self, messages: Messages) -> bool:
        """Whether an argument `date_string` says the day instead of the clock."""
        return self._same_at_all_times(messages, date_string="26 Jul 2024")

    def after_answer(self, messages: Messages) -> str:
        """What follows an answer that ends the conversation; "" where none can end one."""
        answered = [*messages, {"role": "assistant", "content": ANSWER}]
        try:
            text = self._render(answered, StoppedClock(self._moment), add_generation_prompt=False)
        except ModelError:  # a template may refuse to end with an answer
            return ""
        return text.rpartition(ANSWER)[2]

    def opens_answer(self, messages: Messages) -> bool:
        """Whether the prompt leads into the model's turn; True too where that cannot be seen.

        It does where the template tells prompt and conversation apart, or where an answer in the
        conversation would stand right after the prompt.
        """
        prompt = self.render(messages)
        clock = StoppedClock(self._moment)
        if self._render(messages, clock, add_generation_prompt=False) != prompt:
            return True
        try:
            answered = self._render([*messages, {"role": "assistant", "content": ANSWER}], clock)
        except ModelError:  # a template may refuse to end with an answer
            return True
        return ANSWER not in answered or answered[len(prompt) :].lstrip().startswith(ANSWER)

    def _same_at_all_times(self, messages: Messages, **more: str) -> bool:
        texts = {self._render(messages, StoppedClock(at), **more) for at in _INSTANTS}
        return len(texts) == 1

    def _render(self, messages: Messages, clock: StoppedClock, **more: Any) -> str:
        from jinja2 import TemplateError

        arguments = {"add_generation_prompt": True, "strftime_now": clock, **self._arguments}
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages, chat_template=self._source, tokenize=False, **arguments | more
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise ModelError(
                f"the chat template cannot be rendered: {error}.",
                hint="Some templates refuse a system turn: see prompt.system, "
                "prompt.chat_template and prompt.template_kwargs.",
            ) from None
