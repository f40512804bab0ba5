"""Models and data sets of a hub on 127.0.0.1, through huggingface_hub and datasets themselves."""

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import MEMBER, STRANGER, Hub
from hub_sets import model_files, parquet, put_open_rs, put_sets, sums
from huggingface_hub import constants

from budgetrl.budget import Limits
from budgetrl.cli import main
from budgetrl.data.rows import load_problems, load_suite
from budgetrl.engine import open_engine
from budgetrl.errors import (
    BudgetRLError,
    DataError,
    ExitCode,
    ModelError,
    RecipeError,
    RefusedError,
)
from budgetrl.estimation.shapes import find_shape
from budgetrl.evaluation.target import find_target
from budgetrl.hub import fetch as fetching
from budgetrl.hub.config import read_config
from budgetrl.hub.errors import HubError
from budgetrl.hub.fetch import Watch, bytes_missing, fetch
from budgetrl.hub.layout import ADAPTER_FILES, Need
from budgetrl.hub.lookup import repo_folder
from budgetrl.hub.pins import Pin, download, from_json, pin, pinned, settle, still_there, to_json
from budgetrl.hub.repo import Repo, is_hub_id
from budgetrl.plan import make_plan
from budgetrl.recipe.load import list_recipes, load_recipe
from budgetrl.recipe.schema import Data, Eval, Recipe
from budgetrl.recipe.suites import SUITES
from budgetrl.training.download import bring
from budgetrl.usable_recipe import check_local_files

MODEL = "tiny/quick"
MEGABYTE = 1_000_000


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses: what is waited for passes at once or never."""
    monkeypatch.setattr("budgetrl.hub.lookup._PAUSES_S", (0.01, 0.02))
    monkeypatch.setattr(fetching, "_PAUSES_S", (0.01, 0.02, 0.03))
    monkeypatch.setattr(fetching, "STALL_FACTOR", 2)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    settle.cache_clear()


def model(hub_id: str = MODEL, revision: str | None = None) -> Need:
    return Need("model", Repo("model", hub_id, revision), "model")


def large_model(hub: Hub, size: int = 3 * MEGABYTE) -> str:
    """A model whose weights are long enough to be cut."""
    return hub.put("model", MODEL, model_files() | {"model.safetensors": os.urandom(size)})


def parts() -> list[Path]:
    return list((repo_folder(Repo("model", MODEL)) / "blobs").glob("*.part"))


def recipe(**tables: Any) -> Recipe:
    """The quickstart with parts of the hub."""
    base = load_recipe("quickstart").recipe.model_dump(mode="json")
    for name, values in tables.items():
        base[name] = values if isinstance(values, list) else base[name] | values
    return Recipe.model_validate(base, strict=False)


# --- what is there


def test_every_recipe_resolves_with_the_real_sets_shapes(hub: Hub) -> None:
    put_sets(hub)
    recipes = [load_recipe(name).recipe for name in list_recipes()]
    for one in recipes:
        for model in filter(None, (one.model, one.teacher)):
            if is_hub_id(model.id):
                hub.put("model", model.id, model_files())
    for one in recipes:
        pins = pin(one)
        assert set(pins) == {
            *(["model"] if is_hub_id(one.model.id) else []),
            *(["teacher"] if one.teacher and is_hub_id(one.teacher.id) else []),
            *(f"stages.{stage.name}.data" for stage in one.stages if (stage.data or {}).get("id")),
            *(["data"] if one.data.id else []),
            *(f"eval.{spec.suite}" for spec in one.eval if spec.path is None),
        }
        assert all(pin.files and len(pin.found.commit) == 40 for pin in pins.values())
    assert not [line for line in hub.log if line.startswith("GET") and "safetensors" in line]


def test_the_suites_load_with_their_known_sizes(hub: Hub) -> None:
    put_sets(hub)
    for name, suite in SUITES.items():
        loaded = load_suite(Eval(suite=name), lambda answers: [None] * len(answers))
        assert len(loaded.problems) == suite.problems
        assert all(problem.text and problem.answer for problem in loaded.problems)
    math = load_suite(Eval(suite="math500"), lambda answers: [None] * len(answers))
    assert (math.problems[0].id, math.problems[0].level) == ("test/algebra/0.json", "1")


def test_a_suite_of_another_size_is_another_set(hub: Hub) -> None:
    hub.put(
        "dataset",
        "HuggingFaceH4/MATH-500",
        {"test.jsonl": json.dumps(sums(1)[0] | {"unique_id": "a", "level": 1})},
    )
    with pytest.raises(DataError, match=r"holds 1 problems, and this suite has 500") as caught:
        load_suite(Eval(suite="math500"), lambda answers: [None] * len(answers))
    assert "eval.math500.revision" in caught.value.hint


def test_an_id_means_the_hub_although_a_folder_has_its_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_open_rs(hub)
    here = tmp_path / "here" / "knoveleng" / "open-rs"
    here.mkdir(parents=True)
    (here / "train.jsonl").write_text(json.dumps({"problem": "mine", "answer": "1", "level": "x"}))
    monkeypatch.chdir(tmp_path / "here")
    data = Data(id="knoveleng/open-rs")
    assert len(load_problems(data, lambda answers: [None] * len(answers)).problems) == 40
    (here.parent / "gone").mkdir()
    with pytest.raises(DataError, match="no such repository") as caught:
        pin(recipe(data={"id": "knoveleng/gone", "path": None}))
    assert "write ./knoveleng/gone if you mean it" in caught.value.hint


def test_one_format_of_the_weights_is_taken(hub: Hub) -> None:
    more = {"pytorch_model.bin": b"2", "consolidated.safetensors": b"3", "original/x.pth": b"4",
            "modeling_x.py": "5", "README.md": "6", "model.gguf": b"7"}  # fmt: skip
    hub.put("model", MODEL, model_files() | more)
    assert {f.path for f in settle(model()).files} == set(model_files())
    shards = {f"model-0000{n}-of-00002.safetensors": b"8" for n in (1, 2)}
    hub.put("model", "tiny/shards", model_files() | shards | {"model.safetensors.index.json": "{}"})
    (hub.root / "models/tiny/shards/main/model.safetensors").unlink()
    held = {f.path for f in settle(model("tiny/shards")).files}
    assert held == {*model_files(), *shards, "model.safetensors.index.json"} - {"model.safetensors"}
    (hub.root / "models/tiny/shards/main/model-00002-of-00002.safetensors").unlink()
    settle.cache_clear()
    with pytest.raises(ModelError, match="no whole weights"):
        settle(model("tiny/shards"))


def test_llama_cpps_files_are_named_as_such(hub: Hub, tmp_path: Path) -> None:
    hub.put("model", "tiny/packed", {"model-Q4_K_M.gguf": b"7", "README.md": "6"})
    with pytest.raises(ModelError, match=r"has no config\.json") as caught:
        settle(model("tiny/packed"))
    assert "name the model that it was made from" in caught.value.hint
    (tmp_path / "model.GGUF").touch()
    for source in (tmp_path, tmp_path / "model.GGUF"):
        with pytest.raises(ModelError, match="no such model folder") as caught:
            check_local_files(recipe(model={"id": str(source)}))
        assert "docs/own_model.md" in caught.value.hint


@pytest.mark.parametrize(
    ("left_out", "said"),
    [("tokenizer.json", "has no tokenizer"), ("config.json", "has no config.json"),
     ("model.safetensors", "has no whole weights")],
)  # fmt: skip
def test_a_model_that_lacks_something_is_refused_before_it_is_downloaded(
    hub: Hub, left_out: str, said: str
) -> None:
    files = {name: content for name, content in model_files().items() if name != left_out}
    hub.put("model", MODEL, files)
    with pytest.raises(ModelError, match=said):
        pin(recipe(model={"id": MODEL}))
    assert not hub.asked("resolve")


# --- pins


def test_a_pinned_recipe_names_commits_and_keeps_them(hub: Hub) -> None:
    first = hub.put("model", MODEL, model_files())
    hub.put("model", MODEL, model_files("strong"), revision="v1")
    data = put_open_rs(hub)
    asked = recipe(model={"id": MODEL}, data={"id": "knoveleng/open-rs", "path": None})
    pins = pin(asked)
    made = pinned(asked, pins)
    assert (made.model.revision, made.data.revision) == (first, data)
    stored = json.loads(json.dumps(to_json(pins)))
    again = from_json(asked, stored)
    assert pinned(asked, again) == made
    assert again["model"].files == pins["model"].files
    tagged = pin(recipe(model={"id": MODEL, "revision": "v1"}))["model"]
    assert tagged.found.commit != first
    assert from_json(recipe(model={"id": "other/model"}), stored) == {}


def test_a_moved_branch_is_said_and_a_commit_that_is_gone_is_refused(hub: Hub) -> None:
    first = hub.put("model", MODEL, model_files())
    pins = pin(recipe(model={"id": MODEL}))
    assert still_there(pins) == []
    held = pins["model"]
    fetch(held.found, held.files)
    second = hub.put("model", MODEL, {"config.json": "{}"})
    (note,) = still_there(pins)
    assert first[:12] in note
    assert second[:12] in note
    for file in (repo_folder(held.need.repo) / "blobs").iterdir():
        file.unlink()
    with pytest.raises(ModelError, match=f"has no revision '{first}'") as caught:
        still_there(pins)
    assert "gone" in caught.value.hint


def test_what_is_pinned_and_here_needs_no_request(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put("model", MODEL, model_files())
    put_open_rs(hub)
    asked = recipe(model={"id": MODEL}, data={"id": "knoveleng/open-rs", "path": None})
    pins = pin(asked)
    for one in pins.values():
        fetch(one.found, one.files)
    hub.log.clear()
    settle.cache_clear()
    made = pinned(asked, pins)
    assert pin(made)["model"].found.commit == pins["model"].found.commit
    assert len(load_problems(made.data, lambda a: [None] * len(a)).problems) == 40
    offline(monkeypatch)
    assert pin(asked)["data"].found.commit == pins["data"].found.commit
    assert hub.log == []


def test_offline_what_is_not_here_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("model", MODEL, model_files())
    made = settle(model())
    offline(monkeypatch)
    with pytest.raises(ModelError, match="not in the hub's cache") as caught:
        settle(model())
    assert f"hf download {MODEL}" in caught.value.hint
    with pytest.raises(ModelError, match=r"it lacks .*config\.json"):
        fetch(made.found, made.files)


# --- what goes wrong


FAULTS: list[tuple[str, str | None, type[BudgetRLError], str, str]] = [
    ("gated", None, ModelError, "is gated: its licence", "set HF_TOKEN"),
    ("gated", STRANGER, ModelError, "account of your token has no access", "Ask for it at http"),
    ("private", None, ModelError, "no such repository, or it is private", "needs a token"),
    ("private", STRANGER, ModelError, "no such repository, or it is private", "somebody who may"),
    ("public", "hf_nonsense", ModelError, "refuses the token", "unset HF_TOKEN"),
]


@pytest.mark.parametrize(("access", "token", "kind", "said", "way_on"), FAULTS)
def test_access_is_told_apart(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    access: str,
    token: str | None,
    kind: type[BudgetRLError],
    said: str,
    way_on: str,
) -> None:
    hub.put("model", MODEL, model_files())
    hub.access("model", MODEL, access)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(kind, match=said) as caught:
        pin(recipe(model={"id": MODEL}))
    assert MODEL in caught.value.message
    assert way_on in caught.value.hint
    assert "huggingface.co" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", MEMBER)
    assert pin(recipe(model={"id": MODEL}))["model"].files


@pytest.mark.parametrize(
    ("table", "said", "way_on"),
    [
        ({"id": "knoveleng/open-rz"}, "no such repository", "Did you mean knoveleng/open-rs?"),
        ({"id": "knoveleng/open-rs", "revision": "v9"}, "no revision 'v9'", "/tree/main"),
        ({"id": "knoveleng/open-rs", "split": "test"}, "no split 'test'", "It has: train."),
        (
            {"id": "knoveleng/open-rs", "columns": {"problem": "question"}},
            "no column 'question'; there are: answer, level, problem, solution",
            "[data.columns]",
        ),
        ({"id": "tiny/nothing"}, "cannot be read as a data set", "json, jsonl, csv or parquet"),
    ],
)
def test_a_wrong_data_set_is_found_before_anything_is_downloaded(
    hub: Hub, table: dict[str, Any], said: str, way_on: str
) -> None:
    put_open_rs(hub)
    hub.put("dataset", "tiny/nothing", {"notes.xyz": b"1"})
    with pytest.raises(DataError) as caught:
        pin(recipe(data={"path": None, **table}))
    assert said in caught.value.message
    assert way_on in caught.value.hint


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_columns_are_read_from_the_ends_of_a_file(hub: Hub, ending: str) -> None:
    rows = sums(3000)
    content: dict[str, str | bytes] = {
        "jsonl": "\n".join(map(json.dumps, rows)),
        "json": json.dumps(rows),
        "csv": "problem,answer,solution\n" + "\n".join(",".join(row.values()) for row in rows),
        "parquet": parquet(rows),
    }
    hub.put("dataset", "tiny/rows", {f"train.{ending}": content[ending]})
    with pytest.raises(DataError, match="no column 'level'; there are: answer, problem, solution"):
        pin(recipe(data={"id": "tiny/rows", "path": None, "columns": {"level": "level"}}))
    data = Data(id="tiny/rows")
    assert len(load_problems(data, lambda a: [None] * len(a)).problems) == 3000


def test_all_that_is_wrong_is_said_at_once(hub: Hub, hasty: None) -> None:
    put_sets(hub)
    hub.fault("amc23", "500", times=-1)
    suites = [{"suite": name} for name in SUITES]
    with pytest.raises(ModelError) as caught:
        pin(recipe(model={"id": "tiny/none"}, eval=suites))
    assert "model 'tiny/none'" in caught.value.message
    assert "data set 'math-ai/amc23'" in caught.value.message
    assert "HTTP 500" in caught.value.message


def test_no_network_is_named_with_the_way_on(
    hub: Hub, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"127\.0\.0\.1:9 cannot be reached") as caught:
        settle(model())
    assert "HTTPS_PROXY" in caught.value.hint
    assert caught.value.exit_code == ExitCode.FAILED
    paper = load_recipe("deepscaler_r64")
    planned = make_plan(paper, Limits(), gpu="A40", dry_run=True)
    assert planned.plan.steps > 0 and not planned.pins, "a dry run plans without a hub"


@pytest.mark.parametrize(
    "words",
    [("run", "quickstart"), ("probe", "quickstart"), ("eval", MODEL), ("eval", f"{MODEL}@v1"),
     ("export", MODEL, "--to", "merged")],
    ids=" ".join,
)  # fmt: skip
def test_every_command_ends_alike_without_a_network(
    hub: Hub,
    hasty: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    named = ("--set", f"model.id={MODEL}") if "quickstart" in words else ()
    assert main([*words, *named, "--out", str(tmp_path / "out")]) == ExitCode.FAILED
    assert "UnreachableError: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- downloads


def test_faults_that_pass_are_survived(hub: Hub, hasty: None) -> None:
    large_model(hub)
    hub.fault("api/models", "503")
    hub.fault("config.json", "500", times=2)
    hub.fault("model.safetensors", "cut", after=MEGABYTE, times=2)
    hub.fault("tokenizer.json", "429")
    folder = download(model())
    for name in model_files():
        assert (folder / name).read_bytes() == (
            hub.root / f"models/{MODEL}/main/{name}"
        ).read_bytes()
    tries = [line for line in hub.asked("model.safetensors") if line.startswith("GET")]
    assert len(tries) == 3
    assert "bytes=" in tries[-1]
    assert parts() == []


@pytest.mark.parametrize(
    ("do", "more", "said", "way_on"),
    [
        ("500", {}, "HTTP 500 for model.safetensors", "try again later"),
        ("429", {"retry_after": 77}, "limits how often", "Try again in 77 s"),
        ("stall", {}, "sent nothing for", "goes on where this one stopped"),
        ("403", {}, "may not read it", "settings/tokens"),
        ("404", {}, "HTTP 404", "later"),
        ("wrong", {}, "came damaged, twice", "HF_ENDPOINT"),
    ],
)
def test_faults_that_last_are_named_and_what_came_is_kept(
    hub: Hub, hasty: None, do: str, more: dict[str, Any], said: str, way_on: str
) -> None:
    large_model(hub)
    hub.fault("resolve/.*model.safetensors", do, times=-1, **more)
    hub.fault("resolve/.*model.safetensors", "cut", after=MEGABYTE)
    with pytest.raises(BudgetRLError) as caught:
        download(model())
    assert said in caught.value.message
    assert MODEL in caught.value.message
    assert way_on in caught.value.hint
    made = settle(model())
    assert not (repo_folder(made.need.repo) / "snapshots" / made.found.commit).exists()
    kept = max(part.stat().st_size for part in parts()) if do != "wrong" else 0
    assert do == "wrong" or 0 < kept <= MEGABYTE
    hub.faults.clear()
    hub.log.clear()
    download(model())
    if do != "wrong":
        (line,) = hub.asked("model.safetensors")
        assert f"bytes={kept}-" in line


def test_a_download_that_is_ended_goes_on_in_the_next(hub: Hub, hasty: None) -> None:
    large_model(hub)
    hub.fault("model.safetensors", "slow", after=4 * MEGABYTE, times=1)
    made = settle(model())

    class Enough(Exception):
        pass

    def stop(watch: Watch) -> None:
        if watch.done > MEGABYTE // 2:
            raise Enough

    with pytest.raises(Enough):
        fetch(made.found, made.files, Watch(bytes_missing(made.found, made.files), stop))
    kept = made.size - bytes_missing(made.found, made.files)
    assert kept >= MEGABYTE // 2
    fetch(made.found, made.files)
    assert bytes_missing(made.found, made.files) == 0


def test_files_that_lie_at_another_address_go_on_there(hub: Hub, hasty: None) -> None:
    large_model(hub)
    hub.redirects = True
    hub.fault("store/.*model.safetensors", "cut", after=MEGABYTE)
    folder = download(model())
    source = hub.root / f"models/{MODEL}/main/model.safetensors"
    assert (folder / "model.safetensors").read_bytes() == source.read_bytes()
    assert any("bytes=" in line for line in hub.asked("GET /store"))


def test_two_that_want_the_same_fetch_it_once(hub: Hub, hasty: None) -> None:
    large_model(hub)
    hub.fault("model.safetensors", "slow", after=6 * MEGABYTE, times=1)
    made, folders = settle(model()), []
    threads = [
        threading.Thread(target=lambda: folders.append(fetch(made.found, made.files)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(folders) == 2
    assert len(hub.asked("resolve")) == len(made.files)


def test_a_full_disk_is_refused_before_a_byte_is_asked_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_model(hub)
    made: Pin = settle(model())
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(RefusedError, match="have to be downloaded") as caught:
        fetch(made.found, made.files)
    assert "HF_HOME" in caught.value.hint
    assert not hub.asked("resolve")


def test_a_folder_without_its_tokenizer_has_no_model_to_train(tmp_path: Path) -> None:
    for name, content in model_files().items():
        if name != "tokenizer.json":
            (tmp_path / name).write_bytes(content)
    found = recipe(model={"id": str(tmp_path)})
    with pytest.raises(ModelError, match="tokenizer"):
        open_engine(found, tmp_path)


def test_a_model_of_the_hub_is_loaded_from_its_folder(hub: Hub) -> None:
    commit = hub.put("model", MODEL, model_files())
    engine = open_engine(recipe(model={"id": MODEL}), hub.root)
    assert commit in engine.model.peft_config["default"].base_model_name_or_path
    hub.log.clear()
    open_engine(recipe(model={"id": MODEL, "revision": commit}), hub.root).close()
    assert hub.log == []


# --- shapes, and what eval is pointed at


def test_any_model_can_be_estimated_by_id(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "qwen3", "num_attention_heads": 8, "num_hidden_layers": 2,
              "hidden_size": 64, "intermediate_size": 128, "vocab_size": 100, "head_dim": 16,
              "num_key_value_heads": 2, "max_position_embeddings": 4096}  # fmt: skip
    commit = hub.put("model", "some/body", {"config.json": json.dumps(config)})
    shape = find_shape("some/body")
    assert (shape.layers, shape.kv_heads) == (2, 2)
    assert shape.source == f"config.json of some/body at {commit[:12]}, from the hub"
    hub.log.clear()
    read_config.cache_clear()
    offline(monkeypatch)
    assert find_shape("some/body").source.endswith("from the hub's cache")
    with pytest.raises(ModelError, match="its shape is not known") as caught:
        find_shape("some/other")
    assert "--offline" in caught.value.hint
    assert hub.log == []


def test_what_an_estimate_does_not_cover_is_said(hub: Hub) -> None:
    hub.put("model", "some/moe", {"config.json": '{"num_local_experts": 8}'})
    with pytest.raises(ModelError, match="mixture of experts"):
        find_shape("some/moe")
    hub.put("model", "some/bad", {"config.json": "[1]"})
    with pytest.raises(ModelError, match="is no JSON object"):
        find_shape("some/bad")
    hub.put("model", "some/none", {"README.md": ""})
    with pytest.raises(ModelError, match=r"has no config\.json"):
        find_shape("some/none")


def test_eval_finds_models_and_adapters_by_id(hub: Hub, tmp_path: Path) -> None:
    commit = hub.put("model", MODEL, model_files())
    hub.put("model", MODEL, model_files("strong"), revision="v1")
    target = find_target(MODEL)
    assert (target.recipe.model.revision, target.policy_id) == (commit, f"{MODEL}@{commit}")
    assert find_target(f"{MODEL}@v1").recipe.model.revision != commit
    engine = open_engine(target.recipe, tmp_path)
    engine.model.save_pretrained(str(tmp_path / "made"))
    files = {name: (tmp_path / "made" / name).read_bytes() for name in ADAPTER_FILES}
    hub.put("model", "tiny/adapter", files)
    adapter = find_target("tiny/adapter")
    assert adapter.adapter is not None
    # The adapter names the cache's folder of the base, which is the hub's base at that commit.
    assert (adapter.recipe.model.id, adapter.recipe.model.revision) == (MODEL, commit)
    assert open_engine(adapter.recipe, tmp_path, adapter.adapter).adapter_is_zero()
    with pytest.raises(ModelError, match="holds an adapter, no model of its own"):
        pin(recipe(model={"id": "tiny/adapter"}))


def test_export_says_how_far_adapter_and_base_are(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put("model", MODEL, model_files())
    engine = open_engine(find_target(MODEL).recipe, tmp_path)
    engine.model.save_pretrained(str(tmp_path / "made"))
    files = {name: (tmp_path / "made" / name).read_bytes() for name in ADAPTER_FILES}
    hub.put("model", "tiny/adapter", files)
    shutil.rmtree(constants.HF_HUB_CACHE)
    capsys.readouterr()
    out = str(tmp_path / "merged")
    assert main(["export", "tiny/adapter", "--to", "merged", "--out", out]) == 0
    adapter, base, merging = capsys.readouterr().err.splitlines()[:3]
    assert adapter.startswith("tiny/adapter: ") and "MiB of" in adapter
    assert base.startswith(f"{MODEL}: ") and "MiB of" in base
    assert merging.startswith(f"merging into {MODEL}")


def test_a_model_that_no_longer_fits_its_window_is_refused_before_its_weights_come(
    hub: Hub,
) -> None:
    hub.put("model", MODEL, model_files())
    asked = recipe(model={"id": MODEL}, sampling={"max_tokens": 100_000})
    loaded = replace(load_recipe("quickstart"), recipe=asked)
    with pytest.raises(RecipeError, match="window"):
        make_plan(loaded, Limits(3600), dry_run=True)
    assert not hub.asked("safetensors")


def test_what_is_no_language_model_is_refused_before_its_weights_come(hub: Hub) -> None:
    files = model_files()
    config = json.loads(files["config.json"]) | {"model_type": "qwen2_vl"}
    hub.put("model", MODEL, files | {"config.json": json.dumps(config)})
    pins = pin(recipe(model={"id": MODEL}))
    log: Any = None  # nothing is told before the refusal
    with pytest.raises(ModelError, match="'qwen2_vl' is no language model"):
        bring(pins, log)
    assert not hub.asked("safetensors")
