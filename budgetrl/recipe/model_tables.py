"""Recipe tables about the model and what it reads: model, adapter, problems, prompts, engine."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from budgetrl.pace import free_cores
from budgetrl.recipe.base import AlphaPolicy, Count, EngineName, Positive, Table


class RecipeInfo(Table):
    """[recipe]: what this recipe is; `extends`, the list of those it builds on, stands here too."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    """What the recipe is called, in lists and reports."""
    summary: str = ""
    """One line of what it is for."""
    beside: str | None = None
    """A recipe, by path or bundled name, that estimates are compared with."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Decides the order of problems, what is sampled, and where the adapter starts."""


class Model(Table):
    """[model]: the base model."""

    id: str = Field(min_length=1)
    """Hub id, a path, or `asset:NAME` for a model that ships with budgetrl."""
    revision: str | None = None
    """Commit, tag or branch on the hub; left out: the main branch."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Number format of its weights."""
    load_in_4bit: bool = False
    """Quantise the weights to 4 bits while they are loaded (QLoRA)."""
    adapter: str | None = None
    """A folder with a LoRA adapter to go on from, trained elsewhere on this base at this rank."""


class Teacher(Table):
    """[teacher]: the model that a distillation moves towards; it is only read."""

    id: str = Field(min_length=1)
    """Hub id, a path, `asset:NAME`, or "self": the model itself, with the answer in its prompt."""
    revision: str | None = None
    """Commit, tag or branch on the hub; left out: the main branch."""
    adapter: str | None = None
    """Folder of an adapter on it, or `asset:NAME`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Number format of its weights."""
    load_in_4bit: bool = False
    """Quantise the weights to 4 bits while they are loaded."""
    device: Literal["model", "cpu"] = "model"
    """Where it is kept: beside the model, or in the host's memory."""
    hint: str = "\n\nThe answer is {answer}."
    """What stands behind the problem in its prompt (id = "self")."""

    @property
    def is_self(self) -> bool:
        """Whether the model teaches itself."""
        return self.id == "self"

    @model_validator(mode="after")
    def _self_has_no_files(self) -> Self:
        if self.is_self and (self.adapter or self.revision or self.load_in_4bit):
            raise ValueError(
                'id = "self" is the model of the run, so adapter, revision and load_in_4bit have '
                "nothing to say; leave them out"
            )
        return self


def _full(value: str) -> str:
    if value != "full":
        raise ValueError('a rank is a number, or "full" for all weights')
    return value


class Lora(Table):
    """[lora]: the adapter that is trained; or, with rank = "full", that all weights are."""

    rank: Annotated[
        Annotated[Count, Tag("int")]
        | Annotated[Literal["full"], BeforeValidator(_full), Tag("str")],
        Discriminator(lambda value: "str" if isinstance(value, str) else "int"),
    ]
    """Rank r of the adapter; "full": every weight of the model is trained, and there is no
    adapter."""
    alpha: Positive | None = None
    """lora_alpha; needed with the policies fixed and rslora, and without meaning in the others."""
    alpha_policy: AlphaPolicy = AlphaPolicy.FIXED
    """How the adapter's scale follows from the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that are zeroed while it is trained."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Layers that get an adapter, by the ends of their names, such as ["q_proj", "v_proj"];
    "all-linear": every linear layer except the output head."""

    @model_validator(mode="after")
    def _alpha_matches_policy(self) -> Self:
        if self.is_full:
            set_too = self._set_of_an_adapter()
            if set_too:
                raise ValueError(
                    f'rank = "full" trains all weights and has no adapter, which '
                    f"{' and '.join(set_too)} {'say' if len(set_too) > 1 else 'says'} something "
                    f"of; leave {'them' if len(set_too) > 1 else 'it'} out (--set KEY=unset)"
                )
            return self
        needs_alpha = self.alpha_policy in (AlphaPolicy.FIXED, AlphaPolicy.RSLORA)
        if needs_alpha and self.alpha is None:
            raise ValueError(f"alpha_policy = {self.alpha_policy.value!r} needs lora.alpha")
        return self

    def _set_of_an_adapter(self) -> list[str]:
        """Keys with another value than the default's, which means "as it is with no adapter"."""
        fields = type(self).model_fields
        return [
            f"lora.{name}"
            for name in ("alpha", "alpha_policy", "dropout", "targets")
            if getattr(self, name) != fields[name].default
        ]

    @property
    def is_full(self) -> bool:
        """Whether all weights are trained, and there is no adapter."""
        return self.rank == "full"

    @property
    def adapter_rank(self) -> int:
        """The rank of an adapter; not asked where all weights are trained."""
        assert self.rank != "full"
        return self.rank

    @property
    def resolved_alpha(self) -> float:
        """lora_alpha after the policy; not asked where there is no adapter."""
        if self.alpha_policy is AlphaPolicy.EQUAL_RANK:
            return float(self.adapter_rank)
        if self.alpha_policy is AlphaPolicy.FOUR_X_RANK:
            return 4.0 * self.adapter_rank
        assert self.alpha is not None
        return self.alpha

    @property
    def scale(self) -> float | None:
        """The factor before BA: alpha/r, or alpha/sqrt(r) with rslora (PEFT 0.21).

        None: there is no adapter.
        """
        if self.is_full:
            return None
        if self.alpha_policy is AlphaPolicy.RSLORA:
            return self.resolved_alpha / math.sqrt(self.adapter_rank)
        return self.resolved_alpha / self.adapter_rank

    @property
    def peft_arguments(self) -> dict[str, Any]:
        """Of PEFT's `LoraConfig`; not asked where there is no adapter."""
        alpha = self.resolved_alpha
        return {
            "r": self.adapter_rank,
            "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
            "lora_dropout": self.dropout,
            "target_modules": self.targets if isinstance(self.targets, str) else list(self.targets),
            "use_rslora": self.alpha_policy is AlphaPolicy.RSLORA,
            "bias": "none",
        }

    @property
    def description(self) -> str:
        """What is trained, for people: "LoRA rank 64", "all weights"."""
        return "all weights" if self.is_full else f"LoRA rank {self.rank}"


def no_teacher(teacher: Teacher | None, lora: Lora) -> list[str]:
    """Why a stage of kind "distill" has nobody to learn from; empty where it has."""
    if teacher is None:
        return ['kind = "distill" needs a [teacher], such as id = "hub/model"']
    if teacher.is_self and lora.is_full:
        return [
            'teacher.id = "self" is the model without its adapter, and with lora.rank = "full" '
            "there is none; name the model as teacher.id, which loads it once more"
        ]
    return []


class Columns(Table):
    """[data.columns]: names of the columns that are read; nested ones with dots."""

    problem: str = "problem"
    """The problem's text."""
    answer: str = "answer"
    """The right answer."""
    id: str | None = None
    """A problem's name in records; left out: id, where there is such a column."""
    level: str | None = None
    """Its difficulty in records; left out: level, where there is such a column."""
    solution: str | None = None
    """A worked solution, for SFT; known by names such as solution, completion or messages."""
    thinking: str | None = None
    """What goes into the think block before it, where the two lie apart (s1K)."""


class Data(Table):
    """[data]: the training problems; either a hub id or a local file or folder."""

    id: str | None = None
    """A data set on the hub; or `path`."""
    path: str | None = None
    """.jsonl, .json, .csv or .parquet (or .gz of them), a folder of them, or `asset:NAME`."""
    revision: str | None = None
    """Commit, tag or branch on the hub; left out: the main branch."""
    config: str | None = None
    """The configuration of a hub data set that has several."""
    split: str = "train"
    """The split of a hub data set."""
    columns: Columns = Columns()
    """Names of its columns, where they are others."""
    filter: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Keep rows whose column holds one of the values, as text: { level = ["3", "4"] }."""
    limit: Count | None = None
    """Only so many problems, from the first on; left out: all."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.id is None) == (self.path is None):
            raise ValueError("give exactly one of data.id (hub) and data.path (file or folder)")
        return self


class Prompt(Table):
    """[prompt]: how a problem becomes a prompt."""

    system: str | None = None
    """The system turn; left out: none."""
    template: str = "{problem}"
    """The user turn; `{problem}` is replaced by the problem's text."""
    chat_template: str | None = None
    """A Jinja chat template instead of the tokenizer's own."""
    template_kwargs: dict[str, bool | int | str] = Field(default_factory=dict)
    """Handed to the chat template, such as { enable_thinking = false } for Qwen3."""
    max_tokens: Count = 512
    """Tokens of a whole prompt; longer ones are counted, and not trained on."""
    overlong: Literal["drop"] = "drop"
    """What becomes of those: they are left out."""

    @model_validator(mode="after")
    def _template_holds_problem(self) -> Self:
        if self.template.count("{problem}") != 1:
            raise ValueError("prompt.template must contain {problem} exactly once")
        return self

    def conversation(self, problem_text: str) -> list[dict[str, str]]:
        """The turns before a completion."""
        head = [] if self.system is None else [{"role": "system", "content": self.system}]
        user = self.template.replace("{problem}", problem_text)
        return [*head, {"role": "user", "content": user}]


def _free_cores_for_auto(value: object) -> object:
    if isinstance(value, str) and value != "auto":
        raise ValueError('must be a number of threads, or "auto"')
    return free_cores() if value == "auto" else value


_Threads = Annotated[
    Count, BeforeValidator(_free_cores_for_auto, json_schema_input_type=Count | Literal["auto"])
]


class Engine(Table):
    """[engine]: what runs the model."""

    name: EngineName = EngineName.UNSLOTH
    """What runs the model."""
    device: Literal["cpu", "cuda"] = "cuda"
    """Where it runs; "cuda" is an NVIDIA GPU."""
    threads: _Threads | None = None
    """CPU threads of torch; a fixed number, so that a resumed run computes the same bits. "auto" is
    the cores that are free for this process, counted once: a run keeps the number."""
    gradient_checkpointing: bool = True
    """Compute activations twice instead of keeping them: less memory, more time."""
    eval_batch: Count = 256
    """Completions generated at a time in evaluations (plain)."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the GPU that vLLM may fill (unsloth); left out: what the recipe needs there."""
    standby: bool = True
    """vLLM sleeps while the trainer works (unsloth)."""
    max_num_seqs: Count = 256
    """Completions that vLLM generates at a time (unsloth)."""
    chunked_prefill: bool = True
    """vLLM reads long prompts in pieces; Unsloth decides it by the GPU, so false is refused
    (unsloth)."""
    prefix_caching: bool = True
    """vLLM keeps what it computed of a prompt for the other completions of it (unsloth)."""
    logit_chunks: Count = 8
    """Pieces in which the logits of a micro-batch are computed, one per completion at the least
    (unsloth)."""
    merged_rollouts: bool = False
    """Fold the adapter into vLLM's weights for rollouts (unsloth); not where rounding would lose
    more than 2 % of it, nor for evaluations."""
    script: str | None = None
    """JSONL with the completions to replay (scripted)."""

    @model_validator(mode="after")
    def _fits_device(self) -> Self:
        if self.name is EngineName.UNSLOTH and self.device != "cuda":
            raise ValueError('engine.name = "unsloth" needs engine.device = "cuda"')
        if self.device == "cpu" and self.name is EngineName.PLAIN and self.threads is None:
            raise ValueError('on a CPU engine.threads must be a number, such as 2, or "auto"')
        if self.name is EngineName.SCRIPTED and self.script is None:
            raise ValueError('engine.name = "scripted" needs engine.script')
        return self
