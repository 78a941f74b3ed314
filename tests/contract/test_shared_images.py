"""Samples on the same images, each image once through the tower: as each sample alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import Options, Values
from vlmlens.errors import SiteShapeError
from vlmlens.extraction.batching import Lengths, units
from vlmlens.extraction.extraction import Extraction
from vlmlens.hf.shared_images import ImageFeatures, encode_same_images
from vlmlens.samples import Sample
from vlmlens.testing import AdapterTests
from vlmlens.testing._rounding import ROUNDING
from vlmlens.testing.tiny import picture
from vlmlens_adapter_blip2.checks import CHECKS as BLIP2
from vlmlens_adapter_llava.checks import CHECKS as LLAVA
from vlmlens_adapter_molmo.checks import CHECKS as MOLMO
from vlmlens_adapter_paligemma.checks import CHECKS as PALIGEMMA
from vlmlens_adapter_qwen2vl.checks import CHECKS as QWEN
from vlmlens_plugins.extract.activations import ActivationExtractor
from vlmlens_plugins.storage.memory import MemoryStore

COLUMNS = ("vision.block.*/image.mean", "projector/all", "llm.block.*/all", "llm.block.-1/last")
KITS = [*PALIGEMMA, LLAVA[0], QWEN[0], QWEN[2], MOLMO[0], *BLIP2]


@pytest.fixture(scope="module", params=KITS, ids=lambda kit: kit.__name__)
def family(request: Any) -> Any:
    kit: AdapterTests = request.param()
    return kit.vlm


@pytest.fixture(scope="module")
def groups() -> list[list[Sample]]:
    """Questions of several lengths on two images of different shapes."""
    asked = ("Hm?", "What is the large thing on the left made of?", "Color:", "How many?")
    pictures = (picture(64, 48), picture(40, 88, seed=1))
    return [
        [Sample(f"{i}-{j}", prompt, (image,)) for j, prompt in enumerate(asked[i:])]
        for i, image in enumerate(pictures)
    ]


def extractor(vlm: Any, columns: tuple[str, ...] = COLUMNS) -> ActivationExtractor:
    return ActivationExtractor(vlm, columns, Options())


def farthest(found: Mapping[str, Values], single: list[Mapping[str, Values]]) -> float:
    """Largest difference between samples together and each alone, relative to the column's size."""
    worst = 0.0
    for name, values in found.items():
        size = np.abs(values.numpy()).max()
        for mine, alone in zip(values.per_sample(), single, strict=True):
            theirs = alone[name].numpy()
            assert mine.shape == theirs.shape
            worst = max(worst, float(np.abs(mine - theirs).max() / size))
    return worst


@pytest.mark.parametrize("budget", [None, 1, 100])
def test_each_sample_is_as_alone(
    family: Any, groups: list[list[Sample]], budget: int | None
) -> None:
    samples = [sample for group in groups for sample in group]
    single = [extractor(family).extract(family.encode([sample])) for sample in samples]
    shared = extractor(family)
    batch = encode_same_images(family, groups, budget)
    first = shared.extract(batch)
    assert farthest(first, single) < ROUNDING
    again = shared.extract(encode_same_images(family, groups, budget))
    assert all(np.array_equal(first[name].array, again[name].array) for name in first)
    assert (len(batch.passes) > 2) == (budget is not None)


def test_the_tower_runs_once(family: Any, groups: list[list[Sample]]) -> None:
    path = family.sites.canonical["vision.block.0"].path
    calls: list[int] = []
    handle = family.module.get_submodule(path).register_forward_hook(
        lambda module, args, output: calls.append(1)
    )
    shared = extractor(family)
    try:
        for columns in (COLUMNS, ("llm.block.0/last",)):
            shared = extractor(family, columns)
            for _ in range(2):  # the first pass is run whole, later ones stop
                calls.clear()
                shared.extract(encode_same_images(family, groups, 1))
                assert len(calls) == 1
    finally:
        handle.remove()


def test_a_wrong_image_would_be_seen(
    family: Any, groups: list[list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ImageFeatures.of

    def wrong(self: ImageFeatures, numbers: Any) -> Any:
        return right(self, [1 - number for number in numbers])

    samples = [sample for group in groups for sample in group]
    swapped = [[Sample(s.id, s.prompt, groups[0][0].images) for s in group] for group in groups]
    swapped[1] = [Sample(s.id, s.prompt, (picture(64, 48, seed=3),)) for s in swapped[1]]
    flat = [sample for group in swapped for sample in group]
    single = [extractor(family).extract(family.encode([sample])) for sample in flat]
    assert (
        farthest(extractor(family).extract(encode_same_images(family, swapped, None)), single)
        < ROUNDING
    )
    monkeypatch.setattr(ImageFeatures, "of", wrong)
    found = extractor(family).extract(encode_same_images(family, swapped, None))
    assert farthest(found, single) > 1e-3
    assert len(samples) == len(flat)


def test_pieces_that_are_not_images_are_refused() -> None:
    class Output:
        pooler_output = torch.zeros(3, 2, 4)

    with pytest.raises(SiteShapeError, match="2 images gave 3 pieces"):
        ImageFeatures(lambda **inputs: Output(), {}, 2).compute()


def test_a_run_counts_them(groups: list[list[Sample]]) -> None:
    vlm: Any = PALIGEMMA[0]().vlm
    assert vlm.shares == "images"
    samples = [sample for group in groups for sample in group]
    made = extractor(vlm)
    columns = tuple(made.columns())
    told: list[str] = []
    stores = []
    for share in (True, False):
        store = MemoryStore.open(f"shares-{share}", mode="a", options=MemoryStore.Options())
        work = Extraction(vlm, made, samples, "auto", share, told.append)
        work.run(store, [columns] * len(samples), lambda done: None)
        assert dict(work.shared) == ({"images": len(samples)} if share else {})
        stores.append(store)
    ids = [sample.id for sample in samples]
    for name in columns:
        one, other = (store.read(name, ids).numpy() for store in stores)
        assert np.abs(one - other).max() <= ROUNDING * np.abs(other).max()
    assert not told


def test_pieces_of_a_group_are_several_budgets_long() -> None:
    vlm: Any = PALIGEMMA[0]().vlm
    image = picture(64, 48)
    samples = [Sample(str(i), "x" * (5 + i % 3), (image,)) for i in range(40)]
    lengths = Lengths.of(samples, lambda sample: vlm.encode([sample]))
    whole = float(lengths.whole.max())
    budget = int(2 * whole)
    found = units(samples, lengths, size=None, budget=budget, share="images")
    assert [len(unit.samples) for unit in found] == [16, 16, 8]
    assert all(unit.shared for unit in found)
    sized = units(samples, lengths, size=10, budget=budget, share="images")
    assert [len(unit.samples) for unit in sized] == [10] * 4
