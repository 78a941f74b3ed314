"""Goldens of which only some numbers are kept: what they still see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vlmlens.testing._goldens import NUMBERS, PER_ROW, far, kept_of, read_thinned, write_thinned

SHAPES = [(1, 57, 128), (7, 17, 24), (1, 222, 48), (3, 4, 512), (1, 24, 6, 5), (2, 1000), (1, 4096)]


def stored(tensor: torch.Tensor, folder: Path) -> torch.Tensor:
    write_thinned({"x": tensor}, folder / "golden.safetensors")
    return read_thinned(folder / "golden.safetensors")["x"]


def numbered(*shape: int) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_row_and_every_column_has_some(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor = numbered(*shape)
    found = stored(tensor, tmp_path)
    known = ~found.isnan()
    assert torch.equal(found[known], tensor[known])
    by_row = known.view(-1, shape[-1])
    assert int(by_row.sum(1).min()) >= min(PER_ROW, shape[-1])
    assert len(set(by_row.sum(1).tolist())) == 1
    assert bool(by_row.any(0).all())
    assert min(NUMBERS, tensor.numel()) <= int(known.sum())
    assert load_file(tmp_path / "golden.safetensors")["x"].numel() == int(known.sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_wrong_row_is_seen_wherever_it_is(shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor = numbered(*shape)
    wanted = stored(tensor, tmp_path)
    assert far(tensor, wanted) == 0
    rows = tensor.numel() // shape[-1]
    for row in {0, rows // 2, rows - 1}:
        wrong = tensor.clone().view(rows, -1)
        wrong[row] += 1
        assert far(wrong.view(shape), wanted) == 1
    wrong = tensor.clone()
    wrong[..., shape[-1] // 2] += 1
    assert far(wrong, wanted) == 1


def test_rows_in_another_order_are_seen(tmp_path: Path) -> None:
    tensor = numbered(1, 57, 128)
    assert far(tensor.roll(1, 1), stored(tensor, tmp_path)) >= 128


def test_integers_and_named_tensors_stay_whole(tmp_path: Path) -> None:
    tensors = {"ids": torch.arange(5000)[None], "logits": numbered(80, 90), "x": numbered(80, 90)}
    write_thinned(tensors, tmp_path / "golden.safetensors", whole={"logits"})
    found = read_thinned(tmp_path / "golden.safetensors")
    assert torch.equal(found["ids"], tensors["ids"])
    assert found["ids"].dtype == torch.int64
    assert torch.equal(found["logits"], tensors["logits"])
    assert bool(found["x"].isnan().any())


def test_several_files_are_one_golden(tmp_path: Path) -> None:
    write_thinned({"x": numbered(2, 3)}, tmp_path / "a")
    write_thinned({"y": numbered(3, 2)}, tmp_path / "b")
    assert set(read_thinned(tmp_path / "a", tmp_path / "b")) == {"x", "y"}


def test_tolerances_are_units() -> None:
    wanted = torch.tensor([[1.0, torch.nan, 100.0]])
    ours = torch.tensor([[1.5, 7.0, 101.0]])
    assert far(ours, wanted, atol=0.5) == 2
    assert far(ours, wanted, atol=0.5, rtol=0.5) == pytest.approx(0.5)
    assert [part.tolist() for part in kept_of(ours, wanted)] == [[1.5, 101], [1, 100]]


def test_a_number_that_is_none_is_no_match() -> None:
    ours = torch.tensor([[torch.nan, 1.0]])
    assert not far(ours, torch.ones(1, 2)) <= 1e9


def test_another_shape_and_an_empty_row_are_errors() -> None:
    with pytest.raises(AssertionError, match=r"\[1, 6\]"):
        far(numbered(1, 6), numbered(2, 3))
    with pytest.raises(AssertionError, match="no number left"):
        far(numbered(2, 2), torch.tensor([[torch.nan, torch.nan], [1, 2]]))
