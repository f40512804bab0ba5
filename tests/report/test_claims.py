"""The paper's claims: verdicts, and what is left unsaid."""

from pathlib import Path
from typing import Any

import pytest
from run_builder import Story, build_run

from budgetrl.account.evaluated import read_run
from budgetrl.report.arms import Estimate, arms_of
from budgetrl.report.claims import ClaimVerdict, claims_of, judge


@pytest.mark.parametrize(
    ("effect", "interval", "seeds", "share", "across", "verdict"),
    [
        (0.2, (0.1, 0.3), 1, 0.24, False, ClaimVerdict.TOO_SHORT),
        (0.2, (0.1, 0.3), 1, 0.25, False, ClaimVerdict.SUPPORTED),
        (-0.2, (-0.3, -0.1), 1, 1.0, True, ClaimVerdict.CONTRADICTED),
        (0.04, (0.02, 0.06), 1, 1.0, True, ClaimVerdict.NOT_DISTINGUISHABLE),
        (0.04, (0.02, 0.06), 3, 1.0, True, ClaimVerdict.SUPPORTED),
        (0.2, (-0.1, 0.5), 3, 1.0, True, ClaimVerdict.NOT_DISTINGUISHABLE),
        (0.2, None, 1, 1.0, False, ClaimVerdict.NOT_DISTINGUISHABLE),
    ],
)
def test_a_verdict_follows_from_interval_seeds_and_updates(
    effect: float, interval: Any, seeds: int, share: float, across: bool, verdict: ClaimVerdict
) -> None:
    assert judge(Estimate(effect, interval, seeds), share, across=across)[0] is verdict


def test_nothing_is_said_of_a_rank_without_arms_of_equal_scale(tmp_path: Path) -> None:
    def claims(*stories: Story) -> list[Any]:
        runs = [read_run(build_run(tmp_path, story)) for story in stories]
        return [c for c in claims_of(arms_of(runs), 40) if "rank" in c.claim]

    fixed = (Story(rank=8), Story(rank=256))
    said = claims(*fixed)
    assert [c.verdict for c in said if c.claim.startswith("A higher rank")] == [
        ClaimVerdict.TOO_SHORT
    ]
    assert any("scales 8 and 0.25" in c.claim for c in said)
    equal = claims(*fixed, Story(rank=8, alpha=8.0), Story(rank=256, alpha=256.0))
    assert not any(c.claim.startswith("A higher rank") for c in equal)
    judged = next(c for c in equal if c.claim.startswith("At equal scale, rank 256"))
    assert judged.effect is not None and judged.n == 40 and judged.seeds == 1
