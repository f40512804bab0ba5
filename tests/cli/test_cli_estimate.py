import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from budgetrl.cli import main
from budgetrl.recipe.load import load_recipe, without_comments

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "sympy", "math_verify", "matplotlib")


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return json.loads(captured.out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a user error."""
    assert main(["estimate", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_an_estimate_takes_under_a_second_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from budgetrl.cli import main; "
        "code = main(['estimate', 'deepscaler_r256', '--gpu', 'A40', '--hours', '24', '--json']); "
        f"print([n for n in {HEAVY!r} if n in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    # As installed: with bytecode, which the first of the calls writes.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    times, errors = [], ""
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        errors = done.stderr
        assert done.returncode == 0
        assert json.loads(done.stdout)["fits"] is True
    assert errors.strip() == "[]"
    # Processor seconds: on a busy machine the wall says more about the neighbours.
    assert min(times) < 1.0


def test_the_page_names_verdict_phases_money_and_assumptions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["estimate", "deepscaler_r256", "--gpu", "A40", "--hours", "24"]) == 0
    page = capsys.readouterr().out
    for word in ("fits", "Memory", "rollout", "log-probs", "The run", "$", "buys", "Assumed"):
        assert word in page
    assert "the paper's 24 h are training alone" in page
    assert max(len(line) for line in page.splitlines()) <= 80
    assert "\x1b" not in page


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("gpu", ["A40", "T4", "RTX PRO 6000 Blackwell"])
def test_no_line_is_wider_than_the_terminal(
    columns: int,
    gpu: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["estimate", "qwen2.5_instruct_r256", "--gpu", gpu]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= columns


def test_what_does_not_fit_is_said_with_a_way_out_and_exit_code_0(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = run_json(capsys, "estimate", "deepscaler_r256", "--gpu", "T4")
    assert (made["fits"], made["verdict"]) == (False, "no")
    assert made["advice"]
    assert main(["estimate", "deepscaler_r256", "--gpu", "T4"]) == 0
    assert "To make it fit" in capsys.readouterr().out


def test_limits_replace_those_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ("estimate", "deepscaler_r8", "--gpu", "A40")
    day = run_json(capsys, *recipe)
    short = run_json(capsys, *recipe, "--hours", "90m")
    money = run_json(capsys, *recipe, "--usd", "3", "--price", "0.5")
    assert short["steps"]["affordable"] < money["steps"]["affordable"] < day["steps"]["affordable"]
    assert money["hours"]["total"] <= 6
    assert money["gpu"]["price_source"] == "command line"


def test_a_number_of_updates_is_priced(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "estimate", "deepscaler_r8", "--gpu", "A40", "--steps", "50")
    assert made["steps"]["requested"] == 50
    assert made["hours"]["total"] < 6
    assert made["usd"]["total"] == pytest.approx(made["hours"]["total"] * 0.30)


def test_all_gpus_are_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_json(capsys, "estimate", "deepscaler_r8", "--all-gpus")
    assert len(made["gpus"]) == 26
    assert made["cheapest"]
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["estimate", "deepscaler_r8", "--all-gpus"]) == 0
    table = capsys.readouterr().out
    assert "RTX 4090" in table
    assert "no bfloat16" in table
    assert max(len(line) for line in table.splitlines()) <= 80


def test_a_gpu_of_ones_own_comes_from_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "x1.json"
    row = {"name": "X1", "memory_gb": 48, "bandwidth_gb_s": 696, "bf16_dense_tflops": 149.7}
    file.write_text(json.dumps(row))
    own = run_json(capsys, "estimate", "deepscaler_r8", "--gpu", str(file), "--price", "0.3")
    a40 = run_json(capsys, "estimate", "deepscaler_r8", "--gpu", "A40")
    assert own["gpu"]["name"] == "X1"
    assert own["seconds"]["step"] == pytest.approx(a40["seconds"]["step"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("deepscaler_r8", "--gpu", "A41"), "Did you mean A40"),
        (("deepscaler_r8", "--gpu", "A40", "--all-gpus"), "exclude one another"),
        (("deepscaler_r8", "--gpu", "missing.json"), "cannot be read"),
        (("deepscaler_r8", "--hours", "0"), "above zero"),
        (("deepscaler_r8", "--hours", "-2"), "--hours"),
        (("deepscaler_r8", "--hours", "nan"), "is not a duration"),
        (("deepscaler_r8", "--price", "nan"), "above zero"),
        (("deepscaler_r8", "--price=-1"), "above zero"),
        (("deepscaler_r8", "--usd", "inf"), "a billion"),
        (("deepscaler_r8", "--hours", "1e308"), "100 years"),
        (("deepscaler_r8", "--set", "lora.targets=[]"), "targets"),
        (("deepscaler_r8", "--set", f"batch.prompts_per_step=1{'0' * 30}"), "prompts_per_step"),
        (("deepscaler_r8", "--gpu", "RTX A5000", "--usd", "5"), "--price"),
        (("deepscaler_r8", "--steps", "0"), "at least 1"),
        (("deepscaler_r8", "--steps", "many"), "--steps"),
        (("deepscaler_r8", "--set", "lora.rank=48"), "vLLM serves only"),
        (("deepscaler_r8", "--set", "lora.rank=nan"), "rank"),
        (("deepscaler_r8", "--set", "model.id=Qwen/Qwen9-1B"), "config.json"),
        (("qwen2.5_math_r8", "--set", "sampling.max_tokens=3585"), "<= 3584"),
        (("qwen2.5_math_r8", "--set", "prompt.max_tokens=513"), "window"),
        (("deepscaler_r8", "--set", "sampling.expected_tokens=9999"), "above"),
        (("deepscaler_r9",), "Did you mean"),
        (("deepscaler_r8", "--from-run", "no/such/run"), "no/such/run"),
    ],
)
def test_bad_input_is_refused_with_the_fix(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refused(capsys, *arguments)


def test_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", "deepscaler_r8", "--gpu", "A41", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["type"], error["exit_code"]) == ("UsageError", 2)


def test_recipes_are_listed_shown_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    listed = run_json(capsys, "recipes", "list")["recipes"]
    assert "quick/qwen3" in [row["name"] for row in listed]
    shown = run_json(capsys, "recipes", "show", "deepscaler_r256")
    assert set(shown) >= {"name", "path", "resolved", "sources"}
    assert shown["sources"]["lora.rank"] == "paper 2.3"
    assert shown["sources"]["lora.alpha"].startswith("inferred: ")
    assert shown["lora_scale"] == 0.5
    checked = run_json(capsys, "recipes", "check")
    assert checked["ok"] is True
    assert len(checked["recipes"]) == len(listed) + 8


def test_show_prints_the_scale_and_resolved_values_with_sources(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["recipes", "show", "qwen3_r8", "--resolved", "--set", "batch.micro_batch=4"]) == 0
    page = capsys.readouterr().out
    assert "scale alpha/r = 16" in page
    lines = {line.split(" = ")[0]: line for line in page.split("[sft]")[0].splitlines()}
    assert lines["micro_batch"].endswith("command line")
    assert lines["rank"].endswith("paper 2.3")
    assert "inferred: " in lines["learning_rate"]


@pytest.mark.parametrize("name", ["quick/llama3.2", "deepscaler_r256", "quickstart"])
def test_a_copy_loads_from_its_new_place_and_nothing_is_overwritten(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "deep" / "mine.toml"
    assert main(["recipes", "copy", name, str(target)]) == 0
    assert main(["recipes", "check", str(target)]) == 0
    assert main(["recipes", "copy", name, str(target)]) == 2
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["quick/llama3.2", "quickstart"])
def test_a_bare_copy_is_the_same_recipe_without_comments(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mine.toml"
    assert main(["recipes", "copy", name, str(target), "--bare"]) == 0
    assert "#" in load_recipe(name).text and "#" not in target.read_text()
    assert load_recipe(target).recipe == load_recipe(name).recipe


def test_lines_of_a_prompt_stay_lines_without_comments() -> None:
    text = '[prompt]  # mine\nsystem = """One # two\nthree"""\n'
    assert without_comments(text) == '[prompt]\nsystem = """One # two\nthree"""\n'


def test_check_names_every_bad_recipe_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('[recipe]\nname = "bad"\nextends = ["qwen3_r8.toml"]\n[lora]\nrnk = 8\n')
    assert main(["recipes", "check", str(bad), "deepscaler_r8", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert [row["ok"] for row in found["recipes"]] == [False, True]
    assert "did you mean" in found["recipes"][0]["error"]
