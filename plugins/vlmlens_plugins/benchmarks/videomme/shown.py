"""Which subtitles of a video a prompt shows: all, or those at some of its frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vlmlens._display import count
from vlmlens.errors import DataNotFound, SpecError
from vlmlens.video_files import BadVideo, check_can_read, opened
from vlmlens.videos import FrameRule, Spread
from vlmlens_plugins.benchmarks.videomme.subtitles import Cue, found_subtitles, shown_at

OFF, ALL = "off", "all"


class ShownSubtitles:
    """The subtitles that prompts show.

    Args:
        which: `all`, or a number of frames.
        files: The user's archive or folder; None: that beside the questions.
        beside: The folder of the questions; None: they are from the hub.
        style: Of prompts: lmms-eval spreads frames from the first to the last.
        blind: Whether there are no videos, so that no frames are known.

    Raises:
        DataError: There are no subtitles, or frames cannot be known.
    """

    def __init__(
        self, which: str, files: str | None, beside: Path | None, style: str, *, blind: bool
    ) -> None:
        if files is None and beside is None:
            raise DataNotFound(
                "Where are the subtitles of Video-MME?",
                subject="subtitles",
                hint="Name the archive or folder: --set options.dataset.subtitle_files=PATH.",
            )
        self._files = found_subtitles(files, beside or Path())
        self._rule = None if which == ALL else _rule(which, style, blind=blind)
        self._known: dict[str, str | None] = {}
        self._unread: list[str] = []

    def of(self, names: Sequence[str], path: str | None) -> str | None:
        """What the subtitles of a video say; None where it has none."""
        if names[0] not in self._known:
            found = (self._files.of(name) for name in names)
            cues = next((each for each in found if each is not None), None)
            said = None if cues is None else self._shown(cues, path)
            self._known[names[0]] = said
        return self._known[names[0]]

    def _shown(self, cues: Sequence[Cue], path: str | None) -> str:
        if self._rule is None:
            return "\n".join(cue.text for cue in cues)
        try:
            clip = opened(path or "")
            numbers = self._rule.indices(clip.total, clip.fps)
        except BadVideo:
            self._unread.append(path or "")
            return ""
        rate = clip.fps or 1.0
        times = clip.seconds(numbers) or [number / rate for number in numbers]
        return "\n".join(shown_at(cues, times))

    def notes(self) -> Iterator[str]:
        """How many videos have subtitles, and which are shown."""
        without = [name for name, said in self._known.items() if said is None]
        rule = "all of them" if self._rule is None else f"those at the frames {self._rule.said}"
        having = count(len(self._known) - len(without), "video")
        yield f"subtitles of {having} are shown, {rule}"
        if without:
            yield (
                f"{count(len(without), 'video')} without subtitles, for example {without[0]!r}: "
                "asked without"
            )
        if self._unread:
            yield (
                f"no subtitles of {count(len(self._unread), 'video')} that cannot be read, for "
                f"example {self._unread[0]!r}"
            )


def _rule(which: str, style: str, *, blind: bool) -> FrameRule:
    if blind:
        raise SpecError(
            "Subtitles of frames need the videos, and videos=none leaves these out.",
            subject="subtitles",
            hint="--set options.dataset.subtitles=all shows all of them.",
        )
    check_can_read()
    spread: Spread = "ends" if style.startswith("lmms-eval") else "interior"
    return FrameRule(int(which), spread=spread)
