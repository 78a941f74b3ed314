"""Cases whose numbers are all finite; what is said of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from vlmlens.abc import AnalysisContext
from vlmlens.errors import CompositionError


class _Measured(Protocol):
    @property
    def finite(self) -> bool: ...


C = TypeVar("C", bound=_Measured)


def finite_cases(cases: Sequence[C], context: AnalysisContext, analysis: str) -> list[C]:
    """The cases whose numbers are all finite; warns of the others.

    Raises:
        CompositionError: None is left.
    """
    kept = [case for case in cases if case.finite]
    if not kept:
        raise CompositionError(
            "The model gives no finite numbers for any sample.",
            subject=analysis,
            hint="Use another dtype (--dtype float32), or other weights.",
        )
    if len(kept) < len(cases):
        context.warn(
            f"{len(cases) - len(kept)} of {len(cases)} samples are left out: the model's numbers "
            "are not finite."
        )
    return kept
