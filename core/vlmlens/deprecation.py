"""Deprecation warnings, shown once per process; see docs/contract.md."""

from __future__ import annotations

import warnings


class VlmlensDeprecationWarning(FutureWarning):
    """The code uses a part of vlmlens's contract that a later version will remove.

    It is a `FutureWarning`, because Python hides a `DeprecationWarning` from users of other
    people's plugins. `python -W error::FutureWarning -m pytest` finds every use.
    """


_told: set[str] = set()


def deprecated(what: str, *, since: str, until: str, instead: str, stacklevel: int = 2) -> None:
    """Warn the first time that something deprecated is used in this process.

    Args:
        what: What is used, in words that its user knows: "`Analysis.check` without columns".
        since: The version of vlmlens that deprecated it.
        until: The first version without it.
        instead: What to use instead.
        stacklevel: See `warnings.warn`. With 2 the warning names the line that called the
            function that calls this one.
    """
    if what in _told:
        return
    warnings.warn(
        f"{what} is deprecated since vlmlens {since} and goes away in {until}: {instead}",
        VlmlensDeprecationWarning,
        stacklevel=stacklevel + 1,
    )
    _told.add(what)
