"""The grid of an overview as text: a row per task, a column per question, cut to the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmlens.report._text import one_line
from vlmlens.report._theme import verdict_look
from vlmlens.results import Glance, Verdict

if TYPE_CHECKING:
    from rich.text import Text

_GAP = 2
_NARROW = 12
_SUBJECT = 28


@dataclass
class _Column:
    """One question: its cells by subject, and how wide their words and numbers may be."""

    question: str
    cells: dict[str, Glance]
    words: int = 0
    numbers: int = 0

    def __post_init__(self) -> None:
        from rich.cells import cell_len

        self.words = max(cell_len(one_line(cell.text)) for cell in self.cells.values())
        self.numbers = self._widths()[-1]

    @property
    def mark(self) -> int:
        """The width of the marks: none where no answer has a verdict."""
        return 2 * any(cell.verdict is not Verdict.INFO for cell in self.cells.values())

    @property
    def gap(self) -> int:
        """Between words and numbers."""
        return _GAP * bool(self.words and self.numbers)

    @property
    def width(self) -> int:
        """All of it, heading included."""
        from rich.cells import cell_len

        inner = self.mark + self.words + self.gap + self.numbers
        return max(inner, cell_len(one_line(self.question)))

    def shrink(self) -> bool:
        """Leave out the longest of what stands beside a number; False where nothing is left."""
        less = [width for width in self._widths() if width < self.numbers]
        self.numbers = less[-1] if less else self.numbers
        return bool(less)

    def render(self, subject: str) -> Text:
        """The cell of a subject."""
        from rich.cells import cell_len
        from rich.text import Text

        cell = self.cells.get(subject)
        if cell is None:
            return Text(_fit("-", self.width), style="dim")
        symbol, _, style = verdict_look(cell.verdict)
        mark = "" if cell.verdict is Verdict.INFO else symbol
        forms = _numbers(cell)
        numbers = next((form for form in forms if cell_len(form) <= self.numbers), forms[-1])
        words = _fit(one_line(cell.text), self.words) + " " * self.gap
        filled = _fit(numbers, self.width - self.mark - self.words - self.gap)
        return Text.assemble((_fit(mark, self.mark), style), words, filled)

    def _widths(self) -> list[int]:
        """The widths that the numbers can be cut to, so that none is broken."""
        from rich.cells import cell_len

        forms = [_numbers(cell) for cell in self.cells.values()]
        least = max(cell_len(each[-1]) for each in forms)
        return sorted({max(cell_len(form), least) for each in forms for form in each})


def grid(cells: Sequence[Glance], width: int) -> Iterator[Text]:
    """The lines of the grid; questions that do not fit beside each other come one below the other.

    Args:
        cells: The answers, in order.
        width: Of the screen, in characters.
    """
    from rich.cells import cell_len
    from rich.text import Text

    subjects = list(dict.fromkeys(cell.subject for cell in cells))
    first = min(max(cell_len(one_line(subject)) for subject in subjects), _SUBJECT)
    for block in _blocks(_columns(cells), width - first):
        heads = [_fit(one_line(column.question), column.width) for column in block]
        yield Text((" " * _GAP).join([" " * first, *heads]).rstrip(), style="bold")
        for subject in subjects:
            row = Text(_fit(one_line(subject), first))
            for column in block:
                row.append(" " * _GAP).append_text(column.render(subject))
            row.rstrip()
            yield row


_LEGEND = {Verdict.DIFFERS: "significant", Verdict.NO_DIFFERENCE: "not significant"}


def legend(cells: Sequence[Glance]) -> str:
    """What the marks of the grid mean, as far as they occur."""
    found = dict.fromkeys(cell.verdict for cell in cells if cell.verdict is not Verdict.INFO)
    looks = dict.fromkeys(
        (verdict_look(verdict)[0], _LEGEND.get(verdict, verdict_look(verdict)[1]))
        for verdict in found
    )
    return "   ".join(f"{symbol} {word}" for symbol, word in looks)


def _columns(cells: Sequence[Glance]) -> list[_Column]:
    found: dict[str, dict[str, Glance]] = {}
    for cell in cells:
        found.setdefault(cell.question, {})[cell.subject] = cell
    return [_Column(question, answers) for question, answers in found.items()]


def _blocks(columns: Sequence[_Column], room: int) -> list[list[_Column]]:
    """The columns in groups that fit a width; each is cut before a group is split."""
    while sum(column.width + _GAP for column in columns) > room and _cut(columns):
        pass
    half = (len(columns) + 1) // 2
    if sum(column.width + _GAP for column in columns) <= room or half == len(columns):
        return [list(columns)]
    return _blocks(columns[:half], room) + _blocks(columns[half:], room)


def _cut(columns: Sequence[_Column]) -> bool:
    """Cut what can best be missed; False where nothing can."""
    if any(column.shrink() for column in sorted(columns, key=lambda each: -each.numbers)):
        return True
    widest = max(columns, key=lambda column: column.words)
    if widest.words <= _NARROW:
        return False
    widest.words -= 1
    return True


def _numbers(cell: Glance) -> list[str]:
    """A number with what stands beside it, from all of it to the number alone."""
    parts = one_line(cell.beside).split(", ") if cell.beside else []
    if cell.value is not None:
        parts.insert(0, f"{cell.value:.2f}".replace("-0.00", "0.00"))
    return [", ".join(parts[:count]) for count in range(len(parts), 0, -1)] or [""]


def _fit(text: str, width: int) -> str:
    """The text filled up to a width, or cut with an ellipsis."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(width - 1, 0)) + "…"
