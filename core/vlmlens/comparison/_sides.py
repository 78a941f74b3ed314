"""What is compared: a run, or one column of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.errors import RunError, did_you_mean
from vlmlens.results import Result
from vlmlens.runs.run import Run
from vlmlens.tuned.record import in_words

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnStore
    from vlmlens.registry import Registry


@dataclass(frozen=True, slots=True)
class Side:
    """A run, or one column of it.

    Args:
        name: By which it is told apart from the others.
        results: Its results by analysis.
        groups: The group of each sample, by sample id.
        prints: What the model saw of each sample, as a fingerprint, by sample id.
        column: The column that is compared; None: all, each with that of the same name.
        facts: What is known of the run, by name.
        model: All that determines what its model computes; empty where that is not known.
        store: Opens its columns; None: it has none.
    """

    name: str
    results: Mapping[str, Result]
    groups: Mapping[str, str] = field(default_factory=dict)
    prints: Mapping[str, str] = field(default_factory=dict)
    column: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    store: Callable[[], ColumnStore] | None = None

    def same_model(self, other: Side) -> bool:
        """Whether the model, and the column that is compared, are known to be the same."""
        return bool(self.model) and (self.model, self.column) == (other.model, other.column)


def read_side(where: str, registry: Registry | None = None, *, trust: bool = False) -> Side:
    """A run by its folder, or one column of it: `runs/a` or `runs/a@llm.block.3/last`.

    Raises:
        RunNotFound: The folder holds no run.
        RunError: The run has neither results nor columns, or not that column.
    """
    folder, column = where, None
    if not (Path(where) / "run.json").is_file() and "@" in where:
        folder, _, column = where.rpartition("@")
    run = Run(folder, registry=registry, trust=trust)
    results, stored = run.results, [*map(str, run.info.get("columns") or ())]
    if not results and not stored:
        raise RunError(
            f"The run {folder!r} has no results to compare.",
            subject=folder,
            hint=f"Analyse it first: vlmlens analyze {folder}",
        )
    if column is not None:
        _check_column(column, results, stored, where)
    return Side(
        name=Path(folder).name if column is None else f"{Path(folder).name}@{column}",
        results=results,
        groups={sample.id: sample.split_group for sample in run.recorded_samples},
        prints=run.sample_prints(),
        column=column,
        facts=facts_of(run),
        model=_model(run),
        store=run.store if stored else None,
    )


def read_sides(
    places: Sequence[str], registry: Registry | None = None, *, trust: bool = False
) -> list[Side]:
    """Several, with different names.

    Raises:
        RunError: Fewer than two; otherwise as `read_side`.
    """
    if len(places) < 2:
        raise RunError(
            "There is only one run; a comparison needs at least two.",
            subject=" ".join(places),
            hint="Give two or more runs; RUN@COLUMN is one column of a run.",
        )
    sides = [read_side(place, registry, trust=trust) for place in places]
    names = [side.name for side in sides]
    made = []
    for place, side in zip(places, sides, strict=True):
        made.append(side if names.count(side.name) == 1 else replace(side, name=place))
    if len({side.name for side in made}) < len(made):
        raise RunError(
            "The same run is given twice.",
            subject=" ".join(places),
            hint="RUN@COLUMN names one column of a run.",
        )
    return made


def _check_column(
    column: str, results: Mapping[str, Result], stored: Sequence[str], where: str
) -> None:
    tables = [table for result in results.values() for table in result.tables]
    known = {str(name) for table in tables for name in table.columns.get("column", ())}
    known.update(stored)
    if column not in known:
        raise RunError(
            f"That run has the column {column!r} neither in its results nor in its store.",
            subject=where,
            hint=did_you_mean(column, known) or f"There are {', '.join(sorted(known)) or 'none'}.",
        )


def facts_of(run: Run) -> dict[str, str]:
    """What is known of a run, by name."""
    info, spec = run.info, run.spec
    model: Mapping[str, Any] = info.get("model", {})
    known = {
        "adapter": spec.adapter,
        "model": spec.model or model.get("checkpoint"),
        "digest": model.get("digest"),
        "tuned": in_words(model.get("tuned")) or None,
        "dtype": model.get("dtype"),
        "data": spec.data,
        "samples": run.sample_count,
        "seed": spec.seed,
        "vlmlens": info.get("vlmlens"),
        "finished": info.get("finished"),
    }
    return {name: str(value) for name, value in known.items() if value is not None}


def _model(run: Run) -> dict[str, Any]:
    """What determines the model's numbers; empty where neither digest nor commit is known.

    With a digest of the weights, it does not matter where the checkpoint lies.
    """
    described = {**run.info.get("model", {})}
    if described.get("digest"):
        described.pop("checkpoint", None)
    elif not described.get("revision"):
        return {}
    return {**described, "options": run.spec.options.adapter, "extractor": run.spec.extractor}
