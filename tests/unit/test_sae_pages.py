"""Pages of single features: planted colours, controls, numbers recomputed, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from vlmlens.abc import ModelAdapter
from vlmlens.errors import SpecError
from vlmlens.results import FeaturePage, Figure
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._separating import areas, sparse_areas, targets_of
from vlmlens_plugins.analysis.sae.held import split
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.pages import Looking, pages
from vlmlens_plugins.analysis.sae.pages.choosing import chosen
from vlmlens_plugins.analysis.sae.pages.histograms import EDGES
from vlmlens_plugins.analysis.sae.pages.shown import narrowed, row_codes, shown
from vlmlens_plugins.analysis.sae.pages.units import units_of
from vlmlens_plugins.analysis.sae.peaks import peaks
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.sae import Gated, JumpRelu, Relu, Sae, TensorRows, TopK

COLUMN, PATCHES, WIDTH = "projector/image", 64, 16
OPTIONS = SaeOptions(pages=12, permutations=199, by=("label", "photographer"))
LOUD, DEAD = 15, 14
"""Numbers of features: one that fires in every row, one that never fires."""


@dataclass
class World:
    """Scenes in which one patch has the direction of the main object's colour."""

    looking: Looking
    colours: dict[str, int]
    planted: dict[int, int]

    @property
    def samples(self) -> Sequence[Sample]:
        return self.looking.samples


def scenes_of(count: int) -> list[Sample]:
    made = DemoDataset("scenes", DemoOptions(scenes=count)).samples([])
    return [one for one in made if one.task in ("color", "shape")]


def sae_of(width: int = WIDTH) -> Sae:
    """Each feature reads one coordinate, and writes it."""
    eye, threshold = torch.eye(width), torch.full((width,), 0.2)
    threshold[DEAD] = 1e6
    return Sae(eye, torch.zeros(width), eye, torch.zeros(width), JumpRelu(threshold))


def world_of(samples: Sequence[Sample], vlm: ModelAdapter | None, *, labels: bool = True) -> World:
    rng = np.random.default_rng(0)
    divided = split(samples, COLUMN, 0.4, 0)
    names = sorted({one.label for one in samples if one.task == "color" and one.label})
    colours = {name: place for place, name in enumerate(names)}
    lengths, parts, planted = [0] * len(samples), [], {}
    for number, alike in sorted(divided.alike.items()):
        rows = np.abs(rng.normal(0, 0.12, (PATCHES, WIDTH))).astype(np.float32)
        rows[:, len(names) : 14] *= 3
        rows[:, LOUD] += 1
        planted[number] = int(rng.integers(PATCHES))
        (label,) = {samples[i].label for i in alike if samples[i].task == "color"}
        if labels and label is not None:
            rows[:, : len(names)] *= 0.1
            rows[planted[number], colours[label]] = 1 + rng.random()
        lengths[number] = PATCHES
        parts.append(torch.from_numpy(rows))
    rows_, sae = TensorRows(torch.cat(parts), lengths, COLUMN), sae_of()
    learn, held = (peaks(sae, rows_, part) for part in (divided.learn, divided.held))
    looking = Looking(sae, COLUMN, rows_, learn, held, samples, divided, OPTIONS, 0, vlm)
    return World(looking, colours, planted)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return scenes_of(80)


@pytest.fixture(scope="module")
def world(samples: list[Sample], vlm: ModelAdapter) -> World:
    return world_of(samples, vlm)


@pytest.fixture(scope="module")
def figure(world: World) -> Figure:
    return pages(world.looking)


def page_of(figure: Figure, number: int) -> FeaturePage:
    (found,) = [page for page in figure.pages if page.number == number]
    return found


def named(figure: Figure) -> dict[int, str]:
    return {page.number: page.name for page in figure.pages if page.name}


def with_options(world: World, **changed: Any) -> Looking:
    return replace(world.looking, options=OPTIONS.model_copy(update=changed))


def test_features_of_colours_are_found_named_and_lit_where_they_are(
    world: World, figure: Figure
) -> None:
    found = {name: page_of(figure, number) for number, name in named(figure).items()}
    assert sum("best for color" in page.why for page in found.values()) >= 2
    ids = {sample.id: number for number, sample in enumerate(world.samples)}
    for name, page in found.items():
        colour = name.removeprefix("color: ").partition(" ")[0]
        assert name == f"color: {colour} (AUC 1.00)"
        assert world.colours[colour] == page.number
        assert "best for color" not in page.why or f"best for color: {colour} in the" in page.why
        assert page.labels[0].corrected < 0.05
        for each in page.samples:
            assert each.facts["color"] == colour
            (lit,) = each.maps
            row, col = divmod(world.planted[ids[each.sample]], 8)
            assert lit.boxes == [(col / 8, row / 8, (col + 1) / 8, (row + 1) / 8)]
            assert lit.values == [each.value]


def test_what_is_in_a_clicked_patch_is_known(world: World, figure: Figure) -> None:
    ids = {sample.id: number for number, sample in enumerate(world.samples)}
    shown_pages = {page.number for page in figure.pages}
    assert {scene.sample for scene in figure.scenes} == {
        each.sample for page in figure.pages for each in page.samples
    }
    for scene in figure.scenes:
        number = ids[scene.sample]
        (places,) = scene.places
        assert len(places.boxes) == PATCHES
        colour = next(
            world.samples[i].label
            for i in world.looking.split.alike[number]
            if world.samples[i].task == "color"
        )
        wanted = {world.colours[str(colour)], LOUD} & shown_pages
        assert wanted <= {feature for feature, _ in places.fires[world.planted[number]]}
        values = [value for _, value in scene.fires]
        assert values == sorted(values, reverse=True)


def test_where_nothing_is_planted_nothing_is_named(
    samples: list[Sample], vlm: ModelAdapter, world: World
) -> None:
    assert named(pages(world_of(samples, None, labels=False).looking)) == {}
    asked = with_options(world, features=(8, 9, 10, 11, 12, 13))
    found = pages(asked)
    assert named(found) == {}
    assert {page.why for page in found.pages} == {"asked for"}


def test_held_out_labels_play_no_part_in_the_choice(world: World, figure: Figure) -> None:
    held = {i for n in world.looking.split.held for i in world.looking.split.alike[n]}
    blind = [
        replace(one, label="red" if i in held and one.label else one.label)
        for i, one in enumerate(world.samples)
    ]
    again = pages(replace(world.looking, samples=blind, vlm=None))
    assert [(page.number, page.why) for page in again.pages] == [
        (page.number, page.why) for page in figure.pages
    ]
    assert named(figure)
    assert named(again) == {}


def test_reasons_and_random_features_are_there(figure: Figure) -> None:
    reasons = [page.why for page in figure.pages]
    assert sum(why.startswith("best for") for why in reasons) == 10
    assert sum(why.startswith("strongest") for why in reasons) == 1
    assert sum(why.startswith("drawn at random") for why in reasons) == 1
    assert len(figure.pages) == len({page.number for page in figure.pages}) == 12
    assert any("photographer" in why for why in reasons)
    assert DEAD not in {page.number for page in figure.pages}


def test_numbers_of_a_page_are_those_of_its_rows(world: World, figure: Figure) -> None:
    looking = world.looking
    rows = torch.cat(looking.rows.read(looking.held.samples))
    codes = looking.sae.encode(rows).numpy()
    for page in figure.pages:
        own = codes[:, page.number]
        assert page.rows == len(own)
        assert page.density == pytest.approx((own != 0).mean())
        assert sum(page.counts) == (own > 0).sum()
        assert page.counted == len(own)
        inside = ((own >= page.edges[0]) & (own < page.edges[1])).sum()
        assert page.counts[0] == inside
        assert set(np.array(page.edges).round(6)) <= set(
            np.array([f"{e:.4g}" for e in EDGES], float).round(6)
        )
        assert [cosine for _, cosine in page.nearest] == [0.0] * 5
        tops = [each.value for each in page.samples if each.why.startswith("top")]
        assert tops == sorted(tops, reverse=True)
        assert tops[0] == pytest.approx(own.max(), rel=1e-3)


def test_each_sample_of_a_page_is_of_another_group(samples: list[Sample]) -> None:
    merged = [replace(one, group=f"g{int(one.id[8:13]) // 4}") for one in samples]
    world = world_of(merged, None)
    groups = {merged[n].split_group for n in world.looking.held.samples}
    own = shown(world.looking.held, LOUD, merged)
    found = [merged[world.looking.held.samples[each.place]].split_group for each in own]
    assert len(found) == len(set(found)) >= 8
    assert set(found) <= groups
    (units, *_) = units_of(
        world.looking.held, merged, world.looking.split.alike, targets_of(merged, ["label"])
    )
    assert len(units.labels) == len(
        {
            (merged[i].split_group, merged[i].label)
            for n in world.looking.held.samples
            for i in world.looking.split.alike[n]
            if merged[i].task == units.target.name
        }
        & {(group, label) for group in groups for label in units.names}
    )
    values = units.values(world.looking.held.largest).toarray()
    assert np.allclose(units.means.sum(1), 1)
    assert values.shape == (len(units.labels), WIDTH)


def test_areas_of_sparse_columns_are_those_of_dense_ones() -> None:
    from scipy.sparse import csr_array

    rng = np.random.default_rng(1)
    dense = rng.integers(-2, 4, (40, 7)).astype(float) * (rng.random((40, 7)) < 0.5)
    dense[:, 5] = 0
    labels = [str(each) for each in rng.choice(["a", "b", "c"], 40)]
    found = sparse_areas(csr_array(dense), labels, ["a", "b", "c"])
    for column in range(7):
        assert found[:, column] == pytest.approx(areas(dense[:, column], labels, ["a", "b", "c"]))
    right = roc_auc_score([label == "b" for label in labels], dense[:, 2])
    assert found[1, 2] == pytest.approx(right)


def activations(features: int) -> Iterator[Any]:
    some = torch.linspace(0.1, 0.9, features)
    yield Relu()
    yield JumpRelu(some)
    yield Gated(some - 0.5, some, -some)
    yield TopK(3, rectified=False)


@pytest.mark.parametrize("kind", range(4))
def test_codes_of_some_features_are_those_of_all(kind: int) -> None:
    torch.manual_seed(0)
    of = list(activations(12))[kind]
    sae = Sae(torch.randn(5, 12), torch.randn(12), torch.randn(12, 5), torch.randn(5), of)
    rows = TensorRows(torch.randn(90, 5), [40, 0, 50])
    (first, one), (_, none), (_, last) = row_codes(sae, rows, [0, 1, 2], [7, 2])
    assert (first, none.shape) == (0, (0, 2))
    for part, own in zip(rows.read([0, 2]), (one, last), strict=True):
        whole = sae.codes(part).toarray()[:, [7, 2]]
        assert own.toarray() == pytest.approx(whole, abs=1e-5)
    assert (narrowed(sae, [7, 2]) is None) == isinstance(of, TopK)


def test_a_feature_that_never_fires_has_an_empty_page(world: World) -> None:
    (page,) = pages(with_options(world, features=(DEAD,))).pages
    assert (page.density, page.samples, page.counts, page.name) == (0.0, [], [], "")
    assert {label.auc for label in page.labels} == {0.5}


def test_asking_for_no_page_or_a_wrong_feature(world: World) -> None:
    assert pages(with_options(world, pages=0)).pages == []
    assert chosen(replace(world.looking.learn, fired=np.zeros(WIDTH, int)), [], 5, 0) == []
    for number in (-1, WIDTH):
        with pytest.raises(SpecError, match=f"no feature {number}: the SAE has {WIDTH}"):
            pages(with_options(world, features=(0, number)))


def test_without_a_model_pages_have_no_pictures_and_say_why(world: World) -> None:
    found = pages(replace(world.looking, vlm=None))
    assert not any(each.maps or each.tokens for page in found.pages for each in page.samples)
    assert named(found)
    assert "needs the model" in found.pages[0].written or "need the model" in found.pages[0].written


def test_samples_without_labels_give_pages_without_names(world: World) -> None:
    plain = [replace(one, label=None, attributes={}) for one in world.samples]
    found = pages(replace(world.looking, samples=plain, vlm=None))
    assert len(found.pages) == 12
    assert not any(page.labels or page.name for page in found.pages)


def test_rows_that_no_layout_explains_are_shown_without_a_picture(
    world: World, vlm: ModelAdapter
) -> None:
    said: list[str] = []
    odd = replace(world.looking, column="vision.block.0/[0:3]", warn=said.append)
    found = pages(odd)
    assert not any(each.maps for page in found.pages for each in page.samples)
    (text,) = said
    assert "is not known" in text


def test_what_else_fires_is_kept_for_so_many_patches_and_pictures_stay(
    world: World, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmlens_plugins.analysis.sae.pages.making._MOST_PATCHES", 5 * PATCHES)
    found = pages(world.looking)
    kept = [scene.sample for scene in found.scenes if scene.places]
    assert len(kept) == 5
    assert set(kept) <= {page.samples[0].sample for page in found.pages}, "first ones first"
    assert [page.samples for page in found.pages] == [page.samples for page in figure.pages]


def test_many_features_are_looked_through_in_parts(
    world: World, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmlens_plugins.analysis.sae.pages.choosing._AT_ONCE", 3)
    assert pages(replace(world.looking, vlm=None)).pages[0].why == figure.pages[0].why
