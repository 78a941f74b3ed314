"""The prompt check: finds samples whose text cannot be used, before weights are loaded.

The family reads every prompt for placeholders of images. A sample that may be longer than what the
model reads is encoded to count its tokens; most are not, since a token is at least one byte of the
prompt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vlmlens.abc.adapter import ModelAdapter
from vlmlens.errors import CheckpointError, DataError, ImageError, PluginError
from vlmlens.images import open_image
from vlmlens.manifest import IMAGES_ONLY, Manifest, PluginKind
from vlmlens.sample_table import SampleTable, Seen
from vlmlens.samples import UNREADABLE, BadSample, Sample
from vlmlens.sites import Axis

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmlens.abc.observer import Observer
    from vlmlens.registry import Registry
    from vlmlens.spec.model import RunSpec

_SHOWN = 10
_PLACE = "the prompt"
_NO_FAMILY = frozenset({"hf", "demo"})
"""Adapters whose placeholders are those of others."""


def readable_prompts(
    spec: RunSpec,
    samples: SampleTable,
    skeleton: ModelAdapter,
    adapter: Manifest,
    registry: Registry,
    observer: Observer,
) -> tuple[SampleTable, Sequence[BadSample]]:
    """The samples whose prompts can be used, and those to skip; the observer hears what was found.

    Raises:
        DataError: Some cannot be used and the user did not ask to skip them, or none is left.
    """
    bad = bad_prompts(skeleton, samples)
    kept = samples.without({each.id for each in bad})
    if bad and (spec.on_bad_sample == "stop" or not kept):
        hint = "" if kept else "Change them; no sample is left."
        raise bad_prompts_error(bad, len(samples), hint=hint)
    if bad:
        observer.warn(f"{summary(bad, len(samples))}\nThey are skipped.")
    for note in notes(skeleton, kept):
        observer.note(note)
    known = [entry.manifest for entry in registry.entries(PluginKind.ADAPTER) if entry.manifest]
    for warning in strange_placeholders(adapter, known, kept) if _reads_text(adapter) else ():
        observer.warn(warning)
    return kept, bad


def _reads_text(adapter: Manifest) -> bool:
    return IMAGES_ONLY not in adapter.offers


def bad_prompts(skeleton: ModelAdapter, samples: Iterable[Sample]) -> list[BadSample]:
    """The samples whose prompts or answers cannot be used, in order.

    Args:
        skeleton: The model without weights.
        samples: The samples that a run would use. A table with what was `seen` opens no image.
    """
    samples = SampleTable.of(samples)
    found: dict[str, str] = {}
    for sample in samples:
        if problem := skeleton.read_prompt(sample).problem:
            found[sample.id] = problem
    found.update(_too_long(skeleton, samples.without(found)))
    return [BadSample(name, _PLACE, found[name]) for name in samples.ids if name in found]


def bad_prompts_error(bad: Sequence[BadSample], total: int, *, hint: str = "") -> DataError:
    """The error for bad prompts: their number, and the first ten with reasons."""
    return DataError(
        summary(bad, total),
        subject=bad[0].id,
        hint=hint or "Change them, or leave these samples out with --on-bad-sample skip.",
    )


def summary(bad: Sequence[BadSample], total: int) -> str:
    """The number of bad prompts, and the first ten with reasons, one per line."""
    lines = [f"  {each.id}: {each.reason}" for each in bad[:_SHOWN]]
    more = [f"  and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    head = f"{len(bad)} of {total} samples have a prompt that cannot be used:"
    return "\n".join([head, *lines, *more])


def notes(skeleton: ModelAdapter, samples: Sequence[Sample]) -> list[str]:
    """What the family reads in prompts in another way than as text, with the number of prompts."""
    said = Counter(skeleton.read_prompt(sample).note for sample in samples)
    return [f"{_prompts(times)}: {note}." for note, times in said.items() if note]


def strange_placeholders(
    chosen: Manifest, others: Iterable[Manifest], samples: Sequence[Sample]
) -> list[str]:
    """Warnings about placeholders of other families, which the model reads as text.

    Args:
        chosen: The manifest of the adapter.
        others: The manifests of all adapters.
        samples: The samples of the run.
    """
    owners: dict[str, list[str]] = {}
    for manifest in others:
        for text in manifest.placeholders:
            owners.setdefault(text.lower(), []).append(manifest.name)
    own = set(chosen.placeholders)
    pattern = re.compile(
        "|".join(map(re.escape, sorted(owners, key=len, reverse=True))) or "(?!)", re.IGNORECASE
    )
    found = Counter(
        text for sample in samples for text in {*pattern.findall(sample.prompt)} if text not in own
    )
    return [_warning(text, times, owners[text.lower()], chosen) for text, times in found.items()]


def _warning(text: str, times: int, owners: Sequence[str], chosen: Manifest) -> str:
    who = [name for name in owners if name not in _NO_FAMILY]
    family = ", ".join(who[:3]) or "other models"
    own = f" Its own is {chosen.placeholders[0]}." if chosen.placeholders else ""
    return (
        f"{_prompts(times)}: {text} stands for an image in prompts of {family}; the adapter "
        f"{chosen.name!r} reads it as text.{own}"
    )


def _prompts(times: int) -> str:
    return "1 prompt" if times == 1 else f"{times} prompts"


def _too_long(skeleton: ModelAdapter, samples: SampleTable) -> Iterator[tuple[str, str]]:
    context = skeleton.context
    if context is None or not samples:
        return
    largest = max((_length(skeleton, sample) for sample in _extremes(samples)), default=0)
    for sample in samples:
        length = len(sample.prompt.encode(errors="replace"))
        if length + largest > context and (problem := _problem(skeleton, sample)):
            yield sample.id, problem


def _extremes(samples: SampleTable) -> list[Sample]:
    """Per number of images, the samples with most pixels and with the longest side."""
    seen = samples.seen or _seen(samples)
    chosen: dict[tuple[int, str], tuple[int, int]] = {}
    for number, sample in enumerate(samples):
        for name, value in (("pixels", seen.areas[number]), ("side", seen.sides[number])):
            key = (len(sample.images), name)
            if key not in chosen or value > chosen[key][0]:
                chosen[key] = (value, number)
    return [samples[number] for number in dict.fromkeys(n for _, n in chosen.values())]


def _seen(samples: Iterable[Sample]) -> Seen:
    sizes = [[_size(image) for image in sample.images] for sample in samples]
    areas = (sum(width * height for width, height in each) for each in sizes)
    return Seen(areas, (max(map(max, each), default=0) for each in sizes))


def _size(image: str | Image) -> tuple[int, int]:
    """(width, height) from the header; (0, 0) where the image check says what is wrong."""
    from PIL import Image as PILImage

    if not isinstance(image, str):
        return image.size
    try:
        with open_image(image) as opened:
            return opened.size
    except (*UNREADABLE, PILImage.DecompressionBombError):
        return 0, 0


def _length(skeleton: ModelAdapter, sample: Sample) -> int:
    """The tokens of a sample, as far as it can be encoded; if it is too long, the prompt counts."""
    try:
        layouts = skeleton.encode([sample]).layouts
    except ImageError:
        return 0
    except (CheckpointError, PluginError):
        raise
    except Exception:  # noqa: BLE001  processors raise what they like; the run will tell
        return 0
    read = [layouts[axis] for axis in (Axis.LLM, Axis.ENCODER) if axis in layouts]
    return max((len(layout.samples[0]) for layout in read if layout.samples), default=0)


def _problem(skeleton: ModelAdapter, sample: Sample) -> str:
    try:
        skeleton.encode([sample])
    except (ImageError, CheckpointError, PluginError):
        return ""
    except DataError as error:
        return error.message
    except Exception:  # noqa: BLE001  processors raise what they like; the run will tell
        return ""
    return ""
