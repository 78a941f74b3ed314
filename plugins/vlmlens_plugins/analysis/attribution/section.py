"""A part of the result: what one method found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmlens.results import Figure, Finding, Glance, Table


@dataclass(frozen=True, slots=True)
class Section:
    """What one method found, as parts of the result."""

    findings: Sequence[Finding] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    overview: Sequence[Glance] = ()
