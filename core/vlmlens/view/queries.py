"""What the query of an address says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from starlette.requests import Request

_LONGEST = 9
"""Digits of a number."""


def whole_number(request: Request, name: str) -> int | None:
    """A whole number from 0; None if it is not there.

    Raises:
        HTTPException: 422: something else is there.
    """
    given = request.query_params.get(name, "")
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= _LONGEST):
        raise HTTPException(422, f"{name} = {given[:40]!r}: expected a whole number from 0.")
    return int(given)
