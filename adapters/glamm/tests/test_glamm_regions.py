"""Regions: boxes of samples, and the operation that cuts them out of feature maps."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens.testing._rounding import close
from vlmlens.testing.tiny import picture
from vlmlens_adapter_glamm.adapter import GlammAdapter
from vlmlens_adapter_glamm.checks import GlammChecks
from vlmlens_adapter_glamm.regions import RoIAlign
from vlmlens_adapter_glamm.tiny import write_checkpoint

# ---------------------------------------------------------------------- RoIAlign


def read(features: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """The map at a point between its pixels' centres, `[channels]`."""
    height, width = features.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(features.shape[0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = features[:, top, left] * (1 - across) + features[:, top, right] * across
    lower = features[:, bottom, left] * (1 - across) + features[:, bottom, right] * across
    return upper * (1 - down) + lower * down


def by_loops(
    features: torch.Tensor, box: list[float], scale: float, side: int, ratio: int
) -> torch.Tensor:
    """RoIAlign of one box, point by point, `[channels, side, side]`."""
    left, top, right, bottom = (value * scale - 0.5 for value in box)
    cell_y, cell_x = (bottom - top) / side, (right - left) / side
    cut = torch.zeros(features.shape[0], side, side)
    for row in range(side):
        for col in range(side):
            for i in range(ratio):
                for j in range(ratio):
                    y = top + (row + (i + 0.5) / ratio) * cell_y
                    x = left + (col + (j + 0.5) / ratio) * cell_x
                    cut[:, row, col] += read(features, y, x) / ratio**2
    return cut


BOXES = [
    [3.0, 2.0, 17.0, 11.0],
    [0.0, 0.0, 24.0, 20.0],
    [5.5, 6.25, 5.75, 6.5],
    [-6.0, -9.0, 3.0, 4.0],
    [20.0, 15.0, 40.0, 33.0],
    [21.0, -3.0, 30.0, 40.0],
]


@pytest.mark.parametrize("scale", [0.5, 1.0, 8 / 14])
@pytest.mark.parametrize(("side", "ratio"), [(1, 1), (3, 2), (4, 3)])
def test_roi_align_is_its_definition(scale: float, side: int, ratio: int) -> None:
    features = torch.randn(2, 5, 10, 12, generator=torch.Generator().manual_seed(0))
    images = torch.tensor([0, 1, 1, 0, 1, 0])
    cut = RoIAlign(scale, side, ratio)(features, torch.tensor(BOXES), images)
    for i, box in enumerate(BOXES):
        wanted = by_loops(features[images[i]], box, scale, side, ratio)
        close(cut[i], wanted, scale=float(features.abs().max()))


# ---------------------------------------------------------------------- boxes of samples


@cache
def tiny() -> GlammAdapter:
    vlm = GlammChecks().vlm
    assert isinstance(vlm, GlammAdapter)
    return vlm


def asked(boxes: Any, prompt: str = "What is <bbox> here?", name: str = "s") -> Sample:
    return Sample(name, prompt, (picture(64, 48),), attributes={"boxes": boxes})


BOX = [8.0, 6.0, 40.0, 42.0]


def last(vlm: GlammAdapter, *samples: Sample) -> torch.Tensor:
    logits = vlm.forward(vlm.encode(samples), logits="last").logits
    assert logits is not None
    return logits


def test_boxes_are_fractions_of_their_image() -> None:
    inputs = tiny().encode([asked([BOX])]).inputs
    assert inputs["boxes"].tolist() == [[0.125, 0.125, 0.625, 0.875]]
    assert inputs["box_counts"].tolist() == [1]


def test_boxes_as_tables_give_them() -> None:
    as_list, as_text = asked([BOX]), asked(json.dumps([BOX]))
    assert torch.equal(last(tiny(), as_list), last(tiny(), as_text))


def test_a_region_matters_and_another_box_is_another_region() -> None:
    one = last(tiny(), asked([BOX]))
    other = last(tiny(), asked([[0.0, 0.0, 20.0, 20.0]]))
    assert float((one - other).abs().max()) > 1e-3


def test_regions_stand_at_their_tokens_in_order() -> None:
    vlm, two = tiny(), "Is <bbox> left of <bbox>?"
    batch = vlm.encode([asked([BOX, [0, 0, 20, 20]], two)])
    swapped = vlm.encode([asked([[0, 0, 20, 20], BOX], two)])
    where = torch.nonzero(batch.inputs["input_ids"][0] == vlm.config.bbox_token_id)[:, 0]
    assert len(where) == 2
    names = ("input_ids", "pixel_values", "boxes", "box_counts")
    with torch.inference_mode():
        a, b = (
            vlm.module.model.embedded(**{n: one.inputs[n] for n in names})[0, where]  # type: ignore[union-attr, operator]
            for one in (batch, swapped)
        )
        word = vlm.module.model.language_model.embed_tokens.weight[vlm.config.bbox_token_id]  # type: ignore[union-attr, index]
    close(a, b.flip(0))
    assert float((a[0] - a[1]).abs().max()) > 1e-3
    assert float((a - word).abs().max()) > 1e-3


def test_regions_of_a_batch_are_those_of_each_sample() -> None:
    samples = [
        asked([BOX], name="one"),
        Sample("text", "Hello"),
        asked(None, "No region?", name="none"),
        Sample(
            "two",
            "Is <bbox> left of <bbox>, or not, please?",
            (picture(40, 88, seed=1),),
            attributes={"boxes": [[1, 2, 30, 60], [0, 0, 40, 88]]},
        ),
    ]
    together = last(tiny(), *samples)
    alone = torch.cat([last(tiny(), sample) for sample in samples])
    close(together, alone)
    assert tiny().encode(samples).inputs["box_counts"].tolist() == [1, 0, 0, 2]


def test_generation_goes_on_from_a_region() -> None:
    samples = [asked([BOX], name="one"), asked(None, "No region?", name="none")]
    together = [one.token_ids for one in tiny().generate(tiny().encode(samples), max_new_tokens=4)]
    alone = [
        tiny().generate(tiny().encode([sample]), max_new_tokens=4)[0].token_ids
        for sample in samples
    ]
    assert together == alone
    best = [int(row.argmax()) for row in last(tiny(), *samples)]
    assert [ids[0] for ids in together] == best


def test_without_a_cache_too() -> None:
    batch = tiny().encode([asked([BOX])])
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode():
        slow = tiny().module.generate(**batch.inputs, use_cache=False, **settings)  # type: ignore[operator]
        fast = tiny().module.generate(**batch.inputs, **settings)  # type: ignore[operator]
    assert torch.equal(slow, fast)


def test_an_answer_may_name_the_token_of_a_box() -> None:
    batch = tiny().encode([asked([BOX])], answers=["<bbox>"])
    places = batch.inputs["input_ids"][0] == tiny().config.bbox_token_id
    assert int(places.sum()) == 2
    assert tiny().forward(batch, logits="last").logits is not None


@pytest.mark.parametrize(
    ("boxes", "prompt"),
    [
        ([BOX], "What is here?"),
        (None, "What is <bbox>?"),
        ([BOX], "Is <bbox> left of <bbox>?"),
        ([BOX, BOX], "What is <bbox>?"),
        ([], "What is <bbox>?"),
    ],
)
def test_a_prompt_that_does_not_fit_its_boxes_is_refused(boxes: Any, prompt: str) -> None:
    with pytest.raises(DataError, match=r"boxes and \d <bbox>") as refused:
        tiny().encode([asked(boxes, prompt)])
    assert refused.value.subject == "s"


@pytest.mark.parametrize(
    "boxes",
    [
        "[[1, 2, 3]]",
        "not JSON",
        [1, 2, 3, 4],
        [[1, 2, 3, 4, 5]],
        [["a", 2, 3, 4]],
        [[1, 2, float("nan"), 4]],
        7,
        "[[1, 2, 3, 4]",
    ],
)
def test_what_is_no_list_of_boxes_is_refused(boxes: Any) -> None:
    with pytest.raises(DataError, match="has the boxes"):
        tiny().encode([asked(boxes)])


@pytest.mark.parametrize(
    "box", [[40, 6, 8, 42], [8, 6, 8, 42], [-1, 6, 8, 42], [8, 6, 65, 42], [8, 6, 40, 49]]
)
def test_a_box_outside_the_image_is_refused(box: list[float]) -> None:
    with pytest.raises(DataError, match="no region of its image of 64 x 48"):
        tiny().encode([asked([box])])


def test_boxes_without_an_image_are_refused() -> None:
    with pytest.raises(DataError, match="no image"):
        tiny().encode([Sample("s", "What is <bbox>?", attributes={"boxes": [BOX]})])


def test_a_checkpoint_without_region_encoder_refuses_boxes(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_checkpoint(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**said, "with_region": False}))
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".region_encoder." not in name}
    save_file(kept, tmp_path / "model.safetensors")
    vlm = GlammAdapter.load(LoadRequest(model=str(tmp_path), device="cpu"))
    plain = asked(None, "What is here?")
    close(last(vlm, plain), last(tiny(), plain))
    with pytest.raises(DataError, match="no region encoder"):
        vlm.encode([asked([BOX])])
