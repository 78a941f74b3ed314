"""Pairs of samples: what makes one, what is left out and why, and the demo's minimal pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmlens.abc import ModelAdapter
from vlmlens.errors import DataNotFound, ImageError, MissingAnnotation, SpecError, VlmlensError
from vlmlens.pairs import Dropped, aligned, pairs_of, said
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample, with_prompts
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.demo.pairs import Swap, regions, scene_pairs
from vlmlens_plugins.demo.scenes import MIN_VISIBLE, draw, visible_fractions

PROMPT = "Color of the main object:"
SWAPS: tuple[Swap, ...] = ("color", "shape", "surface")


def picture(color: str, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.new("RGB", size, color)


def member(pair: object, role: object, color: str = "red", **changed: object) -> Sample:
    """A sample of a pair; its answer is its colour."""
    made = Sample(
        f"{pair}/{role}",
        PROMPT,
        (picture(color),),
        label=color,
        choices=("red", "blue"),
        group=str(pair),
        task="color",
        attributes={"pair": pair, "role": role},  # type: ignore[dict-item]
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def pair(name: object, **changed: object) -> list[Sample]:
    """A good pair; `changed` is of its corrupted sample."""
    return [member(name, "clean"), member(name, "corrupted", "blue", **changed)]


def reasons(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    return [(each.pair, each.reason) for each in pairs_of(samples)[1]]


class TestPairsOf:
    def test_a_pair(self) -> None:
        other = Sample("alone", "What?", label="x", attributes={"pair": None})
        clean, corrupted = pair("a")
        (found,), dropped = pairs_of([corrupted, other, clean])
        assert (found.id, found.clean, found.corrupted) == ("a", clean, corrupted)
        assert (found.answers, found.task, found.group) == (("red", "blue"), "color", "a")
        assert dropped == []

    def test_they_keep_their_order_and_may_lie_apart(self) -> None:
        samples = [*pair("b"), *pair("a"), *pair("ü/7 \n")]
        mixed = [*samples[::2], *samples[1::2]]
        for form in (mixed, SampleTable(mixed), iter(mixed)):
            assert [each.id for each in pairs_of(form)[0]] == ["b", "a", "ü/7 \n"]

    @pytest.mark.parametrize(
        ("samples", "reason"),
        [
            (pair("p", images=(picture("red"),)), "same pixels and prompt"),
            (pair("p", label="red"), "same answer"),
            (pair("p", label=None), "no answer"),
            (pair("p", label=""), "no answer"),
            (pair("p", choices=("blue", "red")), "other choices"),
            (pair("p", task="shape"), "other task"),
            (pair("p")[:1], "no corrupted sample"),
            (pair("p")[1:], "no clean sample"),
            ([*pair("p"), replace(pair("p")[1], id="third")], "2 corrupted samples"),
            (pair("p", attributes={"pair": "p"}), "no role"),
        ],
    )
    def test_what_is_left_out(self, samples: list[Sample], reason: str) -> None:
        pairs, dropped = pairs_of([*pair("good"), *samples])
        assert [each.id for each in pairs] == ["good"]
        assert dropped == [Dropped("p", reason)]

    def test_a_changed_word_is_enough_and_opens_no_image(self, tmp_path: Path) -> None:
        missing = (str(tmp_path / "missing.png"),)
        clean, corrupted = member("a", "clean", images=missing), member("a", "corrupted", "blue")
        asked = replace(corrupted, images=missing, prompt="Shape of the main object:")
        assert len(pairs_of([clean, asked])[0]) == 1
        with pytest.raises(ImageError, match=r"missing\.png"):
            pairs_of([clean, corrupted])

    def test_pixels_count_and_not_files(self, tmp_path: Path) -> None:
        """The same picture as PNG and as BMP, in a file and in memory."""
        image = draw(next(scene_pairs("color"))[0])
        places = [tmp_path / "a.png", tmp_path / "b.bmp"]
        for place in places:
            image.save(place)
        forms = [str(places[0]), str(places[1]), image]
        for one in forms:
            for other in forms:
                members = [member("a", "clean", images=(one,))]
                members += pair("a", images=(other,))[1:]
                assert reasons(members) == [("a", "same pixels and prompt")]

    def test_a_file_that_is_changed_is_read_again(self, tmp_path: Path) -> None:
        places = [str(tmp_path / f"{name}.png") for name in "ab"]
        for place in places:
            picture("red").save(place)
        members = [member("a", "clean", images=(places[0],))]
        members += pair("a", images=(places[1],))[1:]
        assert reasons(members) == [("a", "same pixels and prompt")]
        picture("blue", (33, 33)).save(places[1])
        assert reasons(members) == []
        Path(places[1]).unlink()
        with pytest.raises(ImageError, match=r"Sample 'a/corrupted'.*b\.png"):
            pairs_of(members)

    def test_another_size_or_number_of_images_differs(self) -> None:
        assert pairs_of(pair("a", images=(picture("red", (16, 64)),)))[1] == []
        assert pairs_of(pair("a", images=(picture("red"),) * 2))[1] == []

    def test_boxes_are_seen_too(self) -> None:
        known = {"pair": "a", "role": "corrupted", "boxes": "[[0, 0, 1, 1]]"}
        assert pairs_of(pair("a", images=(picture("red"),), attributes=known))[1] == []

    def test_one_name_may_have_a_pair_per_task(self) -> None:
        """As several prompts give it; each pair then has a name of its own."""
        asked = with_prompts([*pair("a"), *pair("b")], ["Color?", "Colour?"])
        pairs, dropped = pairs_of([*asked, *pair("c")])
        assert [each.id for each in pairs] == [
            "a/clean#0", "a/clean#1", "b/clean#0", "b/clean#1", "c"
        ]  # fmt: skip
        assert all(each.clean.prompt == each.corrupted.prompt for each in pairs)
        assert dropped == []

    def test_names_are_never_given_twice(self) -> None:
        asked = with_prompts(pair("a"), ["Color?", "Colour?"])
        names = [each.id for each in pairs_of([*asked, *pair("a/clean#0")])[0]]
        assert len(set(names)) == 3

    def test_without_pairs_the_ways_to_give_them_are_said(self) -> None:
        with pytest.raises(MissingAnnotation, match="clean and a corrupted") as caught:
            pairs_of([Sample("1", "What?", label="x", attributes={"role": "clean"})])
        for way in ("demo:pairs", "pairs.jsonl", "pair, role", "answer"):
            assert way in caught.value.hint

    def test_another_role_is_an_error(self) -> None:
        with pytest.raises(VlmlensError, match=r"'a/after'.* the role 'after'.* 'corrupted'"):
            pairs_of([*pair("a"), member("a", "after")])


def test_what_is_left_out_is_counted() -> None:
    dropped = [
        Dropped("a", "same pixels and prompt"),
        Dropped("b", "12 and 13 tokens"),
        Dropped("c", "same pixels and prompt"),
        Dropped("d", "9 and 8 rows of the vision axis"),
        Dropped("e", "no corrupted sample"),
        Dropped("f", "the clean answer is wrong"),
    ]
    assert said(dropped, of=24) == (
        "6 of 24 pairs are left out: 2 with the same pixels and prompt, 2 with other token counts, "
        "1 without a corrupted sample, 1 (the clean answer is wrong)."
    )
    assert said(dropped[:1]) == "1 pair is left out: 1 with the same pixels and prompt."
    assert said([], of=3) == ""


class TestAligned:
    def test_rows_kinds_and_grids(self, vlm: ModelAdapter) -> None:
        wide = (picture("blue", (96, 32)),)
        samples = [
            *pair("first"),
            *pair("longer", prompt=f"{PROMPT} please"),
            *pair("two images", images=(picture("red"), picture("blue"))),
            *(replace(each, prompt=f"<image>\n{PROMPT}") for each in pair("moved")[:1]),
            *pair("moved", prompt=f"{PROMPT}\n<image>")[1:],
            *pair("cropped", images=wide),
            *pair("last"),
        ]
        pairs, dropped = pairs_of(samples)
        kept, left = aligned(vlm, pairs, batch_size=2)
        assert dropped == []
        assert [each.id for each in kept] == ["first", "last"]
        assert [(each.pair, each.reason) for each in left] == [
            ("longer", "77 and 82 tokens"),
            ("two images", "77 and 142 tokens"),
            ("moved", "other kinds of tokens"),
            ("cropped", "other grid"),
        ]

    def test_batches_do_not_matter(self, vlm: ModelAdapter) -> None:
        found = pairs_of([*pair("a"), *pair("b", prompt="Why?"), *pair("c")])[0]
        assert aligned(vlm, found, batch_size=1) == aligned(vlm, found)
        assert aligned(vlm, []) == ([], [])


class TestDemoPairs:
    @pytest.mark.parametrize("swap", SWAPS)
    def test_only_the_main_object_differs(self, swap: Swap) -> None:
        for clean, corrupted in islice(scene_pairs(swap), 12):
            assert replace(corrupted, objects=clean.objects) == clean
            assert corrupted.objects[1:] == clean.objects[1:]
            assert getattr(corrupted.main, swap) != getattr(clean.main, swap)
            visible = visible_fractions(corrupted.objects, mirrored=corrupted.mirrored)
            assert min(visible) >= MIN_VISIBLE
            left, top, right, bottom = regions(clean)["main"]
            differ = (np.asarray(draw(clean)) != np.asarray(draw(corrupted))).any(-1)
            assert differ[top:bottom, left:right].mean() > 0.02
            differ[top:bottom, left:right] = False
            assert not differ.any()

    def test_pairs_are_a_function_of_seed_and_index(self) -> None:
        """Fails when a change gives other pairs: then raise PAIRS_VERSION."""
        first = list(islice(scene_pairs("color"), 40))
        assert list(islice(scene_pairs("color"), 40)) == first
        assert [new.main.color for _, new in first[:4]] == ["cyan", "green", "purple", "cyan"]
        shapes = list(islice(scene_pairs("shape"), 40))
        assert [new.main.shape for _, new in shapes[:4]] == ["sphere", "sphere", "cone", "sphere"]
        assert next(scene_pairs("color", seed=1)) != first[0]
        assert {new.main.color for _, new in first} == {old.main.color for old, _ in first}

    def test_the_samples(self) -> None:
        samples = DemoDataset("pairs", DemoOptions(pairs=3)).samples([])
        assert [sample.id for sample in samples[:2]] == [
            "heldout-00000/color/clean", "heldout-00000/color/corrupted"
        ]  # fmt: skip
        clean, corrupted = samples[:2]
        assert (clean.prompt, clean.task, clean.group) == (PROMPT, "color", "heldout-00000")
        assert (clean.label, corrupted.label) == ("red", "cyan")
        assert corrupted.attributes["color"] == "cyan"
        boxes = json.loads(str(clean.attributes["regions"]))
        assert boxes == json.loads(str(corrupted.attributes["regions"]))
        assert boxes == {"main": [22, 30, 91, 99], "object 2": [83, 61, 114, 92]}
        pairs, dropped = pairs_of(samples)
        assert [each.id for each in pairs] == [f"heldout-0000{i}/color" for i in range(3)]
        assert dropped == []

    def test_scenes_and_swaps_share_no_wrong_picture(self) -> None:
        """All are kept in one folder; each file shows what its sample says."""
        shown = [
            sample
            for swap in SWAPS
            for sample in DemoDataset("pairs", DemoOptions(pairs=1, swap=swap)).samples([])
        ]
        shown += DemoDataset("scenes", DemoOptions(scenes=1)).samples([])[:1]
        files = [sample.images[0] for sample in shown]
        assert files[0] == files[2] == files[4] == files[6]
        assert len({sample.open_images()[0].tobytes() for sample in shown}) == 4

    def test_prompts_are_other_wordings(self) -> None:
        samples = DemoDataset("pairs", DemoOptions(pairs=2)).samples(["Which color?", "Color?"])
        pairs, dropped = pairs_of(samples)
        assert len(pairs) == 4
        assert dropped == []
        assert pairs[0].answers == ("red", "cyan")
        assert {each.group for each in pairs} == {"heldout-00000", "heldout-00001"}

    def test_all_pairs_are_aligned(self, vlm: ModelAdapter) -> None:
        pairs, _ = pairs_of(DemoDataset("pairs", DemoOptions(pairs=10)).samples([]))
        assert aligned(vlm, pairs) == (pairs, [])

    def test_options_of_the_other_source_are_refused(self) -> None:
        with pytest.raises(SpecError, match=r"swap=shape is an option of demo:pairs"):
            DemoDataset("scenes", DemoOptions(swap="shape")).samples([])
        with pytest.raises(SpecError, match=r"scenes=3 is an option of demo:scenes"):
            DemoDataset("pairs", DemoOptions(scenes=3)).samples([])
        with pytest.raises(DataNotFound, match="'pair'") as caught:
            DemoDataset("pair", DemoOptions()).samples([])
        assert caught.value.hint.startswith("Did you mean pairs")
