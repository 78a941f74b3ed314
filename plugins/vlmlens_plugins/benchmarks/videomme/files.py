"""The video files of Video-MME, by the id of the video."""

from __future__ import annotations

from pathlib import Path

from vlmlens.errors import DataNotFound
from vlmlens.video_files import is_video
from vlmlens_plugins.data._paths import existing

NONE = "none"
_USUAL = ("data", "video", "videos", "")
_CHUNKS = "videos_chunked_*.zip"


class VideoFiles:
    """The videos of a folder.

    Args:
        folder: The user's folder; None: `data/`, `video/` or `videos/` beside the questions, or
            the folder of these.
        beside: The folder of the questions; None: they are from the hub.

    Raises:
        DataNotFound: It is not clear where the videos are.
    """

    def __init__(self, folder: str | None, beside: Path | None) -> None:
        self._folders = self._chosen(folder, beside)
        self._paths = {
            path.stem: str(path)
            for place in reversed(self._folders)
            for path in sorted(place.iterdir())
            if is_video(path.name) and not path.name.startswith(".")
        }
        self.missing: dict[str, None] = {}
        """Ids of videos that were asked for and are not there, in order."""

    def path(self, *names: str) -> str:
        """The path of a video that has one of these names, whatever its suffix.

        A missing one gets the path where it should be, so that the run names it.
        """
        for name in names:
            if name in self._paths:
                return self._paths[name]
        self.missing[names[0]] = None
        return str(self._folders[0] / f"{Path(names[0]).name}.mp4")

    def note(self, videos: int) -> str | None:
        """What is missing, in a sentence; None where nothing is."""
        if not self.missing:
            return None
        where = self._folders[0]
        first = next(iter(self.missing))
        packed = any(any(place.glob(_CHUNKS)) for place in {*self._folders, where.parent})
        hint = "; unpack videos_chunked_*.zip" if packed else ""
        return (
            f"{len(self.missing)} of {videos} videos are not in {str(where)!r}, for example "
            f"{first!r}{hint}. A run names them; --on-bad-sample skip leaves their questions out"
        )

    @staticmethod
    def _chosen(folder: str | None, beside: Path | None) -> list[Path]:
        if folder is not None:
            return [existing(folder)]
        if beside is None:
            raise DataNotFound(
                "Where are the videos of Video-MME?",
                subject="videos",
                hint="Name their folder: --set options.dataset.videos=FOLDER. To ask without "
                "them: --set options.dataset.videos=none --set text_only=true.",
            )
        return [beside / name for name in _USUAL if (beside / name).is_dir()]
