"""Labels of an axis made short: runs of layers share one name and are told apart by number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlmlens.report._text import one_line

_LAYER = re.compile(r"(?P<head>[A-Za-z_][\w.]*?)\.(?P<number>\d+)(?P<tail>(?:\.[\w.]+)?(?:/.*)?)")


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring labels that differ in one number.

    Args:
        start: First position; `stop` likewise, one behind the last.
        name: What they share: `vision.block`, or the whole label of a group of one.
        detail: The selector, which they share too.
        numbers: What tells them apart; empty for a group of one.
    """

    start: int
    stop: int
    name: str
    detail: str
    numbers: tuple[int, ...] = ()


def groups(labels: Sequence[str]) -> list[Group]:
    """Runs of layers of one kind, in order; other labels are groups of their own.

    >>> labels = ["vision.block.0/image.mean", "vision.block.1/image.mean", "projector/image.mean"]
    >>> [(group.name, group.detail, group.numbers) for group in groups(labels)]
    [('vision.block', 'image.mean', (0, 1)), ('projector', 'image.mean', ())]
    """
    found: list[Group] = []
    start = 0
    for stop in range(1, len(labels) + 1):
        if stop == len(labels) or not _same(labels[start], labels[stop]):
            found.append(_group(labels, start, stop))
            start = stop
    return found


def grouped(labels: Sequence[str]) -> list[Group] | None:
    """The groups, or None if most labels are not layers."""
    found = groups(labels)
    layers = sum(group.stop - group.start for group in found if group.numbers)
    return found if len(labels) > 2 and layers * 2 > len(labels) else None


def shortened(labels: Sequence[str]) -> list[str]:
    """Labels without the selector that all of them share.

    >>> shortened(["projector/last", "llm.norm/last"])
    ['projector', 'llm.norm']
    """
    clean = [one_line(label) for label in labels]
    tails = {label.rpartition("/")[1:] for label in clean}
    if len(clean) > 1 and len(tails) == 1 and ("", clean[0]) not in tails:
        return [label.rpartition("/")[0] or label for label in clean]
    return clean


def _kind(label: str) -> tuple[str, str] | None:
    match = _LAYER.fullmatch(label)
    return (match["head"], match["tail"]) if match else None


def _same(first: str, second: str) -> bool:
    return _kind(first) is not None and _kind(first) == _kind(second)


def _group(labels: Sequence[str], start: int, stop: int) -> Group:
    matches = [_LAYER.fullmatch(label) for label in labels[start:stop]]
    if len(matches) > 1 and matches[0]:
        inner, slash, detail = matches[0]["tail"].partition("/")
        numbers = tuple(int(match["number"]) for match in matches if match)
        name = one_line(matches[0]["head"] + inner)
        return Group(start, stop, name, one_line(detail if slash else ""), numbers)
    name, _, detail = labels[start].partition("/")
    return Group(start, stop, one_line(name), one_line(detail))
