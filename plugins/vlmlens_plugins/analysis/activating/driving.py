"""What drives a coordinate in the shown samples: asked of the model, or read from stored rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from vlmlens.abc import AnalysisContext, ModelAdapter, WorkUnit
from vlmlens.errors import CompositionError, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps.work import RowSpread, packed_samples
from vlmlens_plugins.analysis.activating.choosing import Shown, distinct
from vlmlens_plugins.analysis.activating.coordinates import Coordinate, Measured
from vlmlens_plugins.analysis.activating.options import ActivatingOptions
from vlmlens_plugins.analysis.activating.work import (
    Driving,
    DrivingOptions,
    Kind,
    Masking,
    sources,
)

Floats = npt.NDArray[np.float64]
_APART, _ROUNDING = 0.05, 0.01
"""How far a value may be from the stored one: in deviations, and relative to it."""


@dataclass(frozen=True, slots=True)
class Driven:
    """What drives a coordinate in one sample, by the model.

    Args:
        value: The coordinate as the model gives it now.
        scores: By kind of source, for each row how much it raises the coordinate: gradient, or the
            mean of gradients, . (row - what it is compared with).
    """

    value: float
    scores: Mapping[Kind, Floats]


@dataclass(frozen=True, slots=True)
class Masked:
    """A coordinate when some rows of its input are replaced.

    Args:
        sample: The sample's number.
        kind: The source.
        which: "strongest", "random" or "all".
        rows: Which rows.
        before: The coordinate in the plain pass.
        after: The coordinate in the pass with these rows replaced.
        estimated: How far it should fall, by the scores of these rows.
    """

    sample: int
    kind: Kind
    which: str
    rows: tuple[int, ...]
    before: float
    after: float
    estimated: float

    @property
    def fall(self) -> float:
        """How far it falls."""
        return self.before - self.after


@dataclass(frozen=True, slots=True)
class Drives:
    """What the model says of one coordinate.

    Args:
        measured: The coordinate.
        shown: The samples that are shown of it.
        driven: By sample number.
        masked: The passes with replaced rows.
        unknown: Why the model says nothing; "" if it does.
    """

    measured: Measured
    shown: Sequence[Shown]
    driven: Mapping[int, Driven] = field(default_factory=dict)
    masked: Sequence[Masked] = ()
    unknown: str = ""

    @property
    def coordinate(self) -> Coordinate:
        """The coordinate."""
        return self.measured.coordinate

    def alike(self, which: str) -> list[Masked]:
        """The passes of that kind, in samples of one kind of source: that of the first one."""
        return [m for m in self.masked if m.which == which and m.kind == self.masked[0].kind]

    @property
    def masked_samples(self) -> list[int]:
        """The samples of these passes."""
        return [one.sample for one in self.alike("strongest")]

    @property
    def reach(self) -> float:
        """By how much it lies above its median in these samples, on average."""
        lifted = [self.measured.values[i] - self.measured.median for i in self.masked_samples]
        return float(np.mean(lifted))


def model_of(context: AnalysisContext, options: ActivatingOptions) -> ModelAdapter | None:
    """The model; None, with a warning, where there is none or it is not wanted.

    Raises:
        CompositionError: There is none, and the options insist on it.
    """
    if options.model == "off":
        return None
    try:
        return context.model()
    except CompositionError as error:
        if options.model == "on":
            raise
        context.warn(f"No model is asked what drives a coordinate, only values: {error.message}")
        return None


def units_needed(coordinates: int, options: ActivatingOptions) -> int:
    """How many samples pass through the model at most."""
    shown = options.top + len(options.quantiles) + options.random
    shown *= 1 if options.steps == 1 else 1 + 2 * options.steps
    passes = min(options.masked, options.top) * (2 + options.controls)
    return coordinates * (shown + passes) + options.references


def check_cost(coordinates: int, options: ActivatingOptions) -> None:
    """Raise an error if more samples must pass through the model than allowed.

    Raises:
        SpecError: It is more.
    """
    needed = units_needed(coordinates, options)
    if options.model != "off" and needed > options.max_units:
        raise SpecError(
            f"What drives {coordinates} coordinates takes {needed:,} samples through the model. "
            f"max_units is {options.max_units:,}.",
            subject="max_units",
            hint="Name fewer coordinates, set steps, top, quantiles, random or masked lower, "
            "or max_units higher; or model=off.",
        )


def drives(
    context: AnalysisContext,
    vlm: ModelAdapter,
    chosen: Sequence[tuple[Measured, Sequence[Shown]]],
    options: ActivatingOptions,
) -> list[Drives]:
    """What drives each coordinate with one row per sample."""
    coordinates = [one.coordinate for one, _ in chosen]
    work = DrivingOptions(
        directions={
            each.text: each.along.vector.tolist() for each in coordinates if each.along is not None
        },
        means=_means(context, vlm, coordinates, options) if options.against == "mean" else {},
        steps=options.steps,
    )
    plain = [(one, own, distinct(own)) for one, own in chosen]
    units = [
        WorkUnit(
            context.samples[each.sample], _arguments(one.coordinate), _batch(context, one, each)
        )
        for one, _, alone in plain
        for each in alone
    ]
    told = iter(context.run_units(Driving(work), units))
    found = []
    for one, own, alone in plain:
        results = [next(told) for _ in alone]
        unknown = next((str(each["unknown"]) for each in results if "unknown" in each), "")
        driven = {
            each.sample: Driven(
                float(result["value"]),
                {kind: np.array(result[kind]) for kind in ("image", "words") if kind in result},
            )
            for each, result in zip(alone, results, strict=True)
            if "unknown" not in result
        }
        found.append(Drives(one, own, driven, unknown=unknown))
    for each in found:
        _compare(context, each)
    return _with_masks(context, vlm, found, work, options)


def _compare(context: AnalysisContext, found: Drives) -> None:
    """Warn if the model gives other values than are stored."""
    given = found.measured
    for i, driven in found.driven.items():
        apart = abs(driven.value - given.values[i])
        if apart > _APART * given.deviation + _ROUNDING * abs(given.values[i]):
            context.warn(
                f"{given.coordinate.text} is {driven.value:.4g} in the model and "
                f"{given.values[i]:.4g} in the store, in sample {context.samples[i].id}: what "
                "drives it is told of the model as it is now."
            )
            return


def _with_masks(
    context: AnalysisContext,
    vlm: ModelAdapter,
    found: Sequence[Drives],
    work: DrivingOptions,
    options: ActivatingOptions,
) -> list[Drives]:
    """The same with the passes in which rows of the top samples are replaced."""
    asked: list[tuple[int, Masked]] = []
    for number, one in enumerate(found):
        tops = [each.sample for each in one.shown if each.top and each.sample in one.driven]
        for i in tops[: options.masked]:
            asked += [(number, each) for each in _masks(one, i, context.seed, options)]
    units = []
    for number, mask in asked:
        one = found[number]
        site = vlm.sites.resolve(one.coordinate.column.partition("/")[0])[0]
        at = sources(vlm, site)[mask.kind]
        arguments = {**_arguments(one.coordinate), "at": at, "rows": list(mask.rows)}
        sample = context.samples[mask.sample]
        units.append(WorkUnit(sample, arguments, f"{one.coordinate.column} {at}"))
    told = context.run_units(Masking(work), units)
    told_of = list(zip(asked, told, strict=True))
    lost = {(number, mask.sample) for (number, mask), result in told_of if "unknown" in result}
    done: dict[int, list[Masked]] = {}
    for (number, mask), result in told_of:
        if (number, mask.sample) not in lost:
            done.setdefault(number, []).append(replace(mask, after=float(result["value"])))
    return [replace(one, masked=done.get(i, [])) for i, one in enumerate(found)]


def _masks(one: Drives, sample: int, seed: int, options: ActivatingOptions) -> list[Masked]:
    """The rows that are masked in one sample: patches where it has some, else words.

    None where no row raises the coordinate.
    """
    driven = one.driven[sample]
    kind: Kind = "image" if "image" in driven.scores else "words"
    scores = driven.scores.get(kind, np.zeros(0))
    count = min(options.patches, len(scores) // 2, int((scores > 0).sum()))
    if not count:
        return []
    order = np.argsort(-scores, kind="stable")
    strongest, others = order[:count], np.sort(order[count:])
    rng = generator(seed, "activating", "masks", one.coordinate.text, str(sample))
    chosen = [("strongest", strongest)]
    chosen += [("random", rng.permutation(others)[:count]) for _ in range(options.controls)]
    chosen.append(("all", np.arange(len(scores))))
    return [
        Masked(
            sample,
            kind,
            which,
            tuple(int(i) for i in np.sort(rows)),
            driven.value,
            driven.value,
            float(scores[rows].sum()),
        )
        for which, rows in chosen
    ]


def _means(
    context: AnalysisContext,
    vlm: ModelAdapter,
    coordinates: Sequence[Coordinate],
    options: ActivatingOptions,
) -> dict[str, list[float]]:
    """The mean rows of reference samples at all sources."""
    places: dict[str, Kind] = {}
    for one in coordinates:
        site = vlm.sites.resolve(one.column.partition("/")[0])[0]
        places |= {column: kind for kind, column in sources(vlm, site).items()}
    found: dict[str, list[float]] = {}
    for kind in dict.fromkeys(places.values()):
        columns = [column for column, own in places.items() if own == kind]
        references = _references(context.samples, kind, options.references)
        if not references:
            continue
        packed, parts = packed_samples(references)
        unit = WorkUnit(packed, {"columns": columns, "parts": parts})
        (told,) = context.run_units(RowSpread(), [unit])
        found |= {column: told[column][0] for column in columns}
    return found


def _references(samples: Sequence[Sample], kind: Kind, most: int) -> list[Sample]:
    """Samples evenly over the run, with images where their rows are meant."""
    usable = [sample for sample in samples if sample.images or kind == "words"]
    step = max(1, len(usable) // most)
    return usable[::step][:most]


def _arguments(one: Coordinate) -> dict[str, str | int | None]:
    if one.along is not None:
        return {"column": one.column, "number": None, "name": one.text}
    return {"column": one.column, "number": one.number}


def _batch(context: AnalysisContext, one: Measured, shown: Shown) -> str:
    images = len(context.samples[shown.sample].images)
    return f"{one.coordinate.column} {bool(images)}"
