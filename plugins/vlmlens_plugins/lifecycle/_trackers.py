"""The loggers, each behind the same two calls. Their packages are imported when a log is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from vlmlens_plugins.lifecycle._run_log_options import RunLogOptions


class Tracker(Protocol):
    """An open log."""

    def log(self, values: Mapping[str, float]) -> None:
        """Numbers by name, at the next step."""

    def close(self, *, failed: bool) -> None:
        """Everything is told."""


def open_tracker(
    settings: RunLogOptions, name: str, configuration: Mapping[str, Any], folder: Path
) -> Tracker:
    """Open the chosen logger.

    Args:
        settings: Which, and how.
        name: Of the run in it.
        configuration: What the run was asked to do.
        folder: For the logger's own files, where it takes one.
    """
    if settings.to == "wandb":
        return WandbTracker(settings, name, configuration, folder)
    return TrackioTracker(settings, name, configuration)


class TrackioTracker:
    """trackio: a database on this machine (`TRACKIO_DIR`), or a Space that the user names."""

    def __init__(
        self, settings: RunLogOptions, name: str, configuration: Mapping[str, Any]
    ) -> None:
        with _unprinted():
            import trackio

            self._trackio: Any = trackio
            self._run: Any = trackio.init(
                project=settings.project,
                name=name,
                config=dict(configuration),
                space_id=settings.space,
                embed=False,
            )

    def log(self, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        with _unprinted():
            self._run.log(dict(values))

    def close(self, *, failed: bool) -> None:
        """See `Tracker.close`; trackio has no word for a run that failed, so a number says it."""
        with _unprinted():
            self._run.log({"failed": float(failed)})
            self._trackio.finish()


class WandbTracker:
    """wandb: files in the run's folder, unless the user wants them uploaded."""

    def __init__(
        self, settings: RunLogOptions, name: str, configuration: Mapping[str, Any], folder: Path
    ) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it is sent offline, too
        import wandb

        mode: Any = "online" if settings.online else os.environ.get("WANDB_MODE", "offline")
        self._run: Any = wandb.init(
            project=settings.project,
            name=name,
            config=dict(configuration),
            dir=str(folder),
            mode=mode,
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True, save_code=False
            ),
        )

    def log(self, values: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(values))

    def close(self, *, failed: bool) -> None:
        """See `Tracker.close`."""
        self._run.finish(exit_code=int(failed))


@contextmanager
def _unprinted() -> Iterator[None]:
    """Keep what trackio prints off our standard output, which may be one JSON document."""
    with redirect_stdout(StringIO()):
        yield
