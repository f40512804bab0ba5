"""What can be known of a recipe before anything is paid: its files, golds, rewards and layers.

No tokenizer and no torch: the rest the worker checks before its first evaluation.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from budgetrl.data.demonstrations import read_examples
from budgetrl.data.difficulty import solve_rates
from budgetrl.data.rows import LoadedProblems, load_problems, load_suite
from budgetrl.errors import ModelError, RecipeError
from budgetrl.estimation.shapes import find_shape
from budgetrl.evaluation.fingerprints import reward_files
from budgetrl.evaluation.start import check_start
from budgetrl.evaluation.teaching import check_teacher
from budgetrl.hub.layout import gguf_hint, has_tokenizer
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Recipe, Stage, StageKind
from budgetrl.recipe.targets import check_targets
from budgetrl.recipe.window import check_window, window_of
from budgetrl.rewards.own import try_once
from budgetrl.rewards.pool import GradingPool
from budgetrl.rewards.registry import refuse_code


def refuse_threads(recipe: Recipe) -> None:
    """More threads than cores only wait for one another.

    Raises:
        RecipeError: engine.threads is above the cores of this machine.
    """
    cores, threads = os.cpu_count(), recipe.engine.threads
    if recipe.engine.device == "cpu" and cores and threads and threads > cores:
        raise RecipeError(
            f"engine.threads = {threads} is above the {cores} cores of this machine.",
            hint='Set engine.threads = "auto", or a number up to that.',
        )


def check_local_files(recipe: Recipe, rewards: Mapping[str, str] | None = None) -> None:
    """Local models and problem files must be there and readable.

    Args:
        recipe: names them.
        rewards: where the user's own rewards were found before.

    Raises:
        ModelError, DataError: what is wrong with which file.
        RecipeError: completions beyond the model's window, or a reward that is not there.
    """
    folder = _model_folder("model", recipe.model.id)
    if folder is not None:
        check_window(recipe, window_of(folder / "config.json"))
    check_start(recipe)
    if recipe.teacher is not None and not recipe.teacher.is_self:
        _model_folder("teacher", recipe.teacher.id)
    check_teacher(recipe)
    reward_files(recipe, rewards)
    solve_rates(recipe.signal)
    if recipe.data.path is not None:
        load_problems(recipe.data, _empty)
    for stage, part in zip(recipe.stages, recipe.parts if recipe.stages else (), strict=True):
        _check_stage_files(stage, part)
    for spec in recipe.eval:
        if spec.path is not None:
            load_suite(spec, _empty)


def _model_folder(table: str, model: str) -> Path | None:
    """The folder of a local model, which has what a model needs; None for one of the hub."""
    source = local_path(model)
    if not source.startswith("/"):
        return None
    folder = Path(source)
    if not (folder / "config.json").is_file():
        held = [path.name for path in folder.iterdir()] if folder.is_dir() else [folder.name]
        raise ModelError(
            f"{table} {source}: no such model folder (it needs config.json).",
            hint=gguf_hint(held) or f"Check {table}.id: a hub id, a folder, or asset:NAME.",
        )
    if not has_tokenizer(path.name for path in folder.iterdir()):
        raise ModelError(
            f"{table} {source}: has no tokenizer.",
            hint="A model folder needs tokenizer.json and tokenizer_config.json.",
        )
    return folder


def _check_stage_files(stage: Stage, part: Recipe) -> None:
    """What a stage learns from must be there and usable."""
    solve_rates(part.signal)
    if part.data.path is None:
        return
    if stage.kind is StageKind.SFT and part.sft.source == "data":
        read_examples(part)
    else:
        load_problems(part.data, _empty)


def try_own_rewards(recipe: Recipe, allow_code: bool) -> None:
    """Call each of the user's own rewards once, on a made-up answer to the first problem.

    Raises:
        RecipeError: it is not allowed, not there, or gives no number.
    """
    files = reward_files(recipe)
    gold = "1"
    if files and recipe.data.path is not None:
        gold = load_problems(recipe.data, _empty).problems[0].answer
    for spec in recipe.rewards:
        if spec.name in files:
            refuse_code(spec.name, allow_code)
            try_once(spec, Path(files[spec.name]), gold)


def check_golds(recipe: Recipe) -> LoadedProblems | None:
    """Read every gold answer of local files with the grader, as a run does before it trains.

    Returns:
        The training problems; None where they are not in a local file.

    Raises:
        DataError: golds that cannot be used: any of a suite, more than 5 % of the training data.
    """
    suites = [spec for spec in recipe.eval if spec.path is not None]
    if recipe.data.path is None and not suites:
        return None
    found = None
    with GradingPool() as pool:
        if recipe.data.path is not None:
            found = load_problems(recipe.data, pool.gold_problems)
        for spec in suites:
            load_suite(spec, pool.gold_problems)
    return found


def check_known_layers(recipe: Recipe) -> None:
    """LoRA targets must be in the model, as far as its configuration tells.

    Raises:
        RecipeError: one of them is not.
        HubError: the hub does not answer.
    """
    if recipe.lora.targets == "all-linear":
        return
    try:
        layers = find_shape(recipe.model.id, recipe.model.revision).layer_paths
    except ModelError:
        return  # another architecture, which the worker looks at
    if layers is not None:
        check_targets(recipe, layers)


def _empty(answers: Sequence[str]) -> list[str | None]:
    """What can be said of gold answers without the grader, which the worker asks."""
    return [None if answer.strip() else "it is empty" for answer in answers]
