import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from budgetrl.bench.measure import not_applied
from budgetrl.bench.settings import Setting, benched, settings_of
from budgetrl.cli import main
from budgetrl.estimation.machine import user_cache_dir
from budgetrl.estimation.request import Request, answer
from budgetrl.events import RunWarning
from budgetrl.history import History
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe

GPU_RECIPE = load_recipe("deepscaler_r256").recipe
ALGORITHM = ("model", "lora", "data", "prompt", "rewards", "grpo", "signal.skip", "sampling.top_p")


def value_of(recipe: Recipe, key: str) -> object:
    value: object = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("name", ["quickstart", "deepscaler_r256", "qwen2.5_7b_4bit"])
def test_what_is_tried_is_valid_and_leaves_the_algorithm_alone(name: str) -> None:
    recipe = load_recipe(name).recipe
    settings = settings_of(recipe, cores=2)
    assert settings[0] == Setting({})
    assert len({setting.name for setting in settings}) == len(settings) >= 4
    for setting in settings[1:]:
        short = benched(recipe, setting, evaluates=True, max_tokens=128)
        again = Recipe.model_validate_json(short.model_dump_json())
        assert again == short, "a recipe that could stand in a file"
        for key in ALGORITHM:
            assert value_of(short, key) == value_of(recipe, key)
        for key, value in setting.values.items():
            assert value_of(short, key) == value != value_of(recipe, key)
        assert short.completions_per_step == recipe.completions_per_step


def test_folding_is_not_offered_where_too_little_of_the_adapter_is_left() -> None:
    history = History()
    folding = Setting({"engine.merged_rollouts": True})
    assert not_applied(folding, history) is None
    lost = RunWarning(code="not_folded", message="37% would be left")
    history.warnings[lost.code] = lost
    assert "was not folded" in (not_applied(folding, history) or "")
    assert not_applied(Setting({}), history) is None, "the plain engine may warn of it too"


def test_a_bench_measures_settings_and_the_next_estimate_knows(tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    suite.write_text('{"problem": "1 + 1", "answer": "2"}\n')
    small = ["batch.prompts_per_step=1", "grpo.num_generations=2", "batch.micro_batch=2"]
    sets = [arg for pair in (*small, f"eval.heldout.path={suite}") for arg in ("--set", pair)]
    one_core = {min(os.sched_getaffinity(0))}
    options = ["--minutes", "8", "--out", str(tmp_path / "benches"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "budgetrl", "bench", "quickstart", *sets, *options],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, one_core),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = [one["name"] for one in found["settings"]]
    assert names == ["as the recipe", "batch.micro_batch=1"]
    for one in found["settings"]:
        assert set(one["phase_s"]) == {"rollout", "reward", "logprob", "update", "other"}
        assert sum(one["phase_s"].values()) == pytest.approx(one["step_s"])
        assert one["tokens_per_s"] > 0 and one["peak_gib"] is None and one["updates"] == 3
    assert Path(found["profile_file"]).is_relative_to(user_cache_dir())
    recipe = load_recipe("quickstart", [*small, f"eval.heldout.path={suite}"]).recipe
    assert "last finished run" in answer(Request(recipe)).times.source
    assert not list(tmp_path.glob("benches/*/*/checkpoints"))
    Path(found["profile_file"]).unlink()


def test_too_little_time_is_refused_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "quickstart", "--minutes", "0.1", "--out", str(tmp_path / "out")]) == 3
    assert "--minutes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_a_gpu_recipe_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("there is a GPU")
    assert main(["bench", "deepscaler_r256", "--out", str(tmp_path / "out"), "--json"]) == 3
    assert "quickstart" in json.loads(capsys.readouterr().out)["error"]["hint"]
