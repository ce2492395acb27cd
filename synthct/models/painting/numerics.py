"""The numerics class: what the low bits of a sample depend on besides its seed."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

import diffusers
import torch

from synthct.models.painting.inpainter import Inpainter


def pin_numerics(threads: int) -> None:
    """Fix the number of threads, TF32, autotuning and the choice of kernels."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when a GPU is first used
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A twentieth of a network's time, for memory that nothing reads before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def numerics_class(inpainter: Inpainter) -> dict[str, Any]:
    """Facts within which a seed gives the same bits."""
    device = inpainter.network.device
    on_gpu = device.type == "cuda"
    return {
        "device": device.type,
        "arch": torch.cuda.get_device_name(device) if on_gpu else _cpu_arch(),
        "dtype": str(inpainter.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "batch_size": inpainter.batch_size,
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "diffusers": diffusers.__version__,
        **{name: version(name) for name in inpainter.network.numeric_packages},
    }


def _cpu_arch() -> str:
    """Instruction set and, if known, processor: torch chooses kernels by both."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch
    name = known.get("cpu_name")
    isa = torch.backends.cpu.get_cpu_capability()
    return f"{isa}, {name}" if name else isa
