"""Credentials are kept out of run files, and so out of run folders, reports and logs.

They belong into environment variables or the configuration of fsspec, which vlmlens never reads
itself. `vlmlens._clean.redacted` also hides them in messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vlmlens._clean import SECRET_WORD, has_credential, redacted
from vlmlens.errors import SpecError

WAY_OUT = (
    "Give it by the environment (for example AWS_SECRET_ACCESS_KEY or FSSPEC_S3_SECRET) or in "
    "~/.config/fsspec/conf.json; see docs/security.md."
)

_STORAGE_WORD = re.compile(
    r"token|^key$|^auth$|^pass$|^pw$|^pkey$|^sas$|^jwt$|^pat$|^bearer$|[_-]key$|signature|^headers$",
    re.IGNORECASE,
)
"""In the name of an option of a storage backend, beside the above."""

_HARMLESS = frozenset({"anon", "google_default", "cloud", "cache", "browser", ""})
"""Values of fsspec's `token` that are no secret."""


def refuse_credentials(values: Mapping[str, Any]) -> None:
    """Raise an error if the values of a run file hold a credential; the error does not repeat it.

    Args:
        values: As given, not yet checked.

    Raises:
        SpecError: They do.
    """
    for place, name, value in _leaves(values, ()):
        of_storage = place[:2] == ("options", "storage")
        if place[:1] == ("prompt",):
            continue
        if isinstance(value, str) and has_credential(value):
            raise _refused(".".join(place) or name)
        if value is None or isinstance(value, bool) or str(value) in _HARMLESS:
            continue
        words = place[1:] if place[:1] in (("options",), ("analysis",)) else place
        secret = any(SECRET_WORD.search(word) for word in words)
        if secret or (of_storage and any(_STORAGE_WORD.search(word) for word in place[2:])):
            raise _refused(".".join(place))


def refuse_in_uri(uri: str) -> None:
    """Raise an error if a URI holds a password or a signature; the error does not repeat it.

    Raises:
        SpecError: It does.
    """
    if has_credential(uri):
        raise _refused(redacted(uri))


def _refused(place: str) -> SpecError:
    return SpecError(
        f"{place} holds a credential, which would be stored in the run and shown in its report.",
        subject=place,
        hint=WAY_OUT,
    )


def _leaves(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Each value in nested mappings and lists, with the names above it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = str(key)
            if has_credential(name):
                raise _refused(redacted(name))
            yield from _leaves(inner, (*place, name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner, place)
    else:
        yield place, place[-1] if place else "", value
