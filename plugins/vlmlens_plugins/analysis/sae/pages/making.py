"""All about some features of one SAE, as a figure of kind "features"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from vlmlens.abc import ModelAdapter
from vlmlens.errors import DataError, SelectorError
from vlmlens.results import (
    FeatureLabel,
    FeaturePage,
    FeatureSample,
    FeatureScene,
    Figure,
)
from vlmlens.samples import Sample
from vlmlens.tokens import TokenLayout
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis._separating import targets_of
from vlmlens_plugins.analysis.sae.held import Split, only_pictures
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.analysis.sae.pages.choosing import Chosen, asked_for, chosen
from vlmlens_plugins.analysis.sae.pages.explaining import Explainer
from vlmlens_plugins.analysis.sae.pages.histograms import Histograms, histograms
from vlmlens_plugins.analysis.sae.pages.pictured import View, maps, places, short, tokens, views
from vlmlens_plugins.analysis.sae.pages.shown import Shown, row_codes, shown
from vlmlens_plugins.analysis.sae.pages.testing import name_of, separated_by
from vlmlens_plugins.analysis.sae.pages.units import units_of
from vlmlens_plugins.analysis.sae.pages.written import Written, written
from vlmlens_plugins.analysis.sae.peaks import Peaks
from vlmlens_plugins.sae import Rows, Sae
from vlmlens_plugins.sae.feeding.layouts import row_layouts

_NEAREST = 5
_MOST_PATCHES = 60_000
"""Patches of which it is kept what else fires there, those of the first samples first."""
_MOST_FACTS, _LONGEST_FACT, _LONGEST_PROMPT = 10, 40, 200


def _silent(text: str) -> None:
    del text


@dataclass(frozen=True, slots=True)
class Looking:
    """What the pages of one SAE are made from.

    Args:
        sae: The SAE.
        column: The column that it reads, the first of several: what its rows stand for.
        rows: The column's rows.
        learn: What its features do in the samples that features are chosen by.
        held: What they do in the samples that they are tested on, and that are shown.
        samples: All samples of the run.
        split: Which of them are which.
        options: What was asked for.
        seed: Of random choices and shuffles.
        vlm: Says what rows and directions stand for; None: pages are without pictures and tokens.
        image_share: float64 `[features]`, the share of image rows in a feature's codes, if it was
            measured.
        warn: Called with what the reader must know.
        place: What its columns are called; "": as `column`.
    """

    sae: Sae
    column: str
    rows: Rows
    learn: Peaks
    held: Peaks
    samples: Sequence[Sample]
    split: Split
    options: SaeOptions
    seed: int = 0
    vlm: ModelAdapter | None = None
    image_share: npt.NDArray[np.float64] | None = None
    warn: Callable[[str], None] = field(default=_silent)
    place: str = ""

    @property
    def name(self) -> str:
        """What its columns are called."""
        return self.place or self.column


def pages(looking: Looking) -> Figure:
    """The pages of the features that are shown, and of their samples what else fires there.

    Features are chosen by the learning samples, and tested and shown on the held-out ones.

    Raises:
        SpecError: A feature that is asked for does not exist.
        UnknownPlugin, BrokenPlugin: The explainer cannot be imported.
    """
    name = looking.options.explainer
    explainer = None if name is None else Explainer.load(name)
    found = _chosen(looking)
    if not found:
        return _figure(looking, [], [])
    numbers = [one.number for one in found]
    own = [shown(looking.held, number, looking.samples) for number in numbers]
    seen = _seen(looking, numbers, own)
    sizes = histograms(looking.sae, looking.rows, looking.held, numbers, looking.seed)
    labels = separated_by(
        looking.held, looking.samples, looking.split.alike, looking.options, numbers,
        (looking.seed, looking.name),
    )  # fmt: skip
    tokens_of, about = written(looking.vlm, looking.sae, _target(looking), numbers)
    made = [
        _page(looking, one, each, seen, place, sizes, labels[place], tokens_of[place], about)
        for place, (one, each) in enumerate(zip(found, own, strict=True))
    ]
    if explainer is not None:
        made = [explainer.told(page, looking.warn) for page in made]
    return _figure(looking, made, [one.scene for one in seen.values()])


@dataclass(frozen=True, slots=True)
class _Seen:
    """A shown sample: the codes of the shown features in its rows, and what the rows are.

    Args:
        codes: float32 `[rows, shown features]`.
        layout: What the rows stand for; None if it is not known.
        views: The sample's pictures.
        scene: What is said of it.
    """

    codes: npt.NDArray[np.float32]
    layout: TokenLayout | None
    views: list[View]
    scene: FeatureScene


def _figure(
    looking: Looking, made: Sequence[FeaturePage], scenes: Sequence[FeatureScene]
) -> Figure:
    return Figure(
        f"features-{slug(looking.name)}",
        f"Features of {looking.name}",
        "features",
        x=(),
        pages=made,
        scenes=scenes,
    )


def _chosen(looking: Looking) -> list[Chosen]:
    options, learn = looking.options, looking.learn
    if options.features is not None:
        return asked_for(options.features, looking.sae.features)
    targets = targets_of(looking.samples, options.by)
    units = units_of(learn, looking.samples, looking.split.alike, targets)
    return chosen(learn, units, options.pages, looking.seed)


def _seen(
    looking: Looking, numbers: Sequence[int], own: Sequence[Sequence[Shown]]
) -> dict[int, _Seen]:
    """By place, the samples that are shown of any feature."""
    held = looking.held
    ranked = (each for several in zip_longest(*own) for each in several if each is not None)
    wanted = list(dict.fromkeys(each.place for each in ranked))
    by_number = {held.samples[place]: place for place in wanted}
    layouts = _layouts(looking, wanted)
    found, room = {}, _MOST_PATCHES
    for number, codes in row_codes(looking.sae, looking.rows, list(by_number), numbers):
        place = by_number[number]
        layout = layouts.get(place)
        pictures = [] if layout is None else views(layout)
        peak = held.largest[[place], :][:, numbers].toarray()[0]
        fires = [(n, short(value)) for n, value in zip(numbers, peak, strict=True) if value > 0]
        room -= sum(len(view.rows) for view in pictures)
        scene = FeatureScene(
            looking.samples[number].id,
            sorted(fires, key=lambda each: -each[1]),
            places(pictures, codes, numbers) if room >= 0 else (),
        )
        found[place] = _Seen(codes.toarray(), layout, pictures, scene)
    return found


def _layouts(looking: Looking, wanted: Sequence[int]) -> dict[int, TokenLayout]:
    """What rows stand for; empty if it is not known, which is said."""
    if looking.vlm is None or not wanted:
        return {}
    own = [looking.samples[looking.held.samples[place]] for place in wanted]
    counts = [int(looking.held.rows[place]) for place in wanted]
    try:
        found = row_layouts(looking.vlm, looking.column, own, counts)
    except (DataError, SelectorError) as error:
        looking.warn(
            f"Which patches and words the rows of {looking.name} stand for is not known, so "
            f"features are shown without them: {error}"
        )
        return {}
    return dict(zip(wanted, found, strict=True))


def _page(
    looking: Looking,
    one: Chosen,
    own: Sequence[Shown],
    seen: Mapping[int, _Seen],
    place: int,
    sizes: Histograms,
    labels: Sequence[FeatureLabel],
    said: Written,
    about: str,
) -> FeaturePage:
    number, held = one.number, looking.held
    edges, counts = sizes.of(place)
    return FeaturePage(
        number,
        looking.name,
        one.why,
        min(1.0, float(held.density[number])),
        int(held.rows.sum()),
        name_of(labels),
        edges,
        counts,
        [_sample(looking, each, seen[each.place], place) for each in own],
        labels,
        said.raised,
        said.lowered,
        about,
        _nearest(looking.sae, number),
        _modality(looking, number),
        counted=sizes.rows,
    )


def _sample(looking: Looking, each: Shown, seen: _Seen, place: int) -> FeatureSample:
    codes = seen.codes[:, place]
    number = looking.held.samples[each.place]
    found = FeatureSample(
        looking.samples[number].id,
        each.why,
        short(each.value),
        _facts(looking, number),
        maps(seen.views, codes),
    )
    if looking.vlm is None or seen.layout is None:
        return found
    texts, values = tokens(looking.vlm, seen.layout, codes)
    told = {} if len(texts) > 1 else dict(found.facts)
    facts = told or {name: said for name, said in found.facts.items() if name != "prompt"}
    return replace(found, tokens=texts, values=values, facts=facts)


def _facts(looking: Looking, number: int) -> dict[str, str]:
    """The labels of all questions with the same rows, and attributes in words or asked for."""
    sample = looking.samples[number]
    alike = [looking.samples[i] for i in looking.split.alike.get(number, (number,))]
    found = {one.task or "label": one.label for one in alike if one.label is not None}
    for name, value in sample.attributes.items():
        if name in looking.options.by or _in_words(value):
            found.setdefault(name, str(value)[:_LONGEST_FACT])
    found = dict(list(found.items())[:_MOST_FACTS])
    prompt = {} if only_pictures(looking.column) else {"prompt": sample.prompt[:_LONGEST_PROMPT]}
    return prompt | found


def _in_words(value: object) -> bool:
    """Whether an attribute is a short text, and not a list or regions as JSON."""
    return isinstance(value, str) and len(value) <= _LONGEST_FACT and value[:1] not in "{["


def _nearest(sae: Sae, number: int) -> list[tuple[int, float]]:
    norms = sae.norms.clamp(min=1e-30)
    cosines = (sae.W_dec @ sae.W_dec[number]) / (norms * norms[number])
    cosines[number] = -np.inf
    best = cosines.topk(min(_NEAREST, sae.features - 1))
    return [
        (int(i), short(float(value))) for i, value in zip(best.indices, best.values, strict=True)
    ]


def _modality(looking: Looking, number: int) -> dict[str, float]:
    if only_pictures(looking.column):
        return {"image": 1.0}
    if looking.image_share is None:
        return {}
    share = float(looking.image_share[number])
    return {"image": short(share), "text": short(1 - share)} if np.isfinite(share) else {}


def _target(looking: Looking) -> str:
    """The column that the decoder writes to."""
    return looking.sae.about.target or looking.column
