"""What every test stands on: no network, one thread, no trace in the user's folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub
from hypothesis import settings

# Before the libraries that read them are imported. One thread: cores are shared, and results that
# are compared bit by bit must not depend on how many there are.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)
for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "BUDGETRL_TORCH_INDEX"):
    os.environ.pop(name, None)

# Shared cores make single examples slow for no reason of theirs; the same examples in every run.
settings.register_profile("shared-cores", deadline=None, derandomize=True)
settings.load_profile("shared-cores")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty cache folder instead of the user's, where runs leave profiles of this machine."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def modules_environment() -> Iterator[None]:
    """What a command sets for its whole process ends with the module that ran it in a fixture."""
    yield from _same_environment()


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """What a command sets for its whole process ends with the test that ran it here."""
    yield from _same_environment()


def _same_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout under test."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data that lies beside some checkouts; skips where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the reference data is not here: {folder} (it is no part of the repository)")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, its cache empty, and no token; for this process."""
    from huggingface_hub import constants

    from budgetrl.hub.config import read_config
    from budgetrl.hub.pins import settle

    with Hub(tmp_path / "hub") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        for answers in (settle, read_config):
            answers.cache_clear()
        yield running
        for answers in (settle, read_config):
            answers.cache_clear()


def _has_gpu() -> bool:
    import pynvml

    try:
        pynvml.nvmlInit()
        return bool(pynvml.nvmlDeviceGetCount() > 0)
    except pynvml.NVMLError:
        return False


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` skip without a GPU, unless one is required."""
    if item.get_closest_marker("gpu") is None or _has_gpu():
        return
    if os.environ.get("BUDGETRL_REQUIRE_GPU") == "1":
        pytest.fail("BUDGETRL_REQUIRE_GPU=1, and NVML finds no GPU")
    pytest.skip("needs an NVIDIA GPU")
