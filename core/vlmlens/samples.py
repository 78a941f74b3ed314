"""Sample: one example that a model is run on."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vlmlens._display import brief, count
from vlmlens.errors import DataError, DuplicateSample, ImageError
from vlmlens.images import DEFAULT, UNREADABLE, ImageRules, check_mode, open_image, rgb
from vlmlens.question_text import named_choices
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.regions import masks_in
from vlmlens.videos import Video

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "UNREADABLE",
    "Attribute",
    "BadSample",
    "ImageRules",
    "Sample",
    "asked",
    "check_decoded",
    "check_encodable",
    "check_ids",
    "check_mode",
    "check_unique",
    "with_prompts",
]

Attribute = str | int | float | bool | None
"""A value that a dataset knows of a sample beside its label."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One example: image(s) or none, a prompt, and what is known about it.

    Args:
        id: Unique within a run; rows of columns are keyed by it.
        prompt: The user's text, without any chat template.
        images: Paths of image files or Pillow images, in the order in which the prompt sees them.
        label: The right answer, or the class.
        choices: The answers to choose from, where the question is closed.
        group: Samples of one group (say, of one image) never stand on both sides of a split.
            Defaults, for analyses, to the image.
        task: The question's type; analyses report per task.
        attributes: Anything else that the dataset knows, by name. `regions` names parts of the
            images for selectors (`vlmlens.regions`).
        rules: How the images become 8-bit RGB where their files leave that open.
        video: Says that the images are frames of one video, in order. `Video("clip.mp4")`, or the
            path alone: its frames are read when a run begins, and become the images.
    """

    id: str
    prompt: str
    images: tuple[str | Image, ...] = ()
    label: str | None = None
    choices: tuple[str, ...] = ()
    group: str | None = None
    task: str | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    rules: ImageRules = DEFAULT
    video: Video | None = None

    def __post_init__(self) -> None:
        paths = [os.fspath(i) if isinstance(i, os.PathLike) else i for i in self.images]
        object.__setattr__(self, "images", tuple(paths))
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))
        if self.video is not None:
            object.__setattr__(self, "video", _video(self.video, len(self.images)))

    def open_images(self) -> list[Image]:
        """The images as upright RGB Pillow images.

        Raises:
            ImageError: A file is missing or is not a readable image.
            DataError: The frames of its video are not chosen yet.
        """
        check_decoded(self)
        return [_open(image, self) for image in self.images]

    def to_dict(self) -> dict[str, Any]:
        """The sample as JSON-ready data; Pillow images are named by their content."""
        rules = {} if self.rules is DEFAULT else self.rules.changed()
        return {
            "id": self.id,
            "prompt": self.prompt,
            "images": [_image_name(image, self.rules) for image in self.images],
            "label": self.label,
            "choices": list(self.choices),
            "group": self.group,
            "task": self.task,
            "attributes": dict(self.attributes),
            **({"rules": rules} if rules else {}),
            **({} if self.video is None else {"video": self.video.to_dict()}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sample:
        """The inverse of `to_dict`."""
        return cls(
            id=data["id"],
            prompt=data["prompt"],
            images=tuple(data.get("images", ())),
            label=data.get("label"),
            choices=tuple(data.get("choices", ())),
            group=data.get("group"),
            task=data.get("task"),
            attributes=data.get("attributes", {}),
            rules=ImageRules(**data["rules"]) if data.get("rules") else DEFAULT,
            video=Video.from_dict(data["video"]) if data.get("video") is not None else None,
        )

    def fingerprint(self, digests: Sequence[str] | None = None) -> str:
        """A digest of what the model sees, and of what says which rows selectors by name mean.

        That is the prompt, the images' bytes and their rules, the attributes `boxes` and `regions`
        with the bytes of masks, the choices where only they say what the prompt's options are, and
        which frames of a video the images are.

        Args:
            digests: SHA-256 of each image's file, if they are known: then none is opened.
        """
        if digests is None:
            digests = [_image_digest(image, self.rules) for image in self.images]
        parts = [self.prompt, *digests]
        if rules := self.rules.changed():
            parts.append(json.dumps(rules))
        if "boxes" in self.attributes:
            parts.append(json.dumps(self.attributes["boxes"]))
        if (regions := self.attributes.get(REGIONS)) is not None:
            masks = [_image_digest(path, self.rules) for path in masks_in(regions)]
            parts.append(json.dumps({REGIONS: regions, "masks": masks}))
        if choices := named_choices(self.prompt, self.choices):
            parts.append(json.dumps({"choices": choices}))
        if self.video is not None:
            parts.append(json.dumps({"video": self.video.as_seen().to_dict()}))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def as_seen(self) -> Sample:
        """The sample with its id and what `fingerprint` is about, and nothing else."""
        places = ("boxes", REGIONS)
        kept = {name: self.attributes[name] for name in places if name in self.attributes}
        return Sample(
            self.id,
            self.prompt,
            self.images,
            choices=named_choices(self.prompt, self.choices),
            attributes=kept,
            rules=self.rules,
            video=self.video and self.video.as_seen(),
        )

    @property
    def split_group(self) -> str:
        """The group for splits: `group`, else the video, the images, the sample's own id."""
        if self.group is not None:
            return self.group
        if self.video is not None and self.video.source:
            return self.video.source
        return "|".join(_image_name(image, self.rules) for image in self.images) or self.id

    def __repr__(self) -> str:
        pictures = count(len(self.images), "frame" if self.video else "image")
        if self.video and not self.video.decoded:
            pictures = "a video"
        return brief(self, self.id, pictures, f"prompt {self.prompt!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["attributes"] = dict(self.attributes)
        return type(self), tuple(values.values())


def check_encodable(samples: Sequence[Sample]) -> None:
    """Raise `DataError` where there is no sample, or something that is none.

    >>> check_encodable(["Hello"])
    Traceback (most recent call last):
    vlmlens.errors.DataError: 'Hello' is no Sample. Write Sample("1", "What is it?", (image,)).
    """
    if isinstance(samples, Sample):
        raise DataError(f"{samples!r} is no list of samples.", hint="Put it into a list.")
    if not samples:
        raise DataError("There is no sample to encode.", hint="Give at least one.")
    for sample in samples:
        if not isinstance(sample, Sample):
            raise DataError(
                f"{repr(sample)[:80]} is no Sample.",
                subject=sample,
                hint='Write Sample("1", "What is it?", (image,)).',
            )
        check_decoded(sample)
        for image in sample.images:
            if not isinstance(image, str) and not hasattr(image, "getexif"):
                raise DataError(
                    f"Sample {sample.id!r}: an image is a {type(image).__name__}.",
                    subject=sample.id,
                    hint="Give a path or a Pillow image (of an array: PIL.Image.fromarray).",
                )


def check_decoded(sample: Sample) -> None:
    """Raise `DataError` where a sample's images are not the frames that its video names."""
    if sample.video is None or len(sample.video.frames) == len(sample.images) > 0:
        return
    frames = f"{count(len(sample.video.frames), 'frame')} and {count(len(sample.images), 'image')}"
    name = f"the video {sample.video.source!r}" if sample.video.source else "a video"
    raise DataError(
        f"Sample {sample.id!r}: {name} with {frames}.",
        subject=sample.id,
        hint="A run chooses the frames of a video file, which become the images; elsewhere, call "
        "`vlmlens.video_frames.with_frames([sample])` first."
        if sample.video.source
        else "Give each image the number of its frame, or leave `frames` out.",
    )


def check_unique(samples: Iterable[Sample]) -> None:
    """Raise `DuplicateSample` where two samples share an id."""
    check_ids([sample.id for sample in samples])


def check_ids(ids: Sequence[str]) -> None:
    """Raise `DuplicateSample` where an id occurs twice."""
    if len(set(ids)) < len(ids):
        twice = [name for name, n in Counter(ids).items() if n > 1]
        raise DuplicateSample(
            f"{count(len(twice), 'sample id')} "
            f"{'occurs' if len(twice) == 1 else 'occur'} more than once, for example {twice[0]!r}.",
            subject=twice[0],
            hint="Give every row an id of its own, or leave the id column out.",
        )


def with_prompts(samples: Iterable[Sample], prompts: Sequence[str]) -> list[Sample]:
    """The samples, asked the user's prompts instead of their own.

    Without prompts they stay as they are. One prompt replaces theirs. Of several, each is asked of
    each sample: the k-th (from 0) gives the id `ID#k`, its text is the task (behind the sample's
    own task, where it has one), and all of a sample's questions share its group. Label, choices
    and attributes stay: a prompt of the user's is another wording, or none that matters to a probe.

    Raises:
        DataError: A prompt is blank, or given twice.

    >>> [s.id for s in with_prompts([Sample("a.png", "")], ["Colour?", "Shape?"])]
    ['a.png#0', 'a.png#1']
    """
    return list(asked(samples, prompts))


def asked(samples: Iterable[Sample], prompts: Sequence[str]) -> Iterator[Sample]:
    """Like `with_prompts`, one by one."""
    _check_prompts(prompts)
    if not prompts:
        return iter(samples)
    if len(prompts) == 1:
        return (replace(sample, prompt=prompts[0]) for sample in samples)
    return (_asked(sample, k, prompt) for sample in samples for k, prompt in enumerate(prompts))


def _video(given: Video | str | os.PathLike[str], images: int) -> Video | None:
    """A sample's video: of images without a file, every frame; of no images any more, none."""
    video = given if isinstance(given, Video) else Video(given)  # type: ignore[arg-type]
    if video.decoded and not images:
        return None
    if video.decoded or video.source or not images:
        return video
    return replace(video, frames=tuple(range(images)), total=images)


def _open(image: str | Image, sample: Sample) -> Image:
    from PIL import Image as PILImage

    try:
        if not isinstance(image, str):
            return rgb(image, sample.rules)
        with open_image(image) as opened:
            return rgb(opened, sample.rules)
    except (*UNREADABLE, PILImage.DecompressionBombError) as error:
        name = image if isinstance(image, str) else "in memory"
        raise ImageError(
            f"Sample {sample.id!r}: the image {name!r} cannot be read ({error}).",
            subject=name,
            hint="Replace the file or remove the sample.",
        ) from error


def _image_name(image: str | Image, rules: ImageRules) -> str:
    return image if isinstance(image, str) else f"sha256:{_image_digest(image, rules)}"


def _image_digest(image: str | Image, rules: ImageRules) -> str:
    if isinstance(image, str):
        if not Path(image).is_file():
            raise ImageError(
                f"The image file {image!r} does not exist.",
                subject=image,
                hint="Relative paths are read from the manifest's folder.",
            )
        stat = Path(image).stat()
        return _file_digest(image, stat.st_mtime_ns, stat.st_size)
    shown = rgb(image, rules)
    return hashlib.sha256(f"{shown.size}".encode() + shown.tobytes()).hexdigest()


@lru_cache(maxsize=100_000)
def _file_digest(path: str, mtime_ns: int, size: int) -> str:
    del mtime_ns, size  # part of the cache key: a changed file is read again
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _asked(sample: Sample, k: int, prompt: str) -> Sample:
    return replace(
        sample,
        id=f"{sample.id}#{k}",
        prompt=prompt,
        group=sample.split_group,
        task=f"{sample.task}: {prompt}" if sample.task else prompt,
    )


def _check_prompts(prompts: Sequence[str]) -> None:
    for prompt, times in Counter(prompts).items():
        if not prompt.strip():
            raise DataError(
                f"The prompt {prompt!r} is blank.",
                subject=prompt,
                hint='Say what to ask: --prompt "Color of the main object:".',
            )
        if times > 1:
            raise DataError(
                f"The prompt {prompt!r} is given {times} times.",
                subject=prompt,
                hint="Give every prompt once.",
            )


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that cannot be used.

    Args:
        id: The sample's.
        image: Path of the image; "in memory" for one that is no file, "" where there is none.
        reason: What is wrong with it.
    """

    id: str
    image: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """JSON-ready data."""
        return asdict(self)
