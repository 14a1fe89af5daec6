"""Which device and number format to compute in, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from demo.utils.errors import UserError

if TYPE_CHECKING:
    import torch

DEVICE_FORMS = "auto, cpu, cuda, cuda:N or mps"

_DTYPES = ("float32", "bfloat16", "float16")


def pick_device(name: str) -> torch.device:
    """Turn a name into a device that is there; ``auto`` is the first of CUDA, MPS, CPU.

    Raises:
        UserError: an unknown name, or a device this machine or this build of torch lacks.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"There is no device called {name!r}: choose {DEVICE_FORMS}.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("MPS is not available on this machine: choose --device cpu or --device auto.")
    if device.type == "cuda":
        return _cuda_device(device)
    return device


def _cuda_device(device: torch.device) -> torch.device:
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "CUDA is not available (no GPU, no driver, or a torch build without CUDA): "
            "choose --device cpu or auto."
        )
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise UserError(f"There is no CUDA device {index}: this machine has {count}, counted from 0.")
    return torch.device("cuda", index)


def pick_dtype(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The number format to hold weights and residual stream in, and one phrase for the start-up line.

    ``auto`` takes bfloat16 only where the hardware computes in it: emulated, it is slower than float32.

    Raises:
        UserError: ``name`` is not auto, float32, bfloat16 or float16.
    """
    import torch

    if name != "auto":
        if name not in _DTYPES:
            raise UserError(f"There is no number format called {name!r}: choose auto, {', '.join(_DTYPES)}.")
        return getattr(torch, name), f"{name}: as asked"
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        if native:
            return torch.bfloat16, "bfloat16: this GPU computes in it"
        return torch.float16, "float16: this GPU has no native bfloat16"
    if device.type == "mps":
        # Some models' residual streams pass float16's largest number, 65,504, so range comes first.
        if torch.backends.mps.is_macos_or_newer(14, 0):
            return torch.bfloat16, "bfloat16: half the memory with float32's range"
        return torch.float16, "float16: MPS before macOS 14 has no bfloat16"
    if _cpu_has_native_bfloat16():
        return torch.bfloat16, "bfloat16: this CPU computes in it"
    return torch.float32, "float32: this CPU has no native bfloat16"


def _cpu_has_native_bfloat16() -> bool:
    """Whether matrix products in bfloat16 run on instructions of their own.

    Both questions are needed: oneDNN also says yes where it only emulates with AVX-512, and a CPU that has
    the instructions gains nothing in a build of torch that does not use them.
    """
    import torch

    capabilities = _cpu_capabilities()
    if not any(
        capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")
    ):  # the last is ARM's name
        return False
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _cpu_capabilities() -> Mapping[str, Any]:
    import torch

    probe = getattr(torch.cpu, "get_capabilities", None)  # absent from older releases
    return probe() if probe is not None else {}
