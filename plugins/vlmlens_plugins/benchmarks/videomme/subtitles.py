"""Subtitles of Video-MME: SRT files of a folder or of `subtitle.zip`, by the id of the video."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vlmlens.errors import DataNotFound, ManifestError
from vlmlens_plugins.data._paths import existing

_TIMES = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->\s*(\d+):(\d\d):(\d\d)[,.](\d{1,3})")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_LARGEST = 1 << 24
_USUAL = ("subtitle.zip", "subtitle", "subtitles")


@dataclass(frozen=True, slots=True)
class Cue:
    """A text that is shown from one time to another, in seconds."""

    start: float
    end: float
    text: str


class Subtitles:
    """The SRT files of a folder or of a zip archive.

    Args:
        place: Of the folder or the archive.

    Raises:
        ManifestError: The archive is damaged.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._members: dict[str, zipfile.ZipInfo] = {}
        if not place.is_dir():
            with self._archive() as archive:
                infos = archive.infolist()
            named = [(PurePosixPath(info.filename), info) for info in infos]
            self._members = {p.stem: info for p, info in named if p.suffix.lower() == ".srt"}

    def of(self, video: str) -> list[Cue] | None:
        """The subtitles of a video, in order; None where it has none.

        Raises:
            ManifestError: Its file is too large, or no SRT file in UTF-8.
        """
        data = self._data(video)
        if data is None:
            return None
        where = f"{self._place}, {video}.srt"
        try:
            cues = list(cues_in(data.decode("utf-8-sig")))
        except UnicodeDecodeError as error:
            raise _wrong(where, "not UTF-8 text") from error
        if data.strip() and not cues:
            raise _wrong(where, "no line of times (00:00:01,000 --> 00:00:02,000)")
        return cues

    def _data(self, video: str) -> bytes | None:
        if not self._place.is_dir():
            return self._unpacked(video) if video in self._members else None
        path = self._place / f"{video}.srt"
        if path.parent != self._place or not path.is_file():
            return None
        self._check_size(path.stat().st_size, video)
        return path.read_bytes()

    def _unpacked(self, video: str) -> bytes:
        member = self._members[video]
        self._check_size(member.file_size, video)
        try:
            with self._archive() as archive, archive.open(member) as file:
                return file.read(_LARGEST)
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
            raise _wrong(f"{self._place}, {video}.srt", f"cannot be read ({error})") from error

    def _check_size(self, size: int, video: str) -> None:
        if size > _LARGEST:
            raise _wrong(f"{self._place}, {video}.srt", f"{size:,} bytes are no subtitles")

    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._place)
        except (zipfile.BadZipFile, OSError) as error:
            raise _wrong(str(self._place), f"no zip archive ({error})") from error


def found_subtitles(given: str | None, folder: Path) -> Subtitles:
    """The subtitles that the user names, or those beside the questions.

    Raises:
        DataNotFound: There are none.
    """
    if given is not None:
        return Subtitles(existing(given))
    for name in _USUAL:
        if (folder / name).exists():
            return Subtitles(folder / name)
    raise DataNotFound(
        f"There are no subtitles in {str(folder)!r}.",
        subject=str(folder),
        hint="Lay subtitle.zip (or a folder subtitle/) beside the questions, or name it: "
        "--set options.dataset.subtitle_files=PATH. Without: --set options.dataset.subtitles=off.",
    )


def cues_in(text: str) -> Iterable[Cue]:
    r"""The texts of an SRT file, with their times; tags of formats are left out.

    >>> [cue.text for cue in cues_in("1\n00:00:01,000 --> 00:00:02,500\n<b>Hi</b>\nyou\n")]
    ['Hi you']
    """
    for block in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        lines = block.strip("\n").split("\n")
        for number, line in enumerate(lines):
            times = _TIMES.search(line)
            if times:
                start, end = _seconds(times.groups()[:4]), _seconds(times.groups()[4:])
                said = " ".join(_TAG.sub("", each).strip() for each in lines[number + 1 :])
                if said.strip():
                    yield Cue(start, end, " ".join(said.split()))
                break


def shown_at(cues: Iterable[Cue], times: Iterable[float]) -> list[str]:
    """The texts that are shown at one of the times, each once, in the order of the file."""
    wanted = sorted(times)
    return [cue.text for cue in cues if any(cue.start <= time < cue.end for time in wanted)]


def _seconds(parts: tuple[str, ...]) -> float:
    hours, minutes, seconds, rest = parts
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(rest.ljust(3, "0")) / 1000


def _wrong(where: str, what: str) -> ManifestError:
    return ManifestError(
        f"{where}: {what}.", subject=where, hint="Take the file as its authors publish it."
    )
