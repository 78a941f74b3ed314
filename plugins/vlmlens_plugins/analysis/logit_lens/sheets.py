"""Lens tables and patch maps of single samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlmlens.abc import ModelAdapter
from vlmlens.results import Figure, Sheet
from vlmlens.samples import Sample
from vlmlens.tokens import Selector, TokenKind, TokenLayout
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._patches import Place, rounded, views
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.logit_lens.readings import Readings
from vlmlens_plugins.analysis.logit_lens.several_positions import SeveralPositions
from vlmlens_plugins.analysis.logit_lens.vocabulary import Floats
from vlmlens_plugins.analysis.logit_lens.words import row_text, token_text


class Texts:
    """Texts of tokens, each decoded once.

    Args:
        vlm: Decodes.
    """

    def __init__(self, vlm: ModelAdapter) -> None:
        self._vlm = vlm
        self._known: dict[int, str] = {}

    def __getitem__(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = token_text(self._vlm, token)
        return self._known[token]

    def row(self, layout: TokenLayout, row: int) -> str:
        """See `row_text`."""
        return row_text(self._vlm, layout, row)


def figures(many: SeveralPositions, vlm: ModelAdapter) -> list[Figure]:
    """What a group with several positions per sample shows of the shown samples."""
    layouts = {i: vlm.encode([many.samples[i]]).layout(0) for i in _distinct(many)}
    if many.group.selector.kind == TokenKind.IMAGE:
        return _patches(many, layouts, Texts(vlm))
    texts = Texts(vlm)
    sheets = [
        _by_position(many, i, readings, layouts[i], texts)
        for i, readings in many.shown.items()
        if i in layouts
    ]
    return [
        Figure(
            name=f"lens-{slug(many.group.name)}-positions",
            title="Top token by layer and position; colour: its probability",
            kind="lens",
            x=(),
            x_label="step" if many.group.selector.steps else "position",
            y_label="probability",
            y=short_names(many.group.columns),
            sheets=sheets,
            y_range=(0.0, 1.0),
        )
    ]


def single_sheet(sample: Sample, readings: Readings, texts: Texts) -> Sheet:
    """One position: layers by rank. `readings` holds that position alone."""
    top, probability = readings.top[:, 0], readings.top_probability[:, 0]
    said = [[texts[int(token)] for token in row] for row in top]
    facets = {"task": sample.task} if sample.task else {}
    return Sheet(sample.id, rounded(probability), texts=said, facets=facets)


def _distinct(many: SeveralPositions) -> list[int]:
    """The shown samples; over patches one of each picture, whose rows all its prompts share."""
    if many.group.selector.kind != TokenKind.IMAGE:
        return list(many.shown)
    first: dict[str, int] = {}
    for i in many.shown:
        first.setdefault(many.samples[i].split_group, i)
    return list(first.values())


def _by_position(
    many: SeveralPositions, number: int, readings: Readings, layout: TokenLayout, texts: Texts
) -> Sheet:
    sample, said, tips = many.samples[number], *_said(readings, texts)
    return Sheet(
        sample.id,
        rounded(readings.top_probability[..., 0]),
        texts=said,
        tips=tips,
        x=_names(many.group.selector, readings, layout, texts),
        facets={"task": sample.task} if sample.task else {},
    )


def _names(selector: Selector, readings: Readings, layout: TokenLayout, texts: Texts) -> list[str]:
    """Positions by number and token; steps by what was written there."""
    if selector.steps or layout.token_ids is None:
        return [f"{i + 1} {texts[int(t)]}" for i, t in enumerate(readings.answers)]
    where = _places(selector, layout)
    return [f"{i} {texts.row(layout, i)}" for i in where]


def _places(selector: Selector, layout: TokenLayout) -> list[int]:
    """Which of a sample's tokens a selector keeps, in its order."""
    place = {int(row): i for i, row in enumerate(layout.rows)}
    return [place[int(row)] for row in selector.rows(layout)]


def _said(readings: Readings, texts: Texts) -> tuple[list[list[str]], list[list[str]]]:
    """Per layer and position: the top token, and all of the top ones in lines."""
    said, tips = [], []
    for tokens, probabilities in zip(readings.top, readings.top_probability, strict=True):
        named = [[texts[int(token)] for token in row] for row in tokens]
        said.append([row[0] for row in named])
        tips.append(
            [
                "\n".join(f"{name} {p:.3f}" for name, p in zip(row, values, strict=True))
                for row, values in zip(named, probabilities, strict=True)
            ]
        )
    return said, tips


def _patches(many: SeveralPositions, layouts: dict[int, TokenLayout], texts: Texts) -> list[Figure]:
    tops: list[Sheet] = []
    words: list[Sheet] = []
    for number, layout in layouts.items():
        readings, sample = many.shown[number], many.samples[number]
        for view, where, grid in views(many.group.selector, layout, len(readings)):
            own = readings.take(where)
            said, tips = _said(own, texts)
            place = Place(sample, view, grid, len(own))
            tops.append(place.sheet(own.top_probability[..., 0], said, tips, {}))
            for name, values in _followed(many, own):
                words.append(place.sheet(values, said, tips, {"word": name}))
    title = f"over the image, by layer ({many.group.name} tokens)"
    stem = f"lens-{slug(many.group.name)}"
    y = short_names(many.group.columns)
    made = [
        Figure(
            f"{stem}-top", f"Probability of each patch's top token {title}", "patches", (),
            y=y, y_label="probability", sheets=tops, y_range=(0.0, 1.0),
        ),
        Figure(
            f"{stem}-words", f"Probability of chosen words {title}", "patches", (),
            y=y, y_label="probability", sheets=words,
        ),
    ]  # fmt: skip
    return [figure for figure in made if figure.sheets]


def _followed(many: SeveralPositions, readings: Readings) -> Iterator[tuple[str, Floats]]:
    """Names and `[layers, patches]` probabilities of what is followed over a sample's patches."""
    names = [one.name for one in many.followed]
    skip = len(names) - readings.word_probability.shape[-1]
    if skip and not np.isnan(readings.label_probability).any():
        yield names[0], readings.label_probability
    for i, name in enumerate(names[skip:]):
        yield name, readings.word_probability[..., i]
