"""GPUs: what each can do and costs, and which one is in this machine.

    gpu = find_gpu("A40")            a row of assets/gpus.json, or of a user's own file
    gpu.usable_gib, gpu.dense_tflops, gpu.price()
    detect_gpu()                     what NVML sees; None without a driver

Not here: what a recipe needs (`estimation`). No torch: the table answers on any laptop.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from budgetrl.errors import UsageError
from budgetrl.files import parse_json, read_asset
from budgetrl.units import GIB

_VENDORS = {"nvidia", "geforce", "tesla", "amd", "instinct", "generation", "sxm2", "sxm4"}
"""Words that NVML and shops put around a name."""


@dataclass(frozen=True, slots=True)
class Price:
    """What an hour costs, and who said so when."""

    usd_per_hour: float
    source: str
    date: str
    """As published: "2026-11-09", "2025 and 2026-06", or a word such as "catalog"."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One row of the GPU table."""

    name: str
    memory_gb: float
    """As sold; see `usable_gib` for what a program can have."""
    bandwidth_gb_s: float
    dense_tflops: float
    """16-bit matrix products with float32 accumulation, without sparsity."""
    bf16: bool
    compute_capability: str = ""
    usable_gib_reported: float | None = None
    aliases: tuple[str, ...] = ()
    prices: tuple[Price, ...] = ()
    notes: str = ""

    @property
    def usable_gib(self) -> float:
        """What CUDA reports as total, where somebody printed it; else a share of the label.

        Server cards with GDDR memory keep 6 to 8 % for error correction (A40 44.99 of 48, L4 22.16
        of 24, T4 14.74 of 16); HBM and desktop cards 1.5 % (H200 139 of 141, RTX 4090 23.63 of 24).
        """
        if self.usable_gib_reported is not None:
            return self.usable_gib_reported
        with_ecc = self.bandwidth_gb_s < 900 and not self.name.startswith("RTX")
        return self.memory_gb * (0.93 if with_ecc else 0.985)

    def price(self) -> Price | None:
        """The newest dated price, the lowest of that date; None when there is none."""
        if not self.prices:
            return None
        newest = max(_date_key(price.date) for price in self.prices)
        latest = [price for price in self.prices if _date_key(price.date) == newest]
        return min(latest, key=lambda price: price.usd_per_hour)


@dataclass(frozen=True, slots=True)
class DetectedGpu:
    """A GPU of this machine, as NVML reports it."""

    name: str
    uuid: str
    total_gib: float
    driver: str
    gpu: Gpu | None
    """Its row of the table with the memory measured here; None for a card the table lacks."""
    used_gib: float = 0.0
    """By programs, without what the driver keeps; containers hide the programs, never this."""
    other_processes: int | None = None
    """Programs that compute on it; None where NVML does not tell."""
    compute_capability: tuple[int, int] | None = None
    cuda: str | None = None
    """The newest CUDA that the driver can run, such as "13.0"."""
    mig: bool = False
    """Cut into slices, of which a program gets one."""


@cache
def gpu_table() -> Mapping[str, Gpu]:
    """The GPUs that one can rent, of `assets/gpus.json`, by name."""
    return {row["name"]: _gpu(row) for row in _rows("gpus")}


@cache
def _all_gpus() -> Mapping[str, Gpu]:
    """These, and cards that people own or meet in reports."""
    return {**gpu_table(), **{row["name"]: _gpu(row) for row in _rows("more_gpus")}}


@cache
def _rows(key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_asset("gpus.json")[key]
    return rows


def find_gpu(name: str) -> Gpu:
    """The GPU of a table name, an alias, a path of a JSON file, or a name as NVML prints it.

    Raises:
        UsageError: unknown; suggests near names.
    """
    if name.endswith(".json"):
        return load_gpu(Path(name))
    found = _lookup(name)
    if found is not None:
        return found
    near = difflib.get_close_matches(_plain(name), _names(), n=3, cutoff=0.5)
    same_family = [key for key in _names() if _plain(name) and key.startswith(_plain(name))]
    names = list(dict.fromkeys(_names()[key] for key in [*same_family, *near]))
    hint = f"Did you mean {' or '.join(names)}? " if names else ""
    raise UsageError(
        f"unknown GPU {name!r}.",
        hint=f"{hint}Known: {', '.join(gpu_table())}; or give a .json file with one such row: "
        "name, memory_gb, bandwidth_gb_s, bf16_dense_tflops.",
    )


def load_gpu(path: Path) -> Gpu:
    """A GPU from a JSON file with one row in the form of `assets/gpus.json`.

    Raises:
        UsageError: no such file, not JSON, or a row with missing or impossible values.
    """
    try:
        row = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}.") from None
    problems = _row_problems(row)
    if problems:
        raise UsageError(
            f"{path}: {'; '.join(problems)}.",
            hint="A row needs name, memory_gb, bandwidth_gb_s and bf16_dense_tflops (dense, "
            "float32 accumulation; fp16_dense_tflops_fp32acc and bf16 = false for older cards).",
        )
    return _gpu(row)


def detect_gpu(index: int = 0) -> DetectedGpu | None:
    """The GPU that CUDA would call `index`; None without a driver or with none visible."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = _visible_handle(pynvml, index)
        return None if handle is None else _describe(pynvml, handle)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _describe(nvml: Any, handle: Any) -> DetectedGpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = str(nvml.nvmlDeviceGetName(handle))
    row = _lookup(name)
    total_gib = memory.total / GIB
    usable = min(total_gib, row.usable_gib_reported or total_gib) if row else total_gib
    # Only the second form tells what the driver keeps from what programs use.
    exact = _if_told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    processes = _if_told(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    cuda = _if_told(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
    mig = _if_told(nvml, nvml.nvmlDeviceGetMigMode, handle)
    return DetectedGpu(
        name=name,
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        total_gib=total_gib,
        driver=str(nvml.nvmlSystemGetDriverVersion()),
        gpu=None if row is None else replace(row, usable_gib_reported=usable),
        used_gib=(exact or memory).used / GIB,
        other_processes=None if processes is None else len(processes),
        compute_capability=_if_told(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle),
        cuda=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        mig=mig is not None and mig[0] == nvml.NVML_DEVICE_MIG_ENABLE,
    )


def _if_told(nvml: Any, question: Callable[..., Any], *of: Any) -> Any:
    """The answer; None where the card or the driver does not support the question."""
    try:
        return question(*of)
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        return None


def _visible_handle(pynvml: Any, index: int) -> Any:
    """The device at a position of CUDA_VISIBLE_DEVICES (numbers or UUIDs), or of the machine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        count = pynvml.nvmlDeviceGetCount()
        return pynvml.nvmlDeviceGetHandleByIndex(index) if index < count else None
    devices = [device.strip() for device in visible.split(",") if device.strip()]
    if index >= len(devices) or devices[index] == "-1":
        return None
    device = devices[index]
    if device.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(device))
    return pynvml.nvmlDeviceGetHandleByUUID(device)


def _lookup(name: str) -> Gpu | None:
    found = _names().get(_plain(name))
    return None if found is None else _all_gpus()[found]


@cache
def _names() -> Mapping[str, str]:
    """Plain spelling of every name and alias -> name in the table."""
    spellings: dict[str, str] = {}
    for gpu in _all_gpus().values():
        for spelling in (gpu.name, *gpu.aliases):
            spellings.setdefault(_plain(spelling), gpu.name)
    return spellings


def _plain(name: str) -> str:
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(word for word in words if word not in _VENDORS)


def _gpu(row: Mapping[str, Any]) -> Gpu:
    bf16 = bool(row.get("bf16", row.get("bf16_dense_tflops") is not None))
    tflops = row.get("bf16_dense_tflops") or row.get("fp16_dense_tflops_fp32acc")
    prices = [
        Price(price["usd"], f"{price['provider']}: {price['source']}", price["date"])
        for price in row.get("prices_usd_per_gpu_hour", ())
    ]
    return Gpu(
        name=row["name"],
        memory_gb=row["memory_gb"],
        bandwidth_gb_s=row["bandwidth_gb_s"],
        dense_tflops=tflops or 0.0,
        bf16=bf16,
        compute_capability=str(row.get("compute_capability", "")),
        usable_gib_reported=row.get("usable_memory_gib_reported"),
        aliases=tuple(row.get("aliases", ())),
        prices=tuple(prices),
        notes=row.get("notes", ""),
    )


def _row_problems(row: Any) -> list[str]:
    if not isinstance(row, dict):
        return ["must hold one JSON object"]
    name = row.get("name")
    known = isinstance(name, str) and name and name.isprintable()
    problems = [] if known else ["name is missing or holds control characters"]
    for key, kind in (("bf16", bool), ("fp8_hw", bool), ("aliases", list), ("arch", str)):
        if not isinstance(row.get(key, kind()), kind):
            problems.append(f"{key} = {row[key]!r} is no {kind.__name__}")
    tflops = "bf16_dense_tflops" if row.get("bf16", True) else "fp16_dense_tflops_fp32acc"
    for key in ("memory_gb", "bandwidth_gb_s", tflops):
        problems += _number_problem(key, row.get(key), required=True)
    problems += _number_problem(
        "usable_memory_gib_reported", row.get("usable_memory_gib_reported"), required=False
    )
    prices = row.get("prices_usd_per_gpu_hour", [])
    needed = {"provider", "usd", "date", "source"}
    if not isinstance(prices, list) or not all(
        isinstance(price, dict) and needed <= price.keys() for price in prices
    ):
        return [*problems, f"prices_usd_per_gpu_hour needs {', '.join(sorted(needed))} in each"]
    for price in prices:
        problems += _number_problem("a price's usd", price["usd"], required=True)
        if not isinstance(price["date"], str):
            problems.append(f"a price's date = {price['date']!r} is no str")
    usable, whole = row.get("usable_memory_gib_reported"), row.get("memory_gb")
    if not problems and usable is not None and usable > whole:
        problems.append(f"usable_memory_gib_reported = {usable} is more than memory_gb = {whole}")
    return problems


def _number_problem(key: str, value: Any, *, required: bool) -> list[str]:
    if value is None:
        return [f"{key} is missing"] if required else []
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 1e-6 <= value <= 1e6:
        return [f"{key} = {str(value)[:40]} must be a number above zero, at most a million"]
    return []


def _date_key(date: str) -> tuple[int, int, int]:
    """Sorts "2025 and 2026-06" by its last date; words without a year come first."""
    dates = re.findall(r"(20\d\d)(?:-(\d\d))?(?:-(\d\d))?", date) if "recalled" not in date else []
    keys = [(int(y), int(m or 0), int(d or 0)) for y, m, d in dates]
    return max(keys, default=(0, 0, 0))
