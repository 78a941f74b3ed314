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

from vlmlens.compose.image_cache import Seen, Size
from vlmlens.compose.image_notes import ImageTally
from vlmlens.compose.image_reading import ImageReader, key_of
from vlmlens.compose.recall import FileStates
from vlmlens.errors import ImageError
from vlmlens.images import ImageRules
from vlmlens.sample_table import SampleTable
from vlmlens.sample_table import Seen as SeenOfSamples
from vlmlens.samples import BadSample, Sample
from vlmlens.spec.model import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

_SHOWN = 10
_AT_ONCE = 256
_NOTHING = "0" * 32
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
        seen: Sizes and fingerprints of the samples; nothing of the bad ones.
        states: The states of the images' files.
    """

    bad: list[BadSample]
    notes: list[str] = field(default_factory=list)
    choices: Mapping[str, Any] = field(default_factory=dict)
    seen: SeenOfSamples = field(default_factory=SeenOfSamples)
    states: FileStates = field(default_factory=FileStates)


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
        advance: Called with the number of samples whose images are read so far.
    """
    allow_pixels(max_pixels)
    table = SampleTable.of(samples)
    made = _Check(table[0].rules if len(table) else ImageRules(), encode)
    with ImageReader(max_pixels) as reader:
        for some in table.slices(_AT_ONCE):
            made.take(some, reader.look(some))
            if advance is not None:
                advance(len(made.seen))
    if not text_only:
        for imageless in _imageless(table):
            made.found.setdefault(imageless.id, imageless)
    bad = [made.found[name] for name in table.ids if name in made.found]
    return Checked(bad, list(made.tally.notes()), made.tally.choices(), made.seen, made.states)


class _Check:
    """Judges samples, slice after slice.

    Args:
        rules: The rules of the first sample's images.
        encode: See `check_images`.
    """

    def __init__(self, rules: ImageRules, encode: Encode | None) -> None:
        self.found: dict[str, BadSample] = {}
        self.tally = ImageTally(rules)
        self.seen = SeenOfSamples()
        self.states = FileStates()
        self._encode = encode
        self._verdicts: dict[tuple[Size | None, ...], str | None] = {}

    def take(self, samples: Sequence[Sample], seen: Mapping[str | int, Seen]) -> None:
        """Judge some samples.

        Args:
            samples: The samples.
            seen: What was seen of their images.
        """
        self.tally.add(seen)
        for sample in samples:
            images = [seen[key_of(image)] for image in sample.images]
            for image, each in zip(sample.images, images, strict=True):
                self.states.add(str(key_of(image)), each.state)
            self.states.add_sources(sample)
            bad = self._bad(sample, images)
            if bad is not None:
                self.found[sample.id] = bad
                self.seen.add([], _NOTHING)
            else:
                sizes = [sample.rules.size or each.size for each in images]
                known = [size for size in sizes if size is not None]
                self.seen.add(known, _fingerprint(sample, images))

    def _bad(self, sample: Sample, images: Sequence[Seen]) -> BadSample | None:
        for image, each in zip(sample.images, images, strict=True):
            if each.reason is not None:
                return _bad(sample, image, each.reason)
        return None if self._encode is None else self._refused(sample, images, self._encode)

    def _refused(self, sample: Sample, images: Sequence[Seen], encode: Encode) -> BadSample | None:
        """What is wrong with extreme shapes that the processor refuses, unlike a plain image."""
        sizes = tuple(each.size for each in images)
        odd = [image for image, size in zip(sample.images, sizes, strict=True) if _absurd(size)]
        if not odd:
            return None
        if sizes not in self._verdicts:
            self._verdicts[sizes] = _refusal(sample, encode)
        reason = self._verdicts[sizes]
        if reason is None:
            return None
        shapes = ", ".join("{} x {}".format(*size) for size in sizes if size and _absurd(size))
        return _bad(sample, odd[0], f"{shapes} pixels, which the model refuses ({reason})")


def _fingerprint(sample: Sample, images: Sequence[Seen]) -> str:
    """The fingerprint; zeros if an image is in memory, since the run makes a file of it."""
    digests = [each.digest for each in images]
    return sample.fingerprint(digests) if all(digests) else _NOTHING


def _imageless(samples: Sequence[Sample]) -> Iterator[BadSample]:
    """Samples without an image, where others have one."""
    others = sum(bool(sample.images) for sample in samples)
    if not others:
        return
    for sample in samples:
        if not sample.images:
            yield BadSample(sample.id, "", f"without an image, which {others} others have")


def without(samples: Sequence[Sample], bad: Iterable[BadSample]) -> SampleTable:
    """The samples without the bad ones.

    Raises:
        ImageError: No sample is left.
    """
    dropped = {each.id: each for each in bad}
    kept = SampleTable.of(samples).without(dropped)
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
