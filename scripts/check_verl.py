"""Hold exports against verl 0.9.1: run it by scripts/check_verl.sh, in verl's environment.

For every recipe of the paper, alone and under the overlays `dapo` and `dr_grpo`: what run.sh hands
to verl is composed by Hydra, has no unknown key, passes verl's own checks, and says what the recipe
says, by a table of its own here (the export's is not asked). Then verl's data set reads the rows,
its tokens are ours, and its reward loader grades a thousand completions as `budgetrl grade` does.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
MODELS = ("deepscaler", "llama3.2", "qwen2.5_instruct", "qwen2.5_math", "qwen3")
RANKS = (8, 64, 256)
OVERLAYS = (None, "dapo", "dr_grpo")
FREE = ("data.apply_chat_template_kwargs", "actor_rollout_ref.rollout.engine_kwargs.vllm")
"""Tables whose keys are the user's."""
A = "actor_rollout_ref.actor."
R = "actor_rollout_ref.rollout."
M = "actor_rollout_ref.model."


def expected(recipe: Any, gpus: int) -> dict[str, Any]:
    """What verl's effective configuration has to say, from the recipe alone."""
    grpo, schedule, optimizer, sampling = (
        recipe.grpo,
        recipe.schedule,
        recipe.optimizer,
        recipe.sampling,
    )
    first = next(spec for spec in recipe.eval if spec.every_steps)
    return {
        M + "path": recipe.model.id,
        M + "lora_rank": recipe.lora.rank,
        M + "lora_alpha": recipe.lora.scale * recipe.lora.rank,
        M + "target_modules": "all-linear",
        M + "lora_adapter_path": None,
        A + "fsdp_config.model_dtype": "fp32",
        A + "fsdp_config.mixed_precision.param_dtype": "bf16",
        R + "dtype": "bfloat16",
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": grpo.scale_rewards == "group",
        "algorithm.use_kl_in_reward": False,
        "algorithm.filter_groups.enable": False,
        R + "n": grpo.num_generations,
        "data.train_batch_size": recipe.batch.prompts_per_step,
        A + "ppo_mini_batch_size": recipe.batch.prompts_per_step
        // recipe.batch.updates_per_rollout,
        A + "ppo_micro_batch_size_per_gpu": recipe.batch.micro_batch,
        R + "log_prob_micro_batch_size_per_gpu": recipe.batch.micro_batch,
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu": recipe.batch.micro_batch,
        A + "use_dynamic_bsz": False,
        A + "ppo_epochs": grpo.num_iterations,
        A + "clip_ratio": grpo.epsilon,
        A + "clip_ratio_low": grpo.epsilon,
        A + "clip_ratio_high": grpo.epsilon_high,
        A + "loss_agg_mode": {"dapo": "token-mean", "dr_grpo": "seq-mean-token-sum-norm"}[
            grpo.loss_type
        ],
        A + "loss_scale_factor": sampling.max_tokens if grpo.loss_type == "dr_grpo" else None,
        A + "use_kl_loss": grpo.beta > 0,
        A + "kl_loss_coef": grpo.beta,
        A + "kl_loss_type": "low_var_kl",
        A + "entropy_coeff": 0,
        A + "optim.lr": schedule.learning_rate,
        A + "optim.lr_scheduler_type": schedule.shape,
        A + "optim.lr_warmup_steps_ratio": schedule.warmup_share,
        A + "optim.weight_decay": optimizer.weight_decay,
        A + "optim.betas": [optimizer.beta1, optimizer.beta2],
        A + "optim.override_optimizer_config.eps": optimizer.epsilon,
        A + "optim.optimizer": "AdamW",
        A + "optim.clip_grad": optimizer.max_grad_norm,
        "data.max_prompt_length": recipe.prompt.max_tokens,
        "data.max_response_length": sampling.max_tokens,
        R + "prompt_length": recipe.prompt.max_tokens,
        R + "response_length": sampling.max_tokens,
        "data.filter_overlong_prompts": True,
        "data.apply_chat_template_kwargs": dict(recipe.prompt.template_kwargs),
        R + "temperature": sampling.temperature,
        R + "top_p": sampling.top_p,
        R + "top_k": sampling.top_k or -1,
        R + "val_kwargs.temperature": first.temperature,
        R + "val_kwargs.top_p": first.top_p,
        R + "val_kwargs.n": first.samples,
        R + "name": "vllm",
        R + "load_format": "safetensors",
        R + "tensor_model_parallel_size": 1,
        R + "enable_chunked_prefill": recipe.engine.chunked_prefill,
        R + "enable_prefix_caching": recipe.engine.prefix_caching,
        R + "max_num_seqs": recipe.engine.max_num_seqs,
        R + "free_cache_engine": recipe.engine.standby,
        M + "enable_gradient_checkpointing": recipe.engine.gradient_checkpointing,
        "trainer.total_training_steps": schedule.stop_after_steps,
        "trainer.test_freq": first.every_steps,
        "trainer.val_before_train": True,
        "trainer.n_gpus_per_node": min(gpus, 8),
        "trainer.nnodes": -(-gpus // 8),
        "trainer.logger": ["console"],
        "reward.custom_reward_function.name": "compute_score",
        "reward.reward_manager.name": "naive",
        "reward.reward_model.enable": False,
        "critic.enable": None,
        "data.seed": recipe.seed,
    }


def export(arguments: list[str]) -> dict[str, Any]:
    """`budgetrl export .. --json`, in this process."""
    from budgetrl.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main(["export", *arguments, "--json"])
    found: dict[str, Any] = json.loads(out.getvalue())
    assert code == 0, found
    return found


def handed_over(folder: Path, more: tuple[str, ...] = ()) -> list[str]:
    """What run.sh gives to verl.trainer.main_ppo, by a `python` that only writes it down."""
    with tempfile.TemporaryDirectory() as place:
        python = Path(place) / "python"
        python.write_text(
            '#!/usr/bin/env bash\n[ "${1:-}" = -m ] && [ "$2" = verl.trainer.main_ppo ] || exit 0\n'
            f'shift 2\nprintf "%s\\n" "$@" > "{place}/arguments"\n'
        )
        python.chmod(0o755)
        environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}
        subprocess.run(["bash", str(folder / "run.sh"), *more], check=True, env=environment)
        return (Path(place) / "arguments").read_text().splitlines()


def composed(folder: Path) -> Any:
    """The configuration that verl gets."""
    from hydra import compose, initialize_config_dir

    given = handed_over(folder)
    assert given[:4] == ["--config-path", str(folder), "--config-name", "verl"], given
    with initialize_config_dir(str(folder), version_base=None):
        return compose("verl", given[4:])


def bare() -> Any:
    """verl's own configuration."""
    import verl.trainer.config
    from hydra import compose, initialize_config_dir

    place = str(Path(verl.trainer.config.__file__).parent)
    with initialize_config_dir(place, version_base=None):
        return compose("ppo_trainer", ["actor_rollout_ref.rollout.name=vllm"])


def unknown_keys(folder: Path, base: Any) -> list[str]:
    """Keys of verl.yaml that verl's configuration has not, nor the class that it becomes."""
    import yaml
    from omegaconf import DictConfig, OmegaConf

    written = yaml.safe_load((folder / "verl.yaml").read_text())
    del written["defaults"], written["hydra"]

    def walk(tree: Mapping[str, Any], node: Any, path: str) -> Iterator[str]:
        for key, value in tree.items():
            here = f"{path}{key}"
            if not OmegaConf.is_missing(node, key) and key not in node:
                if key not in fields_of(node) and path.rstrip(".") not in FREE:
                    yield here
            elif isinstance(value, dict) and here not in FREE and isinstance(node[key], DictConfig):
                yield from walk(value, node[key], f"{here}.")

    return list(walk(written, base, ""))


def fields_of(node: Any) -> set[str]:
    """Fields of the dataclass that a table becomes."""
    from dataclasses import fields

    from hydra.utils import get_class

    target = node.get("_target_")
    return {field.name for field in fields(get_class(target))} if target else set()


def differing(config: Any, wanted: Mapping[str, Any]) -> list[str]:
    """Effective values that are not the recipe's."""
    from omegaconf import OmegaConf

    found = []
    for key, value in wanted.items():
        held = OmegaConf.select(config, key)
        held = OmegaConf.to_container(held) if OmegaConf.is_config(held) else held
        if held != value or isinstance(held, str) != isinstance(value, str):
            found.append(f"{key}: {held!r}, the recipe says {value!r}")
    return found


def verl_checks(config: Any, use_reference_policy: bool) -> None:
    """verl's own look at a configuration; its last question is to vLLM, which is not here."""
    from verl.utils.config import validate_config

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            validate_config(config, use_reference_policy=use_reference_policy, use_critic=False)
    except ValueError as error:
        if "vllm version None" not in str(error):
            raise


def check_recipes(place: Path, data: Path) -> dict[str, int]:
    """All paper recipes under all overlays."""

    from budgetrl.recipe.load import load_recipe

    base, counts = bare(), {"exports": 0, "unknown": 0, "differing": 0, "values": 0}
    for model in MODELS:
        for rank in RANKS:
            for overlay in OVERLAYS:
                name = f"{model}_r{rank}"
                file = place / f"{name}_{overlay}.toml"
                extended = [name] if overlay is None else [name, f"overlays/{overlay}"]
                file.write_text(
                    f'[recipe]\nname = "{file.stem}"\nextends = {json.dumps(extended)}\n'
                )
                sets = ["--set", f"data.path={data}", "--set", "data.limit=64"]
                out = place / file.stem
                export([str(file), "--to", "verl", "--out", str(out), *sets])
                recipe = load_recipe(str(file), sets[1::2]).recipe
                config = composed(out)
                wanted = expected(recipe, 1)
                wanted[R + "engine_kwargs.vllm.generation_config"] = (
                    str(out / "generation") if recipe.sampling.stop else None
                )
                unknown, other = unknown_keys(out, base), differing(config, wanted)
                verl_checks(config, use_reference_policy=recipe.grpo.beta > 0)
                for line in (*unknown, *other):
                    print(f"{file.stem}: {line}")
                counts["exports"] += 1
                counts["unknown"] += len(unknown)
                counts["differing"] += len(other)
                counts["values"] += len(wanted)
    return counts


def check_rows(place: Path, data: Path) -> dict[str, dict[str, int]]:
    """verl's data set reads the rows, and its prompts are ours, token for token.

    Of the model that ships, and under the paper's prompt of the real tokenizers in the folder
    BUDGETRL_REAL_MODELS (scripts/real_models.sh), where it is set.
    """
    export(["quickstart", "--to", "verl", "--out", str(place / "rows")])
    found = {"quickstart": equal_prompts(place / "rows")}
    real = os.environ.get("BUDGETRL_REAL_MODELS")
    for folder in sorted(Path(real).iterdir()) if real else ():
        if "chat_template" in " ".join(file.read_text() for file in folder.glob("tok*config.json")):
            out = place / f"rows_{folder.name}"
            sets = [f"data.path={data}", "data.limit=300", f"model.id={folder}"]
            more = [part for one in sets for part in ("--set", one)]
            recipe = "llama3.2_r64" if folder.name.startswith("llama") else "deepscaler_r64"
            export([recipe, "--to", "verl", "--out", str(out), *more])
            found[folder.name] = equal_prompts(out)
    return found


def equal_prompts(folder: Path) -> dict[str, int]:
    """How many rows verl's data set keeps, and of how many the prompt is what ours would be."""
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from budgetrl.data.prompts import PromptRenderer
    from budgetrl.export.rows import read_recipe
    from budgetrl.types import Problem

    config, recipe = composed(folder), read_recipe(folder)
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    with contextlib.redirect_stdout(io.StringIO()):
        found = RLHFDataset([config.data.train_files], tokenizer, config.data)
    renderer, same = PromptRenderer(tokenizer, recipe.prompt), 0
    for row in found.dataframe:
        ids = tokenizer.apply_chat_template(
            row["prompt"],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            **config.data.apply_chat_template_kwargs,
        )
        extra = row["extra_info"]
        problem = Problem(extra["id"], extra["problem"], row["reward_model"]["ground_truth"])
        same += tuple(ids) == renderer.ids(problem)
    missing = {"raw_prompt", "data_source", "reward_model", "extra_info"} - set(found[0])
    assert not missing, missing
    return {"rows": len(found), "equal_prompts": same}


def check_reward(place: Path, graded: Path) -> dict[str, Any]:
    """verl's loader, in threads as its reward loop calls it, against `budgetrl grade`."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    rows = [json.loads(line) for line in graded.read_text().splitlines()][:1000]
    file = place / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [str(ROOT / ".venv" / "bin" / "budgetrl"), "grade", str(file), "--json"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ours = json.loads(
        subprocess.run(command, capture_output=True, check=False, env=environment).stdout
    )["rows"]
    score = get_custom_reward_fn(composed(place / "rows"))
    assert score is not None
    started = time.monotonic()

    def one(row: Mapping[str, Any]) -> float | None:
        given = {"data_source": "train", "ground_truth": row["gold"], "extra_info": {}}
        try:
            return float(score(solution_str=row["completion"], **given)["acc"])
        except Exception as error:  # what verl would end with
            return None if type(error).__name__ == "RewardError" else float("nan")

    with ThreadPoolExecutor(8) as threads:
        theirs = list(threads.map(one, rows))
    wanted = [
        None if row["verdict"] == "error" else float(row["verdict"] == "correct") for row in ours
    ]
    differ = [i for i, pair in enumerate(zip(theirs, wanted, strict=True)) if pair[0] != pair[1]]
    for index in differ[:10]:
        print(f"row {index}: {theirs[index]}, budgetrl grade says {ours[index]['verdict']}")
    return {
        "rows": len(rows),
        "differ": len(differ),
        "timeouts": sum(row["verdict"] == "timeout" for row in ours),
        "seconds": round(time.monotonic() - started, 1),
    }


def check_merger(place: Path) -> dict[str, Any]:
    """What verl's merger makes of an actor's folder evaluates here as the adapter that went in."""
    import peft
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from budgetrl.evaluation.target import find_target

    base = ROOT / "budgetrl" / "assets" / "tiny" / "quickstart"
    actor, merged = place / "global_step_3" / "actor", place / "merged"
    (actor / "huggingface").mkdir(parents=True)
    torch.manual_seed(1)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.get_base_model().config.save_pretrained(actor / "huggingface")
    AutoTokenizer.from_pretrained(base).save_pretrained(actor / "huggingface")
    torch.save(model.state_dict(), actor / "model_world_size_1_rank_0.pt")
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 1, "world_size": 1}))
    meta = {"r": 8, "lora_alpha": 16, "task_type": "CAUSAL_LM"}
    (actor / "lora_train_meta.json").write_text(json.dumps(meta))
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp"]
    command += ["--local_dir", str(actor), "--target_dir", str(merged)]
    subprocess.run(command, check=True, capture_output=True)
    target = find_target(str(merged))
    assert target.adapter is not None
    held = load_file(str(target.adapter / "adapter_model.safetensors"))
    asked = peft.get_peft_model_state_dict(model)
    gap = max(float((held[key].float() - asked[key]).abs().max()) for key in asked)
    ours = [str(ROOT / ".venv" / "bin" / "budgetrl"), "eval", str(merged), "--recipe", "quickstart"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ours += ["--samples", "1", "--json", "--out", str(place / "evals")]
    done = subprocess.run(ours, capture_output=True, text=True, check=False, env=environment)
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    return {
        "adapter": found[0]["adapter"][-20:],
        "largest_gap": gap,
        "pass_at": found[0]["pass_at"],
    }


def thousand_rows(place: Path) -> Path:
    """Published completions with their golds, hostile ones, and dressed right and wrong answers."""
    rows: list[dict[str, str]] = []
    for name in ("grader_cases.jsonl", "real_output_cases.jsonl"):
        for line in (SHARED / "grader" / name).read_text().splitlines():
            row = json.loads(line)
            text = str(row.get("response", row.get("completion", "")))
            boxed = text if "boxed" in text else f"\\boxed{{{text}}}"
            rows.append({"completion": boxed, "gold": str(row.get("gold", row.get("answer")))})
    for power in ("9^{9^{9^{9}}}", "(10^{10})!", "2^{3^{4^{5^{6}}}}"):
        rows.append({"completion": f"\\boxed{{{power}}}", "gold": "\\sqrt{2}"})
    train = (SHARED / "train" / "openrs_substitute_7000.jsonl").read_text().splitlines()
    for number, line in enumerate(train[: 1000 - len(rows)]):
        answer = str(json.loads(line)["answer"])
        shown = answer if number % 2 else f"{answer} + 1"
        rows.append({"completion": f"So it is \\boxed{{{shown}}}.", "gold": answer})
    file = place / "thousand.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def main() -> int:
    """Exit code 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "train/openrs_substitute_7000.jsonl")
    parser.add_argument("--grade", type=Path, help="JSONL with completion and gold")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        recipes = check_recipes(place, asked.data)
        print(json.dumps({"recipes": recipes}), flush=True)
        rows = check_rows(place, asked.data)
        print(json.dumps({"rows": rows}), flush=True)
        reward = check_reward(place, asked.grade or thousand_rows(place))
        print(json.dumps({"reward": reward}), flush=True)
        print(json.dumps({"merger": check_merger(place)}), flush=True)
    good = not (recipes["unknown"] or recipes["differing"] or reward["differ"])
    good &= all(row["rows"] == row["equal_prompts"] > 0 for row in rows.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
