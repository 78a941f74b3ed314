"""Results as files: complete JSON, tables as Parquet, figures as SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any

from vlmlens._clean import clean
from vlmlens._files import write_bytes
from vlmlens.report._text import scalar, slug
from vlmlens.results import Figure, Result, Table


def write_result(result: Result, folder: Path) -> list[Path]:
    """Write one result; files of an earlier result of the same analysis are replaced.

    Args:
        result: What to write.
        folder: Made where missing. No file is written anywhere else, whatever the names.

    Returns:
        `<analysis>.json`, which is complete by itself and is written first, so that a figure that
        cannot be drawn costs no numbers; then `<analysis>.<table>.parquet` and
        `<analysis>.<figure>.svg`.

    Raises:
        TypeError: The options hold something that JSON has no form for.
    """
    from vlmlens.report.figures import figure_svg

    text = to_json(result)
    tables = file_names(result, result.tables, "parquet")
    figures = file_names(result, result.figures, "svg")
    folder.mkdir(parents=True, exist_ok=True)
    first = f"{stem(result.analysis)}.json"
    write_bytes(folder / first, text.encode())
    for table, name in zip(result.tables, tables, strict=True):
        write_bytes(folder / name, table_parquet(table))
    for figure, name in zip(result.figures, figures, strict=True):
        write_bytes(folder / name, figure_svg(figure))
    _remove_stale(folder, stem(result.analysis), {*tables, *figures})
    return [folder / name for name in (first, *tables, *figures)]


def stem(analysis: str) -> str:
    """What the file names of a result begin with; `@` stands before its label.

    >>> stem("logit-lens"), stem("logit-lens:patches")
    ('logit-lens', 'logit-lens@patches')
    """
    return "@".join(slug(part) for part in analysis.split(":"))


def to_json(result: Result) -> str:
    """The result as strict JSON: NaN and infinity become null, numpy scalars numbers."""
    return json.dumps(plain(result), indent=1, allow_nan=False)


def plain(value: Any) -> Any:
    """Anything that a result holds, as dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        TypeError: There is no such form for it.
    """
    value = scalar(value)
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    return _plain_container(value)


def _plain_container(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return [plain(item) for item in sorted(value)]
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    raise TypeError(f"a result holds {value!r} of {type(value).__name__}, which JSON cannot hold")


def file_names(result: Result, items: Sequence[Table] | Sequence[Figure], suffix: str) -> list[str]:
    """The file names of a result's tables (`parquet`) or figures (`svg`), each once.

    Names come from plugins and sometimes from data, so each is reduced to letters, digits,
    hyphens and underscores: it can name no other folder. Those that are then equal, such as of
    two tasks whose names have no such letter, are numbered in their order.
    """
    names: list[str] = []
    taken: set[str] = set()
    for item in items:
        first = name = f"{stem(result.analysis)}.{slug(item.name)}"
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{first}-{number}"
        taken.add(name.casefold())
        names.append(f"{name}.{suffix}")
    return names


def _remove_stale(folder: Path, analysis: str, kept: set[str]) -> None:
    for suffix in ("parquet", "svg"):
        for path in folder.glob(f"{analysis}.*.{suffix}"):
            if path.name not in kept:
                path.unlink()


def table_parquet(table: Table) -> bytes:
    """The table as a Parquet file, one Arrow type per column."""
    import pyarrow
    import pyarrow.parquet

    cleaned = {
        clean(name): [clean(value) if isinstance(value, str) else value for value in values]
        for name, values in table.columns.items()
    }
    data = replace(table, columns=cleaned).to_arrow()
    sink = pyarrow.BufferOutputStream()
    titled = data.replace_schema_metadata({"title": clean(table.title)})
    pyarrow.parquet.write_table(titled, sink, compression="zstd")
    return bytes(sink.getvalue())
