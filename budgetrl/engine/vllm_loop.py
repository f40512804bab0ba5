"""Completions from a vLLM engine in this process, request by request, under a time limit.

    sampled = draw(llm, SamplingParams, prompt_ids, seeds, sampling, end_ids, adapter, should_stop)
      enqueue all -> step until done, or abort what is unfinished -> ids and log-probabilities

One request per completion, each with its own seed, so that a request can be told from any other
and what was finished before a stop is kept. Knows vLLM by the objects it is given; the argument
names it uses are checked against vLLM's source (docs/arguments.json).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from budgetrl.engine.base import SamplingSpec, StopCheck
from budgetrl.engine.unsloth_settings import refuse_differing

ABORTED = "abort"
NEUTRAL = {
    "n": 1,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_tokens": 0,
    "ignore_eos": False,
    "stop": [],
    "bad_words": [],
    "logit_bias": None,
    "allowed_token_ids": None,
    "structured_outputs": None,
    "extra_args": None,  # read by other packages' logits processors
    "watermarking": False,
    "thinking_token_budget": None,
    "repetition_detection": None,
    "trace_decode_token_ids": None,
    "logprobs": 0,  # the sampled token's only
    "flat_logprobs": False,
    "detokenize": False,
    "skip_special_tokens": False,
}
"""What no recipe asks of vLLM: each said, so that no default and no file of a model decides it."""


class Sampled(NamedTuple):
    """One finished completion."""

    ids: list[int]
    """The end token included where the model wrote one."""
    logps: list[float]
    """Log-probability of each token under the sampler, after temperature."""


def draw(
    llm: Any,
    sampling_params: Callable[..., Any],
    prompt_ids: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: SamplingSpec,
    end_ids: Sequence[int],
    adapter: Any,
    should_stop: StopCheck,
) -> Iterator[tuple[int, Sampled]]:
    """One completion per prompt with its place, as they are finished; fewer when stopped.

    Prompts start in their order, as many at a time as vLLM runs. Whoever takes no more of them
    closes the iterator, which ends the others.

    Args:
        llm: vLLM's `LLM`, awake.
        sampling_params: vLLM's `SamplingParams`.
        prompt_ids: token ids of each prompt.
        seeds: of each completion's own draws. A seed fixes the draw, not the logits, which vary in
            the last bits with the batch.
        sampling: temperature and so on.
        end_ids: tokens that end a completion.
        adapter: vLLM's request for the current LoRA weights; None: the base model.
        should_stop: asked after every engine step, that is between tokens.
    """
    asked = [
        sampling_arguments(sampling, seed, end_ids) | {"max_tokens": sampling.room(len(ids))}
        for ids, seed in zip(prompt_ids, seeds, strict=True)
    ]
    params = [sampling_params(**arguments) for arguments in asked]
    if params and sampling.temperature > 0:  # a greedy one rightly forgets top_p and so on
        refuse_differing([("vllm", k, v, getattr(params[0], k)) for k, v in asked[0].items()])
    prompts = [{"prompt_token_ids": list(ids)} for ids in prompt_ids]
    internal = llm.enqueue(prompts, params, lora_request=adapter, use_tqdm=False)
    place = {name: i for i, request in enumerate(internal) for name in _names(request)}
    for output in _finished(llm.llm_engine, internal, should_stop):
        completion = output.outputs[0]
        if completion.finish_reason != ABORTED:
            yield place[output.request_id], _sampled(completion)


def sampling_arguments(sampling: SamplingSpec, seed: int, end_ids: Sequence[int]) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams`; every one that a default could change is there."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "max_tokens": sampling.max_tokens,
        "seed": seed,
        "stop_token_ids": sorted(end_ids),
        **NEUTRAL,
    }


def _names(internal: str) -> tuple[str, str]:
    """`enqueue` returns "7-1a2b3c4d", outputs are named "7" (vLLM 0.30)."""
    return internal, internal.rpartition("-")[0] or internal


def _finished(engine: Any, requests: Sequence[str], should_stop: StopCheck) -> Iterator[Any]:
    try:
        while engine.has_unfinished_requests():
            yield from (output for output in engine.step() if output.finished)
            if should_stop():
                return
    finally:
        if engine.has_unfinished_requests():
            # What has finished is no longer known there, so naming all does no harm.
            engine.abort_request(list(requests), internal=True)


def _sampled(completion: Any) -> Sampled:
    ids = list(completion.token_ids)
    logps = [float(at[token].logprob) for at, token in zip(completion.logprobs, ids, strict=True)]
    return Sampled(ids, logps)
