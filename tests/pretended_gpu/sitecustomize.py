"""A GPU that is only pretended: Unsloth and vLLM, as they are, on a CPU.

Python imports this by itself where its folder is in PYTHONPATH. Once unsloth has been imported,
torch says that there is one card like an A40, and tensors meant for it stay where they are. Then
`FastLanguageModel.from_pretrained(fast_inference=True)` loads a real vLLM (its CPU build) that
shares its weights with the trainer, and Unsloth's kernels run in Triton's interpreter: slowly, but
with the arithmetic they are written in. Not here: CUDA graphs, compiled code, speed, memory.
"""

import importlib.machinery
import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ.update(
    UNSLOTH_ALLOW_CPU="1",
    UNSLOTH_COMPILE_DISABLE="1",
    TORCHDYNAMO_DISABLE="1",
    TRITON_INTERPRET="1",
    HF_HUB_OFFLINE="1",
    VLLM_CPU_KVCACHE_SPACE="1",
)
GIB = 2**30
FREE, TOTAL = 44 * GIB, 45 * GIB


def pretend() -> None:
    """Everything, after unsloth was imported."""
    import unsloth.models._utils
    import unsloth.models.llama
    import unsloth_zoo.vllm_utils
    from unsloth.models import rl

    os.environ["UNSLOTH_ALLOW_CPU"] = "0"  # which would leave TRL's trainers as they are
    rl.PatchFastRL()
    os.environ["UNSLOTH_ALLOW_CPU"] = "1"
    unsloth.models._utils.SUPPORTS_BFLOAT16 = True
    unsloth.models.llama.DEVICE_COUNT = 1
    unsloth_zoo.vllm_utils.get_mem_info = lambda: (FREE, TOTAL)
    pretend_vllm()
    pretend_triton()
    pretend_cuda()
    pretend_generators()


def pretend_generators() -> None:
    """Generators that seem to be wound back, which vLLM asks after a part of a prompt.

    A CPU's have no offset; here such a completion is drawn with one more draw behind it.
    """
    import torch
    from vllm.v1.worker import gpu_model_runner

    class Generator(torch.Generator):
        def get_offset(self) -> int:
            return 0

        def set_offset(self, offset: int) -> None:
            pass

    class Torch:
        def __getattr__(self, name: str) -> Any:
            return Generator if name == "Generator" else getattr(torch, name)

    gpu_model_runner.torch = Torch()


def pretend_vllm() -> None:
    """No compilation; weights in the layout that they have on a GPU, so that they can be shared."""
    import torch
    import vllm
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    def dispatch(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    def init(self: Any, compilation_config: Any = None, **arguments: Any) -> None:
        real(self, **arguments | {"enforce_eager": True})

    utils.dispatch_cpu_unquantized_gemm = dispatch
    # The CPU's worker takes sleep and wake_up, and does nothing.
    type(current_platform).is_sleep_mode_available = lambda self: True
    real, vllm.LLM.__init__ = vllm.LLM.__init__, init


def pretend_triton() -> None:
    """Arithmetic in bfloat16, which the interpreter takes for integers."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def decode(bits: Any) -> Any:
        return (bits.astype(np.uint32) << 16).view(np.float32)

    def encode(values: Any) -> Any:
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)

    binary, unary = InterpreterBuilder.binary_op, InterpreterBuilder.unary_op

    def binary_op(self: Any, left: Any, right: Any, op: Any) -> Any:
        if left.dtype.scalar != tl.bfloat16:
            return binary(self, left, right, op)
        found = op(decode(left.data), decode(right.data))
        bits = found.astype(np.uint16) if found.dtype == bool else encode(found)
        return TensorHandle(bits, tl.bfloat16)

    def unary_op(self: Any, value: Any, op: Any) -> Any:
        if value.dtype.scalar != tl.bfloat16:
            return unary(self, value, op)
        return TensorHandle(encode(op(decode(value.data))), tl.bfloat16)

    InterpreterBuilder.binary_op, InterpreterBuilder.unary_op = binary_op, unary_op


def pretend_cuda() -> None:
    """What is asked of torch.cuda, and tensors that stay on the CPU."""
    import torch
    from torch.overrides import TorchFunctionMode

    card = SimpleNamespace(name="pretended", total_memory=TOTAL, major=8, minor=6)
    answers = {
        "is_available": True,
        "is_initialized": True,
        "is_bf16_supported": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": (8, 6),
        "get_device_properties": card,
        "mem_get_info": (FREE, TOTAL),
        "get_rng_state_all": [],
    }
    answers |= dict.fromkeys(("max_memory_allocated", "memory_allocated"), GIB)
    answers |= dict.fromkeys(("max_memory_reserved", "memory_reserved"), GIB)
    silent = ("empty_cache", "synchronize", "reset_peak_memory_stats", "set_device", "ipc_collect")
    answers |= dict.fromkeys((*silent, "set_rng_state_all"))
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)

    def here(place: Any) -> Any:
        named = isinstance(place, str | torch.device) and str(place).startswith("cuda")
        numbered = isinstance(place, int) and not isinstance(place, bool)
        return torch.device("cpu", 0) if named or numbered else place

    class OnCpu(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
            if name in ("cuda", "pin_memory"):
                return args[0]
            if func is torch.device and here(args[0]) is not args[0]:
                return func("cpu", 0)
            if name == "to":
                args = (args[0], *map(here, args[1:]))
            if "device" in kwargs:
                kwargs["device"] = here(kwargs["device"])
            kwargs.pop("pin_memory", None)
            return func(*args, **kwargs)

    OnCpu().__enter__()


class AfterUnsloth:
    """Finds unsloth, and pretends once it has been imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "unsloth":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            pretend()

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, AfterUnsloth())
