"""Warnings about plugins; logging is imported once there is one, as `vlmlens --help` comes by."""

from __future__ import annotations

from collections.abc import Callable

prepare: list[Callable[[], None]] = []
"""What is called before the first warning, by whoever shows them."""


def warn(message: str, *details: object, error: BaseException | None = None) -> None:
    """Log a warning of vlmlens.

    Args:
        message: As for `logging`.
        details: As for `logging`.
        error: What happened, whose traceback is shown while debugging.
    """
    import logging

    while prepare:
        prepare.pop()()
    log = logging.getLogger("vlmlens")
    log.warning(message, *details, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)
