"""Problems as rows that verl and TRL read: messages, the gold answer, and where they come from.

    write_rows(recipe, folder)       train.parquet and one file per suite, where they are missing
    prepare(folder)                  the same from an exported folder, where the training runs

Copies of evaluation problems are left out of the training rows, as in a run. Lengths are filtered
where the tokenizer is: by verl, or by `prepare` for TRL.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from budgetrl.data.overlap import find_overlap
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import load_problems, load_suite
from budgetrl.errors import DataError
from budgetrl.export.keys import GENERATION
from budgetrl.files import write_atomic, write_json
from budgetrl.masking import masked_tree
from budgetrl.recipe.schema import Eval, Recipe
from budgetrl.recipe.suites import SUITES
from budgetrl.rewards.pool import GradingPool
from budgetrl.types import Problem

RECIPE = "recipe.json"
"""The resolved recipe, in an exported folder."""
TRAIN = "train.parquet"
Say = Callable[[str], None]


def is_local(recipe: Recipe) -> bool:
    """Whether every row lies on this disk, so that no hub has to be asked."""
    return recipe.data.path is not None and all(_is_here(spec) for spec in recipe.eval)


def file_of(spec: Eval) -> str:
    """The name of a suite's file."""
    return f"{spec.suite}.parquet"


def write_rows(recipe: Recipe, folder: Path, tokenizer: Any = None) -> list[str]:
    """Write the files of rows that a folder has not, and leave out what a suite holds too.

    Args:
        recipe: says which data, which suites and which prompt.
        folder: gets the files.
        tokenizer: to leave out prompts that are too long; None: whoever trains does that.

    Returns:
        Remarks on what was left out.

    Raises:
        DataError: unusable rows, or none left.
        HubError: a data set cannot be had.
    """
    with GradingPool(workers=1) as pool:
        check = pool.gold_problems
        train = _read(folder / TRAIN) if (folder / TRAIN).exists() else None
        problems = train or list(load_problems(recipe.data, check).problems)
        suites = {
            spec.suite: _read(folder / file_of(spec))
            if (folder / file_of(spec)).exists()
            else list(load_suite(spec, check).problems)
            for spec in recipe.eval
        }
    overlap = find_overlap(problems, suites).exact
    kept = [problem for problem in problems if problem.id not in overlap]
    fitting = kept if tokenizer is None else _fitting(kept, recipe, tokenizer)
    if not fitting:
        raise DataError(
            f"{recipe.data.path or recipe.data.id}: no problem is left to train on: {len(overlap)} "
            f"of {len(problems)} also stand in a suite, {len(kept)} have a prompt of more than "
            f"{recipe.prompt.max_tokens} tokens.",
            hint="Give other data, or raise prompt.max_tokens.",
        )
    write_problems(folder / TRAIN, fitting, recipe, "train")
    for spec in recipe.eval:
        write_problems(folder / file_of(spec), suites[spec.suite], recipe, spec.suite)
    counted = {"stand in a suite": len(overlap), "have a longer prompt": len(kept) - len(fitting)}
    return [f"{count} training rows {what}: left out" for what, count in counted.items() if count]


def write_train(recipe: Recipe, file: Path) -> None:
    """Write the training rows alone.

    Raises:
        DataError: unusable rows.
    """
    with GradingPool(workers=1) as pool:
        problems = load_problems(recipe.data, pool.gold_problems).problems
    write_problems(file, problems, recipe, "train")


def write_problems(file: Path, problems: Sequence[Problem], recipe: Recipe, source: str) -> None:
    """Problems in verl's schema, which TRL reads too: it takes `prompt` and hands on the rest.

    Raises:
        DataError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            "Parquet files need pyarrow, which is not installed.",
            hint="Install budgetrl[train], or pyarrow.",
        ) from None
    rows = list(_rows(problems, recipe, source))
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    write_atomic(file, sink.getvalue().to_pybytes())


def read_recipe(folder: Path) -> Recipe:
    """The recipe of an exported folder."""
    return Recipe.model_validate_json((folder / RECIPE).read_text(encoding="utf-8"))


def prepare(folder: Path, *, with_lengths: bool, say: Say = print) -> None:
    """Write the rows of an exported folder, where its training will run.

    Args:
        folder: of `budgetrl export`.
        with_lengths: leave out prompts that are too long, by the model's tokenizer.
        say: takes remarks.
    """
    recipe = read_recipe(folder)
    tokenizer = None
    if with_lengths or recipe.sampling.stop:
        from budgetrl.display.progress import downloads
        from budgetrl.engine.folder import model_folder
        from budgetrl.engine.tokenizer import load_tokenizer

        with downloads() as follow:
            source = model_folder(recipe, follow)
        tokenizer = load_tokenizer(source, recipe)
        if recipe.sampling.stop:
            _write_ends(recipe, source, tokenizer, folder / GENERATION)
    for remark in write_rows(recipe, folder, tokenizer if with_lengths else None):
        say(remark)


def _write_ends(recipe: Recipe, source: str, tokenizer: Any, folder: Path) -> None:
    """The model's end tokens and those of sampling.stop, where vLLM looks for such."""
    from transformers import AutoConfig

    from budgetrl.engine.ends import GENERATION_FILE, end_ids, only_ends

    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    model = SimpleNamespace(generation_config=only_ends(source, config))
    ends = sorted(end_ids(model, tokenizer, recipe))
    folder.mkdir(exist_ok=True)
    write_json(folder / GENERATION_FILE, {"eos_token_id": ends})


def _rows(problems: Sequence[Problem], recipe: Recipe, source: str) -> Iterator[Mapping[str, Any]]:
    for index, problem in enumerate(problems):
        yield {
            "data_source": source,
            "prompt": recipe.prompt.conversation(problem.text),
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            # Every row has the same keys: verl turns one that is missing in a row into None.
            "extra_info": {
                "index": index,
                "split": source,
                "id": problem.id,
                "problem": problem.text,
            },
            "answer": problem.answer,
        }


def _read(file: Path) -> list[Problem]:
    """The problems of a file that was written here."""
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
    return [
        Problem(
            id=row["extra_info"]["id"],
            text=row["extra_info"]["problem"],
            answer=row["reward_model"]["ground_truth"],
        )
        for row in rows
    ]


def _fitting(problems: Sequence[Problem], recipe: Recipe, tokenizer: Any) -> list[Problem]:
    renderer, limit = PromptRenderer(tokenizer, recipe.prompt), recipe.prompt.max_tokens
    return [problem for problem in problems if len(renderer.ids(problem)) <= limit]


def _is_here(spec: Eval) -> bool:
    return spec.path is not None or (spec.id is None and spec.suite not in SUITES)


def dump_recipe(recipe: Recipe) -> str:
    """A resolved recipe as JSON text, to be passed on: without secrets."""
    document = masked_tree(recipe.model_dump(mode="json"), str)  # prompts stay word by word
    document["tracker"] = masked_tree(document["tracker"])
    for reward in document["rewards"]:
        reward["parameters"] = masked_tree(reward["parameters"])
    return json.dumps(document, indent=1) + "\n"
