"""Pictures with hidden pixels: which pixels change, and to what."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vlmlens.errors import DataError, SelectorError, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import (
    FILLS,
    Alteration,
    AlteredScores,
    Area,
    Canvas,
    Question,
    altered,
)

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 20, 3), np.uint8)
OTHER = RNG.integers(0, 256, (12, 20, 3), np.uint8)
BOX = (3, 2, 9, 7)


def _sample(**attributes):
    regions = json.dumps({"thing": list(BOX), "two": [[0, 0, 2, 2], [18, 10, 20, 12]]})
    return Sample(
        "s", "What?", (Image.fromarray(PIXELS),), attributes={"regions": regions} | attributes
    )


def _pixels(sample, image=0):
    return np.asarray(sample.images[image])


def _inside():
    left, top, right, bottom = BOX
    found = np.zeros(PIXELS.shape[:2], bool)
    found[top:bottom, left:right] = True
    return found


THING = Area(regions=("thing",))


@pytest.mark.parametrize("fill", [fill for fill in FILLS if fill != "other"])
def test_hiding_and_keeping_change_complementary_pixels(fill):
    hidden = _pixels(altered(_sample(), Alteration(hide=THING, fill=fill)))
    kept = _pixels(altered(_sample(), Alteration(keep=THING, fill=fill)))
    inside = _inside()
    assert (hidden[~inside] == PIXELS[~inside]).all()
    assert (kept[inside] == PIXELS[inside]).all()
    assert (hidden[inside] != PIXELS[inside]).any(-1).mean() > 0.9
    assert (kept[~inside] != PIXELS[~inside]).any(-1).mean() > 0.9


def test_fills_are_what_they_say():
    inside = _inside()
    mean = _pixels(altered(_sample(), Alteration(hide=THING, fill="mean")))
    assert (mean[inside] == PIXELS.mean((0, 1)).round()).all()
    for fill, value in (("gray", 128), ("black", 0), ("white", 255)):
        plain = _pixels(altered(_sample(), Alteration(hide=THING, fill=fill)))
        assert (plain[inside] == value).all()
    one, again, two = (
        _pixels(altered(_sample(), Alteration(hide=THING, fill="noise", seed=seed)))
        for seed in (0, 0, 1)
    )
    assert (one == again).all()
    assert (one != two).any()


def test_boxes_cover_pixels_in_part_and_end_at_the_border():
    canvas = Canvas(_sample())
    (found,) = canvas.inside(Area(boxes=((0, -5.0, 1.4, 2.2, 3.0),)))
    expected = np.zeros(PIXELS.shape[:2], bool)
    expected[1:3, 0:3] = True
    assert (found == expected).all()
    (nothing,) = canvas.inside(Area(boxes=((0, 30, 30, 40, 40), (0, -9, -9, -1, -1))))
    assert not nothing.any()


def test_a_region_of_several_boxes_and_a_mask(tmp_path):
    mask = np.zeros((12, 20), np.uint8)
    mask[4, 5] = 9
    Image.fromarray(mask).save(tmp_path / "m.png")
    regions = {"two": [[0, 0, 2, 2], [18, 10, 20, 12]], "dot": {"mask": str(tmp_path / "m.png")}}
    canvas = Canvas(_sample(regions=json.dumps(regions)))
    (two,), (dot,) = canvas.inside(Area(("two",))), canvas.inside(Area(("dot",)))
    assert [two.sum(), two[0, 0], two[11, 19]] == [8, True, True]
    assert [dot.sum(), dot[4, 5]] == [1, True]


def test_the_background_of_another_picture_comes_without_its_own_object():
    sample, clear = _sample(), Area(boxes=((0, 0, 0, 4, 4),))
    change = Alteration(keep=THING, fill="other", cleared=clear)
    shown = _pixels(altered(sample, change, (Image.fromarray(OTHER),)))
    inside, cleared = _inside(), np.zeros(PIXELS.shape[:2], bool)
    cleared[:4, :4] = True
    assert (shown[inside] == PIXELS[inside]).all()
    assert (shown[~inside & ~cleared] == OTHER[~inside & ~cleared]).all()
    assert (shown[cleared & ~inside] == OTHER.mean((0, 1)).round()).all()


def test_another_picture_of_another_size_is_brought_to_this_one():
    big = Image.fromarray(OTHER).resize((40, 24), Image.Resampling.NEAREST)
    shown = altered(_sample(), Alteration(keep=THING, fill="other"), (big,))
    assert shown.images[0].size == (20, 12)


def test_hiding_leaves_other_images_and_keeping_fills_them():
    sample = replace(_sample(), images=(Image.fromarray(PIXELS), Image.fromarray(OTHER)))
    assert (_pixels(altered(sample, Alteration(hide=THING)), 1) == OTHER).all()
    assert (_pixels(altered(sample, Alteration(keep=THING, fill="gray")), 1) == 128).all()


def test_what_cannot_be_hidden_is_said():
    with pytest.raises(SelectorError, match="no region 'cat'"):
        altered(_sample(), Alteration(hide=Area(("cat",))))
    with pytest.raises(DataError, match="outside"):
        altered(_sample(regions='{"thing": [0, 0, 99, 3]}'), Alteration(hide=THING))
    with pytest.raises(SpecError, match="1 images, and 0 others"):
        altered(_sample(), Alteration(keep=THING, fill="other"))
    with pytest.raises(ValueError, match="either"):
        Alteration(hide=THING, keep=THING)


def test_alterations_survive_json():
    for change in (
        Alteration(hide=THING, fill="blur", blur=0.2),
        Alteration(keep=Area(boxes=((0, 1.5, 2, 3, 4),)), fill="other", cleared=THING),
        Alteration(hide=THING, fill="noise", seed=7),
    ):
        assert Alteration.from_json(json.loads(json.dumps(change.to_json()))) == change


def test_scores_are_those_of_the_altered_picture(vlm, scenes):
    """The work gives what the model gives for a picture that was altered by hand."""
    color = next(one for one in scenes if one.task == "color")
    change = Alteration(hide=Area(("main",)), fill="gray")
    asked = [
        Question(color, color.choices).unit().as_run(),
        Question(color, color.choices, change).unit().as_run(),
    ]
    plain, hidden = AlteredScores().run(vlm, asked)
    left, top, right, bottom = json.loads(color.attributes["regions"])["main"]
    pixels = np.asarray(color.open_images()[0]).copy()
    pixels[top:bottom, left:right] = 128
    for found, images in ((plain, color.images), (hidden, (Image.fromarray(pixels),))):
        batch = vlm.encode([replace(color, images=images)])
        logs = vlm.forward(batch, logits="last").logits.double().log_softmax(-1)[0]
        tokens = [vlm.answer_ids(choice)[0] for choice in color.choices]
        np.testing.assert_allclose(found, logs[tokens].numpy(), atol=1e-4)
    right_answer = color.choices.index(color.label)
    assert plain[right_answer] - hidden[right_answer] > 1


@pytest.mark.parametrize("shift", [(4, 3), (15, 8), (-5, -4)])
def test_a_moved_area_has_as_many_pixels(shift):
    area = Area(regions=("thing",), shift=shift)
    (moved,) = Canvas(_sample()).inside(area)
    right, down = shift
    rows, columns = np.nonzero(_inside())
    expected = np.zeros_like(moved)
    expected[(rows + down) % 12, (columns + right) % 20] = True
    assert (moved == expected).all()
    assert Area.from_json(json.loads(json.dumps(area.to_json()))) == area
