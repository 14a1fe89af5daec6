"""The choice of device and number format, with other machines simulated."""

from __future__ import annotations

import contextlib

import pytest
import torch

from demo.models.devices import pick_device, pick_dtype
from demo.utils.errors import UserError
from tests.helpers.tiny_models import assert_one_sentence


def set_devices(monkeypatch: pytest.MonkeyPatch, *, cuda: int, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "picked"),
    [
        (2, True, "auto", "cuda:0"),
        (0, True, "auto", "mps"),
        (0, False, "auto", "cpu"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda", "cuda:0"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_device_choice(monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, name: str, picked: str) -> None:
    set_devices(monkeypatch, cuda=cuda, mps=mps)
    assert pick_device(name) == torch.device(picked)


@pytest.mark.parametrize(
    ("cuda", "name", "words"),
    [
        (0, "gpu", "choose auto, cpu"),
        (0, "meta", "choose auto, cpu"),
        (0, "cuda", "CUDA is not available"),
        (2, "cuda:2", "no CUDA device 2"),
        (0, "mps", "MPS is not available"),
    ],
)
def test_an_unavailable_device_is_refused(
    monkeypatch: pytest.MonkeyPatch, cuda: int, name: str, words: str
) -> None:
    set_devices(monkeypatch, cuda=cuda, mps=False)
    with pytest.raises(UserError) as error:
        pick_device(name)
    assert_one_sentence(error, words)


@pytest.mark.parametrize(
    ("capabilities", "used", "picked"),
    [
        ({"avx512_f": True, "avx512_bw": True}, True, torch.float32),  # it would be emulated, and slower
        ({"avx512_bf16": True}, True, torch.bfloat16),
        ({"amx_bf16": True, "amx_tile": True}, True, torch.bfloat16),
        ({"neon": True, "bf16": True}, True, torch.bfloat16),
        ({"neon": True, "bf16": False}, True, torch.float32),
        ({"avx512_bf16": True}, False, torch.float32),
        ({}, True, torch.float32),
    ],
)
def test_cpu_number_format(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], used: bool, picked: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: used)
    dtype, reason = pick_dtype("auto", torch.device("cpu"))
    assert dtype == picked and reason.startswith(str(picked).removeprefix("torch."))


def test_torch_reports_cpu_capabilities() -> None:
    assert torch.cpu.get_capabilities().get("architecture")


@pytest.mark.parametrize(("native", "picked"), [(True, torch.bfloat16), (False, torch.float16)])
def test_gpu_number_formats(monkeypatch: pytest.MonkeyPatch, native: bool, picked: torch.dtype) -> None:
    # By default torch also reports support where bfloat16 is emulated, as on a T4, which must not use it.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native
    )
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *_: native)
    assert pick_dtype("auto", torch.device("cuda", 0))[0] == picked
    assert pick_dtype("auto", torch.device("mps"))[0] == picked


def test_a_number_format_can_be_chosen_by_name() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("bfloat16", cpu) == (torch.bfloat16, "bfloat16: as requested")
    for name in ("int4", "Float32", "zeros"):
        with pytest.raises(UserError) as error:
            pick_dtype(name, cpu)
        assert_one_sentence(error, "float16")
