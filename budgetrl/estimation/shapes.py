"""Shapes of transformer models: parameters, KV bytes and LoRA sizes from a config.

    shape = find_shape("Qwen/Qwen2.5-1.5B-Instruct")    bundled; a path; the hub's config.json
    shape.params, shape.matmul_params, shape.kv_bytes_per_token(), shape.lora_params(64)

All counts are exact for dense decoders of the Llama, Qwen, Mistral, Phi and Gemma families; those
of adapters for all of `_LINEARS` and `_LIKE_LLAMA`. Others are counted as a Llama's, which is told,
and a mixture of experts is refused. Not here: what the counts cost in bytes or seconds.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from budgetrl.errors import ModelError
from budgetrl.files import parse_json, read_asset
from budgetrl.hub.config import read_config
from budgetrl.hub.repo import is_hub_id
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.window import window_in_config

_NORMS_PER_LAYER = {"gemma2": 4, "gemma3_text": 4}
_QK_NORM = {"qwen3", "gemma3_text"}
_QKV_BIAS = {"qwen2"}
_TIED_BY_DEFAULT = {"gemma", "gemma2", "gemma3_text"}

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Keys of config.json for how many experts there are: of Qwen, Mixtral, DeepSeek, ERNIE 4.5."""

_MOST = 10**8
"""No dimension of a model is above it."""

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""What "all-linear" means for Llama and its like: every linear layer of a block, not the head."""

_QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
_LINEARS = {
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "glm": (*_QKVO, "gate_up_proj", "down_proj"),
    "glm4": (*_QKVO, "gate_up_proj", "down_proj"),
    "nemotron": (*_QKVO, "up_proj", "down_proj"),
    "apertus": (*_QKVO, "up_proj", "down_proj"),
    "starcoder2": (*_QKVO, "c_fc", "c_proj"),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
}
"""The same for families that join some of them, or have no gate."""
_LIKE_LLAMA = {
    *("llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
    *("olmo2", "olmo3", "stablelm", "cohere", "cohere2", "granite", "smollm3", "exaone4"),
    *("ernie4_5",),
}
"""Families whose blocks have the layers of Llama's."""

ENDS = ("embed_tokens", "lm_head")
"""What turns tokens into vectors, and vectors into tokens."""

_LLAMA_PATHS = {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"}
"""Families whose layers have these names, where Llama has them, and no others."""


@dataclass(frozen=True, slots=True)
class LengthPrior:
    """A published mean length of sampled answers, in tokens."""

    value: float
    low: float
    high: float
    source: str


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder."""

    name: str
    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    """Embedding and output head are one matrix."""
    window: int
    """max_position_embeddings: prompt and completion must fit in it."""
    gated: bool = False
    source: str = ""
    """Where it was read, if it is neither bundled nor in a local folder."""
    left_out: str = ""
    """What of the model is not in it."""
    completion_tokens: LengthPrior | None = None

    @cached_property
    def linears(self) -> Mapping[str, tuple[int, int]]:
        """(inputs, outputs) of every linear layer of one block, under its family's names."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        into, out = (self.hidden, self.intermediate), (self.intermediate, self.hidden)
        known = {
            **{"q_proj": (self.hidden, q), "o_proj": (q, self.hidden), "dense": (q, self.hidden)},
            **dict.fromkeys(("k_proj", "v_proj"), (self.hidden, kv)),
            **dict.fromkeys(("qkv_proj", "query_key_value"), (self.hidden, q + 2 * kv)),
            **dict.fromkeys(("gate_proj", "up_proj", "c_fc", "fc1", "dense_h_to_4h"), into),
            "gate_up_proj": (self.hidden, 2 * self.intermediate),
            **dict.fromkeys(("down_proj", "c_proj", "fc2", "dense_4h_to_h"), out),
        }
        return {name: known[name] for name in _LINEARS.get(self.model_type, LINEARS)}

    @property
    def is_known(self) -> bool:
        """Whether the layers are those of its family; else they are taken for Llama's."""
        return self.model_type in _LINEARS or self.model_type in _LIKE_LLAMA

    @cached_property
    def layer_paths(self) -> tuple[str, ...] | None:
        """Layers that an adapter can be added to; None where a family names them otherwise."""
        if self.model_type not in _LLAMA_PATHS:
            return None
        blocks = [f"model.layers.{layer}" for layer in range(self.layers)]
        inside = [f"self_attn.{name}" for name in LINEARS[:4]] + [f"mlp.{n}" for n in LINEARS[4:]]
        return (
            *(f"{block}.{name}" for block in blocks for name in inside),
            "model.embed_tokens",
            "lm_head",
        )

    @cached_property
    def linear_params(self) -> int:
        """Weights of all linear layers in all blocks: what 4-bit loading quantises."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linears.values())

    @cached_property
    def embedding_params(self) -> int:
        """Weights of one embedding, or of the head."""
        return self.vocab * self.hidden

    @cached_property
    def matmul_params(self) -> int:
        """Weights that multiply every token: all linear layers and the head, N of the formulas."""
        return self.linear_params + self.embedding_params

    @cached_property
    def params(self) -> int:
        """All parameters, as the hub counts them."""
        norms = _NORMS_PER_LAYER.get(self.model_type, 2) * self.hidden
        if self.model_type in _QK_NORM:
            norms += 2 * self.head_dim
        if self.model_type in _QKV_BIAS:
            norms += (self.heads + 2 * self.kv_heads) * self.head_dim
        embeddings = self.embedding_params * (1 if self.tied else 2)
        return embeddings + self.linear_params + self.layers * norms + self.hidden

    def kv_bytes_per_token(self, bytes_per_element: int = 2) -> int:
        """Bytes of the KV cache per token, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_element

    def lora_params(self, rank: int, targets: Sequence[str] | None = None) -> int:
        """Adapter parameters: rank x (inputs + outputs) per module, and layer for those of blocks.

        Args:
            rank: of the adapter.
            targets: names of layers, or ends of their paths; None: all linear ones. One that is not
                known, of a family that is not, counts as the largest layer.

        Raises:
            ModelError: a target that the model has not.
        """
        sizes = {name: sum(size) for name, size in self.linears.items()}
        chosen = set(sizes if targets is None else targets)
        unknown = sorted(name for name in chosen if name.rpartition(".")[2] not in {*sizes, *ENDS})
        if unknown and self.is_known:
            raise ModelError(
                f"lora.targets: {', '.join(unknown)} is not a linear layer of {self.name}.",
                hint=f"Known: {', '.join([*sizes, *ENDS])}.",
            )
        if self.layer_paths is not None:
            names = [
                path.rpartition(".")[2]
                for path in self.layer_paths
                if any(path == target or path.endswith(f".{target}") for target in chosen)
            ]
        else:
            leaves = {name.rpartition(".")[2] for name in chosen}
            names = [*(leaves & {*ENDS}), *[*(leaves - {*ENDS})] * self.layers]
        ends = self.hidden + self.vocab
        largest = max(sizes.values())
        return rank * sum(ends if name in ENDS else sizes.get(name, largest) for name in names)

    def lora_traffic(self) -> int:
        """Bytes per token that unmerged adapters move on all layers, their own weights apart.

        Each adapter reads its layer's input, and adds to its output: read and written once more.
        """
        per_layer = sum(inputs + 2 * outputs for inputs, outputs in self.linears.values())
        return 2 * self.layers * per_layer

    def attention_flops(self, context: float) -> float:
        """FLOPs per token of one causal forward pass over sequences of `context` tokens.

        QK^T and PV with an average context of half the sequence: 2 L heads head_dim T.
        """
        return 2.0 * self.layers * self.heads * self.head_dim * context


def find_shape(model_id: str, revision: str | None = None) -> ModelShape:
    """The shape of a folder or config.json on this machine, of a bundled or of any hub model.

    Args:
        model_id: a path, `asset:NAME` or a hub id.
        revision: on the hub; the bundled shapes hold for every one.

    Raises:
        ModelError: unknown; suggests near names and the config.json way.
        HubError: the hub does not answer.
    """
    local = _local_config(model_id)
    if local is not None:
        return shape_from_file(local)
    models = known_models()
    found = models.get(model_id) or _by_plain_name().get(_plain(model_id))
    if found is not None:
        return found
    asked = read_config(model_id, revision) if is_hub_id(model_id) else None
    if asked is not None:
        asked.values.pop("completion_tokens", None)  # what only the bundled shapes say
        return replace(shape_from_config(asked.values, model_id), source=asked.source)
    by_lower = {name.lower(): name for name in models}
    near = difflib.get_close_matches(model_id.lower(), by_lower, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(by_lower[name] for name in near)}? " if near else ""
    raise ModelError(
        f"model {model_id!r}: its shape is not known: it is neither bundled nor in the hub's "
        "cache, and the hub is not asked.",
        hint=f"{hint}Leave --offline out; or give a folder with its config.json "
        "(--set model.id=./my-model); `hf download ID config.json --local-dir my-model` makes one.",
    )


@cache
def known_models() -> Mapping[str, ModelShape]:
    """All bundled models by hub id."""
    data = read_asset("model_shapes.json")
    return {
        name: shape_from_config({**data["shapes"][model["shape"]], **model}, name)
        for name, model in data["models"].items()
    }


def shape_from_config(config: Mapping[str, Any], name: str) -> ModelShape:
    """The shape that a config.json describes (of a multimodal model: its language part).

    Raises:
        ModelError: not a dense decoder, or numbers are missing.
    """
    text, left_out = config.get("text_config"), ""
    if isinstance(text, dict):
        config, left_out = {**config, **text}, "what reads pictures or sound"
    if any(config.get(key) not in (None, 0, 1) for key in _EXPERTS):
        raise ModelError(
            f"{name}: a mixture of experts; estimates cover dense decoders only, and a run "
            "needs one for its plan.",
            hint="Take a dense model of that size.",
        )
    try:
        heads = int(config["num_attention_heads"])
        prior = config.get("completion_tokens")
        shape = ModelShape(
            name=name,
            model_type=str(config.get("model_type", "llama")),
            layers=int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
            intermediate=int(config["intermediate_size"]),
            vocab=int(config["vocab_size"]),
            tied=bool(
                config.get("tie_word_embeddings", config.get("model_type") in _TIED_BY_DEFAULT)
            ),
            window=window_in_config(config) or int(config["max_position_embeddings"]),
            gated=bool(config.get("gated", False)),
            left_out=left_out,
            completion_tokens=None if prior is None else LengthPrior(**prior),
        )
    except KeyError as error:
        raise ModelError(f"{name}: config.json has no {error.args[0]}.") from None
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise ModelError(f"{name}: config.json: {error}.") from None
    numbers = (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim)
    if not all(0 < n < _MOST for n in (*numbers, shape.intermediate, shape.vocab, shape.window)):
        raise ModelError(f"{name}: config.json describes no model: {shape}.")
    return shape


def _local_config(model_id: str) -> Path | None:
    """The config.json of a path or an `asset:NAME`; None for a hub id, whatever folder is here."""
    if is_hub_id(model_id) and not model_id.endswith(".json"):
        return None
    try:
        path = Path(local_path(model_id)).expanduser()
        is_folder = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long, ~nobody, a null byte
        raise ModelError(f"model {model_id[:200]!r} cannot be a path: {error}.") from None
    if is_folder:
        return path / "config.json"
    is_path = path.suffix == ".json" or model_id.startswith((".", "/", "~"))
    return path if is_path else None


def shape_from_file(path: Path) -> ModelShape:
    """The shape that a config.json describes.

    Raises:
        ModelError: it cannot be read, or is none of a dense decoder.
    """
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read: {error.strerror}.",
            hint="Check model.id: a hub id, or a folder with a config.json.",
        ) from None
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}.") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path}: not a model's config.json.")
    config.pop("completion_tokens", None)  # what only the bundled shapes say
    return shape_from_config(config, str(path.parent if path.name == "config.json" else path))


@cache
def _by_plain_name() -> Mapping[str, ModelShape]:
    """Models by name without owner and packing: quantised copies on the hub share a shape."""
    plain: dict[str, ModelShape] = {}
    for name, shape in known_models().items():
        plain.setdefault(_plain(name), shape)
    return plain


def _plain(name: str) -> str:
    name = name.rsplit("/", 1)[-1].lower()
    for suffix in ("-unsloth-bnb-4bit", "-bnb-4bit", "-fp8-block", "-fp8-dynamic", "-fp8"):
        name = name.removesuffix(suffix)
    return name.removeprefix("meta-")
