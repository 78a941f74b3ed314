"""Warnings about plugins. logging is imported on the first one, to keep `vlmlens --help` fast."""

from __future__ import annotations

from collections.abc import Callable

prepare: list[Callable[[], None]] = []
"""Functions to call before the first warning, for example to set up the log."""


def warn(message: str, *details: object, error: BaseException | None = None) -> None:
    """Log a warning of vlmlens.

    Args:
        message: The format string, as for `logging`.
        details: Its arguments, as for `logging`.
        error: The error behind it. Its traceback is shown with `--debug`.
    """
    import logging

    while prepare:
        prepare.pop()()
    log = logging.getLogger("vlmlens")
    log.warning(message, *details, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
