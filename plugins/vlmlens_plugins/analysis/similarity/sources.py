"""The columns that are compared, and the samples that all of them have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlmlens.abc import ColumnInfo, ColumnStore
from vlmlens.cka import LEAST_SAMPLES, Floats, Ints
from vlmlens.errors import CompositionError
from vlmlens.runs.records import each_record
from vlmlens.runs.run import Run, is_run
from vlmlens.runs.sample_file import FILE
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._columns import choose, is_ragged
from vlmlens_plugins.analysis.similarity.options import SimilarityOptions

MOST_COLUMNS = 256
"""Of a side: pairs grow with the square."""


@dataclass(frozen=True, slots=True)
class Side:
    """Columns of a run.

    Args:
        name: The run's name.
        store: Its columns, open.
        columns: Those that are compared, in order of depth.
    """

    name: str
    store: ColumnStore
    columns: Sequence[str]


@dataclass(frozen=True)
class Sources:
    """What is compared: columns of this run with each other, or with those of another run.

    Args:
        first: This run.
        second: The other run; None: this run alone.
        samples: The samples that all columns have.
        groups: The group of each.
        warnings: What the user should know: samples that were left out.
    """

    first: Side
    second: Side | None
    samples: Sequence[str]
    groups: Sequence[str]
    warnings: Sequence[str]

    @property
    def columns(self) -> list[tuple[ColumnStore, str]]:
        """All columns, those of this run first."""
        sides = [self.first, *([self.second] if self.second is not None else [])]
        return [(side.store, name) for side in sides for name in side.columns]

    def read(self, column: int, rows: Ints) -> Floats:
        """`[n, width]` of the samples with these numbers, float64."""
        store, name = self.columns[column]
        return store.read(name, [self.samples[i] for i in rows]).numpy().astype(np.float64)


@contextmanager
def opened(path: str | None) -> Iterator[tuple[Run, ColumnStore] | None]:
    """The run to compare with, open while in use; None for no path.

    Raises:
        RunNotFound: The folder holds no run.
        CompositionError: It has no columns.
    """
    if path is None:
        yield None
        return
    run = Run(path)
    if not run.info.get("columns"):
        raise CompositionError(
            f"The run {path!r} has no columns.",
            subject=path,
            hint=f"Extract some: vlmlens extract --resume --out {path} --sites 'llm.block.*/last'",
        )
    with run.store() as store:
        yield run, store


def chosen(patterns: Sequence[str] | None, columns: Mapping[str, bool], where: str) -> list[str]:
    """The columns with one row per sample that patterns name.

    Args:
        patterns: As `choose` takes them.
        columns: Stored columns by name, and whether each is ragged.
        where: What has them, for messages.

    Raises:
        CompositionError: There is none, or there are too many.
    """
    named = choose(patterns, list(columns))
    flat = [name for name in named if not columns[name]]
    if not flat:
        given = f"{named[0]!r} has several" if named else "no column is stored"
        raise CompositionError(
            f"Similarity needs columns with one row per sample; in {where}, {given}.",
            subject=named[0] if named else where,
            hint="Pool rows or pick one when extracting, for example image.mean or last.",
        )
    if len(flat) > MOST_COLUMNS:
        raise CompositionError(
            f"{len(flat)} columns of {where} are too many: similarity takes {MOST_COLUMNS}.",
            subject="columns",
            hint="Choose some: --set 'analysis.similarity.columns=[llm.block.*/last]'.",
        )
    return flat


def check(options: SimilarityOptions, samples: Sequence[Sample], columns: Sequence[str]) -> None:
    """Raise an error for what is known to be wrong before anything is extracted.

    Raises:
        CompositionError: Columns or samples do not allow a comparison.
        RunNotFound: There is no run to compare with.
    """
    if columns:
        names = chosen(options.columns, {name: is_ragged(name) for name in columns}, "this run")
        if options.against is None:
            _check_two(names)
    groups = [_group(sample, options) for sample in samples]
    with opened(options.against) as other:
        if other is None:
            check_groups(groups, len(samples))
            return
        run, store = other
        _others(options, {info.name: info.ragged for info in store.columns()}, str(run.path))
        known = {sample.id for sample in run.recorded_samples}
        shared = [
            group for sample, group in zip(samples, groups, strict=True) if sample.id in known
        ]
        check_groups(shared, len(shared), str(run.path))


def sources(
    options: SimilarityOptions,
    samples: Sequence[Sample],
    store: ColumnStore,
    folder: Path | None,
    other: tuple[Run, ColumnStore] | None,
) -> Sources:
    """What is compared with what.

    Raises:
        CompositionError: Columns or samples do not allow it.
    """
    own = next(filter(is_run, [*folder.parents][:2]), None) if folder is not None else None
    name = "this run" if own is None else own.resolve().name
    first = Side(name, store, chosen(options.columns, _ragged(store.columns()), "this run"))
    second, warnings = None, list[str]()
    sides = [first]
    if other is None:
        _check_two(first.columns)
    else:
        run, theirs = other
        names = _others(options, _ragged(theirs.columns()), str(run.path))
        its = run.path.resolve().name
        second = Side(its if its != name else str(run.path), theirs, names)
        sides.append(second)
        warnings += [] if own is None else _changed(own, run)
    kept = _shared(samples, sides)
    if len(kept) < len(samples):
        warnings.append(
            f"{len(samples) - len(kept):,} of {len(samples):,} samples are left out: not all "
            "columns have them."
        )
    groups = [_group(sample, options) for sample in kept]
    check_groups(groups, len(kept), None if second is None else second.name)
    return Sources(first, second, [sample.id for sample in kept], groups, warnings)


def check_groups(groups: Sequence[str], samples: int, other: str | None = None) -> None:
    """Raise an error if there are too few groups.

    Raises:
        CompositionError: There are.
    """
    count = len(set(groups))
    if count >= LEAST_SAMPLES:
        return
    where = "" if other is None else f" that are in {other!r} too"
    hint = (
        "Extract the same samples (by id) in both runs."
        if samples < LEAST_SAMPLES and other is not None
        else f"Take at least {LEAST_SAMPLES} samples of different groups (pictures, by default), "
        "or set analysis.similarity.groups=false to take samples of a group as independent."
    )
    raise CompositionError(
        f"Similarity compares samples of different groups; the {samples} samples{where} are of "
        f"{count}, and {LEAST_SAMPLES} are needed.",
        subject="samples",
        hint=hint,
    )


def _check_two(names: Sequence[str]) -> None:
    if len(names) < 2:
        raise CompositionError(
            f"There is one column, {names[0]!r}, and nothing to compare it with.",
            subject=names[0],
            hint="Extract several, or name another run: --set analysis.similarity.against=RUN.",
        )


def _others(options: SimilarityOptions, columns: Mapping[str, bool], where: str) -> list[str]:
    """The columns of the other run: those asked for, else as in this run where it has such."""
    if options.against_columns is not None or options.columns is None:
        return chosen(options.against_columns, columns, where)
    try:
        return chosen(options.columns, columns, where)
    except CompositionError as error:
        raise CompositionError(
            error.message,
            subject=error.subject,
            hint="Say which columns of the other run are meant: "
            "--set 'analysis.similarity.against_columns=[PATTERN]'.",
        ) from error


def _ragged(infos: Sequence[ColumnInfo]) -> dict[str, bool]:
    return {info.name: info.ragged for info in infos}


def _group(sample: Sample, options: SimilarityOptions) -> str:
    return sample.split_group if options.groups else sample.id


def _shared(samples: Sequence[Sample], sides: Sequence[Side]) -> list[Sample]:
    """The samples that all columns of all sides have, in order."""
    kept = {sample.id for sample in samples}
    for side in sides:
        for name in side.columns:
            kept.intersection_update(side.store.ids(name))
    return [sample for sample in samples if sample.id in kept]


def _changed(own: Path, other: Run) -> list[str]:
    """What is said of samples with one id that differ in the two runs, or are in one only."""
    records = each_record(own / FILE, "id", "prompt", "images")
    prints = {record["id"]: record.get("fingerprint") or "" for record in records}
    theirs = other.sample_prints()
    both = [name for name in prints if name in theirs]
    changed = sum(prints[name] != theirs[name] for name in both)
    alone = len(theirs) - len(both)
    said = [
        f"The prompt or image differs in {changed:,} of {len(both):,} samples with the same id; "
        "they are compared all the same."
    ] * bool(changed)
    return [
        *said,
        *[f"{alone:,} samples of {str(other.path)!r} are not in this run."] * bool(alone),
    ]
