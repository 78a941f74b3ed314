"""ChartQA's official layout: per split two files of questions, `png/`, and `tables/`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from vlmlens.errors import DataError, did_you_mean
from vlmlens_plugins.benchmarks.chartqa.asked import PARTS, Asked
from vlmlens_plugins.benchmarks.forms import missing, text_in
from vlmlens_plugins.benchmarks.sources import Source, file_source
from vlmlens_plugins.data._paths import InFolder
from vlmlens_plugins.data._table_files import Row

SPLITS: Final = ("train", "val", "test")
COLUMNS: Final = ("imgname", "query", "label")
_FOLDER = "ChartQA Dataset"
_USUAL = "test"


class Split(NamedTuple):
    """The files of one split.

    Args:
        folder: With `png` and `tables`.
        files: Of questions, by part.
    """

    folder: Path
    files: dict[str, Path]


def split_in(source: Path, wanted: str | None) -> Split | None:
    """The split that a folder or a file of questions means; None: it is not in this layout.

    Of a folder with several splits the wanted one is taken, else `test`.

    Raises:
        DataError: The folder does not have the wanted split.
    """
    if source.is_file():
        part = next((each for each in PARTS if source.stem.endswith(f"_{each}")), None)
        return Split(source.parent, {part: source}) if part else None
    for top in (source, source / _FOLDER):
        if files := _files(top):
            if wanted is not None and not all(p.name.startswith(wanted) for p in files.values()):
                raise _no_split(top, wanted, [_name(path) for path in files.values()])
            return Split(top, files)
        named = {name: _files(top / name) for name in SPLITS}
        there = [name for name, found in named.items() if found]
        if there:
            chosen = wanted or (_USUAL if _USUAL in there else there[-1])
            if chosen not in there:
                raise _no_split(top, chosen, there)
            return Split(top / chosen, named[chosen])
    return None


def sources_of(split: Split) -> dict[str, Source]:
    """The rows of each file of questions."""
    return {part: file_source(path) for part, path in split.files.items()}


def asked_in(sources: dict[str, Source], given: str) -> list[Asked]:
    """The questions of a split.

    Raises:
        DataError: A file has other columns.
        ManifestError: A row is broken.
    """
    for source in sources.values():
        if not source.has(*COLUMNS):
            raise DataError(
                f"{source.name} has the columns {', '.join(source.columns) or '(none)'}.",
                subject=given,
                hint=f"A file of ChartQA's questions has {', '.join(COLUMNS)}.",
            )
    return [_asked(part, row, source) for part, source in sources.items() for row in source.rows]


class ChartTables:
    """The tables of charts: what their files say, as text.

    Args:
        folder: With CSV files named like the charts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inside = InFolder(folder)
        self._known: dict[str, str] = {}
        self.unclear: set[str] = set()
        """Names of tables that are not UTF-8 text: what cannot be read is shown as U+FFFD."""

    def of(self, chart: str) -> str:
        """The table of a chart; "" where there is none.

        Raises:
            DataError: The file lies elsewhere.
        """
        name = Path(chart).stem
        if name not in self._known:
            self._known[name] = self._read(self._folder / f"{name}.csv")
        return self._known[name]

    def _read(self, path: Path) -> str:
        if not path.is_file():
            return ""
        self._inside.check(path, where=str(path), given=path.name)
        text = path.read_text(encoding="utf-8-sig", errors="replace").strip()
        if "\ufffd" in text:
            self.unclear.add(path.name)
        return text


def _files(folder: Path) -> dict[str, Path]:
    found = {part: sorted(folder.glob(f"*_{part}.json")) for part in PARTS}
    return {part: paths[0] for part, paths in found.items() if len(paths) == 1}


def _name(path: Path) -> str:
    return path.stem.rpartition("_")[0]


def _no_split(folder: Path, wanted: str, there: Sequence[str]) -> DataError:
    return DataError(
        f"{str(folder)!r} has no split {wanted!r}.",
        subject=wanted,
        hint=did_you_mean(wanted, there) or f"There are {', '.join(dict.fromkeys(there))}.",
    )


def _asked(part: str, row: Row, source: Source) -> Asked:
    chart = text_in(row, "imgname", source)
    label = row.cells.get("label")
    number = isinstance(label, int | float) and math.isfinite(label) and not isinstance(label, bool)
    if not number and not (isinstance(label, str) and label.strip()):
        raise missing(row, "label", "text", source)
    where = f"{source.name}, {row.place}"
    question = text_in(row, "query", source)
    return Asked(part, question, str(label), f"png/{chart}", chart, "", where)


def numbered(asked: Sequence[Asked]) -> Iterator[tuple[str, Asked]]:
    """Each question with its id: its own, else its number from 1 in its part."""
    counts: dict[str, int] = {}
    for each in asked:
        counts[each.part] = counts.get(each.part, 0) + 1
        yield f"{each.part}/{each.own or counts[each.part]}", each
