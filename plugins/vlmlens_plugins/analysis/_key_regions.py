"""Which of a sample's regions is the key one: the part of the image that a question is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmlens.errors import DataError, MissingAnnotation, SpecError, did_you_mean
from vlmlens.regions import ATTRIBUTE, Shape, check_inside, regions_of
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._altered import Area, Canvas
from vlmlens_plugins.analysis._blank_images import image_sizes
from vlmlens_plugins.analysis._tasks import ALL

KEY = "region"
"""The attribute of a sample that names its key region; several are joined by +."""

ALL_REGIONS = "*"

Wanted = str | Mapping[str, str] | None
"""The key region as an option: a name, several joined by +, or `*` for all; or such a text by task.

None: see `key_regions`.
"""

Names = tuple[str, ...]


def key_regions(samples: Sequence[Sample], wanted: Wanted) -> list[Names]:
    """The key regions of each sample; none where it has none.

    Without a wish, a task's samples name theirs by the attribute `region`, and those that do not
    have none (an object that is asked for is not there). In a task in which no sample names one,
    all regions of a sample together are the key.

    Args:
        samples: The samples.
        wanted: See `Wanted`.

    Raises:
        SpecError: A task that is named does not exist, or a region that is named is in no sample.
        DataError: The regions of a sample cannot be used, or it names one that it does not have.
        MissingAnnotation: A region is named, and no sample has any.
    """
    if wanted is not None and not any(regions_in(sample) for sample in samples):
        raise MissingAnnotation(
            f"The key region is {wanted!r}, and no sample has any regions.",
            subject=KEY,
            hint='Give samples an attribute `regions`: {"NAME": [left, top, right, bottom]}, in '
            "pixels; see docs/extraction.md. Or leave region out.",
        )
    tasks = [sample.task or ALL for sample in samples]
    by_task = _by_task(wanted, tasks)
    naming = {
        task for task, sample in zip(tasks, samples, strict=True) if sample.attributes.get(KEY)
    }
    found: list[Names] = []
    for task, sample in zip(tasks, samples, strict=True):
        known = regions_in(sample)
        text = by_task.get(task)
        if text is not None:
            names = _named(text, known)
            found.append(names if all(name in known for name in names) else ())
        elif task in naming:
            found.append(_own(sample, known))
        else:
            found.append(tuple(known))
    for task, text in by_task.items():
        _check_met(task, text, [s for s, t in zip(samples, tasks, strict=True) if t == task])
    return found


def regions_in(sample: Sample) -> Mapping[str, Sequence[Shape]]:
    """The regions of a sample by name."""
    return regions_of(sample.attributes.get(ATTRIBUTE), sample.id)


def check_regions(sample: Sample, names: Names) -> None:
    """Raise an error if regions leave their image, or the key region holds no pixel.

    Args:
        sample: The sample.
        names: Its key regions. Files are read for masks only.

    Raises:
        DataError: They do.
        ImageError: An image or a mask cannot be read.
    """
    known = regions_in(sample)
    check_inside(known, image_sizes(sample), sample.id)
    if not any(shape.mask for name in names for shape in known[name]):
        return
    if not any(inside.any() for inside in Canvas(sample).inside(Area(regions=names))):
        raise DataError(
            f"Sample {sample.id!r}: its region {' + '.join(names)!r} holds no pixel.",
            subject=sample.id,
            hint="Give a mask in which some pixel is not zero, or leave the region out.",
        )


def _by_task(wanted: Wanted, tasks: Sequence[str]) -> Mapping[str, str]:
    if wanted is None:
        return {}
    if isinstance(wanted, str):
        return dict.fromkeys(tasks, wanted)
    strange = [task for task in wanted if task not in tasks]
    if strange:
        raise SpecError(
            f"There is no task {strange[0]!r}.",
            subject=strange[0],
            hint=f"The tasks are {', '.join(dict.fromkeys(tasks))}.",
        )
    return wanted


def _named(text: str, known: Mapping[str, object]) -> Names:
    if text == ALL_REGIONS:
        return tuple(known)
    return (text,) if text in known else tuple(name.strip() for name in text.split("+"))


def _own(sample: Sample, known: Mapping[str, object]) -> Names:
    text = sample.attributes.get(KEY)
    if text is None or text == "":
        return ()
    names = _named(str(text), known)
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"Sample {sample.id!r}: its key region is {missing[0]!r}, and it has no such region.",
            subject=sample.id,
            hint=f"Its regions are {', '.join(known) or 'none'}.",
        )
    return names


def _check_met(task: str, text: str, samples: Sequence[Sample]) -> None:
    known = dict.fromkeys(name for sample in samples for name in regions_in(sample))
    missing = [name for name in _named(text, known) if name not in known]
    if missing and known:
        raise SpecError(
            f"No sample of the task {task!r} has a region {missing[0]!r}.",
            subject=missing[0],
            hint=did_you_mean(missing[0], known) or f"Its samples have {', '.join(known)}.",
        )
