"""The model card of a trained adapter: what it is, what came out, how to load it.

From the run directory alone. `supervise.export` puts it beside the adapter as README.md, in the
form that the hub reads.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from budgetrl.account.evaluated import EvaluatedRun
from budgetrl.account.run import mapping
from budgetrl.account.text import interval_text, points, readable, suite_name
from budgetrl.masking import shareable
from budgetrl.recipe.assets import PREFIX
from budgetrl.units import duration, percent, usd

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def model_card(run: EvaluatedRun, step: int, *, merged: bool = False) -> str:
    """Markdown with the hub's metadata on top.

    Args:
        run: a run that has ended.
        step: the update after which the adapter was saved.
        merged: the card of a whole model, instead of an adapter's.
    """
    joined = "merged into" if merged else "for"
    if mapping(run.tables.get("lora")).get("rank") == "full":
        joined = "of"
    parts = (
        _metadata(run, merged),
        f"# {_plain(run.name)}: {_adapter(run)} {joined} {_plain(run.model)}",
        _summary(run, step),
        *_results(run),
        *(_use_whole() if merged else _use(run)),
        *_making(run),
        "The licence of the base model applies to what is made with it; this card grants none.",
    )
    return shareable("\n\n".join(parts)) + "\n"


def base_revision(run: EvaluatedRun) -> str | None:
    """The commit of the base model; of an older run what its recipe or its engine says."""
    stated = mapping(run.tables.get("model")).get("revision")
    found = _commit(run, "model") or stated
    found = found or mapping(run.manifest.get("engine")).get("model_revision")
    return str(found) if found else None


def _commit(run: EvaluatedRun, key: str) -> str | None:
    """The commit that a repository of the hub was pinned to."""
    pinned = mapping(mapping(run.manifest.get("hub")).get(key)).get("commit")
    return str(pinned) if pinned else None


def _revision(run: EvaluatedRun, key: str) -> str:
    """A commit, and the branch or tag that it was found by."""
    stated = mapping(run.tables.get(key)).get("revision")
    commit = base_revision(run) if key == "model" else _commit(run, key)
    if commit is None or stated is None or stated == commit:
        return str(commit or stated or "not known")
    return f"{commit} ({stated})"


def _metadata(run: EvaluatedRun, merged: bool) -> str:
    data = mapping(run.tables.get("data")).get("id")
    library, relation = ("transformers", "finetune") if merged else ("peft", "adapter")
    fields: dict[str, Any] = {"library_name": library, "pipeline_tag": "text-generation"}
    if _HUB_ID.fullmatch(run.model):
        fields |= {"base_model": run.model, "base_model_relation": relation}
    if isinstance(data, str) and _HUB_ID.fullmatch(data):
        fields["datasets"] = [data]
    fields["tags"] = ["budgetrl", "grpo", "lora"]
    return "\n".join(["---", *(f"{key}: {json.dumps(fields[key])}" for key in fields), "---"])


def _adapter(run: EvaluatedRun) -> str:
    rank = mapping(run.tables.get("lora")).get("rank", "?")
    return "all weights" if rank == "full" else f"LoRA rank {rank}"


def _summary(run: EvaluatedRun, step: int) -> str:
    cost = duration(run.paid_s) + (f", {usd(run.paid_usd)}" if run.paid_usd else "")
    rewards = " + ".join(
        f"{reward.weight:g} {_plain(reward.name)}"
        for reward in (run.recipe.rewards if run.recipe else ())
    )
    return (
        f"Trained with GRPO and verifiable rewards ({rewards}) by budgetrl: the adapter after "
        f"{step} of {run.steps} updates, in a run of {cost} with both evaluations and the report."
    )


def _results(run: EvaluatedRun) -> Iterator[str]:
    finished = run.history.finished
    yield "## Results"
    if finished is None or not finished.final or not finished.difference:
        yield "This run has no final evaluation to compare with the start, so no gain is claimed."
        return
    rows = [
        "| suite | pass@k | before | after | difference in points (95 %) |",
        "|---|---|---|---|---|",
    ]
    for suite, by_k in run.recorded_differences().items():
        for k, found in by_k.items():
            before, after = (
                percent(scores[suite].pass_at.get(k) if suite in scores else None)
                for scores in (finished.baseline, finished.final)
            )
            interval = interval_text(found.interval_95, signed=True)
            rows.append(
                f"| {_plain(suite_name(suite))} | {k} | {before} | {after} "
                f"| {points(found.difference)} ({interval}) |"
            )
    yield "\n".join(rows)
    yield "\n".join(_protocol(run, suite) for suite in finished.difference)


def _protocol(run: EvaluatedRun, suite: str) -> str:
    found = run.evaluation("final", suite)
    if found is None:
        return f"- {_plain(suite_name(suite))}: how it was evaluated is not recorded."
    return (
        f"- {_plain(suite_name(suite))}: {found.problems} problems, {found.samples} "
        f"sample{'s' if found.samples > 1 else ''} each, "
        f"temperature {found.temperature:g}, top_p {found.top_p:g}, at most {found.max_tokens} "
        "tokens; the same problems and settings before and after."
    )


def _use(run: EvaluatedRun) -> Iterator[str]:
    rank = mapping(run.tables.get("lora")).get("rank", 0)
    model = _plain(run.model)
    yield "## Use\n\nIn these lines `adapter` is this folder."
    yield (
        "```python\nfrom peft import AutoPeftModelForCausalLM\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("adapter")\n```'
    )
    if run.model.startswith(PREFIX):
        yield "The base model ships with budgetrl; `base_model_name_or_path` says where it lay."
        return
    revision = base_revision(run)
    pinned = f" --revision {_plain(revision)}" if revision else ""
    yield (
        f"```bash\nvllm serve {model}{pinned} --enable-lora --max-lora-rank {rank} "
        "--lora-modules trained=adapter\n```"
    )
    yield (
        "```python\nfrom unsloth import FastLanguageModel\n\n"
        'model, tokenizer = FastLanguageModel.from_pretrained("adapter")\n```'
    )


def _use_whole() -> Iterator[str]:
    yield "## Use\n\nIn these lines `model` is this folder."
    yield (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("model")\n'
        'tokenizer = AutoTokenizer.from_pretrained("model")\n```'
    )
    yield "```bash\nvllm serve model\n```"


def _making(run: EvaluatedRun) -> Iterator[str]:
    resolved, manifest = run.tables, run.manifest
    lora, schedule, data = (mapping(resolved.get(name)) for name in ("lora", "schedule", "data"))
    found, gpu = mapping(manifest.get("data")), mapping(manifest.get("gpu"))
    prompt, known = mapping(resolved.get("prompt")), run.recipe.lora if run.recipe else None
    alpha = lora.get("alpha")
    if known and known.scale is not None:
        alpha = f"{known.resolved_alpha:g}, scale {known.scale:g}"
    adapter = f"rank {lora.get('rank')}, alpha {alpha}, targets {lora.get('targets')}"
    items = {
        "base model": f"{run.model}, revision {_revision(run, 'model')}",
        "trained": "all weights" if lora.get("rank") == "full" else adapter,
        "data": f"{data.get('id') or data.get('path')}, "
        f"{'revision ' + _revision(run, 'data') + ', ' if data.get('id') else ''}"
        f"{found.get('used', '?')} problems, fingerprint {found.get('fingerprint', '?')}",
        "learning rate": f"{schedule.get('learning_rate')}, {schedule.get('shape')}",
        "seed": str(run.seed),
        "user turn": prompt.get("template", "{problem}"),
        "machine": str(gpu.get("name") or mapping(manifest.get("machine")).get("cpu", "?")),
        "versions": _versions(manifest),
    }
    yield "## How it was made"
    yield "\n".join(f"- {name}: {_plain(value)}" for name, value in items.items())
    if prompt.get("system"):
        yield "System text of the prompt:"
        yield f"> {_plain(prompt['system'])}"


def _versions(manifest: Mapping[str, Any]) -> str:
    versions = {"budgetrl": manifest.get("budgetrl"), **mapping(manifest.get("versions"))}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _plain(text: object) -> str:
    """One line of foreign text that changes nothing around it in Markdown."""
    line = " ".join(readable(str(text)).split())
    return re.sub(r"([`<>|\[\]*])", r"\\\1", line)
