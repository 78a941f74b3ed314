"""`vlmlens show`: what is in a run or a store, down to one tensor."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from vlmlens.cli._options import output_flags, shares
from vlmlens.cli._output import Output, table
from vlmlens.cli._stores import open_store, stored_run

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnInfo, ColumnStore
    from vlmlens.runs.run import Run

_ROWS, _VALUES = 3, 6


@shares(output=output_flags)
def show(
    where: Annotated[str, Argument(metavar="RUN_OR_STORE", help="Folder of a run, or a store.")],
    output: Output,
    column: Annotated[str | None, Argument(help="One column, as llm.block.3/last.")] = None,
    sample: Annotated[str | None, Option(help="One sample's values, by its id.")] = None,
    storage: Annotated[str | None, Option(help="Storage plugin, for a bare store.")] = None,
) -> None:
    """Show what is in a run or a store.

    With COLUMN: its shape, dtype and first values.
    """
    run = stored_run(where)
    with open_store(where, run, storage) as store:
        if column is not None:
            _show_column(store, column, sample, output)
        elif run is not None:
            _show_run(run, store.columns(), output)
        else:
            columns = store.columns()
            output.data({"store": where, "columns": _columns(columns)}, _column_table(columns))


def _show_run(run: Run, columns: list[ColumnInfo], output: Output) -> None:
    info, spec = run.info, run.spec
    results, said = run.results, run.facts
    document = {
        "run": str(run.path),
        "state": info.get("state"),
        "spec": spec.model_dump(mode="json"),
        "samples": len(run.samples),
        "columns": _columns(columns),
        "results": {name: len(result.findings) for name, result in results.items()},
        "facts": said,
    }
    facts = [
        ("run", f"{run.path} ({info.get('state', 'state unknown')})"),
        ("model", f"{spec.adapter} {spec.model or ''}".strip()),
        ("data", f"{spec.data}: {len(run.samples)} samples"),
        ("results", ", ".join(results) or "none"),
    ]
    for heading, lines in said.items():
        told = ", ".join(f"{name} {value}" for name, value in lines.items())
        facts.append((heading.lower(), told))
    if run.report_path.exists():
        facts.append(("report", str(run.report_path)))
    output.data(document, table("", "", rows=facts), "", _column_table(columns))


def _show_column(store: ColumnStore, column: str, sample: str | None, output: Output) -> None:
    name = _stored_name(store, column)
    info = next(each for each in store.columns() if each.name == name)
    ids = [sample] if sample is not None else store.ids(name)[:_ROWS]
    values = store.read(name, ids)
    rows = [
        {"sample": each, "shape": list(array.shape), "values": array[:_ROWS, :_VALUES]}
        for each, array in zip(ids, values.per_sample(), strict=True)
    ]
    output.data(
        {**asdict(info), "shape": _shape(info), "first": rows},
        f"{name}: {info.dtype} {str(_shape(info)).replace('None', 'ragged')}",
        table("sample", "shape", "first values", rows=[_row(row) for row in rows]),
    )


def _stored_name(store: ColumnStore, column: str) -> str:
    """The column as it is stored: `all[-1]` and `last` are one selector."""
    from vlmlens.errors import SelectorError
    from vlmlens.tokens import Column

    if any(info.name == column for info in store.columns()):
        return column
    try:
        name = str(Column.parse(column))
    except SelectorError:
        name = column
    store.ids(name)
    return name


def _shape(info: ColumnInfo) -> list[int | None]:
    """Samples, rows where a sample has several (None: they differ), width."""
    return [info.samples, None, info.width] if info.ragged else [info.samples, info.width]


def _row(row: dict[str, Any]) -> tuple[str, str, str]:
    lines = [" ".join(f"{value:.5g}" for value in line) for line in row["values"]]
    more = " ..." if row["shape"][1] > _VALUES else ""
    return row["sample"], str(row["shape"]), "\n".join(line + more for line in lines)


def _columns(columns: list[ColumnInfo]) -> list[dict[str, Any]]:
    return [asdict(column) for column in columns]


def _column_table(columns: list[ColumnInfo]) -> Any:
    rows = [
        (each.name, each.dtype, each.width, each.samples, "ragged" if each.ragged else "")
        for each in columns
    ]
    return table("column", "dtype", "width", "samples", "", rows=rows)
