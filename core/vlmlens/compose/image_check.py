"""The image check: finds samples with images that cannot be used, before anything heavy starts.

Every image file is read once, in threads, in the cheapest way that detects a damaged file:

- JPEG is decoded at an eighth of its size: the whole stream is read, with little computation.
- PNG has its checksums verified; a truncated or changed file fails.
- Other formats, and images in memory, are decoded.

Images of 16 bits per channel are decoded, to see which of the bits are used. Pixels are not kept.
For extreme shapes (a pixel, a line), one image per shape is also tried with the model's processor,
which may refuse it. Unusual, but allowed: CMYK, 16 bit, palettes, animations and files of several
pages (the first is used, which is said), transparency (likewise), an orientation in EXIF, the wrong
suffix on an image. A sample without an image among samples with one is bad, too: most often a join
failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vlmlens.compose.image_reading import Seen, Size, key_of, read_all
from vlmlens.errors import ImageError
from vlmlens.images import (
    HIDDEN_COLORS,
    ImageRules,
)
from vlmlens.samples import BadSample, Sample
from vlmlens.spec.model import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN = 10
_SHORT_SIDE = 8
_LONG_TO_SHORT = 20
_PLAIN_SIZE = (224, 224)
_KEEP_TEXT_ONLY = " Samples that are meant to have no image: --set text_only=true."

Encode = Callable[[Sequence[Sample]], object]


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome of the image check.

    Args:
        bad: The samples that cannot be used, in order, each with its first bad image.
        notes: What is done with images that can be read in several ways, in sentences.
        choices: The rules of `ImageRules` that matter to these images.
    """

    bad: list[BadSample]
    notes: list[str] = field(default_factory=list)
    choices: Mapping[str, Any] = field(default_factory=dict)


def bad_samples(
    samples: Sequence[Sample],
    *,
    max_pixels: int = MAX_PIXELS,
    encode: Encode | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[BadSample]:
    """The samples whose images cannot be used: see `check_images`."""
    return check_images(samples, max_pixels=max_pixels, encode=encode, advance=advance).bad


def check_images(
    samples: Sequence[Sample],
    *,
    max_pixels: int = MAX_PIXELS,
    text_only: bool = True,
    encode: Encode | None = None,
    advance: Callable[[int], None] | None = None,
) -> Checked:
    """Read all images, and find the samples that cannot be used.

    Args:
        samples: The samples that a run would use.
        max_pixels: Images with more pixels are bad. Up to this limit, Pillow opens them.
        text_only: Accept samples without an image among samples with one.
        encode: Encodes samples as the model will. It is tried on images of extreme shape.
        advance: Called with the number of distinct images read so far.
    """
    allow_pixels(max_pixels)
    seen = read_all(samples, max_pixels, advance)
    found = {} if text_only else {bad.id: bad for bad in _imageless(samples)}
    for sample in samples:
        for image in sample.images:
            reason = seen[key_of(image)].reason
            if reason is not None:
                found.setdefault(sample.id, _bad(sample, image, reason))
    rest = [sample for sample in samples if sample.id not in found]
    found.update({bad.id: bad for bad in _refused(rest, seen, encode)} if encode else {})
    rules = samples[0].rules if samples else ImageRules()
    bad = [found[sample.id] for sample in samples if sample.id in found]
    return Checked(bad, list(_notes(seen, rules)), _choices(seen, rules))


def _imageless(samples: Sequence[Sample]) -> Iterator[BadSample]:
    """Samples without an image, where others have one."""
    others = sum(bool(sample.images) for sample in samples)
    if not others:
        return
    for sample in samples:
        if not sample.images:
            yield BadSample(sample.id, "", f"without an image, which {others} others have")


def _notes(seen: Mapping[str | int, Seen], rules: ImageRules) -> Iterator[str]:
    clear = [key for key, each in seen.items() if each.transparent]
    if clear:
        shown = (
            "it is ignored"
            if rules.background == HIDDEN_COLORS
            else f"it becomes {rules.background}"
        )
        yield (
            f"{_some(clear)} transparency: {shown} (another color: --set background=NAME; "
            "none: ignore it)."
        )
    several = [key for key, each in seen.items() if each.pages > 1]
    if several:
        most = max(each.pages for each in seen.values())
        yield f"{_some(several)} several pages or frames (up to {most}): only the first is used."


def _some(keys: Sequence[str | int]) -> str:
    """How many images, with the first one's name."""
    named = f" ({keys[0]})" if isinstance(keys[0], str) and len(keys) == 1 else ""
    named = f" ({keys[0]}, ...)" if isinstance(keys[0], str) and len(keys) > 1 else named
    return f"1 image{named} has" if len(keys) == 1 else f"{len(keys)} images{named} have"


def _choices(seen: Mapping[str | int, Seen], rules: ImageRules) -> dict[str, Any]:
    clear = any(each.transparent for each in seen.values())
    scaled = rules.bits is not None and any(each.deep for each in seen.values())
    return {
        **({"background": rules.background} if clear else {}),
        **({"image_bits": rules.bits} if scaled else {}),
    }


def without(samples: Sequence[Sample], bad: Iterable[BadSample]) -> list[Sample]:
    """The samples without the bad ones.

    Raises:
        ImageError: No sample is left.
    """
    dropped = {each.id: each for each in bad}
    kept = [sample for sample in samples if sample.id not in dropped]
    if samples and not kept:
        raise bad_images_error(list(dropped.values()), len(samples), hint="No sample is left.")
    return kept


def bad_images_error(bad: Sequence[BadSample], total: int, *, hint: str = "") -> ImageError:
    """The error for bad samples: their number, and the first ten with reasons."""
    none = not all(each.image for each in bad)
    usual = "Replace the files, or leave these samples out with --on-bad-sample skip."
    return ImageError(
        summary(bad, total),
        subject=bad[0].image or bad[0].id,
        hint=hint or (usual + (_KEEP_TEXT_ONLY if none else "")),
    )


def summary(bad: Sequence[BadSample], total: int) -> str:
    """The number of bad samples, and the first ten with reasons, one per line."""
    lines = [f"  {_named(each)}: {each.reason}" for each in bad[:_SHOWN]]
    more = len(bad) - len(lines)
    without = sum(not each.image for each in bad)
    what = (
        "have no image, and others have one"
        if without == len(bad)
        else ("have an image that cannot be used")
    )
    if 0 < without < len(bad):
        what = f"have an image that cannot be used, or none ({without})"
    head = f"{len(bad)} of {total} samples {what}:"
    return "\n".join([head, *lines, *([f"  and {more} more"] if more else [])])


def allow_pixels(max_pixels: int) -> None:
    """Let Pillow open images of that many pixels in this process. Never lowers its limit."""
    from PIL import Image as PILImage

    limit = PILImage.MAX_IMAGE_PIXELS
    if limit is not None and limit < max_pixels:
        PILImage.MAX_IMAGE_PIXELS = max_pixels


def _named(bad: BadSample) -> str:
    if not bad.image:
        return bad.id
    return bad.image if bad.image.endswith(bad.id) else f"{bad.id} ({bad.image})"


def _bad(sample: Sample, image: str | Image, reason: str) -> BadSample:
    return BadSample(sample.id, image if isinstance(image, str) else "in memory", reason)


def _refused(
    samples: Sequence[Sample], seen: Mapping[str | int, Seen], encode: Encode
) -> Iterator[BadSample]:
    """Samples of extreme shape that the processor refuses, although it accepts a plain image."""
    verdicts: dict[tuple[Size | None, ...], str | None] = {}
    for sample in samples:
        sizes = tuple(seen[key_of(image)].size for image in sample.images)
        odd = [image for image, size in zip(sample.images, sizes, strict=True) if _absurd(size)]
        if not odd:
            continue
        if sizes not in verdicts:
            verdicts[sizes] = _refusal(sample, encode)
        reason = verdicts[sizes]
        if reason is not None:
            shapes = ", ".join("{} x {}".format(*size) for size in sizes if size and _absurd(size))
            yield _bad(sample, odd[0], f"{shapes} pixels, which the model refuses ({reason})")


def _absurd(size: Size | None) -> bool:
    if size is None:
        return False
    short, long = sorted(size)
    return short <= _SHORT_SIDE or long > _LONG_TO_SHORT * short


def _refusal(sample: Sample, encode: Encode) -> str | None:
    complaint = _complaint(sample, encode)
    if complaint is None or _complaint(_plain(sample), encode) is not None:
        return None
    return complaint


def _complaint(sample: Sample, encode: Encode) -> str | None:
    try:
        encode([sample])
    except Exception as error:  # noqa: BLE001 - processors raise what they like
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None


def _plain(sample: Sample) -> Sample:
    """The sample with plain images instead of its own."""
    from PIL import Image as PILImage

    images: tuple[Any, ...] = tuple(PILImage.new("RGB", _PLAIN_SIZE) for _ in sample.images)
    return replace(sample, images=images)
