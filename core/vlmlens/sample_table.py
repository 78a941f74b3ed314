"""SampleTable: many samples in little memory, each made when it is asked for."""

from __future__ import annotations

import json
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import chain, compress, islice
from typing import Any, TypeAlias, overload

from vlmlens._display import brief, count
from vlmlens.images import DEFAULT, ImageRules
from vlmlens.samples import Sample
from vlmlens.videos import Video

_TOGETHER = 64
_MADE = 64
_DIGEST = 16

_Chunk: TypeAlias = "bytes | tuple[Sample, ...]"


class SampleTable(Sequence[Sample]):
    """Samples in order, packed. It can be used like a list that does not change.

    A million samples take about a tenth of what a list of them takes. Samples with images in
    memory are kept as they are.

    Args:
        samples: The samples; they are taken one by one.

    `videos` is the number of those that have a video.

    >>> table = SampleTable([Sample("a", "What is it?"), Sample("b", "Why?")])
    >>> table[1].prompt, [sample.id for sample in table], table.ids
    ('Why?', ['a', 'b'], ['a', 'b'])
    """

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.ids: list[str] = []
        self.seen: Seen | None = None
        self.videos = 0
        self._chunks: list[_Chunk] = []
        self._read: Callable[[bytes], list[Sample]] = _of_rows
        rest = iter(samples)
        while some := tuple(islice(rest, _TOGETHER)):
            self.ids.extend(sample.id for sample in some)
            self.videos += sum(sample.video is not None for sample in some)
            self._chunks.append(_packed(some))
        self._made = lru_cache(_MADE)(self._unpacked)

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> SampleTable:
        """The samples as a table; a table stays the same one."""
        return samples if isinstance(samples, SampleTable) else cls(samples)

    @classmethod
    def of_lines(
        cls, lines: Iterable[bytes], make: Callable[[Mapping[str, Any]], Sample]
    ) -> SampleTable:
        """The samples that `record_lines` wrote.

        Args:
            lines: An object per line.
            make: Makes a sample of its object.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: A line holds something else.
        """
        made, seen, rest = cls(), Seen(), iter(lines)
        made._read = lambda text: [make(record) for record in json.loads(b"[" + text + b"]")]
        while some := tuple(islice(rest, _TOGETHER)):
            text = b",".join(some)
            records = json.loads(b"[" + text + b"]")
            if len(records) != len(some):
                raise ValueError("a line holds no object, or several")
            for record in records:
                name, _, _ = record["id"], record["prompt"], record["images"]
                made.ids.append(name)
                made.videos += record.get("video") is not None
                seen.add_record(record)
            made._chunks.append(zlib.compress(text, 1))
        made.seen = seen if len(seen) == len(made) else None
        return made

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each sample, by id."""
        return {name: number for number, name in enumerate(self.ids)}

    @cached_property
    def tasks(self) -> Counter[str | None]:
        """How many samples have each task."""
        return Counter(sample.task for sample in self)

    def get(self, name: str) -> Sample | None:
        """The sample with an id; None if there is none."""
        number = self.numbers.get(name)
        return None if number is None else self[number]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if not isinstance(index, slice):
            number = range(len(self))[index]
            return self._made(number // _TOGETHER)[number % _TOGETHER]
        start, stop, step = index.indices(len(self))
        if step != 1:
            return [self[number] for number in range(start, stop, step)]
        return list(self._between(start, stop))

    def __iter__(self) -> Iterator[Sample]:
        return chain.from_iterable(map(self._samples_of, self._chunks))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # like a list

    def slices(self, size: int) -> Iterator[list[Sample]]:
        """The samples in lists of `size`, the last one shorter."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def without(self, ids: Collection[str]) -> SampleTable:
        """The samples with other ids than these, with what was seen of them."""
        if not ids:
            return self
        dropped = frozenset(ids)
        made = SampleTable(sample for sample in self if sample.id not in dropped)
        if self.seen is not None:
            kept = [i for i, name in enumerate(self.ids) if name not in dropped]
            made.seen = self.seen.take(kept)
        return made

    def take(self, numbers: Sequence[int]) -> SampleTable:
        """The samples with these numbers, ascending, with what was seen of them."""
        kept = bytearray(len(self))
        for number in numbers:
            kept[number] = 1
        made = SampleTable(compress(self, kept))
        if self.seen is not None:
            made.seen = self.seen.take(numbers)
        return made

    def _between(self, start: int, stop: int) -> Iterator[Sample]:
        for number in range(start // _TOGETHER, -(-stop // _TOGETHER)):
            first = number * _TOGETHER
            samples = self._samples_of(self._chunks[number])
            yield from samples[max(start - first, 0) : max(stop - first, 0)]

    def _unpacked(self, chunk: int) -> Sequence[Sample]:
        return self._samples_of(self._chunks[chunk])

    def _samples_of(self, chunk: _Chunk) -> Sequence[Sample]:
        return chunk if isinstance(chunk, tuple) else self._read(zlib.decompress(chunk))

    def __repr__(self) -> str:
        return brief(self, "", count(len(self), "sample"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),)


class Seen:
    """What reading the images of samples has shown, so that nobody opens them again for it.

    Args:
        areas: Per sample, the area of its images in pixels.
        sides: Per sample, the longest side of its images in pixels.
        fingerprints: Per sample, `Sample.fingerprint`; zeros where an image is in memory.
    """

    def __init__(
        self,
        areas: Iterable[int] = (),
        sides: Iterable[int] = (),
        fingerprints: Iterable[str] = (),
    ) -> None:
        self.areas = array("Q", areas)
        self.sides = array("L", sides)
        self._fingerprints = bytearray(b"".join(map(bytes.fromhex, fingerprints)))

    def add(self, sizes: Sequence[tuple[int, int]], fingerprint: str) -> None:
        """Add what was seen of the next sample: its images' sizes, and its fingerprint."""
        self.areas.append(sum(width * height for width, height in sizes))
        self.sides.append(max(map(max, sizes), default=0))
        self._fingerprints += bytes.fromhex(fingerprint)

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Add what the next sample's object says; nothing if it does not say it."""
        if "pixels" in record and "side" in record:
            self.areas.append(record["pixels"])
            self.sides.append(record["side"])
            self._fingerprints += bytes.fromhex(record["fingerprint"])

    def fingerprint(self, number: int) -> str:
        """The fingerprint of the sample with that number."""
        return self._fingerprints[number * _DIGEST : (number + 1) * _DIGEST].hex()

    def take(self, numbers: Iterable[int]) -> Seen:
        """What was seen of the samples with these numbers, in that order."""
        made = Seen()
        for number in numbers:
            made.areas.append(self.areas[number])
            made.sides.append(self.sides[number])
            made._fingerprints += self._fingerprints[number * _DIGEST : (number + 1) * _DIGEST]
        return made

    def __len__(self) -> int:
        return len(self.areas)


def record_lines(
    samples: SampleTable,
    keep: Callable[[Sample], Sample],
    record: Callable[[Sample], dict[str, Any]],
) -> Iterator[bytes]:
    """The samples as JSON, an object per line, with what was seen of their images.

    Args:
        samples: The samples.
        keep: Gives a sample whose images are all files.
        record: Gives its object.
    """
    seen = samples.seen
    for number, sample in enumerate(samples):
        kept = keep(sample)
        told = record(kept)
        known = seen is not None and kept is sample
        told["fingerprint"] = seen.fingerprint(number) if seen and known else kept.fingerprint()
        if seen is not None:
            told.update(pixels=seen.areas[number], side=seen.sides[number])
        yield json.dumps(told, ensure_ascii=False).encode() + b"\n"


def _packed(samples: tuple[Sample, ...]) -> _Chunk:
    """The samples as compressed JSON; unchanged if it cannot hold them."""
    rows = []
    for sample in samples:
        if not all(isinstance(image, str) for image in sample.images):
            return samples
        rules = sample.rules.changed() if sample.rules is not DEFAULT else {}
        seen = (sample.id, sample.prompt, sample.images)
        known = (sample.label, sample.choices, sample.group, sample.task)
        video = sample.video and sample.video.to_dict()
        rows.append((*seen, *known, dict(sample.attributes), rules, video))
    try:
        return zlib.compress(json.dumps(rows).encode(), 1)
    except (TypeError, ValueError):
        return samples


def _of_rows(text: bytes) -> list[Sample]:
    return [_sample(*row) for row in json.loads(text)]


def _sample(
    name: str,
    prompt: str,
    images: list[str],
    label: str | None,
    choices: list[str],
    group: str | None,
    task: str | None,
    attributes: dict[str, Any],
    rules: dict[str, Any],
    video: dict[str, Any] | None,
) -> Sample:
    chosen = ImageRules(**rules) if rules else DEFAULT
    shown = None if video is None else Video.from_dict(video)
    rest = (tuple(choices), group, task, attributes, chosen, shown)
    return Sample(name, prompt, tuple(images), label, *rest)
