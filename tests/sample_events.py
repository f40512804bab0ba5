"""Events with plausible numbers, for tests that care about a few of them."""

from budgetrl import events


def step_event(number: int, **changes: object) -> events.Step:
    """A complete step event."""
    values: dict[str, object] = {
        "step": number, "epoch": 0.1, "reward_mean": 0.5, "reward_std": 0.1, "accuracy_mean": 0.5,
        "format_mean": 1.0, "completion_tokens_mean": 30.0, "completion_tokens_max": 64,
        "truncated_share": 0.0, "entropy": 0.2, "entropy_kind": "exact", "kl": None, "loss": 0.0,
        "grad_norm": 0.1, "learning_rate": 1e-3, "groups": 2, "groups_with_signal": 1,
        "groups_resampled": 0, "completions": 16, "tokens": 480, "tokens_per_s": 240.0,
        "padding_share": 0.1, "phase_s": {"rollout": 1.0, "update": 0.5}, "grader": {"correct": 8},
        "sampling_logp_diff_mean": None, "gpu_peak_gib": None, "remaining_s": 50.0,
        "forecast_steps": 10,
    }  # fmt: skip
    return events.Step.model_validate(values | changes)
