"""Options of the analysis `sae` that do not fit together, or that no machine can meet."""

from __future__ import annotations

import pytest
import torch

from vlmlens.errors import MissingAnnotation, OutOfMemory, SelectorError, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.sae import SaeAnalysis
from vlmlens_plugins.analysis.sae.held import split
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.places import _of_model
from vlmlens_plugins.sae import Recipe, TensorFeed, train

SAMPLES = [Sample(f"s{i}", "What?", group=f"g{i}", label="a", task="t") for i in range(4)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "batchtopk", "coefficient": 1.0}, "has no coefficient"),
        ({"kind": "topk", "k": 2.5}, "a whole number of features in each row, not 2.5"),
        ({"column": "llm.block.3"}, "'llm.block.3' names no rows"),
        ({"column": "llm.block.3/image", "target": "llm.block.4"}, "'llm.block.4' names no rows"),
        ({"embeddings": "projector"}, "'projector' names no rows"),
        ({"device": "abacus"}, "There is no device 'abacus'"),
        ({"width": 8, "features": [8]}, "There is no feature 8: the SAE has 8"),
        ({"width": 8, "features": [-1]}, "There is no feature -1"),
        ({"file": "sae", "width": 4, "seeds": 3}, "seeds, width would do nothing"),
        (
            {"file": "sae", "column": "llm.block.3/image", "target": "llm.norm/image"},
            "target would",
        ),
        ({"column": "llm.block.3/image", "join": True}, "1 column is named"),
    ],
)
def test_what_does_not_fit_is_an_error_before_anything_runs(
    given: dict[str, object], words: str
) -> None:
    with pytest.raises(SpecError, match=words) as raised:
        SaeAnalysis(SaeOptions(**given)).check(SAMPLES, ())
    assert raised.value.hint


def test_a_selector_that_is_none_is_an_error_of_selectors() -> None:
    with pytest.raises(SelectorError):
        SaeAnalysis(SaeOptions(embeddings="projector/imagge")).check(SAMPLES, ())


@pytest.mark.parametrize("name", ["k", "coefficient", "lr"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 0, -1])
def test_numbers_are_finite_and_above_zero(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        SaeOptions(**{name: value})


def test_more_features_than_memory_has_room_for_are_refused_before_they_are_made() -> None:
    feed = TensorFeed(torch.randn(8, 4), batch=4)
    with pytest.raises(OutOfMemory, match="cannot be trained: that takes") as raised:
        train([Recipe(2**40, k=1)], feed, rows=8, device="cpu")
    assert "fewer features" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        (("vision", "llm"), ["vision.block.2/image", "llm.block.1/image"]),
        (("vision", "llm.encoder", "llm"), ["vision.block.2/image", "llm.encoder.block.1/image"]),
        (("vision", "text"), ["vision.block.2/image", "text.block.2/text"]),
        (("llm",), ["llm.block.1/all"]),
    ],
)
def test_usual_columns_are_of_parts_that_read_images(
    parts: tuple[str, ...], found: list[str]
) -> None:
    assert _of_model({f"{part}.block.{i}": None for part in parts for i in range(3)}) == found


def test_samples_without_images_have_no_rows_of_pictures() -> None:
    with pytest.raises(MissingAnnotation, match=r"0 groups of samples .*'llm.block.3/image'"):
        split(SAMPLES, "llm.block.3/image", 0.2, 0)
