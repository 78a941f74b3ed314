"""Checks of rows by name (`word(red)`, `image.frame(3)`), before weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vlmlens.errors import MissingAnnotation, SelectorError
from vlmlens.images import UNREADABLE, open_image, upright_size
from vlmlens.passes.edits import EdgeCut
from vlmlens.regions import ATTRIBUTE, check_inside, regions_of
from vlmlens.rows.image_rows import no_such_frame
from vlmlens.rows.named import NamedRows
from vlmlens.rows.question import missing, spans_of
from vlmlens.rows.sample_regions import check_known
from vlmlens.tokens import Column

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmlens.passes.edits import Edit
    from vlmlens.samples import Sample


def check_named_rows(
    columns: Iterable[str], edits: Iterable[Edit | EdgeCut], samples: Sequence[Sample]
) -> None:
    """Raise an error if a sample lacks words, regions or frames that columns or edits are about.

    Args:
        columns: Names of columns.
        edits: The edits.
        samples: The run's samples.

    Raises:
        MissingAnnotation: Samples lack a word, an option, a region, a frame or a video; how many,
            and which one.
        DataError: The regions of a sample cannot be used.
    """
    wanted = list(dict.fromkeys(_named(columns, edits)))
    of_regions = [each for each in wanted if each.of_regions]
    of_words = [each for each in wanted if each.what in ("word", "option")]
    of_frames = [each for each in wanted if each.what in ("frame", "video")]
    problems: list[SelectorError] = []
    for sample in samples if of_regions or of_words or of_frames else ():
        try:
            for each in of_words:
                if not spans_of(each, sample.prompt, sample.choices):
                    raise missing(each, sample.id, sample.prompt, sample.choices)
            for each in of_frames:
                _check_frames(each, sample)
            if of_regions:
                _check_regions(of_regions, sample)
        except SelectorError as error:
            problems.append(error)
    if problems:
        first, rest = problems[0], len(problems) - 1
        more = f" So it is with {rest} more of {len(samples)} samples." if rest else ""
        raise MissingAnnotation(
            f"{first.message}{more}",
            subject=first.subject,
            hint=f"{first.hint} Leave such samples out, or name other rows.",
        )


def _named(columns: Iterable[str], edits: Iterable[Edit | EdgeCut]) -> Iterable[NamedRows]:
    selectors = [Column.parse(name).selector for name in columns]
    for edit in edits:
        found = (edit.queries, edit.keys) if isinstance(edit, EdgeCut) else (edit.selector,)
        selectors += [each for each in found if each is not None]
    return (each.named for each in selectors if each.named is not None)


def _check_frames(named: NamedRows, sample: Sample) -> None:
    if named.what == "video" and sample.video is None:
        raise SelectorError(
            f"{str(named)!r}: the sample {sample.id!r} has no video.",
            subject=str(named),
            hint="For images, write `image`.",
        )
    if not named.frames(len(sample.images)):
        raise no_such_frame(named, len(sample.images), sample.id)


def _check_regions(wanted: Sequence[NamedRows], sample: Sample) -> None:
    regions = regions_of(sample.attributes.get(ATTRIBUTE), sample.id)
    for each in wanted:
        check_known(regions, each.name, sample.id, str(each))
    sizes = [sample.rules.size or _size(image) for image in sample.images]
    if None not in sizes:
        check_inside(regions, [size for size in sizes if size is not None], sample.id)


def _size(image: str | Image) -> tuple[int, int] | None:
    """(width, height), upright, from the header; None where the image check says what is wrong."""
    from PIL import Image as PILImage

    if not isinstance(image, str):
        return upright_size(image)
    try:
        with open_image(image) as opened:
            return upright_size(opened)
    except (*UNREADABLE, PILImage.DecompressionBombError):
        return None
