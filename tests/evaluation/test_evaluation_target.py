"""`budgetrl eval` on real targets: the quickstart model, adapters of it, checkpoints of a run."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from budgetrl.checkpoint_files import CHECKPOINT_MANIFEST
from budgetrl.cli import main
from budgetrl.engine.applied import adapter_effect, prove_applied
from budgetrl.engine.plain import PlainEngine
from budgetrl.errors import DataError, ModelError, RunDirError, UsageError
from budgetrl.evaluation.judge import evaluate_target
from budgetrl.evaluation.rows import load_eval, load_rows
from budgetrl.evaluation.run import Progress
from budgetrl.evaluation.specs import suite_specs
from budgetrl.evaluation.target import find_target
from budgetrl.events import Checkpoint
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.rundir import RESOLVED, RunDir, open_run

MODEL = "asset:tiny/quickstart"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight sums."""
    path = tmp_path_factory.mktemp("suite") / "sums.jsonl"
    sums = ["7+5-8+2", "3+4-1", "9-2+5", "8+1-6+4", "2+6-3", "1+9-4", "5+8-7", "6+3-2+1"]
    rows = [{"id": f"s{i}", "problem": f"Compute {s}.", "answer": str(eval(s))}
            for i, s in enumerate(sums)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, Any]]:
    """An adapter that is exactly zero, one that is not, and the engine that has the latter."""
    folder = tmp_path_factory.mktemp("adapters")
    recipe = load_recipe("quickstart", sets=["lora.rank=2", "lora.alpha=2"]).recipe
    engine = PlainEngine.open(recipe)
    engine.model.save_pretrained(str(folder / "zero"))
    for name, parameter in engine.model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.01)
    engine.model.save_pretrained(str(folder / "changed"))
    yield folder / "zero", folder / "changed", engine
    engine.close()


def make_run(out: Path, adapter: Path, suite: Path) -> RunDir:
    """A run with one checkpoint."""
    sets = ["lora.rank=2", "lora.alpha=2", "eval.heldout.samples=2", "eval.heldout.k=[1]"]
    sets.append(f"eval.heldout.path={suite}")
    recipe = load_recipe("quickstart", sets=sets).recipe
    run = RunDir.create(out, "quickstart")
    run.write_json(RESOLVED, {"recipe": recipe.model_dump(mode="json"), "sources": {}})
    with run.new_checkpoint(7, resumable=False) as folder:
        for file in adapter.iterdir():
            shutil.copy(file, folder / file.name)
    return run


class KilledError(Exception):
    """Stands for a process that is gone after a batch."""


def test_a_killed_evaluation_continues_to_the_same_verdicts(tmp_path: Path, suite: Path) -> None:
    target = find_target(MODEL, "quickstart")
    target = replace(target, recipe=target.recipe.model_copy(update={
        "engine": target.recipe.engine.model_copy(update={"eval_batch": 8})}))  # fmt: skip
    specs = suite_specs(target.recipe, [str(suite)], samples=3, ks=[1, 2], max_tokens=48)
    whole = evaluate_target(target, specs, tmp_path / "once")[0]

    def die(name: str, progress: Progress) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        evaluate_target(target, specs, tmp_path / "twice", on_progress=die)
    half = next((tmp_path / "twice").rglob("*.jsonl"))
    stored = half.read_text()
    assert len(stored.splitlines()) == 8
    continued = evaluate_target(target, specs, tmp_path / "twice")[0]
    assert continued.completions_file == half
    assert half.read_text().startswith(stored)
    assert load_rows(half) == load_rows(whole.completions_file)
    assert whole.result is not None
    assert continued.result is not None
    assert replace(continued.result, seconds=0) == replace(whole.result, seconds=0)


def test_json_of_the_command_is_the_contract(
    tmp_path: Path, suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["eval", MODEL, "--recipe", "quickstart", "--suite", str(suite), "--samples", "2"]
    arguments += ["--k", "1,2", "--max-tokens", "48", "--temperature", "0.7", "--seed", "5"]
    assert main([*arguments, "--out", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    keys = {"suite", "model", "adapter", "problems", "samples", "pass_at", "interval_95"}
    keys |= {"truncated_share", "completion_tokens_mean", "unparsable_share", "timeouts"}
    assert keys | {"protocol", "completions_file"} <= set(found)
    assert (found["suite"], found["problems"], found["samples"]) == ("sums", 8, 2)
    assert set(found["pass_at"]) == {"1", "2"}
    assert (found["protocol"]["temperature"], found["protocol"]["seed"]) == (0.7, 5)
    file = Path(found["completions_file"])
    assert file.parent == tmp_path / "sums"
    assert file.name.startswith("eval-")
    assert main(["compare", str(file), str(file.with_suffix(".json")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sums"]["1"]["difference"] == 0


def test_an_adapter_is_proven_to_change_the_logits(adapters: tuple[Path, Path, Any]) -> None:
    _, _, engine = adapters
    prompts = [[1, 2, 3], [4, 5]]
    assert adapter_effect(engine, prompts) > 0
    assert prove_applied(engine, prompts)


def test_an_adapter_without_effect_is_an_error(adapters: tuple[Path, Path, Any]) -> None:
    _, _, engine = adapters
    weights = [p for name, p in engine.model.named_parameters() if "lora_A" in name]
    kept = [parameter.data.clone() for parameter in weights]
    for parameter in weights:
        parameter.data.zero_()
    try:
        with pytest.raises(ModelError, match="not applied"):
            prove_applied(engine, [[1, 2, 3]])
    finally:
        for parameter, data in zip(weights, kept, strict=True):
            parameter.data.copy_(data)


def test_a_zero_adapter_takes_the_result_of_its_base(
    tmp_path: Path, suite: Path, adapters: tuple[Path, Path, Any]
) -> None:
    run = make_run(tmp_path, adapters[0], suite)
    target = find_target(str(run.path))
    specs = suite_specs(target.recipe, [], max_tokens=48)
    first = evaluate_target(target, specs, tmp_path)[0]
    assert first.equals_base
    assert first.result is not None
    assert first.completions_file.parent == run.path / "evals/heldout"
    for suffix in (".json", ".jsonl"):
        made = first.completions_file.with_suffix(suffix)
        made.rename(made.with_name(f"baseline{suffix}"))
    again = evaluate_target(target, specs, tmp_path)[0]
    assert again.completions_file.name == "baseline.jsonl"
    assert again.result == replace(first.result, when="baseline")
    specs = suite_specs(target.recipe, [], max_tokens=48, ks=[1, 2])
    (other,) = evaluate_target(target, specs, tmp_path)
    assert other.result is not None and set(other.result.pass_at) == {1, 2}
    lines = again.completions_file.read_text().splitlines(keepends=True)
    again.completions_file.write_text("".join(lines[:-1]))
    (made,) = evaluate_target(target, specs, tmp_path)
    assert made.completions_file.name.startswith("eval-")
    assert made.result is not None and made.result.pass_at == other.result.pass_at


def test_a_checkpoint_is_evaluated_with_its_adapter(
    tmp_path: Path, suite: Path, adapters: tuple[Path, Path, Any]
) -> None:
    run = make_run(tmp_path, adapters[1], suite)
    target = find_target(str(run.path / "checkpoints/step_000007"))
    assert target.step == 7
    (found,) = evaluate_target(target, suite_specs(target.recipe, [], max_tokens=48), tmp_path)
    assert not found.equals_base
    assert load_eval(found.completions_file).policy == target.policy_id
    assert target.policy_id != find_target(str(adapters[0])).policy_id


def copied(adapter: Path, to: Path, **config: object) -> Path:
    """An adapter with another configuration."""
    shutil.copytree(adapter, to)
    file = to / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return to


def test_an_adapter_with_another_configuration_is_another_policy(
    tmp_path: Path, adapters: tuple[Path, Path, Any]
) -> None:
    changed: list[dict[str, object]] = [
        {"lora_alpha": 1}, {"use_rslora": True}, {"target_modules": ["q_proj"]}]  # fmt: skip
    changed += [{"peft_version": "0", "lora_dropout": 0.1}, {"target_modules": None}]
    own = find_target(str(adapters[1])).policy_id
    found = [
        find_target(str(copied(adapters[1], tmp_path / f"a{i}", **config))).policy_id
        for i, config in enumerate(changed)
    ]
    assert len({own, *found[:3]}) == 4
    assert found[3] == own


def test_a_model_whose_files_were_replaced_is_another_policy(tmp_path: Path) -> None:
    for file in Path(local_path(MODEL)).iterdir():
        shutil.copy(file, tmp_path)
    before = find_target(str(tmp_path)).policy_id
    assert find_target(str(tmp_path)).policy_id == before
    with (tmp_path / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x01")
    assert find_target(str(tmp_path)).policy_id != before


def test_a_checkpoint_changed_after_it_was_written_is_refused(
    tmp_path: Path, suite: Path, adapters: tuple[Path, Path, Any]
) -> None:
    run = make_run(tmp_path, adapters[1], suite)
    file = run.path / "checkpoints/step_000007/adapter_config.json"
    file.write_text(file.read_text().replace('"lora_alpha": 2', '"lora_alpha": 3'))
    with pytest.raises(ModelError, match=r"adapter_config\.json: was changed"):
        find_target(str(run.path))


@pytest.mark.parametrize(
    "config",
    [{"r": 0}, {"r": -3}, {"lora_alpha": 0}, {"lora_alpha": float("nan")}, {"peft_type": "IA3"},
     {"r": 1e400}, {"r": [2]}],
)  # fmt: skip
def test_configurations_of_no_lora_adapter_are_refused(
    tmp_path: Path, adapters: tuple[Path, Path, Any], config: dict[str, object]
) -> None:
    with pytest.raises(ModelError, match="not the configuration of a LoRA adapter"):
        find_target(str(copied(adapters[1], tmp_path / "odd", **config)))


def test_an_adapter_that_cannot_be_applied_as_a_whole_is_refused(
    tmp_path: Path, adapters: tuple[Path, Path, Any]
) -> None:
    recipe = load_recipe("quickstart").recipe
    dora = copied(adapters[1], tmp_path / "dora", use_dora=True)
    with pytest.raises(ModelError, match=r"lacks 28 of the tensors .*lora_magnitude_vector"):
        PlainEngine.open(recipe, dora)
    with pytest.raises(ModelError, match="does not fit the model: size mismatch for"):
        PlainEngine.open(recipe, copied(adapters[1], tmp_path / "rank", r=8))
    renamed = copied(adapters[1], tmp_path / "renamed") / "adapter_model.safetensors"
    weights = load_file(renamed)
    foreign = {name.replace("layers.0", "layers.77"): t.clone() for name, t in weights.items()}
    save_file(foreign, renamed)
    with pytest.raises(ModelError, match=r"lacks 14 of the tensors .*layers\.0"):
        PlainEngine.open(recipe, renamed.parent)
    save_file(foreign | weights, renamed)
    with pytest.raises(ModelError, match=r"14 of its tensors belong to no layer .*layers\.77"):
        PlainEngine.open(recipe, renamed.parent)
    save_file({name: t * float("nan") for name, t in weights.items()}, renamed)
    with pytest.raises(ModelError, match="not numbers"):
        prove_applied(PlainEngine.open(recipe, renamed.parent), [[1, 2, 3]])


def test_an_adapter_of_another_model_is_refused(
    tmp_path: Path, suite: Path, adapters: tuple[Path, Path, Any]
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(adapters[1], wrong)
    config = json.loads((wrong / "adapter_config.json").read_text())
    (wrong / "adapter_config.json").write_text(json.dumps(config | {"r": 4}))
    target = find_target(str(wrong))
    with pytest.raises(ModelError, match="does not fit"):
        evaluate_target(target, suite_specs(target.recipe, [str(suite)], samples=1), tmp_path)
    (wrong / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "someone/else"})
    )
    with pytest.raises(ModelError, match="trained on someone/else"):
        find_target(str(wrong), "quickstart")


def test_a_half_written_checkpoint_is_refused(
    tmp_path: Path, suite: Path, adapters: tuple[Path, Path, Any]
) -> None:
    run = make_run(tmp_path, adapters[1], suite)
    checkpoint = run.path / "checkpoints/step_000007"
    with (checkpoint / "adapter_model.safetensors").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ModelError, match="not a complete checkpoint"):
        find_target(str(checkpoint))
    with pytest.raises(RunDirError, match="no complete checkpoint"):
        find_target(str(run.path))
    shutil.copytree(checkpoint, tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="not a complete checkpoint"):
        find_target(str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere" / CHECKPOINT_MANIFEST).unlink()
    target = find_target(str(tmp_path / "elsewhere"))
    with pytest.raises(ModelError, match=r"adapter .* damaged or cut off"):
        evaluate_target(target, suite_specs(target.recipe, [str(suite)], samples=1), tmp_path)


def test_a_lost_checkpoint_is_named_and_the_one_in_its_place_too(
    tmp_path: Path,
    suite: Path,
    adapters: tuple[Path, Path, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(tmp_path, adapters[1], suite)
    with run.writer(lambda: {"elapsed_s": 1.0, "spent_usd": None, "attempt": 1}) as writer:
        for step in (7, 9):
            path = f"checkpoints/step_{step:06d}"
            writer.write(Checkpoint(step=step, path=path, seconds=0.1))
    command = ["eval", str(run.path), "--samples", "1", "--max-tokens", "48"]
    assert main([*command, "--hours", "0.001s"]) == 3  # no number, and nothing lost
    assert "not one round is complete yet; the same command continues" in capsys.readouterr().out
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "the checkpoint of update 9 is damaged or gone" in shown.err
    assert "after 7 updates: 8 problems x 1 samples" in shown.out


def test_the_exported_adapter_stands_in_for_lost_checkpoints(
    tmp_path: Path, suite: Path, adapters: tuple[Path, Path, Any]
) -> None:
    run = make_run(tmp_path, adapters[1], suite)
    exported = copied(adapters[1], run.path / "adapter", revision="main")
    assert find_target(str(exported)).policy_id == find_target(str(run.path)).policy_id
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(RunDirError, match="takes its exported adapter"):
        find_target(str(run.path))
    target = find_target(str(exported))
    assert target.adapter == exported
    assert target.run is not None and target.run.path == run.path


def test_prompts_and_completions_that_do_not_fit_are_refused(tmp_path: Path, suite: Path) -> None:
    """The quickstart model has a window of 256; its recipe trains on prompts of up to 64."""
    bare = find_target(MODEL)
    with pytest.raises(UsageError, match=r"a prompt has \d+ tokens; .*--max-tokens \d+ fits"):
        evaluate_target(bare, suite_specs(bare.recipe, [str(suite)], max_tokens=256), tmp_path)
    fitting = suite_specs(bare.recipe, [str(suite)], max_tokens=48, samples=1)
    assert evaluate_target(bare, fitting, tmp_path)[0].result is not None
    long = tmp_path / "long.jsonl"
    problem = f"Compute {'1+' * 50}1."
    long.write_text(json.dumps({"id": "l", "problem": problem, "answer": "51"}))
    target = find_target(MODEL, "quickstart")
    with pytest.raises(
        DataError, match=r"suite long: a prompt has \d+ tokens, more than"
    ) as caught:
        evaluate_target(target, suite_specs(target.recipe, [str(long)], max_tokens=16), tmp_path)
    fits = re.search(r"--max-tokens (\d+) or more fits", caught.value.hint)
    assert fits is not None
    enough = suite_specs(target.recipe, [str(long)], max_tokens=int(fits[1]), samples=1)
    remarks: list[str] = []
    (found,) = evaluate_target(target, enough, tmp_path, on_remark=remarks.append)
    assert found.result is not None, "longer than prompt.max_tokens, with a quarter left"
    assert len(remarks) == 1 and "prompts of up to" in remarks[0]


def test_results_that_cannot_be_written_are_refused_before_the_model_is_loaded(
    tmp_path: Path, suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    arguments = ["eval", MODEL, "--recipe", "quickstart", "--suite", str(suite), "--samples", "1"]
    arguments += ["--max-tokens", "16", "--json", "--out"]
    assert main([*arguments, str(tmp_path / "file")]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["type"] == "RunDirError"
    assert main([*arguments, str(tmp_path / "out")]) == 0
    file = Path(json.loads(capsys.readouterr().out)[0]["completions_file"])
    file.unlink()
    file.mkdir()
    assert main([*arguments, str(tmp_path / "out")]) == 2
    assert "a folder has its name" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_run_of_another_version_is_named(
    tmp_path: Path, suite: Path, adapters: tuple[Path, Path, Any]
) -> None:
    run = make_run(tmp_path, adapters[1], suite)
    run.write_json(RESOLVED, {"recipe": {"tables": "of the future"}, "sources": {}})
    with pytest.raises(RunDirError, match="another version"):
        find_target(str(run.path))


def test_a_misspelt_run_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = RunDir.create(tmp_path / "runs", "quickstart").name
    (tmp_path / "runs" / name / RESOLVED).write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirError, match="no run directory 'runs/quick") as caught:
        find_target(f"runs/{name[:-1]}")
    assert f"Did you mean runs/{name}?" in caught.value.hint
    with pytest.raises(RunDirError, match="no run directory 'quick") as caught:
        open_run(name)
    assert f"Did you mean runs/{name}?" in caught.value.hint


def test_unknown_targets_and_suites_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such target"):
        find_target("no/such/place")
    with pytest.raises(UsageError, match="holds no run"):
        find_target(str(tmp_path))
    recipe = load_recipe("quickstart").recipe
    with pytest.raises(UsageError, match="Did you mean math500"):
        suite_specs(recipe, ["math50"])
    with pytest.raises(UsageError, match="k = 8 needs"):
        suite_specs(recipe, ["heldout"], samples=4, ks=[8])
    with pytest.raises(UsageError, match="no suite is given"):
        suite_specs(find_target(MODEL).recipe, [])


def test_empty_suites_and_repeated_ids_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, twice, unparsable = (tmp_path / f"{name}.jsonl" for name in ("empty", "twice", "bad"))
    empty.write_text("")
    row = '{"id": "a", "problem": "%s", "answer": "%s"}\n'
    twice.write_text(row % ("1+1?", 2) + row % ("1+2?", 3))
    unparsable.write_text(row % ("1+1?", ""))
    for file, message in (
        (empty, "no problems"),
        (twice, "occurs before"),
        (unparsable, "bad.jsonl:1"),
    ):
        assert main(["eval", MODEL, "--suite", str(file), "--out", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
