"""Which samples are asked for, and in which order: read from an address, written as one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

import numpy as np

from vlmlens._clean import clean
from vlmlens.errors import SpecError
from vlmlens.report._text import cut, one_line
from vlmlens.runs.stored_samples import Coded, StoredSamples

if TYPE_CHECKING:
    import numpy.typing as npt

    from vlmlens.results import Finding
    from vlmlens.view.sample_columns import SampleColumn
    from vlmlens.view.shown_run import ShownRun

SIGNS = {">=": "at least", "<=": "at most", "=": "is", "~": "contains"}
"""How a value is compared, with its words."""

_MOST_CONDITIONS, _LONGEST = 20, 1_000
_AMONG = re.compile(r"[\s,]+")
_OTHERS = ("from", "run")
_KNOWN = ("task", "label", "q", "where", "among", "finding", "sort", "order")


@dataclass(frozen=True)
class Condition:
    """A comparison of a column with a value.

    Args:
        column: The column's name.
        sign: One of `SIGNS`.
        value: What it is compared with.
    """

    column: str
    sign: str
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.sign}{self.value}"


@dataclass(frozen=True)
class SampleFilter:
    """What an address asks for; everything that is given must hold.

    Args:
        tasks: The sample has one of these tasks; `labels` likewise.
        text: It is in the id, the prompt, the task or the label, in whatever case.
        where: Conditions on columns.
        among: Numbers of samples, separated by commas or spaces; "" means all.
        finding: ANALYSIS:NUMBER, the samples behind a finding; "" means all.
        sort: The column that they are sorted by, samples without a number last; "": their order.
        down: Whether the largest number comes first.
    """

    tasks: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    text: str = ""
    where: tuple[Condition, ...] = ()
    among: str = ""
    finding: str = ""
    sort: str = ""
    down: bool = False

    @classmethod
    def parse(cls, query: str, columns: Iterable[str]) -> SampleFilter:
        """Read the part of an address behind the question mark.

        Args:
            query: That part.
            columns: Names of the columns that there are.

        Raises:
            SpecError: It asks for something that there is not, or says it wrongly.
        """
        pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in (*_KNOWN, *_OTHERS):
                raise _wrong(name, value, f"There are {', '.join(_KNOWN)} and from.")
            given.setdefault(name, []).append(value)
        known = list(columns)
        sort, order = _last(given, "sort"), _last(given, "order")
        if sort and sort not in known:
            raise _wrong("sort", sort, _listed(known))
        if order not in ("", "up", "down"):
            raise _wrong("order", order, "Write up or down.")
        text = _last(given, "q")
        if len(text) > _LONGEST:
            raise _wrong("q", text, f"At most {_LONGEST:,} characters can be searched for.")
        conditions = [value for value in given.get("where", []) if value]
        if len(conditions) > _MOST_CONDITIONS:
            raise _wrong("where", conditions[-1], f"At most {_MOST_CONDITIONS} can be given.")
        return cls(
            tuple(value for value in given.get("task", []) if value),
            tuple(value for value in given.get("label", []) if value),
            text,
            tuple(_condition(value, known) for value in conditions),
            _last(given, "among").strip(),
            _last(given, "finding"),
            sort,
            order == "down",
        )

    def query(self) -> str:
        """The part of an address behind the question mark, without it."""
        pairs = [
            *(("task", value) for value in self.tasks),
            *(("label", value) for value in self.labels),
            ("q", self.text),
            *(("where", str(each)) for each in self.where),
            ("among", self.among),
            ("finding", self.finding),
            ("sort", self.sort),
            ("order", "down" if self.down and self.sort else ""),
        ]
        return urlencode([(name, value) for name, value in pairs if value], errors="replace")

    def without(self, **parts: object) -> SampleFilter:
        """The filter with other values in some of its parts."""
        return replace(self, **parts)  # type: ignore[arg-type]

    @property
    def chosen(self) -> list[str]:
        """The numbers of samples in `among`, as they are written."""
        return [each for each in _AMONG.split(self.among) if each]

    def apply(self, run: ShownRun) -> npt.NDArray[np.int32]:
        """int32 `[found]`: the numbers of the samples that fit, in order.

        Raises:
            SpecError: It asks for what there is not.
            DataError: A column does not hold what it is compared with.
        """
        kept = np.ones(len(run.samples), np.bool_)
        for condition in self.where:
            kept &= _holds(run.tables.columns[condition.column], condition)
        if self.tasks:
            kept &= _one_of(task_codes(run), self.tasks, "task")
        if self.labels:
            kept &= _one_of(label_codes(run), self.labels, "label")
        if self.text:
            kept &= run.search(self.text)
        for numbers in self._named(run):
            chosen = np.zeros_like(kept)
            chosen[numbers] = True
            kept &= chosen
        found = np.flatnonzero(kept).astype(np.int32)
        return self._sorted(found, run) if self.sort else found

    def _named(self, run: ShownRun) -> list[Sequence[int]]:
        """The samples that are named one by one, here or by a finding."""
        found: list[Sequence[int]] = []
        if self.among:
            found.append(_numbers(self.chosen, len(run.samples)))
        if self.finding:
            found.append(_behind(finding_of(self.finding, run), run))
        return found

    def _sorted(self, found: npt.NDArray[np.int32], run: ShownRun) -> npt.NDArray[np.int32]:
        column = run.tables.columns[self.sort]
        if column.kind != "number":
            raise _wrong("sort", self.sort, "It holds no numbers.")
        values = column.numbers[found]
        order = np.argsort(-values if self.down else values, kind="stable")
        return found[order]


def finding_of(name: str, run: ShownRun) -> Finding:
    """The finding that ANALYSIS:NUMBER names, counted from 0.

    Raises:
        SpecError: There is none.
    """
    analysis, _, number = name.rpartition(":")
    result = run.results.get(analysis)
    if result is None or not number.isdecimal() or int(number) >= len(result.findings):
        raise _wrong("finding", name, "Write ANALYSIS:NUMBER, say probe:0 for its first finding.")
    return result.findings[int(number)]


def selection(asked: SampleFilter, run: ShownRun) -> npt.NDArray[np.int32]:
    """`SampleFilter.apply`, done once for what was asked for last."""
    known: dict[str, npt.NDArray[np.int32]] = run.kept("selections", run.state, dict)
    query = asked.query()
    found = known.get(query)
    if found is None:
        found = asked.apply(run)
        known[query] = found
        for old in list(known)[:-_SELECTIONS]:
            known.pop(old, None)
    return found


_SELECTIONS = 16


def task_codes(run: ShownRun) -> Coded:
    """The tasks by sample."""
    samples = run.samples
    if isinstance(samples, StoredSamples):
        return samples.task_codes
    return Coded.of([sample.task for sample in samples])


def label_codes(run: ShownRun) -> Coded:
    """The labels by sample."""
    samples = run.samples
    if isinstance(samples, StoredSamples):
        return samples.label_codes
    return Coded.of([sample.label for sample in samples])


def _one_of(codes: Coded, wanted: Sequence[str], what: str) -> npt.NDArray[np.bool_]:
    known = {clean(value): code for code, value in enumerate(codes.values)}
    known |= {value: code for code, value in enumerate(codes.values)}
    for value in wanted:
        if value not in known:
            raise _wrong(what, value, f"No sample has this {what}.")
    found: npt.NDArray[np.bool_] = np.isin(codes.codes, [known[value] for value in wanted])
    return found


def _holds(column: SampleColumn, asked: Condition) -> npt.NDArray[np.bool_]:
    """Where a column has a value that fits: bool `[samples]`."""
    if asked.sign in (">=", "<=") or (asked.sign == "=" and column.kind == "number"):
        number = _number(asked)
        compare = {">=": np.greater_equal, "<=": np.less_equal, "=": np.equal}[asked.sign]
        held: npt.NDArray[np.bool_] = compare(column.numbers, number)
        return held
    texts, sought = column.texts, asked.value.casefold()
    fits = [
        value == asked.value if asked.sign == "=" else sought in value.casefold()
        for value in texts.values
    ]
    return np.append(np.array(fits, np.bool_), False)[texts.codes]


def _number(asked: Condition) -> float:
    try:
        number = float(asked.value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise _wrong("where", str(asked), f"{one_line(asked.value)!r} is no number.")
    return number


def _condition(text: str, columns: Sequence[str]) -> Condition:
    """The condition in a text; of several columns whose names it begins with, the longest."""
    for name in sorted(columns, key=len, reverse=True):
        if text.startswith(name):
            rest = text.removeprefix(name)
            sign = next((sign for sign in SIGNS if rest.startswith(sign)), None)
            if sign is not None:
                return Condition(name, sign, rest.removeprefix(sign))
    raise _wrong("where", text, f"Write COLUMN, one of {' '.join(SIGNS)}, and a value. "
                 + _listed(columns))  # fmt: skip


def _numbers(texts: Sequence[str], count: int) -> list[int]:
    found = []
    for each in texts:
        if not each.isascii() or not each.isdecimal() or len(each) > 12 or int(each) >= count:
            raise _wrong("among", each, f"Write numbers of samples, 0 to {count - 1}.")
        found.append(int(each))
    return found


def _behind(finding: Finding, run: ShownRun) -> Sequence[int]:
    """The samples of a finding; where it names none, those of the task that it is about."""
    if finding.samples:
        known = run.samples.numbers
        return [known[name] for name in finding.samples if name in known]
    codes = task_codes(run)
    if finding.subject not in codes.values:
        return []
    found: list[int] = np.flatnonzero(
        codes.codes == list(codes.values).index(finding.subject)
    ).tolist()
    return found


def _last(given: Mapping[str, Sequence[str]], name: str) -> str:
    return given[name][-1] if name in given else ""


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(map(one_line, columns[:12])) or "none"
    more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
    return f"The columns are {shown}{more}."


def _wrong(name: str, value: str, hint: str) -> SpecError:
    return SpecError(
        f"{one_line(name)[:40]}={cut(one_line(value), 120)} asks for samples that cannot be found.",
        subject=name,
        hint=hint,
    )
