"""What tests of two runs say, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmlens.comparison._differences import LEAST_OF_INTERVALS, Difference
from vlmlens.comparison._measures import About, Measure
from vlmlens.comparison._pairs import Pair
from vlmlens.report._text import plural
from vlmlens.results import Cell, Finding, Verdict

_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Tested:
    """A number in the first side and in another, with the test of their difference.

    Args:
        measure: The number in the first side.
        about: Which of its values.
        side: The other side's name.
        difference: What was tested.
        corrected: p-value, corrected for the number of tests; None where nothing was tested.
        headline: Whether findings name it; all others are in the table only.
    """

    measure: Measure
    about: About
    side: str
    difference: Difference
    corrected: float | None
    headline: bool

    @property
    def verdict(self) -> Verdict:
        """Whether they differ; inconclusive where that was not tested."""
        if self.corrected is None:
            return Verdict.INCONCLUSIVE
        return Verdict.DIFFERS if self.corrected <= _ALPHA else Verdict.NO_DIFFERENCE


def findings(tested: Sequence[Tested], pairs: Sequence[Pair]) -> list[Finding]:
    """What differs, first; then a sentence per number on what does not; then what was not tested.

    Numbers by column take one sentence for all columns. Numbers of single samples are named where
    they are shares, or where their mean is reported with an interval.
    """
    reference = pairs[0].first.name
    groups: dict[tuple[int, str, str], list[Tested]] = {}
    for each in tested:
        if each.headline and each.corrected is not None:
            groups.setdefault((id(each.measure), each.side, subject(each)), []).append(each)
    differ, same = [], dict[tuple[int, str], list[Tested]]()
    for (measure, side, _), members in groups.items():
        if all(each.verdict is Verdict.NO_DIFFERENCE for each in members):
            same.setdefault((measure, side), []).extend(members)
        elif "column" in members[0].measure.keys:
            differ.append(_over_columns(members, reference))
        else:
            differ.append(_finding(members[0], reference))
    alike = [_alike(members, reference) for members in same.values()]
    return [*differ, *alike, *_untested(tested, pairs), *filter(None, map(_equal, pairs))]


def _untested(tested: Sequence[Tested], pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Per run and analysis, the numbers whose intervals tell nothing."""
    for pair in pairs:
        names: dict[str, dict[str, None]] = {}
        for each in tested:
            if each.side == pair.second.name and each.corrected is None:
                names.setdefault(each.measure.analysis, {})[each.measure.name] = None
        why = (
            "it is the same model, and only the samples differ"
            if pair.same_model_and_some
            else f"a side has fewer than {LEAST_OF_INTERVALS} samples or groups"
        )
        for analysis, measures in names.items():
            text = (
                f"{analysis}: {', '.join(measures)} not tested between {pair.second.name} and "
                f"{pair.first.name}: {why}."
            )
            yield Finding(text, Verdict.INCONCLUSIVE, values={"run": pair.second.name})


def _equal(pair: Pair) -> Finding | None:
    same = [name for name in pair.second.results if pair.same_result(name)]
    if not same:
        return None
    text = (
        f"{', '.join(same)}: nothing to test, since {pair.second.name} and {pair.first.name} have "
        "the same model, samples and options."
    )
    return Finding(text, values={"run": pair.second.name})


def _alike(members: Sequence[Tested], reference: str) -> Finding:
    first = members[0]
    subjects = ", ".join(filter(None, dict.fromkeys(map(subject, members))))
    low = min(each.difference.low for each in members)
    high = max(each.difference.high for each in members)
    where = f" for {subjects}" if subjects else ""
    text = (
        f"{first.measure.analysis}, {first.measure.name}: no difference seen between {first.side} "
        f"and {reference}{where} ({plural(len(members), 'test')}, intervals within "
        f"[{low:+.3f}, {high:+.3f}])."
    )
    values: dict[str, Cell] = {
        "run": first.side,
        "measure": first.measure.name,
        "difference_low": low,
        "difference_high": high,
    }
    return Finding(text, Verdict.NO_DIFFERENCE, values=values)


def subject(tested: Tested) -> str:
    """What it is about, the column left out."""
    named = zip(tested.measure.keys, tested.about, strict=True)
    return " / ".join(value for key, value in named if key != "column")


def column(tested: Tested) -> str:
    """The column that it is about, or nothing."""
    return dict(zip(tested.measure.keys, tested.about, strict=True)).get("column", "")


def _finding(tested: Tested, reference: str) -> Finding:
    about, made = subject(tested), tested.difference
    over = f" over {plural(made.samples, 'sample')}"
    how = {
        "paired": f"paired{over}",
        "unpaired": f"unpaired{over}",
        "intervals": "from intervals",
    }
    text = (
        f"{_head(tested)}: {made.value:.3f} in {tested.side}, {made.reference:.3f} in {reference} "
        f"({how[made.test]})."
    )
    values: dict[str, Cell] = {
        "run": tested.side,
        "measure": tested.measure.name,
        "difference": made.difference,
        "difference_low": made.low,
        "difference_high": made.high,
        "p_corrected": tested.corrected,
    }
    return Finding(text, tested.verdict, about, values)


def _head(tested: Tested) -> str:
    said = (tested.measure.analysis, subject(tested), tested.measure.name)
    return ", ".join(filter(None, said))


def _over_columns(members: Sequence[Tested], reference: str) -> Finding:
    differing = [each for each in members if each.verdict is Verdict.DIFFERS]
    widest = max(differing, key=lambda each: abs(each.difference.difference))
    one = _finding(widest, reference)
    count = f"differs at {len(differing)} of {plural(len(members), 'column')}"
    sentence = one.text.removeprefix(f"{_head(widest)}: ")
    text = f"{_head(widest)}: {count}, most at {column(widest)}: {sentence}"
    return Finding(text, one.verdict, one.subject, {**one.values, "columns": len(differing)})
