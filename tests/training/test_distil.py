"""Distillation: its loss and gradients, whose tokens are compared, and what is refused."""

import copy
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_grpo_oracle as harness
import torch
import trl.trainer.distillation_trainer as trls

from budgetrl.budget import Limits
from budgetrl.data.prompts import PromptRenderer
from budgetrl.data.rows import load_problems
from budgetrl.data.sampler import ProblemSampler
from budgetrl.engine.adapter import with_adapter
from budgetrl.engine.divergence import Side, reverse_kl
from budgetrl.engine.merging import lora_layers
from budgetrl.engine.plain import PlainEngine, load_base
from budgetrl.engine.teacher import open_teacher, recipe_of
from budgetrl.errors import ModelError, RecipeError
from budgetrl.evaluation.teaching import check_teacher
from budgetrl.hub.pins import Pin, needs_of, pinned
from budgetrl.hub.repo import Found
from budgetrl.plan import make_plan
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.load import load_recipe
from budgetrl.recipe.schema import Recipe
from budgetrl.training.clock import PhaseClock
from budgetrl.training.distil import PROBE, DistilMixin, DistilRecord, check_prompts
from budgetrl.training.stage import TrainerParts
from budgetrl.training.trainer import build_trainer

TEMPERATURE, TOLERANCE = 0.9, 5e-6
SETS = (
    *("lora.rank=4", "lora.alpha=8", "batch.micro_batch=5", "batch.prompts_per_step=5"),
    *("grpo.num_generations=4", f"sampling.max_tokens={harness.MAX_TOKENS}"),
    *(f"sampling.temperature={TEMPERATURE}", "optimizer.max_grad_norm=1e9"),
)


WAYS: dict[str, tuple[str, ...]] = {
    "rows": (),
    "tokens": ("batch.fill=tokens",),
    "self": ("teacher.id=self", "teacher.adapter=unset"),
    "reward": ("distill.reward_weight=0.5", "grpo.beta=0.05", "signal.skip=off"),
}


class Distilled:
    """One update of the real trainer on dictated completions, and an oracle in float64."""

    def __init__(self, folder: Path, *sets: str) -> None:
        whole = load_recipe("quickstart_distill", [*SETS, *sets]).recipe
        (recipe,) = whole.parts
        self.recipe: Recipe = recipe
        engine = harness.DictatedEngine.open(recipe)
        self.engine, self.teacher = engine, open_teacher(recipe, engine)
        self.renderer = PromptRenderer(engine.tokenizer, recipe.prompt)
        problems = load_problems(recipe.data, lambda golds: [None] * len(golds)).problems
        sampler = ProblemSampler(problems, recipe.seed, recipe.batch.prompts_per_step)
        self.problems = sampler.batch(0)
        self.parts = TrainerParts(
            recipe=recipe,
            engine=engine,
            sampler=sampler,
            renderer=self.renderer,
            reward=harness.dictated_reward,
            clock=PhaseClock(time.monotonic),
            folder=folder,
            must_stop=lambda: False,
            rollout_over=lambda: False,
            teacher=self.teacher,
        )
        witness = harness.Witness()
        trainer = build_trainer(self.parts, 1, [witness], DistilMixin)
        noise = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, weight in engine.model.named_parameters():
                if "lora_B.default" in name:
                    weight.copy_(0.02 * torch.randn(weight.shape, generator=noise))
        trainer.train()
        (self.update,) = witness.updates

    def oracle(self) -> tuple[dict[str, torch.Tensor], float]:
        """Gradients of the mean over all tokens of KL(student || teacher), and that mean."""
        student = PlainEngine.open(self.recipe).model.double()
        with torch.no_grad():
            harness.put(student, self.update.weights)
        student.zero_grad()
        same = self.teacher.itself
        teacher = student if same else copy.deepcopy(self.teacher.model).double()
        size = self.recipe.grpo.num_generations
        hint = self.recipe.teacher.hint if self.recipe.teacher else ""
        terms = []
        for row, ids in enumerate(self.engine.drawn):
            problem = self.problems[row // size]
            prompt = list(self.renderer.ids(problem))
            told = prompt
            if same:
                text = problem.text + hint.replace("{answer}", problem.answer)
                told = list(self.renderer.ids(type(problem)(problem.id, text, problem.answer)))
            log_p = self._log_p(student, prompt, ids)
            with torch.no_grad():
                if same:
                    with student.disable_adapter():
                        log_q = self._log_p(student, told, ids)
                else:
                    log_q = self._log_p(teacher, told, ids)
            terms.append((log_p.exp() * (log_p - log_q)).sum(-1))
        loss = torch.cat(terms).mean()
        loss.backward()
        named = student.named_parameters()
        gradients = {n: p.grad for n, p in named if p.grad is not None}
        if weight := self.recipe.distill.reward_weight:
            for name, own in harness.expected_gradients(self.as_grpo()).items():
                gradients[name] = gradients[name] + weight * own
        return gradients, float(loss.detach())

    def as_grpo(self) -> harness.Training:
        """The same update for the oracle of GRPO's part."""
        size = self.recipe.grpo.num_generations
        return harness.Training(
            recipe=self.recipe,
            model=PlainEngine.open(self.recipe).model,
            prompts=[self.renderer.ids(one) for one in self.problems for _ in range(size)],
            completions=self.engine.drawn,
            recorded_advantages=[],
            updates=[self.update],
            forwards=harness.Forwards(self.engine.model),
        )

    @staticmethod
    def _log_p(model: Any, prompt: list[int], ids: list[int]) -> torch.Tensor:
        logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        return torch.log_softmax(logits / TEMPERATURE, dim=-1)


@pytest.mark.parametrize("sets", WAYS.values(), ids=WAYS)
def test_gradients_are_the_oracles(sets: tuple[str, ...], tmp_path: Path) -> None:
    """Through four micro-batches of uneven completions, some cut off."""
    done = Distilled(tmp_path, *sets)
    wanted, divergence = done.oracle()
    assert harness.distance(done.update.gradients, wanted) < TOLERANCE
    record = done.parts.record
    assert isinstance(record, DistilRecord)
    fields = record.event_fields()
    assert fields["kl_teacher"] == pytest.approx(divergence, rel=1e-5)
    assert record.scored == sum(map(len, done.engine.drawn))
    assert 0 <= fields["top1_agreement"] <= 1


def test_pieces_and_padded_heads_change_nothing_and_trls_divergence_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(5)
    tokens, width, vocabulary = 104, 6, 11
    monkeypatch.setattr("budgetrl.engine.divergence.LOGITS", 64 * vocabulary)
    hidden = torch.randn(tokens, width, requires_grad=True)
    other = torch.randn(tokens, width)
    head = torch.nn.Linear(width, vocabulary, bias=False)
    wide = torch.nn.Linear(
        width, vocabulary + 5, bias=False
    )  # padded, as Qwen's 7B beside its 1.5B
    with torch.no_grad():
        wide.weight[:vocabulary] = torch.randn(vocabulary, width)
    found = reverse_kl(Side(hidden, head), Side(other, wide), TEMPERATURE)
    (gradient,) = torch.autograd.grad(found.divergence, hidden)
    log_p = torch.log_softmax(head(hidden).double() / TEMPERATURE, -1)
    log_q = torch.log_softmax(wide(other)[:, :vocabulary].double() / TEMPERATURE, -1)
    exact = (log_p.exp() * (log_p - log_q)).sum()
    assert float(found.divergence.detach()) == pytest.approx(float(exact.detach()), rel=1e-5)
    (wanted,) = torch.autograd.grad(exact, hidden)
    assert torch.allclose(gradient, wanted.float(), atol=TOLERANCE)
    assert float(found.agreements) == float((log_p.argmax(-1) == log_q.argmax(-1)).sum())
    theirs = trls._chunk(
        *(hidden, head.weight, None, 1.0, None),
        *(other, wide.weight[:vocabulary], None, 1.0, None),
        *(1.0, TEMPERATURE, torch.ones(tokens)),
    )
    assert float(found.divergence.detach()) == pytest.approx(float(theirs[0].detach()), rel=1e-5)
    assert float(found.entropy) == pytest.approx(float(theirs[1]), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_teachers_adapter_is_in_its_weights_where_none_of_it_is_lost(dtype: str) -> None:
    recipe = load_recipe("quickstart_distill", [f"teacher.dtype={dtype}"]).recipe
    assert recipe.teacher is not None and recipe.teacher.adapter is not None
    model = open_teacher(recipe, PlainEngine.open(recipe)).model
    assert {layer.merged for layer in lora_layers(model)} == {dtype == "float32"}
    source, held = local_path(recipe.teacher.id), Path(local_path(recipe.teacher.adapter))
    beside = with_adapter(load_base(source, recipe_of(recipe, recipe.teacher)), held).eval()
    rows = torch.arange(120).reshape(2, 60) + 48
    with torch.no_grad():
        wanted = beside(rows).logits
        assert torch.allclose(model(rows).logits, wanted, atol=2e-5)
        with beside.disable_adapter():
            assert not torch.allclose(beside(rows).logits, wanted, atol=0.1)


def other_tokenizer(folder: Path) -> Path:
    """The start with two of its words in each other's place."""
    start = Path(local_path("asset:tiny/quickstart"))
    made = Path(shutil.copytree(start, folder))
    file = made / "tokenizer.json"
    held = json.loads(file.read_text())
    words = held["model"]["vocab"]
    first, second = list(words)[20:22]
    words[first], words[second] = words[second], words[first]
    file.write_text(json.dumps(held))
    return made


def no_model(folder: Path) -> Path:
    folder.mkdir()
    return folder


def of_another_base(folder: Path) -> Path:
    made = Path(shutil.copytree(local_path("asset:tiny/teacher"), folder))
    file = made / "adapter_config.json"
    held = json.loads(file.read_text()) | {"base_model_name_or_path": "Qwen/Qwen3-0.6B"}
    file.write_text(json.dumps(held))
    return made


@pytest.mark.parametrize(
    ("make", "key", "said"),
    [
        (other_tokenizer, "id", "another vocabulary: 4 entries differ, such as token"),
        (no_model, "id", "teacher .*no such model folder"),
        (of_another_base, "adapter", "was trained on Qwen/Qwen3-0.6B, and teacher.id is"),
        (no_model, "adapter", "adapter_config.json"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_before_anything_is_paid(
    make: Callable[[Path], Path], key: str, said: str, tmp_path: Path
) -> None:
    made = make(tmp_path / "teacher")
    sets = ["teacher.adapter=unset"] if key == "id" else []
    loaded = load_recipe("quickstart_distill", [f"teacher.{key}={made}", *sets])
    with pytest.raises(ModelError, match=said):
        make_plan(loaded, Limits(240))


def test_a_teacher_of_the_hub_is_needed_at_its_commit(tmp_path: Path) -> None:
    commit = "c" * 40
    loaded = load_recipe("quickstart_distill", ["teacher.id=some/model", "teacher.adapter=unset"])
    (need,) = needs_of(loaded.recipe)
    assert (need.key, need.repo.id) == ("teacher", "some/model")
    held = {need.key: Pin(need, Found(need.repo, commit, ()), ())}
    settled = pinned(loaded.recipe, held).teacher
    assert settled is not None and settled.revision == commit
    alone = loaded.recipe.model_copy(update={"stages": ()})
    assert not list(needs_of(alone))
    with pytest.raises(RecipeError, match="no stage distils"):
        check_teacher(alone)


def test_other_prompts_and_ends_are_refused(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart_distill").recipe
    engine = PlainEngine.open(recipe)
    teacher = open_teacher(recipe, engine)
    ours = PromptRenderer(engine.tokenizer, recipe.prompt).text(PROBE)
    check_prompts(teacher, ours, recipe.prompt, None)
    with pytest.raises(ModelError, match="renders another prompt"):
        check_prompts(teacher, ours + "!", recipe.prompt, None)
    engine.end_ids = frozenset({engine.tokenizer.vocab_size + 9})
    with pytest.raises(ModelError, match="never to end"):
        open_teacher(recipe, engine)


def test_what_cannot_be_is_refused_at_load(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="have nothing to say"):
        load_recipe("quickstart_distill", ["teacher.id=self"])
    with pytest.raises(RecipeError, match="without its adapter"):
        load_recipe(
            "quickstart_distill", ["teacher.id=self", "teacher.adapter=unset", "lora.rank=full"]
        )
    alone = tmp_path / "alone.toml"
    alone.write_text(
        '[recipe]\nextends = ["quickstart"]\n'
        '[[stages]]\nname = "d"\nkind = "distill"\nshare = 1.0\n'
    )
    with pytest.raises(RecipeError, match=r"needs a \[teacher\]"):
        load_recipe(alone)
