"""Words and answer options in the text of a question: which characters are theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

Span = tuple[int, int]
"""Where characters begin and end in a text."""
IMAGE_MARK = "\ufffc"
"""What stands for an image in a prompt for whatever family: Unicode's object replacement character.

Datasets whose questions say where each image stands write it, one per image and in their order.
"""

_MARK = r"\(?(?P<mark>[A-Za-z]|[0-9]{1,2})[.):][ \t]+(?=\S)"
_ON_LINES = re.compile(rf"(?m)^[ \t]*{_MARK}")
_IN_LINE = re.compile(rf"(?<!\S){_MARK}")
_LETTER = r"[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]"
"""A letter or digit of a script that writes spaces between words."""
_SENTENCE_END = re.compile(r"[.?!](?=\s|$)")
_LOOSE_END = re.compile(r"[\s,;]*(?:[,;\s](?:or|and))?\s*$")


def word_spans(text: str, word: str) -> list[Span]:
    """Where a word, or several in a row, occur as whole words; upper and lower case are the same.

    >>> word_spans("Is the red one reddish or RED?", "red")
    [(7, 10), (26, 29)]
    """
    pattern = _whole(word)
    return [match.span() for match in pattern.finditer(text)] if pattern else []


@lru_cache(maxsize=4096)
def _whole(word: str) -> re.Pattern[str] | None:
    """The pattern of a word, or several; None where there is none."""
    words = word.split()
    if not words:
        return None
    before = rf"(?<!{_LETTER})" if re.match(_LETTER, words[0]) else ""
    after = rf"(?!{_LETTER})" if re.match(_LETTER, words[-1][-1]) else ""
    return re.compile(before + r"\s+".join(map(re.escape, words)) + after, re.IGNORECASE)


def marked_options(text: str) -> dict[str, Span]:
    r"""The options that a question marks, by mark: the characters of each without its mark.

    Marks are letters or numbers from the first one on: `A. red`, `(A) red`, `A) red`, `1: red`, on
    lines of their own or within a line. Of several lists, the last one counts.

    >>> text = "Which color?\n(A) red\n(B) dark blue"
    >>> {mark: text[slice(*span)] for mark, span in marked_options(text).items()}
    {'A': 'red', 'B': 'dark blue'}
    """
    for pattern, alone in ((_ON_LINES, True), (_IN_LINE, False)):
        run = _last_run(list(pattern.finditer(text)))
        if len(run) > 1:
            return dict(_option_spans(text, run, alone=alone))
    return {}


def option_span(text: str, choices: Sequence[str], name: str) -> Span | None:
    """The characters of the option of that letter or text; None if there is not exactly one.

    Args:
        text: The question.
        choices: The answers to choose from; they count where the question marks no options.
        name: The option's letter, or its text.
    """
    marked, wanted = marked_options(text), name.casefold()
    if marked:
        by_mark = [span for mark, span in marked.items() if mark.casefold() == wanted]
        by_text = [span for span in marked.values() if text[slice(*span)].casefold() == wanted]
        return _only(by_mark or by_text)
    known = named_choices(text, choices)
    by_letter = [each for i, each in enumerate(known) if chr(ord("a") + i) == wanted]
    chosen = by_letter or [each for each in known if each.casefold() == wanted]
    return _only([span for each in chosen[:1] for span in word_spans(text, each)])


def option_names(text: str, choices: Sequence[str]) -> list[str]:
    """What an option of a question can be called, for messages."""
    marked = marked_options(text)
    return [*marked] if marked else list(named_choices(text, choices))


def named_choices(text: str, choices: Sequence[str]) -> tuple[str, ...]:
    """The choices, if the question names all of them and marks none; else none."""
    if not choices or not all(word_spans(text, each) for each in choices):
        return ()
    return () if marked_options(text) else tuple(choices)


def _only(spans: Sequence[Span]) -> Span | None:
    return spans[0] if len(spans) == 1 else None


def _last_run(marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """The last marks that count up from A, a or 1."""
    found: list[re.Match[str]] = []
    for i, mark in enumerate(marks):
        if mark["mark"] in ("A", "a", "1"):
            run = list(_counting(marks[i:]))
            found = run if len(run) > 1 else found
    return found


def _counting(marks: Sequence[re.Match[str]]) -> Iterator[re.Match[str]]:
    expected = marks[0]["mark"]
    for mark in marks:
        if mark["mark"] == expected:
            yield mark
            number = expected.isdigit()
            expected = str(int(expected) + 1) if number else chr(ord(expected) + 1)


def _option_spans(
    text: str, run: Sequence[re.Match[str]], *, alone: bool
) -> Iterator[tuple[str, Span]]:
    """Marks with the characters of their options.

    Args:
        text: The question.
        run: The marks.
        alone: Whether each stands at the beginning of a line.
    """
    for i, mark in enumerate(run):
        start = mark.end()
        line = text.find("\n", start)
        stop = len(text) if line < 0 else line
        if i + 1 < len(run):
            stop = min(stop, run[i + 1].start())
        elif not alone and (end := _SENTENCE_END.search(text, start, stop)):
            stop = end.start()
        loose = _LOOSE_END.search(text[start:stop])
        yield mark["mark"], (start, start + loose.start() if loose else stop)
