"""Tensors on their way to a device: what torch can pin, and what it cannot."""

from __future__ import annotations

import pytest
import torch

from vlmlens.rows.uploads import pinned

CUDA = torch.device("cuda:1")


def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
    """As torch pins without a GPU to pin for: a copy with the same strides."""
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    return made.copy_(tensor)


@pytest.fixture(autouse=True)
def _pinning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(3).expand(4, 3),
        torch.ones(2, 1, 5).expand(2, 6, 5).transpose(0, 1),
        torch.tensor(True).expand(3),
        torch.zeros(0, 7),
        torch.zeros(()),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.arange(24).view(4, 6)[::2, 1::2],
    ],
)
def test_views_are_pinned_with_their_values(tensor: torch.Tensor) -> None:
    found = pinned(tensor, CUDA)
    assert found.data_ptr() != tensor.data_ptr() or not tensor.numel()
    assert torch.equal(found, tensor)


def test_an_expanded_tensor_itself_cannot_be_pinned() -> None:
    with pytest.raises(RuntimeError, match="single memory location"):
        pin_memory(torch.arange(3).expand(4, 3))


def test_other_devices_need_no_pinned_memory() -> None:
    tensor = torch.zeros(2)
    for device in ("cpu", "mps", "meta"):
        assert pinned(tensor, torch.device(device)) is tensor
