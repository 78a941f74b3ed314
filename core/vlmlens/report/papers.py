"""Figures and tables of results as files for a paper: SVG, PNG; CSV, LaTeX, Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlmlens._clean import clean
from vlmlens._files import write_bytes
from vlmlens.errors import ImageError, SpecError, did_you_mean
from vlmlens.report._text import finite, no_formula, one_line, scalar, show, slug
from vlmlens.report.files import file_names, table_parquet
from vlmlens.results import Cell, Figure, Result, Sheet, Table
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

FIGURES = ("svg", "png")
TABLES = ("csv", "latex", "parquet")
_SUFFIXES = {"latex": "tex"}
_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip
_TEX_TABLE = {ord(character): escaped for character, escaped in _TEX.items()}


def write_papers(
    results: Sequence[Result],
    folder: Path,
    *,
    figures: Sequence[str] = (),
    tables: Sequence[str] = (),
    samples: Sequence[Sample] = (),
) -> list[Path]:
    """Write figures and tables, each in every format asked for.

    Args:
        results: Whose.
        folder: Made where missing.
        figures: Of "svg", "png". A figure with several sheets becomes a file for each.
        tables: Of "csv", "latex" (a `tabular` with rules of the package booktabs), "parquet".
        samples: Those of the run, whose pictures lie under maps of patches.

    Returns:
        The files.

    Raises:
        SpecError: A format is unknown.
        ValueError: Two figures or two tables have the same file name.
    """
    _check(figures, FIGURES, "figures")
    _check(tables, TABLES, "tables")
    folder.mkdir(parents=True, exist_ok=True)
    known = SampleTable.of(samples)
    written = []
    for result in results:
        for made in (_figures(result, figures, known), _tables(result, tables)):
            for name, data in made:
                write_bytes(folder / name, data)
                written.append(folder / name)
    return written


def table_csv(table: Table) -> bytes:
    """The table as CSV (RFC 4180, UTF-8), numbers in full; what is missing is empty.

    An apostrophe stands before text that a spreadsheet would take for a formula.
    """
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow([clean(no_formula(name)) for name in table.columns])
    writer.writerows([_plain(cell) for cell in row] for row in table.rows())
    return sink.getvalue().encode()


def table_latex(table: Table) -> bytes:
    r"""The table as a LaTeX `tabular`; needs `\usepackage{booktabs}`.

    >>> print(table_latex(Table("t", "T", {"a_b": ["x & y"], "n": [0.5]})).decode())
    % T
    \begin{tabular}{lr}
    \toprule
    a\_b & n \\
    \midrule
    x \& y & 0.500 \\
    \bottomrule
    \end{tabular}
    <BLANKLINE>
    """
    columns = "".join("r" if _is_numeric(values) else "l" for values in table.columns.values())
    rows = [" & ".join(_tex(show(cell)) for cell in row) + r" \\" for row in table.rows()]
    lines = [
        f"% {one_line(table.title)}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(_tex, table.columns)) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return ("\n".join(lines) + "\n").encode()


_TABLE_FORMS: Mapping[str, Callable[[Table], bytes]] = {
    "csv": table_csv,
    "latex": table_latex,
    "parquet": table_parquet,
}


def _check(given: Sequence[str], known: Sequence[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise SpecError(
                f"There is no format {name!r} for {what}.",
                subject=name,
                hint=f"{did_you_mean(name, known)} There are {', '.join(known)}.".strip(),
            )


def _tables(result: Result, forms: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for form in forms:
        names = file_names(result, result.tables, _SUFFIXES.get(form, form))
        for name, table in zip(names, result.tables, strict=True):
            yield name, _TABLE_FORMS[form](table)


def _figures(
    result: Result, forms: Sequence[str], samples: SampleTable
) -> Iterator[tuple[str, bytes]]:
    from vlmlens.report.figures import figure_png, figure_svg

    draw = {"svg": figure_svg, "png": figure_png}
    for form in forms:
        names = file_names(result, result.figures, form)
        for name, figure in zip(names, result.figures, strict=True):
            for made, sheet in _sheets(name, figure, form):
                yield made, draw[form](figure, sheet, _picture(figure, sheet, samples))


def _sheets(name: str, figure: Figure, form: str) -> Iterator[tuple[str, Sheet | None]]:
    """A figure's files: one, or one for each sheet."""
    if len(figure.sheets) < 2:
        yield name, figure.sheets[0] if figure.sheets else None
        return
    for number, sheet in enumerate(figure.sheets, 1):
        yield f"{name.removesuffix(form)}{number}-{slug(sheet.name)}.{form}", sheet


def _picture(figure: Figure, sheet: Sheet | None, samples: SampleTable) -> Image | None:
    sample = samples.get(sheet.sample) if sheet is not None else None
    if sheet is None or figure.kind != "patches" or sample is None:
        return None
    try:
        return sample.open_images()[sheet.image]
    except (ImageError, IndexError):
        return None


def _plain(cell: Cell) -> object:
    value = scalar(cell)
    if isinstance(value, float):
        return finite(value)
    return clean(no_formula(value)) if isinstance(value, str) else value


def _is_numeric(values: Sequence[Cell]) -> bool:
    present = [scalar(value) for value in values if value is not None]
    return bool(present) and all(type(value) in (int, float) for value in present)


def _tex(text: str) -> str:
    return one_line(text).translate(_TEX_TABLE)
