from dataclasses import replace

import pytest

from budgetrl.estimation.memory import (
    MemoryEstimate,
    MemoryWork,
    Verdict,
    checkpoint_bytes,
    estimate_memory,
    layer_bytes_per_token,
    logit_bytes,
    weight_bytes,
)
from budgetrl.estimation.shapes import find_shape
from budgetrl.estimation.terms import load_constants
from budgetrl.estimation.workload import Precision
from budgetrl.recipe.training_tables import OPTIMIZER_BYTES
from budgetrl.units import GIB

QWEN = find_shape("Qwen/Qwen2.5-1.5B-Instruct")
DEEPSCALER = find_shape("agentica-org/DeepScaleR-1.5B-Preview")
WORK = MemoryWork(QWEN, adapter_params=QWEN.lora_params(64), live_context=1200)


def estimate(work: MemoryWork, usable_gib: float = 45) -> MemoryEstimate:
    return estimate_memory(work, usable_gib * GIB, load_constants())


def test_parts_equal_the_published_derivation() -> None:
    """The example of the memory table: Qwen2.5-1.5B, 8 x 4,096 tokens (decimal GB)."""
    assert weight_bytes(QWEN, Precision.BF16) / 1e9 == pytest.approx(3.09, rel=0.005)
    assert weight_bytes(DEEPSCALER, Precision.BF16) / 1e9 == pytest.approx(3.55, rel=0.005)
    assert logit_bytes(8, 4096, QWEN.vocab, 8) / 1e9 == pytest.approx(2.49, rel=0.005)
    assert logit_bytes(8, 4096, QWEN.vocab, None) / 1e9 == pytest.approx(19.9, rel=0.005)
    assert checkpoint_bytes(QWEN, 8 * 4096) / 1e9 == pytest.approx(2.8, rel=0.02)
    assert layer_bytes_per_token(QWEN) * 8 * 4096 / 1e9 == pytest.approx(3.4, rel=0.02)
    assert 64 * 4096 * QWEN.kv_bytes_per_token() / 1e9 == pytest.approx(7.5, rel=0.01)


@pytest.mark.parametrize(("rank", "gigabytes"), [(8, 0.15), (64, 1.18), (256, 4.73)])
def test_adapter_gradients_and_moments_take_16_bytes_per_parameter(
    rank: int, gigabytes: float
) -> None:
    made = estimate(replace(WORK, adapter_params=QWEN.lora_params(rank)))
    state = made.adapter + made.gradients + made.optimizer
    assert state / 1e9 == pytest.approx(gigabytes, rel=0.02)


@pytest.mark.parametrize(
    ("model", "gib"),
    [
        ("mistralai/Mistral-7B-Instruct-v0.3", 4.04),
        ("meta-llama/Llama-3.1-8B-Instruct", 5.60),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", 5.91),
    ],
)
def test_4_bit_weights_agree_with_real_logs_within_5_percent(model: str, gib: float) -> None:
    assert weight_bytes(find_shape(model), Precision.INT4) / GIB == pytest.approx(gib, rel=0.05)


def test_unsloths_logits_of_eight_chunks_agree_with_their_guide() -> None:
    """78.3 GiB for 8 completions of 20,480 tokens, 9.8 GiB in 8 chunks."""
    assert logit_bytes(8, 20_480, 128_256, 1) / GIB == pytest.approx(78.3, rel=0.005)
    assert logit_bytes(8, 20_480, 128_256, 8) / GIB == pytest.approx(9.8, rel=0.005)


def test_eight_bit_moments_take_a_quarter() -> None:
    assert OPTIMIZER_BYTES["adamw_8bit"] * 1000 * 4 == OPTIMIZER_BYTES["adamw"] * 1000


def test_standby_needs_the_larger_phase_and_no_standby_the_sum() -> None:
    asleep, awake = estimate(WORK), estimate(replace(WORK, standby=False))
    assert asleep.peak == max(asleep.peak_generation, asleep.peak_training)
    assert awake.peak_training > asleep.peak_training + 0.9 * awake.kv_cache


def test_a_second_copy_of_the_weights_is_counted() -> None:
    shared, copied = estimate(WORK), estimate(replace(WORK, shared_weights=False))
    assert copied.weights == pytest.approx(2 * shared.weights)


def test_the_kv_cache_takes_what_is_left_and_the_rest_waits() -> None:
    roomy, small = estimate(WORK, 45), estimate(WORK, 16)
    assert roomy.waves == 1
    assert small.kv_cache < roomy.kv_cache
    assert small.waves > 1
    assert small.verdict is Verdict.FITS


def test_more_chunks_make_the_logits_smaller() -> None:
    assert estimate(replace(WORK, logit_chunks=16)).logits == estimate(WORK).logits / 2


def test_the_verdict_turns_from_fits_over_tight_to_no_as_the_card_shrinks() -> None:
    big = replace(WORK, micro_batch=32)
    verdicts = [estimate(big, gib).verdict for gib in (80, 48, 40, 36, 33, 30, 24, 16, 8)]
    order = list(Verdict)
    assert verdicts == sorted(verdicts, key=order.index)
    assert set(verdicts) == set(Verdict)


def test_no_room_for_one_group_of_completions_is_said() -> None:
    made = estimate(WORK, 8.2)
    assert made.verdict is Verdict.NO
    assert "GiB" in made.reason


def test_the_band_holds_the_peak() -> None:
    made = estimate(WORK)
    assert made.low < made.peak < made.high
    assert made.high / made.low < 1.6


def test_vllm_gets_what_the_completions_of_an_update_can_fill() -> None:
    made = estimate(WORK)
    full = 256 * 4096 * QWEN.kv_bytes_per_token()
    assert full < made.kv_cache < 1.2 * full
    few = estimate(replace(WORK, sequences=32))
    assert few.utilization is not None and made.utilization is not None
    assert few.utilization < made.utilization
    assert made.reserved == pytest.approx(made.utilization * made.usable)


def test_a_large_evaluation_gets_room_at_its_expected_lengths() -> None:
    few = replace(WORK, sequences=32)
    more = replace(few, eval_sequences=480)
    assert estimate(more).kv_cache > 256 * 1200 * QWEN.kv_bytes_per_token()
    assert estimate(few).kv_cache < 40 * 4096 * QWEN.kv_bytes_per_token()


@pytest.mark.parametrize("standby", [True, False])
def test_what_vllm_gets_leaves_the_trainer_its_room(standby: bool) -> None:
    """A KV cache of any size would be of use here."""
    work = replace(WORK, standby=standby, sequences=4096, max_sequences=4096)
    made = estimate(work)
    assert made.verdict is Verdict.FITS
    assert made.high <= made.usable < made.high + 0.02 * made.usable


def test_a_share_that_is_stated_is_kept_and_counts_whole() -> None:
    made = estimate(replace(WORK, utilization=0.8))
    assert (made.utilization, made.reserved) == (0.8, pytest.approx(0.8 * made.usable))
    assert made.peak_generation > made.reserved


def test_a_pass_without_gradients_is_counted_where_there_is_one() -> None:
    """With many layers' activations kept on the card the update is larger, else hardly."""
    made, without = estimate(WORK), estimate(replace(WORK, reference=False))
    assert without.reference == 0
    assert made.logits < made.reference < made.logits + made.activations
