"""Analyses of some of the samples: what they see, and what their results say of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vlmlens.compose.drawn_samples import told
from vlmlens.stores.selected import SelectedStore

if TYPE_CHECKING:
    from vlmlens.abc.analysis import AnalysisContext
    from vlmlens.results import Result


def on_some(context: AnalysisContext, whole: int) -> AnalysisContext:
    """The context of an analysis that sees only its samples, also of the store.

    Args:
        context: Its samples are some of the run's.
        whole: How many the run has.
    """
    store = SelectedStore.of_ids(context.store, (sample.id for sample in context.samples))
    return replace(context, store=store, drawn_from=whole)


def telling_part(result: Result, context: AnalysisContext) -> Result:
    """The result, which says on how many samples it rests if these are not all."""
    whole = context.drawn_from
    if whole is None:
        return result
    some = len(context.samples)
    return replace(
        result,
        title=f"{result.title} (on {some:,} of {whole:,} samples)",
        notes=[told(some, whole, context.seed), *result.notes],
    )
