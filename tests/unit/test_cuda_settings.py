"""Settings on which numbers on CUDA depend: set, recorded, and said. Flags exist without a GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch

from vlmlens.hf.cuda_settings import cuda_settings, keep_precision
from vlmlens.hf.load_options import quantization_config
from vlmlens.runner.execution import company_matters
from vlmlens.spec.model import make_spec
from vlmlens.testing.model import tiny_model

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def tf32() -> Iterator[None]:
    """torch's own setting, and the same afterwards."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    ("dtype", "device", "rounds"),
    [
        (torch.float32, CUDA, False),
        (torch.float32, CPU, True),
        (torch.bfloat16, CUDA, True),
    ],
)
def test_convolutions_of_float32_models_are_not_rounded(
    dtype: torch.dtype, device: torch.device, rounds: bool
) -> None:
    keep_precision(dtype, device)
    assert torch.backends.cudnn.allow_tf32 is rounds
    assert cuda_settings(CUDA, "eager")["tf32"] == {"convolutions": rounds, "products": False}


def test_the_newer_settings_of_torch_are_read_and_set() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    assert cuda_settings(CUDA, "eager")["tf32"]["products"]
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.fp32_precision = "tf32"
    assert cuda_settings(CUDA, "eager")["tf32"] == {"convolutions": True, "products": False}
    keep_precision(torch.float32, CUDA)
    assert not cuda_settings(CUDA, "eager")["tf32"]["convolutions"]


def test_the_kernels_of_sdpa_are_recorded() -> None:
    assert cuda_settings(CUDA, "sdpa")["sdpa"] == ["flash", "efficient", "cudnn", "math"]
    torch.backends.cuda.enable_flash_sdp(False)
    try:
        assert cuda_settings(CUDA, "sdpa")["sdpa"] == ["efficient", "cudnn", "math"]
    finally:
        torch.backends.cuda.enable_flash_sdp(True)
    assert "sdpa" not in cuda_settings(CUDA, "eager")


def test_fingerprints_of_the_cpu_stay_as_they_were() -> None:
    assert cuda_settings(CPU, "sdpa") == {}
    said = tiny_model().describe()
    assert not {"tf32", "sdpa", "computes"} & said.keys()


def test_four_bits_compute_in_the_dtype_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name == "bitsandbytes" or real(name)
    )
    assert quantization_config("4bit", torch.bfloat16).bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization_config("4bit").bnb_4bit_compute_dtype == torch.float32
    assert quantization_config("8bit", torch.bfloat16).load_in_8bit


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quantization": "8bit"}, True),
        ({"quantization": "4bit", "batch_size": 4}, True),
        ({"quantization": "8bit", "batch_size": 1}, False),
        ({}, False),
    ],
)
def test_quantized_numbers_depend_on_the_batch(settings: dict[str, object], said: bool) -> None:
    text = company_matters(make_spec(settings))
    assert bool(text) is said
    if said:
        assert f"computes in {settings['quantization']}" in text
        assert "--batch-size 1" in text
