"""Example figures of one sample at a time, with texts as hostile as wanted."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Figure, Result, Sheet
from vlmlens.samples import Sample

LAYERS = [f"llm.block.{i}" for i in range(4)]
TOKENS = ("the", "red", "cube", "\u2423sky")
SIDE = 4


def lens(samples: Sequence[Sample], evil: str = "") -> Figure:
    """A lens table over the words of each prompt."""
    sheets = [_lens_sheet(sample, number, evil) for number, sample in enumerate(samples)]
    title = f"Most probable token at each word{evil}"
    return Figure(
        "tokens", title, "lens", [], "position", "probability", y=LAYERS, sheets=sheets,
        y_range=(0.0, 1.0),
    )  # fmt: skip


def patches(samples: Sequence[Sample], evil: str = "", words: Sequence[str] = ("red",)) -> Figure:
    """Maps of a word's probability, which rises with depth on the last patch but one."""
    sheets = [_patch_sheet(sample, word, evil) for sample in samples for word in words]
    title = f"Probability of a word over the picture{evil}"
    return Figure(
        "map", title, "patches", [], "", "probability", y=LAYERS, sheets=sheets,
        y_range=(0.0, 1.0),
    )  # fmt: skip


def result(figures: Sequence[Figure], name: str = "logit-lens") -> Result:
    """A result with such figures."""
    return Result(name, "Where the answer forms", figures=list(figures))


def _lens_sheet(sample: Sample, number: int, evil: str) -> Sheet:
    words = [word + evil for word in sample.prompt.split()]
    texts = [
        [TOKENS[(layer + place + number) % 4] + evil for place in range(len(words))]
        for layer in range(len(LAYERS))
    ]
    tips = [[f"{text}  0.500\nother{evil}  0.250" for text in row] for row in texts]
    cells = [[(layer + 1) / 4 for _ in words] for layer in range(len(LAYERS))]
    return Sheet(sample.id, cells, texts, tips, x=words)


def _patch_sheet(sample: Sample, word: str, evil: str) -> Sheet:
    places = [(row, col) for row in range(SIDE) for col in range(SIDE)]
    boxes = [(col / SIDE, row / SIDE, (col + 1) / SIDE, (row + 1) / SIDE) for row, col in places]
    cells = [[layer / 4 if i == 14 else 0.0 for i in range(16)] for layer in range(len(LAYERS))]
    texts = [[TOKENS[(layer + i) % 4] + evil for i in range(16)] for layer in range(len(LAYERS))]
    tips = [[f"{text}  0.125" for text in row] for row in texts]
    return Sheet(
        sample.id, cells, texts, tips, [f"row {row}, column {col}{evil}" for row, col in places],
        [*boxes[:15], None], facets={"word": word + evil},
    )  # fmt: skip
