"""Architectures whose cache is another one: drawn as transformers draws them, or refused."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    FalconH1Config,
    FalconMambaConfig,
    Gemma2Config,
    GenerationConfig,
    MambaConfig,
    Qwen2Config,
    RwkvConfig,
)

from budgetrl.engine.base import SamplingSpec
from budgetrl.engine.decoding import Drawn, decode
from budgetrl.engine.reading import check_reading
from budgetrl.errors import ModelError

END, WORDS, TOKENS = 2, 97, 16
SIZES: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": END, "pad_token_id": 0,
}  # fmt: skip
STATES = {key: SIZES[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers")}
SLIDING = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
RIGHT: list[Any] = [
    MambaConfig(state_size=8, **STATES),
    FalconMambaConfig(state_size=8, **STATES),
    FalconH1Config(mamba_d_ssm=64, mamba_d_state=8, mamba_n_heads=4, **SIZES),
    Qwen2Config(use_sliding_window=True, **SLIDING, **SIZES),
    Gemma2Config(head_dim=8, **SLIDING, **SIZES),
]


def model_of(config: Any) -> Any:
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config).eval()


def never() -> bool:
    return False


def drawn_of(model: Any, prompts: list[tuple[int, ...]], temperature: float) -> Drawn:
    sampling = SamplingSpec(temperature, 1.0, TOKENS)
    drawn: Drawn = decode(model, prompts, range(len(prompts)), sampling, [END, 7, 8, 9], never)
    return drawn


@pytest.mark.parametrize("config", RIGHT, ids=lambda config: config.model_type)
def test_other_caches_draw_what_transformers_draws(config: Any) -> None:
    """Prompts of other lengths beside one another, and rows that leave."""
    model, draw = model_of(config), torch.Generator().manual_seed(5)
    check_reading(model)
    some = [tuple(torch.randint(10, WORDS, (n,), generator=draw).tolist()) for n in (3, 9, 14)]
    prompts = [ids for ids in some for _ in range(3)]
    greedy = GenerationConfig(
        max_new_tokens=TOKENS, do_sample=False, eos_token_id=[END, 7, 8, 9], pad_token_id=0
    )
    found = drawn_of(model, prompts, 0.0).ids
    for prompt, ids in zip(prompts, found, strict=True):
        row = torch.tensor([prompt])
        wanted = model.generate(row, generation_config=greedy, attention_mask=torch.ones_like(row))
        assert wanted[0, len(prompt) :].tolist() == ids
    drawn = drawn_of(model, prompts, 1.0)
    assert len(set(map(len, drawn.ids))) > 2
    for prompt, ids, logps in zip(prompts, drawn.ids, drawn.logps, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        own = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert logps == pytest.approx(own.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (BertConfig(**SIZES), "says something else with a cache"),  # as it sees what comes after
        (RwkvConfig(**STATES), "takes no cache"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_a_model_that_would_draw_as_another_is_refused(config: Any, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        check_reading(model_of(config))
