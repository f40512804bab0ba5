"""A teacher in the estimate: its memory beside the model, its passes, the refusal."""

import pytest
from sample_events import step_event

from budgetrl.budget import Limits
from budgetrl.display.plain import _step
from budgetrl.errors import HardwareError
from budgetrl.estimation import teaching
from budgetrl.estimation.as_json import assumptions
from budgetrl.estimation.cpu_time import Machine
from budgetrl.estimation.request import Request, answer
from budgetrl.estimation.shapes import find_shape
from budgetrl.estimation.stages import stages_on
from budgetrl.hardware import find_gpu
from budgetrl.plan import make_plan
from budgetrl.recipe.load import load_recipe
from budgetrl.units import GIB

RECIPE = "distill/qwen3_0.6b_from_8b"
TEACHER = "Qwen/Qwen3-8B"


def test_a_teacher_in_four_bits_takes_a_third_of_the_memory_and_its_passes_take_time() -> None:
    card = find_gpu("A40")
    (four,) = stages_on(load_recipe(RECIPE).recipe, card)
    (whole,) = stages_on(load_recipe(RECIPE, ["teacher.load_in_4bit=false"]).recipe, card)
    sets = ["teacher.id=self", "teacher.load_in_4bit=false"]
    (itself,) = stages_on(load_recipe(RECIPE, sets).recipe, card)
    assert four.memory and whole.memory and itself.memory
    assert whole.memory.teacher == 2.0 * find_shape(TEACHER).params
    assert 0.25 < four.memory.teacher / whole.memory.teacher < 0.45
    assert itself.memory.teacher == 0
    assert four.memory.verdict != "no"
    assert itself.times.update_s < four.times.update_s


def test_a_teacher_that_is_larger_than_the_card_is_refused_with_the_way_on() -> None:
    loaded = load_recipe("quick/distill_qwen3", ["teacher.load_in_4bit=false"])
    card = find_gpu("RTX 4090")
    assert 2.0 * find_shape(TEACHER).params < card.usable_gib * GIB  # by itself it would fit
    with pytest.raises(HardwareError) as refused:
        make_plan(loaded, Limits(7200), dry_run=True)
    assert "teacher.load_in_4bit = true" in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize("bfloat16", [True, False])
def test_a_teacher_in_the_hosts_memory_is_planned_for_a_processor_and_the_plan_says_which(
    monkeypatch: pytest.MonkeyPatch, bfloat16: bool
) -> None:
    monkeypatch.setattr(teaching, "host", lambda: Machine(100.0, 4, 4))
    monkeypatch.setattr(teaching, "multiplies_bfloat16", lambda: bfloat16)
    sets = ["teacher.load_in_4bit=false"]
    (card,) = stages_on(load_recipe(RECIPE, sets).recipe, find_gpu("A40"))
    loaded = load_recipe(RECIPE, [*sets, "teacher.device=cpu"])
    (host,) = stages_on(loaded.recipe, find_gpu("A40"))
    assert card.memory and host.memory and host.memory.teacher == 0
    # 2 FLOPs for each weight and token, at 0.4 TFLOP/s instead of some 100.
    part = host.recipe
    tokens = part.completions_per_step * (150 + part.sampling.max_tokens / 4)
    least_s = 2 * find_shape(TEACHER).params * tokens / 4e11
    assert host.times.update_s > least_s * (1 if bfloat16 else 3)
    assert host.times.update_s > 10 * card.times.update_s
    assert "4 cores of 100 GFLOP/s" in host.remark and "GFLOP" not in card.remark
    made = answer(Request(loaded.recipe, gpu="A40", limits=Limits(86400)))
    (said,) = (one for one in assumptions(made) if one.key == "teacher.device")
    assert "nothing is known of the rented one" in said.source


def test_a_laptops_teacher_costs_its_weights() -> None:
    (taught,) = stages_on(load_recipe("quickstart_distill").recipe, None)
    sets = ["teacher.adapter=unset", "teacher.id=self"]
    (itself,) = stages_on(load_recipe("quickstart_distill", sets).recipe, None)
    assert taught.memory and itself.memory
    start = find_shape("asset:tiny/quickstart")
    assert taught.memory.peak - itself.memory.peak == pytest.approx(4.0 * start.params)


def test_an_updates_line_says_how_far_the_teacher_is() -> None:
    step = step_event(3, kl_teacher=0.1234, top1_agreement=0.875)
    assert "from teacher 0.123 nats, same token 87.5 %" in _step(step, None, step.forecast_steps)
