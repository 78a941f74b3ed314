"""The videos of a run: their frames become images of the samples, before anything else is checked.

A family says which frames it takes (`ModelAdapter.frame_rule`), the user how many. A family that
takes no video gets the frames as several images, which the run says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vlmlens._display import count
from vlmlens.errors import DataError, SpecError, VideoError
from vlmlens.sample_table import SampleTable
from vlmlens.samples import BadSample, Sample
from vlmlens.video_files import BadVideo, check_can_read
from vlmlens.video_frames import FrameFiles, source_of
from vlmlens.videos import FrameRule, Video

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.abc.observer import Observer
    from vlmlens.spec.model import RunSpec

_SHOWN = 10
_PLAIN_SIZE = (224, 224)
_SIZES_SHOWN = 3


@dataclass(frozen=True)
class Framed:
    """Samples whose videos are read.

    Args:
        samples: Those that can be used.
        skipped: Those that cannot.
        notes: What the user should know of the videos.
    """

    samples: SampleTable
    skipped: Sequence[BadSample] = ()
    notes: Sequence[str] = field(default_factory=list)


def framed(
    spec: RunSpec,
    samples: Sequence[Sample],
    skeleton: Callable[[], ModelAdapter],
    observer: Observer,
) -> Framed:
    """The samples with the frames of their videos as images.

    Args:
        spec: What the user asked for.
        samples: The samples.
        skeleton: Returns the model without weights; called if a sample has a video.
        observer: Told of the progress, and of samples that are left out.

    Raises:
        SpecError: `frames` or `fps` is given, and there is no video to choose frames of.
        DataError: The family does not take several images.
        MissingDependency: PyAV is not installed.
        VideoError: Videos cannot be used, and the user did not ask to skip them.
    """
    table = SampleTable.of(samples)
    if not table.videos:
        _check_no_choice(spec, "no sample has a video")
        return Framed(table)
    vlm = skeleton()
    waiting = Counter(source_of(s) for s in table if s.video and not s.video.decoded)
    if not waiting:
        _check_no_choice(spec, "the frames of all videos are chosen already")
        return Framed(table, notes=_notes(table, vlm, None))
    rule = vlm.frame_rule.asked(spec.frames, spec.fps)
    check_can_read()
    _check_takes(vlm, next(s for s in table if s.video and not s.video.decoded), rule)
    observer.stage("read videos", len(waiting))
    made, bad = _read(table, FrameFiles(rule, max_pixels=spec.max_pixels), observer)
    if bad and (spec.on_bad_sample == "stop" or not made):
        raise VideoError(
            _listed(bad, len(table)),
            subject=bad[0].image or bad[0].id,
            hint="Replace the files, or leave these samples out with --on-bad-sample skip."
            if made
            else "No sample is left. Replace the files.",
        )
    if bad:
        observer.warn(f"{_listed(bad, len(table))}\nThey are skipped.")
    return Framed(made, bad, _notes(made, vlm, rule))


def _check_no_choice(spec: RunSpec, why: str) -> None:
    name = "frames" if spec.frames is not None else "fps"
    if spec.frames is not None or spec.fps is not None:
        raise SpecError(
            f"{name}={getattr(spec, name)} chooses frames of videos, but {why}.",
            subject=name,
            hint=f"Leave {name} out, or give samples a video file.",
        )


def _check_takes(vlm: ModelAdapter, sample: Sample, rule: FrameRule) -> None:
    """Raise an error if a family does not take several frames, before a video is read."""
    from PIL import Image as PILImage

    number = 1 if rule.count == 1 else 2
    shown: tuple[Any, ...] = (PILImage.new("RGB", _PLAIN_SIZE),) * number
    frames = tuple(range(number))
    video = Video(source_of(sample), frames, fps=1.0, total=number, duration=float(number))
    try:
        vlm.encode([replace(sample, images=shown, video=video)])
    except DataError as error:
        raise DataError(
            f"{error.message} Tried with {count(number, 'frame')} of its video, given as "
            f"{'a video' if vlm.takes_video else 'so many images'}.",
            subject=sample.id,
            hint=f"{error.hint} For one frame alone: --set frames=1.",
        ) from error
    except Exception:  # noqa: BLE001 - processors raise what they like; the real frames will tell
        return


def _read(
    table: SampleTable, files: FrameFiles, observer: Observer
) -> tuple[SampleTable, list[BadSample]]:
    """The samples that can be used, and the others."""
    bad: list[BadSample] = []
    seen: set[str] = set()

    def made(sample: Sample) -> Sample | None:
        source = source_of(sample)
        try:
            return files.framed(sample)
        except BadVideo as error:
            bad.append(BadSample(sample.id, source, str(error)))
            return None
        finally:
            if source and source not in seen:
                seen.add(source)
                observer.advance(len(seen))

    kept = SampleTable(each for sample in table if (each := made(sample)) is not None)
    return kept, bad


def _listed(bad: Sequence[BadSample], total: int) -> str:
    """The number of bad samples, and the first ten with reasons, one per line."""
    lines = [f"  {each.id} ({each.image!r}): {each.reason}" for each in bad[:_SHOWN]]
    more = [f"  and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
    head = f"{len(bad)} of {total} samples have a video that cannot be used:"
    return "\n".join([head, *lines, *more])


def _notes(table: SampleTable, vlm: ModelAdapter, rule: FrameRule | None) -> list[str]:
    """How many frames there are, and how they go in."""
    numbers = Counter(len(sample.images) for sample in table if sample.video is not None)
    ordered = sorted(numbers)
    few = len(ordered) <= _SIZES_SHOWN
    sizes = " or ".join(map(str, ordered)) if few else f"{ordered[0]} to {ordered[-1]}"
    taken = "" if rule is None else f" ({rule.said})"
    with_video = (
        f"{count(sum(numbers.values()), 'sample')} with a video: {sizes} frames each{taken}"
    )
    if vlm.takes_video:
        return [f"{with_video}, given to the model as a video."]
    return [
        f"{with_video}, given to the model as several images, not as a video. Scores are not "
        "comparable with published video figures."
    ]
