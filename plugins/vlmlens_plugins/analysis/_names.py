"""Names of tables and figures."""

from __future__ import annotations

import re


def slug(name: str) -> str:
    """A file name for anything: lower-case letters, digits, hyphens.

    >>> slug("photographer@color")
    'photographer-color'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "all"
