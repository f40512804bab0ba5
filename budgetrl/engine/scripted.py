"""An engine without a model: replays completions from a JSONL file, for evaluation.

Rows: {"problem_id", "completion"} and, if they differ by round, "sample"; "tokens" and
"truncated" are optional. A problem without a row gets an empty completion.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from budgetrl.engine.base import EntropyEstimate, Request, SamplingSpec, StopCheck
from budgetrl.errors import ModelError
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Recipe
from budgetrl.types import Completion


class ScriptedEngine:
    """Replays a script."""

    name = "scripted"
    tokenizer: Any = None
    model: Any = None
    context_tokens: int | None = None

    def __init__(self, script: Mapping[tuple[str, int | None], Completion]) -> None:
        self._script = script

    @classmethod
    def open(cls, recipe: Recipe) -> Self:
        """Read the script that engine.script names.

        Raises:
            ModelError: the file cannot be read or holds other rows.
        """
        assert recipe.engine.script is not None
        path = Path(local_path(recipe.engine.script))
        script: dict[tuple[str, int | None], Completion] = {}
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                text = str(row["completion"])
                tokens = int(row.get("tokens", len(text.split())))
                completion = Completion(text, tokens, bool(row.get("truncated", False)))
                script[str(row["problem_id"]), row.get("sample")] = completion
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"script {path}: cannot be read: {error!r}.") from None
        return cls(script)

    def generate(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> list[Completion | None]:
        """The scripted completions."""
        nothing = Completion("", 0, False)
        return [
            self._script.get(
                (r.problem_id, r.sample), self._script.get((r.problem_id, None), nothing)
            )
            for r in requests
        ]

    def entropy(
        self, requests: Sequence[Request], sampling: SamplingSpec, should_stop: StopCheck
    ) -> EntropyEstimate | None:
        """A script has no distribution."""
        return None

    def adapter_is_zero(self) -> bool:
        """A script has no adapter."""
        return True

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {"engine": self.name, "completions": len(self._script)}

    def close(self) -> None:
        """Nothing to free."""
