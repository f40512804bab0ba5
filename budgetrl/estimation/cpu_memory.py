"""Memory of a run on a CPU, in bytes: what its worker holds at the most.

    peak = interpreter + weights + adapter, gradients, moments + max(generation, training)

A generation holds the merged copies of the adapted layers, the cache and the sampler's tables;
training holds the activations of a micro-batch and several copies of its logits. A teacher's
weights are with the model's. The constants are from the peaks of real runs
(docs/measurements/cpu_plan.json): the allocator keeps a part of what it was given back.
"""

from budgetrl.estimation.memory import (
    MemoryEstimate,
    Verdict,
    layer_bytes_per_token,
)
from budgetrl.estimation.scenario import Scenario, suite_problems
from budgetrl.estimation.terms import Term, band
from budgetrl.recipe.training_tables import OPTIMIZER_BYTES
from budgetrl.units import GIB

_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
_SAMPLER_COPIES = 8
"""Of the newest token's logits, in float32: log-probabilities, cuts, noise, choice."""
_MOST_LOGITS = 1 << 24
"""That a pass holds at a time: more are made in pieces (`training.trainer`)."""
_LEAST_NOISE = 4.0 * (1 << 22)
"""Random numbers that are drawn ahead (`engine.sampling`)."""


def cpu_memory(scenario: Scenario) -> MemoryEstimate:
    """Parts, peaks and verdict of recipe, model and this machine."""
    recipe, shape, known = scenario.recipe, scenario.shape, scenario.constants
    whole = scenario.whole_copies
    element = 4 if whole else _ELEMENT[recipe.model.dtype]
    prompt = recipe.prompt.max_tokens
    weights = float(element * shape.params * max(1, whole))
    trained, adapter = 4.0 * scenario.trained_params, 4.0 * (scenario.adapter_params or 0)
    moments = float(OPTIMIZER_BYTES[recipe.optimizer.name] * scenario.trained_params)
    runtime = known["cpu_runtime_gib"] * GIB

    evaluated = [
        (
            min(recipe.engine.eval_batch, suite_problems(e) * e.rounds.max),
            recipe.eval_max_tokens(e),
        )
        for e in recipe.eval
    ]
    batches = [(recipe.completions_per_step, recipe.sampling.max_tokens), *evaluated]
    targets = shape.linears if recipe.lora.targets == "all-linear" else recipe.lora.targets
    layers = [shape.linears[name] for name in targets if name in shape.linears]
    adapted = sum(inputs * outputs for inputs, outputs in layers)
    copies = 0.0 if whole else float(element * shape.layers * adapted)
    cache = max(r * (prompt + t) * shape.kv_bytes_per_token(element) for r, t in batches)
    rows = max(rows for rows, _ in batches)
    # One layer at a time holds the activations of all prompts.
    sampler = _LEAST_NOISE + _SAMPLER_COPIES * 4.0 * rows * shape.vocab
    buffers = copies + sampler + rows * prompt * layer_bytes_per_token(shape) * element / 2

    micro = recipe.batch.micro_batch
    layer = layer_bytes_per_token(shape) * element / 2 * known["cpu_activation_copies"]
    tokens = micro * (prompt + recipe.sampling.max_tokens)
    kept = 2.0 * element / 2 * shape.hidden * shape.layers
    checkpointing = recipe.engine.gradient_checkpointing
    activations = tokens * (layer + kept if checkpointing else layer * shape.layers)
    entries = min(micro * (recipe.sampling.max_tokens + 1) * shape.vocab, _MOST_LOGITS)
    logits = known["cpu_logit_copies"] * 4.0 * entries

    held = weights + scenario.teacher_bytes + adapter + trained + moments + runtime
    generating, training = held + cache + buffers, held + logits + activations
    peak = max(generating, training)
    spread = band([Term(peak, {"cpu_memory": 1}, "parts")], known)
    usable = scenario.gpu.usable_gib * GIB
    verdict, reason = Verdict.FITS, ""
    if peak > usable:
        verdict = Verdict.NO
        reason = f"needs about {peak / GIB:.0f} GiB of memory, this machine has {usable / GIB:.1f}"
    elif spread.high > usable:
        verdict = Verdict.TIGHT
        reason = f"may need up to {spread.high / GIB:.0f} of {usable / GIB:.1f} GiB"
    return MemoryEstimate(
        weights=weights,
        adapter=adapter,
        gradients=trained,
        optimizer=moments,
        teacher=scenario.teacher_bytes,
        kv_cache=cache,
        rollout_buffers=buffers,
        logits=logits,
        activations=activations,
        runtime=runtime,
        peak_generation=generating,
        peak_training=training,
        peak=peak,
        low=spread.low,
        high=spread.high,
        usable=usable,
        kv_wanted=cache,
        kv_room=usable,
        verdict=verdict,
        reason=reason,
    )
