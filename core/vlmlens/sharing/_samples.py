"""The samples of a run as they are sent: texts screened, pictures named by number or content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any

from vlmlens._files import write_bytes
from vlmlens.errors import HubError, ImageError
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.regions import with_masks
from vlmlens.runs.generated_texts import GeneratedTexts
from vlmlens.runs.records import each_record
from vlmlens.runs.run import PIXELS, Run
from vlmlens.runs.sample_file import FILE
from vlmlens.samples import Sample
from vlmlens.sharing._screen import Screen

_TEXTS = ("id", "prompt", "label", "choices", "group", "task", "attributes")
_FACTS = ("rules", "fingerprint", "pixels", "side")
NOT_SENT = "not-sent-"
"""How pictures that are not sent are named, before a number."""


class SentSamples:
    """Writes the samples of a run, and their pictures if asked for.

    Args:
        run: The run.
        folder: Where to.
        screen: Screens texts.
        images: Whether pictures are sent.
    """

    def __init__(self, run: Run, folder: Path, screen: Screen, *, images: bool) -> None:
        self._run = run
        self._folder = folder
        self._screen = screen
        self._images = images
        self._names: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        """By id of the run, the id that is sent."""

    def write(self) -> None:
        """Write the samples.

        Raises:
            HubError: A picture cannot be read, or two ids differ only in a folder of this machine.
            RunError: The samples are damaged.
        """
        write_bytes(self._folder / FILE, self._lines())
        if len(set(self.ids.values())) < len(self.ids):
            raise HubError(
                "The ids of samples are paths, and two of them differ only in folders of this "
                "machine, which are not sent.",
                subject=str(self._run.path),
                hint="Give the samples other ids, and run again.",
            )
        skipped = [self._skipped(bad.to_dict()) for bad in self._run.skipped]
        self._write("skipped.jsonl", skipped)
        self._write("generated.jsonl", self._generated())

    def _lines(self) -> Iterator[bytes]:
        records = each_record(
            self._run.path / FILE, "id", "prompt", "images", count=self._run.info.get("samples")
        )
        if not (self._run.path / FILE).exists():
            return
        shown = self._run.samples if self._images else self._run.recorded_samples
        for record, sample in zip(records, shown, strict=True):
            yield _line(self._record(record, sample))

    def _record(self, record: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
        made = {name: self._screen.every(record.get(name)) for name in _TEXTS}
        self.ids[record["id"]] = made["id"]
        regions = sample.attributes.get(REGIONS)
        if isinstance(regions, str):
            made["attributes"][REGIONS] = self._screen.data(with_masks(regions, _name_of))
        made["images"] = [f"{PIXELS}{name}" for name in self._pictures(sample)]
        made |= {name: record[name] for name in _FACTS if name in record}
        if sample.video is not None:
            video = self._screen.every(sample.video.to_dict(), words=True)
            made["video"] = {**video, "source": _name_of(sample.video.source)}
        return made

    def _pictures(self, sample: Sample) -> list[str]:
        images = [image if isinstance(image, str) else str(id(image)) for image in sample.images]
        for number, image in enumerate(images):
            if image not in self._names:
                known = self._sent(sample, number) if self._images else self._numbered()
                self._names[image] = known
        return [self._names[image] for image in images]

    def _numbered(self) -> str:
        return f"{NOT_SENT}{len(self._names) + 1:06d}"

    def _sent(self, sample: Sample, number: int) -> str:
        """Write a picture as the model sees it: 8-bit RGB, without what else its file says."""
        alone = replace(sample, images=sample.images[number : number + 1], video=None)
        try:
            (shown,) = alone.open_images()
        except ImageError as error:
            raise HubError(
                f"A picture cannot be sent: {error.message}",
                subject=sample.id,
                hint="Leave --images out. Pictures of a run that is not yours need --trust where "
                "they are outside its folder.",
            ) from error
        sink = BytesIO()
        shown.save(sink, "PNG")
        content = sink.getvalue()
        name = hashlib.sha256(content).hexdigest()
        path = self._folder / "images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return name

    def _skipped(self, record: Mapping[str, Any]) -> dict[str, Any]:
        screened: dict[str, Any] = self._screen.every(record, words=True)
        return {**screened, "image": _name_of(str(screened["image"]))}

    def _generated(self) -> list[dict[str, Any]]:
        """Generated texts; ids of tokens only where nothing was taken out of the text."""
        found = []
        for name, known in GeneratedTexts(self._run.path).read().items():
            if name in self.ids:
                text = self._screen.data(known["text"])
                tokens = known.get("token_ids", []) if text == known["text"] else []
                found.append({"id": self.ids[name], "text": text, "token_ids": tokens})
        return found

    def _write(self, name: str, records: list[dict[str, Any]]) -> None:
        if records:
            write_bytes(self._folder / name, map(_line, records))


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _name_of(path: str) -> str:
    return PurePath(path).name
