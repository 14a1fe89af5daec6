"""The device and the number format that a model runs in, and the reason for the choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.utils.errors import UserError

if TYPE_CHECKING:
    import torch

DEVICE_FORMS = "auto, cpu, cuda, cuda:N or mps"

_DTYPES = ("float32", "bfloat16", "float16")

# Weights of 8 bits, see `demo.models.eight_bit`; all else is in the CPU's own format.
INT8 = "int8"

# What torch calls native bfloat16 arithmetic; the last is ARM's name.
_NATIVE_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")


def pick_device(name: str) -> torch.device:
    """Return the available device called `name`; "auto" is the first available of CUDA, MPS and CPU.

    Raises:
        UserError: The name is unknown, or this machine or this build of torch lacks the device.
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


def pick_dtype(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """Choose the number format of weights and residual stream, and give the reason in one phrase.

    "auto" is bfloat16 only where the hardware supports it natively: emulated, it is slower than float32.

    Raises:
        UserError: `name` is not auto, float32, bfloat16, float16 or int8, or is int8 on a GPU.
    """
    import torch

    if name == INT8:
        if device.type != "cpu":
            raise UserError("int8 is for CPUs: leave out --dtype, or choose --device cpu.")
        dtype, _ = pick_dtype("auto", device)
        return dtype, f"int8: weights of 8 bits as requested, all else in {str(dtype).removeprefix('torch.')}"
    if name != "auto":
        if name not in _DTYPES:
            known = ", ".join((*_DTYPES, INT8))
            raise UserError(f"There is no number format called {name!r}: choose auto, {known}.")
        return getattr(torch, name), f"{name}: as requested"
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        if native:
            return torch.bfloat16, "bfloat16: this GPU supports it natively"
        return torch.float16, "float16: this GPU has no native bfloat16"
    if device.type == "mps":
        # Some models' residual streams exceed float16's largest number, 65,504; bfloat16 has float32's range.
        if torch.backends.mps.is_macos_or_newer(14, 0):
            return torch.bfloat16, "bfloat16: half the memory with float32's range"
        return torch.float16, "float16: MPS before macOS 14 has no bfloat16"
    if _cpu_has_native_bfloat16():
        return torch.bfloat16, "bfloat16: this CPU supports it natively"
    return torch.float32, "float32: this CPU has no native bfloat16"


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


def _cpu_has_native_bfloat16() -> bool:
    """Whether matrix products in bfloat16 run on instructions made for them.

    Both checks are needed: oneDNN also reports support where it only emulates bfloat16 with AVX-512,
    and a CPU that has the instructions gains nothing in a build of torch that does not use them.
    """
    import torch

    get_capabilities = getattr(torch.cpu, "get_capabilities", None)  # absent from older releases
    capabilities = get_capabilities() if get_capabilities is not None else {}
    if not any(capabilities.get(name) for name in _NATIVE_BFLOAT16):
        return False
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())
