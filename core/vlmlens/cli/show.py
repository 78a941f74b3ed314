"""`vlmlens show`: what a run found and what it holds, down to one tensor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from vlmlens._display import count
from vlmlens.cli import _completion as completion
from vlmlens.cli._options import Trust, output_flags, shares
from vlmlens.cli._output import Output, stdout, table
from vlmlens.cli._results import all_rows, next_steps
from vlmlens.cli._stores import open_store, stored_run

if TYPE_CHECKING:
    from vlmlens.abc.storage import ColumnInfo, ColumnStore
    from vlmlens.results import Result
    from vlmlens.runs.run import Run

_ROWS, _VALUES = 3, 6
_TABLE_ROWS, _TEXTS = 60, 20
_ALL = 10_000


@shares(output=output_flags)
def show(
    where: Annotated[
        str,
        Argument(
            metavar="RUN_OR_STORE",
            help="Folder of a run, or a store.",
            autocompletion=completion.paths,
        ),
    ],
    output: Output,
    name: Annotated[
        str | None,
        Argument(
            metavar="ANALYSIS_OR_COLUMN",
            help="One analysis (probe), or one column (llm.block.3/last).",
            autocompletion=completion.stored,
        ),
    ] = None,
    tables: Annotated[bool, Option("--tables", help="Print the tables, too.")] = False,
    generated: Annotated[bool, Option("--generated", help="Print the generated texts.")] = False,
    columns: Annotated[bool, Option("--columns", help="List all stored columns.")] = False,
    sample: Annotated[
        str | None, Option(metavar="ID", help="One sample: its values, or its text.")
    ] = None,
    storage: Annotated[
        str | None, Option(metavar="NAME", help="Storage plugin that reads a store without a run.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Show what a run found, and what is in it or in a store.

    Without a name: the answer per task, and what is stored. With an analysis: its findings. With a
    column: its shape, dtype and first values.

    Examples:
        vlmlens show runs/demo-001
        vlmlens show runs/demo-001 probe --tables
        vlmlens show runs/demo-001 llm.block.5/last --sample heldout-00000/color
    """
    run = stored_run(where, trust=trust)
    if run is not None and generated:
        _show_texts(run, sample, output)
    elif run is not None and name in run.results:
        _show_result(run, run.results[name], output, tables=tables)
    else:
        with open_store(where, run, storage) as store:
            if name is not None:
                _show_column(store, name, sample, output, run)
            elif run is None or columns:
                listed = store.columns()
                output.data({"store": where, "columns": _columns(listed)}, _column_table(listed))
            else:
                _show_run(run, store.columns(), output)
        if run is not None and name is None and tables and not output.json:
            _print_tables(run, list(run.results.values()), output)


def _show_run(run: Run, columns: list[ColumnInfo], output: Output) -> None:
    from vlmlens.report.files import plain
    from vlmlens.report.overview import headline, overview_of
    from vlmlens.report.terminal import print_summary
    from vlmlens.tuned.record import in_words

    results, said = list(run.results.values()), run.facts
    if output.json:
        overview = overview_of(results, headline(run))
        document = {
            "run": str(run.path),
            "state": run.info.get("state"),
            "spec": run.spec.model_dump(mode="json"),
            "samples": run.sample_count,
            "columns": _columns(columns),
            "results": {result.analysis: len(result.findings) for result in results},
            "overview": plain(overview)["overview"],
            "facts": said,
        }
        output.data(document)
        return
    print_summary(results, stdout(), title=headline(run), rows=_ALL)
    facts = [("run", f"{run.path} ({run.info.get('state', 'state unknown')})")]
    if tuned := in_words(run.info.get("model", {}).get("tuned")):
        facts.append(("tuned", f"{run.spec.tuned} ({tuned})"))
    for heading, lines in said.items():
        facts.append((heading.lower(), ", ".join(f"{key} {value}" for key, value in lines.items())))
    facts.append(("stored", _in_short(columns)))
    if texts := run.generated:
        facts.append(("texts", f"{len(texts)} generated; --generated shows them"))
    output.data(None, "", table("", "", rows=facts), *next_steps(run))


def _in_short(columns: list[ColumnInfo]) -> str:
    """Columns with their numbers left out: "llm.block.*/last (6), projector/image.mean"."""
    families: dict[str, list[str]] = {}
    for column in columns:
        site, slash, selector = column.name.partition("/")
        families.setdefault(re.sub(r"\d+", "*", site) + slash + selector, []).append(column.name)
    shown = [
        f"{family} ({len(names)})" if len(names) > 1 else names[0]
        for family, names in families.items()
    ]
    return f"{count(len(columns), 'column')}: {', '.join(shown)}" if columns else "no columns"


def _show_result(run: Run, result: Result, output: Output, *, tables: bool) -> None:
    from vlmlens.report.files import plain
    from vlmlens.report.terminal import print_findings, print_maps

    if output.json:
        output.data(plain(result))
        return
    print_findings([result], stdout())
    print_maps(result, stdout())
    if tables:
        _print_tables(run, [result], output)


def _print_tables(run: Run, results: Sequence[Result], output: Output) -> None:
    from vlmlens.report.terminal import print_tables

    print_tables(results, stdout(), rows=_TABLE_ROWS)
    output.data(None, all_rows(run))


def _show_texts(run: Run, sample: str | None, output: Output) -> None:
    """What the model wrote, with what it was asked."""
    from vlmlens.errors import RunError

    texts, prompts = run.generated, {each.id: each.prompt for each in run.samples}
    chosen = list(texts) if sample is None else [sample]
    if not texts or sample not in (None, *texts):
        raise RunError(
            f"{run.path} holds no generated text{f' of {sample!r}' if texts else ''}.",
            subject=sample or str(run.path),
            hint="" if texts else "Let the model write with --generate N when you run it.",
        )
    rows = [(each, prompts.get(each, ""), texts[each]) for each in chosen[:_TEXTS]]
    document = {"generated": {each: texts[each] for each in chosen}}
    output.data(document, table("sample", "prompt", "text", rows=rows))
    if len(chosen) > _TEXTS and not output.json:
        output.data(None, f"… and {len(chosen) - _TEXTS} more: --json prints all of them")


def _show_column(
    store: ColumnStore, column: str, sample: str | None, output: Output, run: Run | None
) -> None:
    name = _stored_name(store, column, run)
    info = next(each for each in store.columns() if each.name == name)
    if sample is None:
        ids, values = store.read_range(name, 0, _ROWS)
    else:
        ids, values = [sample], store.read(name, [sample])
    rows = [
        {"sample": each, "shape": list(array.shape), "values": array[:_ROWS, :_VALUES]}
        for each, array in zip(ids, values.per_sample(), strict=True)
    ]
    output.data(
        {**asdict(info), "shape": _shape(info), "first": rows},
        f"{name}: {info.dtype} {str(_shape(info)).replace('None', 'ragged')}",
        table("sample", "shape", "first values", rows=[_row(row) for row in rows]),
    )


def _stored_name(store: ColumnStore, column: str, run: Run | None) -> str:
    """The column as it is stored: `all[-1]` and `last` are one selector."""
    from vlmlens.errors import RunError, SelectorError, did_you_mean
    from vlmlens.tokens import Column

    if any(info.name == column for info in store.columns()):
        return column
    if run is not None and "/" not in column:
        known = list(run.results)
        raise RunError(
            f"{run.path} has no results of {column!r}, and no column of that name.",
            subject=column,
            hint=did_you_mean(column, known) or f"Analyses: {', '.join(known) or 'none'}.",
        )
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
