"""Tokenizers that transformers makes other ones of, and those without padding or end tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from budgetrl.engine.base import SamplingSpec
from budgetrl.engine.ends import distinct_pad, some_pad
from budgetrl.engine.plain import PlainEngine
from budgetrl.engine.tokenizer import PROBE, faithful, load_tokenizer, restored
from budgetrl.errors import ExitCode, ModelError
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe


def changed(file: Path, **values: Any) -> None:
    data = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in (data | values).items() if v is not None}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped model."""
    made = tmp_path / "model"
    shutil.copytree(local_path("asset:tiny/quickstart"), made)
    return made


@pytest.fixture
def llama(folder: Path) -> Path:
    """The same, named as R1-Distill-Llama is: a Llama whose vocabulary is byte-level."""
    changed(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    changed(folder / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    return folder


def recipe_of(folder: Path, *sets: str) -> Recipe:
    return load_recipe("quickstart", [f"model.id={folder}", "engine.threads=1", *sets]).recipe


def ids_of(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_a_tokenizer_of_the_wrong_class_is_replaced_by_its_own_file(llama: Path) -> None:
    wrong = AutoTokenizer.from_pretrained(str(llama))
    assert wrong.decode(ids_of(wrong, "12 + 7 = 19")) == "12+7=19", "why this is looked at"
    right = AutoTokenizer.from_pretrained(local_path("asset:tiny/quickstart"))
    recipe = recipe_of(llama)
    for mended in (load_tokenizer(str(llama), recipe), faithful(wrong, str(llama), recipe)):
        assert ids_of(mended, PROBE) == ids_of(right, PROBE)
        assert (mended.padding_side, mended.chat_template) == ("left", right.chat_template)
        assert (mended.eos_token_id, mended.pad_token_id) == (
            right.eos_token_id, right.pad_token_id,
        )  # fmt: skip


def test_a_faithful_tokenizer_is_left_as_it_is(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    assert faithful(tokenizer, str(folder), recipe_of(folder)) is tokenizer


def test_what_another_library_made_of_a_template_is_undone(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    own, tokenizer.chat_template = tokenizer.chat_template, "{{ messages[0].content }}"
    assert restored(tokenizer, str(folder), recipe_of(folder)).chat_template == own


def test_tokens_that_the_file_lacks_are_refused(folder: Path) -> None:
    """Both loaders would add them behind the vocabulary, where the model has no embedding."""
    added = {"500": {"content": "<|im_start|>user", "special": True}}
    changed(folder / "tokenizer_config.json", added_tokens_decoder=added)
    with pytest.raises(ModelError, match=r"in another way than its tokenizer\.json") as caught:
        load_tokenizer(str(folder), recipe_of(folder))
    assert caught.value.exit_code == ExitCode.USER


def test_without_the_file_texts_must_come_back(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    (folder / "tokenizer.json").unlink()
    assert faithful(tokenizer, str(folder), recipe_of(folder)) is tokenizer
    tokenizer.backend_tokenizer.decoder = None
    with pytest.raises(ModelError, match="do not come back"):
        faithful(tokenizer, str(folder), recipe_of(folder))


def test_a_damaged_file_is_named(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read"):
        faithful(tokenizer, str(folder), recipe_of(folder))


# --- padding and end tokens


def tokenizer_with(*tokens: str, **special: str) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(local_path("asset:tiny/quickstart"))
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    tokenizer.eos_token = tokenizer.pad_token = None
    assert tokenizer.eos_token_id is None
    for name, text in special.items():
        setattr(tokenizer, name, text)
    return tokenizer


@pytest.fixture(scope="module")
def opened() -> PlainEngine:
    return PlainEngine.open(load_recipe("quickstart", ["engine.threads=1"]).recipe)


def bare_engine(opened: PlainEngine, *sets: str, ends: list[int] | None = None) -> PlainEngine:
    """Neither padding nor end token in the tokenizer; the model may name one."""
    opened.model.generation_config.eos_token_id = ends
    recipe = load_recipe("quickstart", ["engine.threads=1", *sets]).recipe
    return PlainEngine(opened.model, tokenizer_with(), recipe)


def test_a_tokenizer_without_padding_and_end_token_takes_the_models(opened: PlainEngine) -> None:
    engine = bare_engine(opened, ends=[283])
    assert engine.end_ids == opened.end_ids == {283}
    assert engine.tokenizer.eos_token_id == engine.tokenizer.pad_token_id == 283
    prompts = [ids_of(engine.tokenizer, text) for text in ("1+1", "12+7=")]
    sampling = SamplingSpec(temperature=1.0, top_p=1.0, max_tokens=8)
    drawn = [one.draw(prompts, [1, 2], sampling, lambda: False).ids for one in (engine, opened)]
    assert drawn[0] == drawn[1]


def test_a_model_that_nothing_ends_is_refused_with_its_tokens(opened: PlainEngine) -> None:
    with pytest.raises(ModelError, match="no token that ends a completion") as caught:
        bare_engine(opened)
    assert caught.value.exit_code == ExitCode.USER
    assert "sampling.stop" in caught.value.hint and "<|im_end|>" in caught.value.hint
    assert bare_engine(opened, 'sampling.stop=["<|im_end|>"]').end_ids == {283}


def test_padding_is_a_token_that_the_model_knows() -> None:
    tokenizer = tokenizer_with("<far>", pad_token="<far>", eos_token="<|im_end|>")
    assert tokenizer.pad_token_id == 288
    some_pad(tokenizer, frozenset({283}), rows=288)
    assert tokenizer.pad_token_id == 283


@pytest.mark.parametrize(
    ("tokens", "chosen"),
    [
        (("<|reserved_0|>", "<|finetune_right_pad_id|>"), "<|finetune_right_pad_id|>"),
        (("<|reserved_0|>",), "<|reserved_0|>"),
        (("<unused7>",), "<unused7>"),
    ],
)
def test_padding_of_its_own_is_found_without_any(tokens: tuple[str, ...], chosen: str) -> None:
    tokenizer = tokenizer_with(*tokens)
    distinct_pad(tokenizer, frozenset({283}))
    assert tokenizer.pad_token == chosen and tokenizer.eos_token_id == 283
    with pytest.raises(ModelError, match="has no padding token, and no other"):
        distinct_pad(tokenizer_with(), frozenset({283}))


def test_training_needs_neither_of_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL asks the tokenizer for both when it starts."""
    import test_grpo_oracle as harness

    opened = harness.DictatedEngine.open

    def bare(recipe: Recipe) -> harness.DictatedEngine:
        return harness.DictatedEngine(opened(recipe).model, tokenizer_with(), recipe)

    monkeypatch.setattr(harness.DictatedEngine, "open", bare)
    made = harness.train(tmp_path)
    wanted = harness.expected_gradients(made)
    assert harness.distance(made.updates[0].gradients, wanted) <= harness.TOLERANCE
