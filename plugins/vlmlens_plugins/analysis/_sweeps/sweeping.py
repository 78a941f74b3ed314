"""Running a sweep: answers as tokens, what it costs, and the units in an order that saves work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from vlmlens.abc import AnalysisContext, ModelAdapter, Options, WorkUnit
from vlmlens.errors import CompositionError, SpecError
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._scoring import parting
from vlmlens_plugins.analysis._sweeps.cells import Cell, Item
from vlmlens_plugins.analysis._sweeps.operations import files_of
from vlmlens_plugins.analysis._sweeps.swept import Swept
from vlmlens_plugins.analysis._sweeps.work import (
    CellOptions,
    CellWork,
    RowSpread,
    packed_sample,
    packed_samples,
    unit_of,
)


def listed(value: Any) -> Any:
    """One text where several may stand."""
    return [value] if isinstance(value, str) else value


Texts = Annotated[
    Annotated[tuple[str, ...], Field(min_length=1)] | None,
    BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...] | None),
]
"""An option that is one text, or several; never none at all."""


class SweepOptions(Options):
    """Options that all analyses with sweeps have."""

    samples: int = Field(
        32, ge=1, description="Use at most so many samples (pairs) of each task, the first ones."
    )
    max_passes: int = Field(
        5000, ge=1, description="Refuse to start if more passes over a batch are needed."
    )
    draws: int = Field(1000, ge=100, description="Bootstrap resamples behind each interval.")


class ControlledOptions(SweepOptions):
    """Options of sweeps whose control is drawn."""

    controls: int = Field(
        3, ge=0, description="How often the control is drawn: other rows or heads of equal number."
    )


class PairOptions(SweepOptions):
    """Options of sweeps over pairs."""

    min_difference: float = Field(
        0.5,
        ge=0,
        description="Leave out pairs whose two runs differ by less in their logit difference.",
    )


def answer_tokens(
    vlm: ModelAdapter, items: Sequence[Item]
) -> tuple[list[Item], list[list[int]], list[list[int]], list[str]]:
    """Where the followed answers begin to differ, in tokens.

    Args:
        vlm: The model.
        items: The items.

    Returns:
        The items that can be used; for each, the tokens that its answers begin with and the next
        token of each answer; and the ids of the targets that are left out, since one answer is the
        beginning of the other, or there is none.
    """
    known: dict[str, list[int]] = {}
    kept, prefixes, tokens, left_out = [], [], [], []
    for item in items:
        ids = [known.setdefault(text, vlm.answer_ids(text)) for text in item.answers]
        shared = parting(ids) if len(ids) > 1 else 0
        if shared is None or not ids[0]:
            left_out.append(item.target.id)
            continue
        kept.append(item)
        prefixes.append(ids[0][:shared])
        tokens.append([one[shared] for one in ids])
    return kept, prefixes, tokens, left_out


def check_writes(vlm: ModelAdapter, analysis: str) -> None:
    """Raise an error for a model that writes no answer, so that none can be followed.

    Args:
        vlm: The model, or its skeleton.
        analysis: The name of the analysis, for the message.

    Raises:
        CompositionError: It compares choices with the image instead.
    """
    if vlm.choice_scores(()) is not None:
        raise CompositionError(
            f"The analysis {analysis} follows the next token, and this model only compares "
            "choices.",
            subject=analysis,
            hint="Leave the analysis out, or choose a model that writes.",
        )


def check_cost(cells: int, groups: int, options: SweepOptions) -> int:
    """How many passes over a batch a sweep takes.

    Args:
        cells: How many cells.
        groups: How many batches of samples.
        options: The analysis's options.

    Raises:
        SpecError: More than the options allow.
    """
    passes = cells * groups
    if passes > options.max_passes:
        raise SpecError(
            f"The sweep needs {passes:,} passes over a batch: {cells:,} cells (edits) times "
            f"{groups:,} batches of samples. max_passes is {options.max_passes:,}.",
            subject="max_passes",
            hint="Name fewer sites or rows, set samples or controls lower, or --batch-size or "
            "max_passes higher.",
        )
    return passes


def sweep(
    context: AnalysisContext,
    items: Sequence[Item],
    cells: Sequence[Cell],
    options: SweepOptions,
    named: CellOptions | None = None,
) -> Swept:
    """Run all cells on all items.

    Items whose answers cannot be told apart are left out; this is said.

    Args:
        context: The context of the analysis.
        items: The items; for padding, similar ones should follow each other.
        cells: The cells, in order of depth if possible.
        options: The analysis's options.
        named: Means and directions that the cells name.

    Raises:
        SpecError: More passes are needed than the options allow, or no item is left.
    """
    kept, prefixes, tokens, left_out = answer_tokens(context.model(), items)
    if left_out:
        context.warn(
            f"{len(left_out)} samples are left out (for example {left_out[0]!r}): they have no "
            "answer, or one of the two compared answers begins with the other."
        )
    if not kept:
        raise SpecError(
            "No sample is left whose answers can be compared.",
            subject="answers",
            hint="Two answers must differ before the shorter one ends.",
        )
    check_cost(len(cells), len(_together(kept, context.batch_size)), options)
    packed = [packed_sample(item) for item in kept]
    files = _files(cells, kept)
    units: list[WorkUnit] = []
    places: list[tuple[int, int]] = []
    for numbers in _together(kept, context.batch_size):
        for c, cell in enumerate(cells):
            for i in numbers:
                places.append((c, i))
                batch = f"{numbers[0]} {c}"
                item, whole = kept[i], packed[i]
                units.append(unit_of(item, whole, prefixes[i], tokens[i], cell, batch, files))
    found = context.run_units(CellWork(named), units)
    results: list[list[dict[str, object]]] = [[{} for _ in kept] for _ in cells]
    for (c, i), one in zip(places, found, strict=True):
        results[c][i] = one
    return Swept(cells, kept, tokens, results)


def _files(cells: Sequence[Cell], items: Sequence[Item]) -> dict[str, Any]:
    """By edit, what tells the files that it names, so that stored results are of these files."""
    read = Registry.default().edit
    parts = [*(cell.changes for cell in cells), *(item.under for item in items)]
    texts = {each.edit for changes in parts for each in changes if not each.direction}
    return {text: files_of(read, text) for text in texts}


def spreads(
    context: AnalysisContext, samples: Sequence[Sample], columns: Sequence[str], *, deviations: bool
) -> CellOptions:
    """The mean of rows over samples, at each of some places, for cells with `mean` or `noise`.

    Args:
        context: The context of the analysis.
        samples: The reference samples.
        columns: SITE/SELECTOR with single sites.
        deviations: Whether the standard deviations are needed, too.
    """
    if not columns:
        return CellOptions()
    packed, parts = packed_samples(samples)
    unit = WorkUnit(packed, {"columns": list(columns), "parts": parts})
    (found,) = context.run_units(RowSpread(), [unit])
    means = {column: mean for column, (mean, _) in found.items()}
    spread = {column: one for column, (_, one) in found.items()} if deviations else {}
    return CellOptions(means=means, deviations=spread)


class Onward:
    """Progress over several rounds of model work, as of one: it never goes back.

    Args:
        told: Called with (steps done, all steps so far).
    """

    def __init__(self, told: Callable[[int, int], None]) -> None:
        self._told = told
        self._before = self._round = 0
        self._ended = False

    def __call__(self, done: int, total: int) -> None:
        """Steps of the present round; it ends when all are done."""
        if self._ended:
            self._before += self._round
        self._round, self._ended = total, done == total
        self._told(self._before + done, self._before + total)


def heard(context: AnalysisContext) -> tuple[AnalysisContext, list[str]]:
    """A context that says each warning once and counts its rounds as one; and the warnings."""
    warnings: list[str] = []

    def warn(message: str) -> None:
        if message not in warnings:
            warnings.append(message)
            context.warn(message)

    return replace(context, warn=warn, progress=Onward(context.progress)), warnings


def _together(items: Sequence[Item], size: int) -> list[list[int]]:
    """The numbers of items that run in one batch: those under the same edits."""
    found: list[list[int]] = []
    for i, item in enumerate(items):
        if not found or len(found[-1]) == size or items[found[-1][0]].under != item.under:
            found.append([])
        found[-1].append(i)
    return found
