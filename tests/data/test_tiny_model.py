"""The shipped small language models and their data, loaded as any hub model is."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "budgetrl" / "assets" / "tiny"
MODELS = ("quickstart", "strong", "cold", "specialist", "mute")
FILES = {"train_easy": 2000, "train_hard": 2000, "heldout": 256, "heldout_hard": 256, "worked": 200}
TEXTS = (
    "Compute 7+5-8+2.",
    "<think>\n7+5=12\n12-8=4\n4+2=6\n</think>\n\\boxed{6}",
    "12 + 7 = 19",
    string.printable,
    "".join(map(chr, range(32, 127))),
    "a\r\nb\r\n\r\n  c\t\td ",
    " it's  naïve: ∑ 你好 🎉 \u200d עברית",
)


def rows(name: str) -> list[dict[str, Any]]:
    lines = (TINY / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def value_of(problem: str) -> int:
    """Evaluate `Compute 7+5-8+2.` character by character; anything else is an error."""
    assert re.fullmatch(r"Compute \d+([+-]\d+)+\.", problem), problem
    total, sign, number = 0, 1, 0
    for character in problem.removeprefix("Compute "):
        if character.isdigit():
            number = 10 * number + int(character)
        else:
            total, sign, number = total + sign * number, -1 if character == "-" else 1, 0
    return total


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TINY / "quickstart")


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_tokenizer_that_a_hub_model_gets(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_problem_survives_the_tokenizer(tokenizer: Any) -> None:
    problems = [row["problem"] for name in FILES for row in rows(name)]
    assert tokenizer.batch_decode(tokenizer(problems)["input_ids"]) == problems


def test_decoding_drops_the_end_of_turn_and_keeps_the_think_tags(tokenizer: Any) -> None:
    ids = tokenizer.encode("<think>\n1+2=3\n</think>\n\\boxed{3}<|im_end|>")
    assert ids[-1] == tokenizer.eos_token_id
    expected = "<think>\n1+2=3\n</think>\n\\boxed{3}"
    assert tokenizer.decode(ids, skip_special_tokens=True) == expected


def test_chat_template_renders_with_and_without_a_system_message(tokenizer: Any) -> None:
    user = {"role": "user", "content": "Compute 1+2+3."}
    turn = "<|im_start|>user\nCompute 1+2+3.<|im_end|>\n"
    render = tokenizer.apply_chat_template
    prompt = render([user], tokenize=False, add_generation_prompt=True)
    assert prompt == turn + "<|im_start|>assistant\n"
    system = {"role": "system", "content": "Be brief."}
    rendered = render([system, user], tokenize=False)
    assert rendered == "<|im_start|>system\nBe brief.<|im_end|>\n" + turn


@pytest.mark.parametrize("name", MODELS)
def test_model_loads_in_float32_and_ends_its_turns(name: str) -> None:
    folder = TINY / name
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.num_parameters() == 595_840
    assert model.dtype == torch.float32
    message = [{"role": "user", "content": "Compute 1+2+3."}]
    prompt = tokenizer.apply_chat_template(
        message, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**prompt, max_new_tokens=64, do_sample=False)
    text = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :])
    assert re.search(r"\\boxed\{\d+\}<\|im_end\|>$", text), text


@pytest.mark.parametrize("name", MODELS)
def test_card_states_the_measured_figures(name: str) -> None:
    figures = json.loads((TINY / name / "figures.json").read_text(encoding="utf-8"))
    card = (TINY / name / "README.md").read_text(encoding="utf-8")
    assert f"| {figures['heldout']['pass@1']} |" in card
    assert figures["made"]["command"] in card
    assert "Apache-2.0" in card


def test_hard_mix_starts_with_70_to_80_percent_of_its_groups_dead() -> None:
    figures = json.loads((TINY / "quickstart" / "figures.json").read_text(encoding="utf-8"))
    assert 0.70 <= figures["train_hard"]["dead"] <= 0.80


@pytest.mark.parametrize(("name", "count"), FILES.items())
def test_rows_are_complete_unique_and_right(name: str, count: int) -> None:
    found = rows(name)
    assert len(found) == count
    assert len({row["id"] for row in found}) == len({row["problem"] for row in found}) == count
    for row in found:
        assert row.keys() - {"solution"} == {"id", "problem", "answer", "level"}
        assert row["answer"] == str(value_of(row["problem"]))


@pytest.mark.parametrize("name", FILES)
def test_sha256_of_the_expression_decides_the_side_of_the_split(name: str) -> None:
    for row in rows(name):
        expression = row["problem"].removeprefix("Compute ").removesuffix(".")
        residue = int(hashlib.sha256(expression.encode()).hexdigest(), 16) % 5
        assert (residue == 0) == name.startswith("heldout")


def test_shipped_data_is_what_the_script_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    data = importlib.import_module("tiny.data")
    made = data.make_data(seed=0)
    assert {name: [dataclasses.asdict(row) for row in made[name]] for name in made} == {
        name: rows(name) for name in FILES
    }


def test_no_problem_is_both_trained_on_and_held_out() -> None:
    train = {row["problem"] for name in ("train_easy", "train_hard") for row in rows(name)}
    assert not train & {
        row["problem"] for name in ("heldout", "heldout_hard") for row in rows(name)
    }


def test_shipped_files_stay_below_10_mb() -> None:
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) < 10_000_000


def test_worked_demonstrations_are_right_and_not_held_out() -> None:
    held = {row["problem"] for name in ("heldout", "heldout_hard") for row in rows(name)}
    for row in rows("worked"):
        *lines, last = row["solution"].removeprefix("<think>\n").split("\n")
        assert last == f"\\boxed{{{value_of(row['problem'])}}}"
        assert lines.pop() == "</think>"
        for line in lines:
            left, _, right = line.partition("=")
            assert value_of(f"Compute {left}.") == int(right)
        assert row["problem"] not in held


def test_the_mute_start_never_shows_its_working() -> None:
    figures = json.loads((TINY / "mute" / "figures.json").read_text())
    assert figures["heldout"]["habit_share"]["steps"] == 0.0
    assert figures["heldout"]["habit_share"]["guess"] > 0.95
