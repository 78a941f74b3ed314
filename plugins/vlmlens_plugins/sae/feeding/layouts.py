"""What each row of a column stands for, found without a pass of the model."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from vlmlens.abc import ModelAdapter
from vlmlens.errors import DataError, SelectorError
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Column, Selector, TokenKind, TokenLayout, layout_of

_TOGETHER = 8
_ROWS_KEPT = 2**18
_PICTURED = (Axis.VISION, Axis.PROJECTOR)


def row_layouts(
    vlm: ModelAdapter,
    column: str,
    samples: Sequence[Sample],
    counts: Sequence[int] | None = None,
) -> list[TokenLayout]:
    """What the rows of a column stand for, in the order in which stores and passes give them.

    Samples are encoded, in batches; the model does not run, and may be a skeleton. What is found is
    kept, up to a quarter of a million rows for each model, so that asking again is cheap.

    Args:
        vlm: The model.
        column: The column, `SITE/SELECTOR`.
        samples: The samples.
        counts: How many rows each sample has in the column, if that is known. Without it, and
            where a family has several resolutions on the site's axis, one sample is run to see
            which of them is the site's.

    Returns:
        A layout for each sample, cut down to the selected rows. Its `rows` count from 0. A pooled
        row has the kind that all its rows have, else SPECIAL, and no patch. A sample without an
        image has no rows where rows of images are selected.

    Raises:
        SelectorError: A sample has no such row. Rows of generated answers are not known here.
        DataError: No layout has as many rows as `counts` says.
    """
    parsed = Column.parse(column)
    (site,) = vlm.sites.resolve(parsed.site)
    numbers = [None] * len(samples) if counts is None else list(counts)
    if len(numbers) != len(samples):
        raise DataError(
            f"{len(numbers)} numbers of rows were given for {len(samples)} samples.",
            subject=column,
            hint="Give one number for each sample.",
        )
    asked = _Asked(vlm, site, parsed.selector, _KEPT.setdefault(vlm, _Kept()))
    found: list[TokenLayout] = []
    for start in range(0, len(samples), _TOGETHER):
        end = start + _TOGETHER
        found += asked.layouts(list(zip(samples[start:end], numbers[start:end], strict=True)))
    return found


@dataclass(slots=True)
class _Kept:
    """Layouts of one model, the last used at the end; and which resolution each site has."""

    layouts: OrderedDict[Hashable, TokenLayout] = field(default_factory=OrderedDict)
    levels: dict[str, int] = field(default_factory=dict)
    rows: int = 0

    def get(self, key: Hashable) -> TokenLayout | None:
        if key in self.layouts:
            self.layouts.move_to_end(key)
        return self.layouts.get(key)

    def put(self, key: Hashable, layout: TokenLayout) -> None:
        self.layouts[key] = layout
        self.rows += len(layout) + 1
        while self.rows > _ROWS_KEPT and len(self.layouts) > 1:
            self.rows -= len(self.layouts.popitem(last=False)[1]) + 1


_KEPT: WeakKeyDictionary[ModelAdapter, _Kept] = WeakKeyDictionary()

_Counted = tuple[Sample, int | None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A column whose layouts are asked for."""

    vlm: ModelAdapter
    site: Site
    selector: Selector
    kept: _Kept

    def layouts(self, asked: Sequence[_Counted]) -> list[TokenLayout]:
        """Those of a few samples, each made once."""
        keys = [self._key(*each) for each in asked]
        found = {key: layout for key in keys if (layout := self.kept.get(key)) is not None}
        new = {key: each for key, each in zip(keys, asked, strict=True) if key not in found}
        for key, layout in zip(new, self._made(list(new.values())), strict=True):
            found[key] = layout
            if all(isinstance(image, str) for image in new[key][0].images):
                self.kept.put(key, layout)
        return [found[key] for key in keys]

    @property
    def _pictured(self) -> bool:
        """Whether all rows are rows of images, which do not depend on the prompt."""
        return self.site.axis in _PICTURED or self.selector.kind == TokenKind.IMAGE

    def _key(self, sample: Sample, count: int | None) -> Hashable:
        images = tuple(one if isinstance(one, str) else id(one) for one in sample.images)
        key: list[Hashable] = [self.site.name, str(self.selector), count, images, sample.rules]
        key.append(sample.video and sample.video.as_seen())
        named = self.selector.named is not None
        if named or not self._pictured:
            key.append(sample.prompt)
        if named:
            key += [sample.choices, repr(sample.attributes.get("regions"))]
        return tuple(key)

    def _made(self, asked: Sequence[_Counted]) -> Iterator[TokenLayout]:
        shown = [sample for sample, _ in asked if sample.images or not self._pictured]
        axis = self.vlm.encode(shown).layouts[self.site.axis] if shown else None
        place = 0
        for sample, count in asked:
            if axis is None or not (sample.images or not self._pictured):
                yield _NOTHING
                continue
            levels = [level.samples[place] for level in (axis, *axis.others)]
            place += 1
            yield self._chosen(sample, levels, count)

    def _chosen(
        self, sample: Sample, levels: Sequence[TokenLayout], count: int | None
    ) -> TokenLayout:
        if count is None:
            return _cut(levels[self._level(sample) if len(levels) > 1 else 0], self.selector)
        refusals: list[SelectorError] = []
        for layout in levels:
            try:
                found = _cut(layout, self.selector)
            except SelectorError as error:
                refusals.append(error)
                continue
            if len(found) == count:
                return found
        if len(refusals) == len(levels):
            raise refusals[0]
        raise DataError(
            f"The sample {sample.id!r} has {count} rows at {self.site.name}/{self.selector}, "
            "which no layout of this model has.",
            subject=sample.id,
            hint="The rows are of another model, prompt or image.",
        )

    def _level(self, sample: Sample) -> int:
        """Which resolution the site has, seen in a pass of one sample."""
        if self.site.name not in self.kept.levels:
            batch = self.vlm.encode([sample])
            axis = batch.layouts[self.site.axis]
            output = self.vlm.trace(batch, [self.site])[self.site.name]
            fits = layout_of(output, axis, self.site)
            levels = (axis, *axis.others)
            (self.kept.levels[self.site.name],) = [
                i for i, level in enumerate(levels) if level is fits
            ]
        return self.kept.levels[self.site.name]


def _cut(layout: TokenLayout, selector: Selector) -> TokenLayout:
    """The layout of the rows that a selector gives."""
    places = selector.positions(layout)
    kinds = layout.kinds[places]
    if selector.pool is not None:
        same = bool((kinds == kinds[0]).all())
        kind = kinds[:1] if same else np.array([TokenKind.SPECIAL], np.uint8)
        return TokenLayout(np.arange(1), kind)
    ids = None if layout.token_ids is None else layout.token_ids[places]
    patches = layout.patches
    if patches is not None:
        numbers = np.cumsum(layout.kinds == TokenKind.IMAGE) - 1
        patches = patches.take(numbers[places[kinds == TokenKind.IMAGE]])
    return TokenLayout(np.arange(len(places)), kinds, ids, patches)


_NOTHING = TokenLayout(np.zeros(0, np.int64), np.zeros(0, np.uint8))
