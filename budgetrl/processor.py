"""This machine's processor: its name, how fast it multiplies, and the memory a process has held.

Not here: what a run takes on it (`estimation`). No torch.
"""

import hashlib
import platform
import re
import resource
import time
from pathlib import Path

KIB_PER_GIB = 1 << 20

_MATRIX = 64
"""Small enough that BLAS stays on one thread: the result does not depend on the core count."""
_MEASURE_S = 0.2
_PRODUCTS_PER_LOOK = 200


def cpu_speed(measure_s: float = _MEASURE_S) -> float:
    """GFLOP/s of one thread in small float32 matrix products; takes `measure_s` of wall time.

    Of looks of about a millisecond of processor time the fastest tenth decides: how long work waits
    for a core on a busy machine is told apart (pace.py), and would count twice here; and a core
    that is shared for this moment says little of the minutes that are planned.
    """
    import numpy as np

    left = np.linspace(0.0, 1.0, _MATRIX * _MATRIX, dtype=np.float32).reshape(_MATRIX, _MATRIX)
    out = np.empty_like(left)
    np.matmul(left, left, out=out)
    looks: list[float] = []
    end = time.perf_counter() + measure_s
    while time.perf_counter() < end or not looks:
        start = time.thread_time()
        for _ in range(_PRODUCTS_PER_LOOK):
            np.matmul(left, left, out=out)
        looks.append(time.thread_time() - start)
    return _PRODUCTS_PER_LOOK * 2 * _MATRIX**3 / sorted(looks)[len(looks) // 10] / 1e9


def cpu_model() -> str:
    """The processor's name, as the kernel prints it."""
    match = re.search(r"^model name\s*:\s*(.+)$", _told("/proc/cpuinfo"), re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def multiplies_bfloat16() -> bool:
    """Whether it has units for bfloat16; without, torch works around them."""
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", _told("/proc/cpuinfo")) is not None


def peak_rss_gib() -> float:
    """The most memory that this process has held, as the kernel counts it (VmHWM).

    `ru_maxrss`, its stand-in elsewhere, also knows of the process that started this one.
    """
    match = re.search(r"^VmHWM:\s*(\d+) kB$", _told("/proc/self/status"), re.MULTILINE)
    kib = int(match[1]) if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / KIB_PER_GIB


def boot_id() -> str | None:
    """Tells this machine, since it was started, from others; says nothing else of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return None
    return hashlib.sha256(b"budgetrl" + boot).hexdigest()[:12]


def _told(name: str) -> str:
    """What the kernel says in a file; nothing where there is none."""
    try:
        return Path(name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
