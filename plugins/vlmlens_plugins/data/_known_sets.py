"""Tables that look like a benchmark: it has a dataset of its own, which scores its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmlens_plugins.data._table_files import Rows

_LOOKED_AT = 1_000
_MME_TASKS = """
existence count position color posters celebrity scene landmark artwork ocr commonsense_reasoning
numerical_calculation text_translation code_reasoning
"""
_MME = frozenset(_MME_TASKS.split())
_POPE = frozenset(("random", "popular", "adversarial"))
_YES_NO = frozenset(("yes", "no"))

Cells = Sequence[str]
"""Some cells of a column, in small letters."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a benchmark's table looks like.

    Args:
        dataset: The name of its dataset.
        title: Its own name.
        columns: That must be there.
        column: Whose cells tell it from others.
        tells: Whether they do.
    """

    dataset: str
    title: str
    columns: tuple[str, ...]
    column: str
    tells: Callable[[Cells], bool]


def _all_in(known: frozenset[str]) -> Callable[[Cells], bool]:
    return lambda cells: all(set(cell.replace(" ", "").split(",")) <= known for cell in cells)


def _any_with(text: str) -> Callable[[Cells], bool]:
    return lambda cells: any(text in cell for cell in cells)


def _always(cells: Cells) -> bool:
    del cells
    return True


_KIT = ("question", "answer", "category")
_LOOKS = (
    _Look("pope", "POPE", _KIT, "category", _all_in(_POPE)),
    _Look(
        "pope", "POPE", ("question_id", "image", "text", "label"), "image", _any_with("coco_val")
    ),
    _Look("mme", "MME", _KIT, "category", _all_in(_MME)),
    _Look("hallusionbench", "HallusionBench", _KIT, "category", _all_in(frozenset(("vd", "vs")))),
    _Look(
        "hallusionbench",
        "HallusionBench",
        ("visual_input", "set_id", "figure_id", "gt_answer"),
        "gt_answer",
        _always,
    ),
    _Look("mmmu", "MMMU", ("question", "A", "B", "category"), "question", _any_with("<image 1>")),
    _Look(
        "mmmu", "MMMU", ("question", "options", "question_type"), "question", _any_with("<image ")
    ),
    _Look("videomme", "Video-MME", ("candidates", "video_path", "task_type"), "question", _always),
    _Look("videomme", "Video-MME", ("videoID", "options", "task_type"), "question", _always),
    _Look(
        "vqav2", "VQAv2", ("question_id", "image_id", "answers", "answer_type"), "question", _always
    ),
    _Look("chartqa", "ChartQA", ("imgname", "query", "label"), "imgname", _always),
    _Look("cdh", "CDH-Bench", ("pair_id", "direct_qa", "multiple_choice"), "pair_id", _always),
    _Look("amber", "AMBER", ("id", "image", "query"), "image", _any_with("amber_")),
)


def looks_like(path: Path, table: Rows) -> str | None:
    """The sentence about a table that looks like a benchmark's; None for any other table."""
    for look in _LOOKS:
        if not {*look.columns, look.column} <= set(table.columns):
            continue
        cells = _cells(table, look.column)
        if cells and look.tells(cells):
            return (
                f"these look like the questions of {look.title}. To ask and score them as the "
                f"benchmark is: vlmlens run --data {look.dataset}:{path} --analysis benchmark"
            )
    return None


def _cells(table: Rows, column: str) -> list[str]:
    found: list[Any] = [row.cells.get(column) for row in table.rows[:_LOOKED_AT]]
    return [str(cell).lower() for cell in found if cell not in (None, "")]
