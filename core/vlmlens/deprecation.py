"""Saying once, to whoever runs the code, that something will go away; see docs/contract.md."""

from __future__ import annotations

import warnings


class VlmlensDeprecationWarning(FutureWarning):
    """Something of vlmlens's contract is used that a later version will not have.

    A `FutureWarning`, since Python hides a `DeprecationWarning` from those who run other people's
    plugins. `python -W error::FutureWarning -m pytest` finds every use.
    """


_told: set[str] = set()


def deprecated(what: str, *, since: str, until: str, instead: str, stacklevel: int = 2) -> None:
    """Warn of a use, the first time in this process.

    Args:
        what: What is used, as its user knows it: "`Analysis.check` without columns".
        since: The version of vlmlens that deprecated it.
        until: The first version that will not have it.
        instead: What to use.
        stacklevel: As of `warnings.warn`: 2 names the line that called the function that calls
            this one.
    """
    if what in _told:
        return
    warnings.warn(
        f"{what} is deprecated since vlmlens {since} and goes away in {until}: {instead}",
        VlmlensDeprecationWarning,
        stacklevel=stacklevel + 1,
    )
    _told.add(what)
