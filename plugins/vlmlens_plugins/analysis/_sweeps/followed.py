"""Whose answers are followed: samples with a label, or the clean ones of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from vlmlens.abc import AnalysisContext
from vlmlens.errors import MissingAnnotation
from vlmlens.pairs import pairs_of, said
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._sweeps.cells import Cell, Item
from vlmlens_plugins.analysis._sweeps.sweeping import SweepOptions, sweep
from vlmlens_plugins.analysis._tasks import ALL, rows_by_task


class FollowOptions(SweepOptions):
    """Options of sweeps that follow the right answer of single samples."""

    only_right: bool = Field(
        True, description="Leave out samples that the model answers wrongly without edits."
    )


@dataclass(frozen=True, slots=True)
class Followed:
    """Samples whose answer is followed.

    Args:
        items: Each with its label and the answers that the label is compared to.
        rivals: Per item, which of its answers the label is compared to; 0: there is none.
        warnings: What was left out, and why.
        notes: Which samples and answers these are.
    """

    items: Sequence[Item]
    rivals: Sequence[int]
    warnings: Sequence[str]
    notes: Sequence[str]

    def by_task(self) -> dict[str, list[int]]:
        """The numbers of the items of each task."""
        return rows_by_task([item.target for item in self.items])


def check_labels(samples: Sequence[Sample], name: str) -> None:
    """Raise an error where no sample can be followed.

    Raises:
        MissingAnnotation: No sample has a label.
    """
    if all(sample.label is None for sample in samples):
        raise MissingAnnotation(
            f"{name} follows the probability of the right answer, and no sample has a label.",
            subject="labels",
            hint="Give the data a column of answers (label), or leave the analysis out.",
        )


def candidates(samples: Sequence[Sample], most: int) -> tuple[list[Item], list[str]]:
    """The samples that may be followed, task by task, and what is left out.

    Args:
        samples: The samples of the run.
        most: The most of each task, the first ones.
    """
    warnings: list[str] = []
    items = []
    if any(sample.attributes.get("pair") for sample in samples):
        pairs, dropped = pairs_of(samples)
        items = [_item(pair.clean, (pair.answers[1],), pair.group) for pair in pairs]
        warnings = [said(dropped, len(pairs) + len(dropped))] if dropped else []
    if not items:
        labelled = [sample for sample in samples if sample.label is not None]
        if len(labelled) < len(samples):
            missing = len(samples) - len(labelled)
            warnings.append(f"{missing} of {len(samples)} samples are left out: without a label.")
        items = [_item(sample, (), sample.split_group) for sample in labelled]
    kept = rows_by_task([item.target for item in items])
    return [items[i] for rows in kept.values() for i in rows[:most]], warnings


def followed(context: AnalysisContext, options: FollowOptions, items: Sequence[Item]) -> Followed:
    """Ask without edits, and keep those that can be followed.

    Args:
        context: The context of the analysis.
        options: Its options.
        items: From `candidates`.

    Raises:
        SpecError: The answers of no sample can be told apart by their next token.
        MissingAnnotation: No sample is left.
    """
    asked = sweep(context, items, [Cell(())], options)
    (results,) = asked.results
    unclear, wrong = [], []
    kept, rivals = [], []
    for item, tokens, one in zip(asked.items, asked.tokens, results, strict=True):
        logits = np.array(one["base"]["logit"])
        others = np.flatnonzero(np.array(tokens) != tokens[0])
        if len(others) < len(tokens) - 1:
            unclear.append(item.target.id)
            continue
        if not _right(item, logits, says=one["base"]["top"] == tokens[0]):
            wrong.append(item.target.id)
            if options.only_right:
                continue
        paired = item.target.attributes.get("pair") and len(logits) > 1
        best = int(others[logits[others].argmax()]) if len(others) else 0
        kept.append(item)
        rivals.append(1 if paired and len(item.answers) > 1 else best)
    warnings = _left_out(unclear, wrong, len(asked.items), only_right=options.only_right)
    if not kept:
        raise MissingAnnotation(
            f"No sample is left to be followed: {' '.join(warnings)}",
            subject="samples",
            hint="Use more samples, a task that the model can do, or only_right=false.",
        )
    return Followed(kept, rivals, warnings, [_about(kept, rivals)])


def _item(sample: Sample, others: tuple[str, ...], group: str) -> Item:
    label = str(sample.label)
    answers = dict.fromkeys((label, *others, *sample.choices))
    return Item(sample, tuple(answers), group=group, task=sample.task or ALL)


def _right(item: Item, logits: np.ndarray[tuple[int], np.dtype[np.float64]], *, says: bool) -> bool:
    """Of choices, the label must be the most probable one; else it must be what the model says."""
    return bool((logits[0] > logits[1:]).all()) if item.target.choices else says


def _left_out(
    unclear: Sequence[str], wrong: Sequence[str], total: int, *, only_right: bool
) -> list[str]:
    found = []
    if unclear:
        found.append(
            f"{len(unclear)} of {total} samples are left out (for example {unclear[0]!r}): their "
            "answer goes on with the same token as another one."
        )
    if wrong:
        verb = "are left out, since" if only_right else "are kept, though"
        found.append(
            f"{len(wrong)} of {total} samples {verb} the model answers them wrongly without edits."
        )
    return found


def _about(items: Sequence[Item], rivals: Sequence[int]) -> str:
    """Which answers are followed."""
    if all(item.target.attributes.get("pair") for item in items):
        compared = "The logit difference is that to the answer of the other sample of the pair."
    elif any(rivals):
        compared = "The logit difference is that to the strongest other choice without edits."
    else:
        compared = "There is no other answer to compare with, so there is no logit difference."
    count = "1 sample is" if len(items) == 1 else f"{len(items)} samples are"
    return (
        f"{count} followed. The answer is the first token in which the right "
        f"answer differs from the others. {compared}"
    )
