"""Features as data, for figures of kind "features". `vlmlens.results` hands the classes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Any

from vlmlens._display import brief, count

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """Where a feature fires in one view of a picture.

    Args:
        image: Which of the sample's images.
        view: Which view of it is cut into patches; "" if there is one.
        boxes: Of each patch where it fires: (left, top, right, bottom) in fractions of the
            picture's width and height; None for what has no place.
        values: The code of each of these patches.
    """

    image: int
    view: str
    boxes: Sequence[Box | None]
    values: Sequence[float]

    def __repr__(self) -> str:
        return brief(self, self.view, f"image {self.image}", count(len(self.values), "patch"))


@dataclass(frozen=True, slots=True)
class FeatureSample:
    """What a feature does in one sample.

    Args:
        sample: The sample's id.
        why: Why it is shown: "top 1", "quantile 0.5".
        value: The largest code of its rows.
        facts: Its label, and attributes, by name.
        maps: Where the feature fires in its pictures.
        tokens: The sample's other rows in reading order, as text.
        values: The code of each token; None where no code is known.
    """

    sample: str
    why: str
    value: float
    facts: Mapping[str, str] = field(default_factory=dict)
    maps: Sequence[FeatureMap] = ()
    tokens: Sequence[str] = ()
    values: Sequence[float | None] = ()

    def __repr__(self) -> str:
        return brief(self, self.sample, self.why, f"{self.value:.3g}")


@dataclass(frozen=True, slots=True)
class FeatureLabel:
    """How well a feature separates one value of an attribute from the others.

    Args:
        target: The attribute or task.
        label: Its value.
        auc: The chance that the feature is stronger where the value holds than where it does not.
        shuffled: The mean area of the best label when labels are shuffled.
        corrected: The p-value of the best label among shuffled ones, after Holm's method.
        units: Independent units behind it.
    """

    target: str
    label: str
    auc: float
    shuffled: float
    corrected: float
    units: int

    def __repr__(self) -> str:
        return brief(self, f"{self.target}: {self.label}", f"AUC {self.auc:.2f}")


@dataclass(frozen=True, slots=True)
class FeaturePage:
    """All about one feature.

    Args:
        number: Its number.
        column: The column that it is a feature of.
        why: Why it is shown.
        density: The share of rows in which it fires, 0 to 1.
        rows: How many rows that share is of.
        name: What it stands for, where there is evidence; else "".
        edges: Of the histogram of its codes where it fires, `[bins + 1]`, rising.
        counts: Rows in each bin, `[bins]`, of `counted` rows.
        samples: Samples where it is strongest, and others.
        labels: What it separates, best first.
        raised: Output tokens that it raises most, with how much.
        lowered: Output tokens that it lowers most, likewise.
        written: What the numbers of these tokens are, or why there are none.
        nearest: Other features with similar directions: (number, cosine).
        modality: The share of its codes by kind of row: image, text.
        told: What the user's own explainer says of it; else "".
        explainer: Which explainer that is.
        counted: How many rows the histogram is of.
    """

    number: int
    column: str
    why: str
    density: float
    rows: int
    name: str = ""
    edges: Sequence[float] = ()
    counts: Sequence[int] = ()
    samples: Sequence[FeatureSample] = ()
    labels: Sequence[FeatureLabel] = ()
    raised: Sequence[tuple[str, float]] = ()
    lowered: Sequence[tuple[str, float]] = ()
    written: str = ""
    nearest: Sequence[tuple[int, float]] = ()
    modality: Mapping[str, float] = field(default_factory=dict)
    told: str = ""
    explainer: str = ""
    counted: int = 0

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise ValueError(f"feature {self.number!r}: {problem}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeaturePage:
        """A page from its JSON form.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        return cls(
            **{
                **data,
                "samples": tuple(_sample(item) for item in data.get("samples", ())),
                "labels": tuple(FeatureLabel(**item) for item in data.get("labels", ())),
                **{name: _pairs(data.get(name, ())) for name in ("raised", "lowered", "nearest")},
            }
        )

    def __repr__(self) -> str:
        return brief(self, f"{self.column} {self.number}", *filter(None, (self.name, self.why)))


@dataclass(frozen=True, slots=True)
class FeatureScene:
    """Which of a figure's features fire in one sample.

    Args:
        sample: The sample's id.
        fires: (feature, its largest code) of each of the figure's features that fires there,
            strongest first.
        places: Its pictures, patch by patch.
    """

    sample: str
    fires: Sequence[tuple[int, float]]
    places: Sequence[FeaturePlaces] = ()

    def __repr__(self) -> str:
        return brief(self, self.sample, count(len(self.fires), "feature"))


@dataclass(frozen=True, slots=True)
class FeaturePlaces:
    """The features that fire in each patch of one view of a picture.

    Args:
        image: Which of the sample's images.
        view: Which view of it is cut into patches; "" if there is one.
        boxes: `[n]`, of each patch; None for what has no place.
        fires: `[n]`, (feature, code) of the strongest of the figure's features there.
    """

    image: int
    view: str
    boxes: Sequence[Box | None]
    fires: Sequence[Sequence[tuple[int, float]]]

    def __repr__(self) -> str:
        return brief(self, self.view, f"image {self.image}", count(len(self.boxes), "patch"))


def check_features(name: str, pages: Sequence[FeaturePage], scenes: Sequence[FeatureScene]) -> None:
    """Raise `ValueError` for features that are there twice, and scenes of features without a page.

    Args:
        name: The figure's name.
        pages: Its features.
        scenes: Its samples.
    """
    numbers = {page.number for page in pages}
    if len(numbers) < len(pages):
        raise ValueError(f"figure {name!r}: a feature has two pages")
    for scene in scenes:
        firing = [*scene.fires]
        for places in scene.places:
            if len(places.boxes) != len(places.fires):
                raise ValueError(f"figure {name!r}: {scene!r} has patches without a box")
            firing += [pair for fires in places.fires for pair in fires]
        strange = {number for number, _ in firing} - numbers
        if strange:
            raise ValueError(f"figure {name!r}: {scene!r} names features {sorted(strange)}")
        if not all(isfinite(value) for _, value in firing):
            raise ValueError(f"figure {name!r}: {scene!r} has a code that is not finite")


def features_from(data: Mapping[str, Any]) -> dict[str, Any]:
    """The pages and scenes in the JSON form of a figure."""
    return {
        "pages": tuple(FeaturePage.from_dict(item) for item in data.get("pages", ())),
        "scenes": tuple(_scene(item) for item in data.get("scenes", ())),
    }


def _problems(page: FeaturePage) -> Iterable[str]:
    """What is wrong with a page."""
    if page.number < 0:
        yield "its number is negative"
    if not 0 <= page.density <= 1:
        yield f"its density is {page.density!r}, expected: 0 to 1"
    if page.counts and len(page.edges) != len(page.counts) + 1:
        yield f"{len(page.counts)} bins have {len(page.edges)} edges"
    if any(not low < high for low, high in pairwise(page.edges)):
        yield "the edges of its histogram do not rise"
    for each in page.samples:
        if len(each.tokens) != len(each.values):
            yield f"{each!r} has {len(each.tokens)} tokens and {len(each.values)} values"
        if any(len(one.boxes) != len(one.values) for one in each.maps):
            yield f"{each!r} has patches without a value"
    numbers = [
        *page.edges,
        *(value for pairs in (page.raised, page.lowered, page.nearest) for _, value in pairs),
        *page.modality.values(),
        *(value for each in page.samples for value in _codes(each)),
        *(value for each in page.labels for value in (each.auc, each.shuffled, each.corrected)),
    ]
    if not all(isfinite(number) for number in numbers):
        yield "a number is not finite"


def _codes(sample: FeatureSample) -> Iterable[float]:
    yield sample.value
    yield from (value for value in sample.values if value is not None)
    yield from (value for one in sample.maps for value in one.values)


def _sample(data: Mapping[str, Any]) -> FeatureSample:
    maps = [FeatureMap(**{**item, "boxes": _boxes(item["boxes"])}) for item in data["maps"]]
    return FeatureSample(**{**data, "maps": tuple(maps)})


def _scene(data: Mapping[str, Any]) -> FeatureScene:
    places = tuple(
        FeaturePlaces(
            item["image"],
            item["view"],
            _boxes(item["boxes"]),
            tuple(_pairs(fires) for fires in item["fires"]),
        )
        for item in data["places"]
    )
    return FeatureScene(data["sample"], _pairs(data["fires"]), places)


def _boxes(data: Iterable[Sequence[float] | None]) -> list[Box | None]:
    return [None if box is None else (box[0], box[1], box[2], box[3]) for box in data]


def _pairs(data: Iterable[Sequence[Any]]) -> tuple[Any, ...]:
    return tuple((first, value) for first, value in data)
