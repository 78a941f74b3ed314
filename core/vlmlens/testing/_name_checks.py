"""Checks of adapters that are about rows by name: the question, its words, regions, views."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from vlmlens.errors import SelectorError
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._checks import expect, expect_error, skip
from vlmlens.testing._prompt_checks import PromptChecks
from vlmlens.tokens import PatchGrid, Selector, TokenKind, TokenLayout

_PROMPTS = ("What is this? ", "User: is  the\nred User red?", "Is this thing (A) red or (B) blue?")
_MANY = 64
"""So many patches of a grid are looked at."""
_PART, _NEAR = (0.65, 0.3), 1e-4
"""How much of the image's width and height is in the region."""
_WORDS = ("this", "User", "red")
_SPACES = 3
"""Rows of white space that may belong to no word: at both sides of an image between words, and
where a template writes a space before words only if no image comes first."""


class NameChecks(PromptChecks):
    """What an adapter says of rows by name."""

    def check_question_rows(self, folder: Path) -> None:
        """`question` and `word(...)` are the rows that spell them, with images anywhere."""
        del folder
        self._needs_text()
        samples = [replace(s, prompt=p) for s, p in zip(self.samples, _PROMPTS, strict=True)]
        for place, text in enumerate(self.own_placeholders()):
            sample = Sample(f"between{place}", f"What red {text} is red?", self.samples[0].images)
            if not self.vlm.read_prompt(sample).problem:
                samples.append(sample)
        batch = self.vlm.encode(samples)
        axis = Axis.ENCODER if Axis.ENCODER in batch.layouts else Axis.LLM
        if axis not in batch.layouts:
            raise skip("there is no language model")
        for i, sample in enumerate(samples):
            layout = batch.layout(i, axis)
            asked = self.vlm.encode([replace(sample, prompt="?")]).layout(0, axis)
            told = sample.prompt
            for text in sorted(self.own_placeholders(), key=len, reverse=True):
                told = told.replace(text, "")
            self._spells(layout, "question", told)
            for word in _WORDS:
                if word in told:
                    self._spells(layout, f"word({word})", word * told.count(word))
            if "(B)" in told:
                self._spells(layout, "option(B)", "blue")
            alone = self.vlm.encode([sample]).layout(0, axis)
            same = _places("question", alone) == _places("question", layout)
            expect(same, f"{sample.prompt!r}: other rows in a batch than alone")
            more = len(layout.positions(TokenKind.TEXT)) - len(_places("question", layout))
            template = len(asked.positions(TokenKind.TEXT)) - len(_places("question", asked))
            expect(
                more <= template + _SPACES,
                f"{sample.prompt!r}: {more} rows of text are not its own",
            )
        if self.offers("readout"):
            answered = self.vlm.encode(samples[:1], answers=["red"]).layout(0, axis)
            same = _places("question", answered) == _places("question", batch.layout(0, axis))
            expect(same, "an appended answer moves the question")

    def check_image_rows_by_name(self, folder: Path) -> None:
        """Patches, views, regions and the rest are the image's rows; else they are refused."""
        del folder
        self._needs_images()
        samples = [_with_regions(sample) for sample in self.samples]
        batch, single = self.vlm.encode(samples), self.vlm.encode(samples[:1])
        for axis in (Axis.VISION, Axis.PROJECTOR, Axis.ENCODER, Axis.LLM):
            if axis not in batch.layouts:
                continue
            for layout in batch.layouts[axis].samples:
                if layout.patches is not None:
                    _check_image_rows(layout, layout.patches, axis)
                elif len(layout.positions(TokenKind.IMAGE)):
                    refused = partial(_places, "image.region(thing)", layout)
                    expect_error(SelectorError, refused, f"{axis}: a region without a grid")
            first = batch.layout(0, axis)
            if first.patches is not None and first.positions(TokenKind.IMAGE).size:
                again = _places("image.region(thing)", single.layout(0, axis))
                same = again == _places("image.region(thing)", first)
                expect(same, f"{axis}: other rows in a batch than alone")

    def _spells(self, layout: TokenLayout, selector: str, text: str) -> None:
        assert layout.token_ids is not None
        places = _places(selector, layout)
        written = "".join(self.vlm.decode(layout.token_ids[places].tolist()).split())
        wanted = "".join(text.split())
        close = wanted.casefold() in written.casefold() and len(written) <= len(wanted) + 3
        expect(close, f"{selector} reads {written!r}, not {wanted!r}")


def check_texts(layout: TokenLayout, prompt: str) -> None:
    """The texts of a sample's rows spell its prompt, where the adapter says them."""
    texts = layout.texts()
    if texts is None:
        return
    expect(len(texts) == len(layout), f"{len(texts)} texts of {len(layout)} rows")
    read = "".join(texts[row] for row in layout.positions(TokenKind.TEXT))
    expect(prompt in read, f"the texts of the rows spell {read!r}, without {prompt!r}")


def _check_image_rows(layout: TokenLayout, grid: PatchGrid, axis: Axis) -> None:
    """Check one sample's image rows by name."""
    where = layout.positions(TokenKind.IMAGE)
    cells = list(dict.fromkeys(zip(grid.row.tolist(), grid.col.tolist(), strict=True)))
    found: list[int] = []
    for row, col in cells if len(cells) <= _MANY else cells[:: len(cells) // _MANY]:
        places = _places(f"image.patch({row}, {col})", layout)
        own = where[(grid.row == row) & (grid.col == col)].tolist()
        expect(places == own, f"{axis}: the patch {row}, {col} is not where the grid has it")
        found += places
    whole = sorted(found) == where.tolist() or len(cells) > _MANY
    expect(whole, f"{axis}: the patches are not the image")
    views = dict.fromkeys(zip(grid.image.tolist(), grid.view, strict=True))
    shown = [place for k in range(len(views)) for place in _places(f"image.view({k})", layout)]
    expect(sorted(shown) == where.tolist(), f"{axis}: the views are not the image")
    inside = _places("image.region(thing)", layout)
    both = sorted(inside + _places("image.rest(thing)", layout))
    expect(both == where.tolist(), f"{axis}: region and rest are not the image")
    wider = _places("image.region(thing, ring=1)", layout)
    expect(set(inside) <= set(wider), f"{axis}: a ring takes rows away")
    held = (grid.box[:, :2] < np.subtract(_PART, _NEAR)).all(1) & (grid.box[:, 2:] > _NEAR).all(1)
    expect(inside == where[held].tolist(), f"{axis}: the region is not what its box holds")


def _places(selector: str, layout: TokenLayout) -> list[int]:
    found: list[int] = Selector.parse(selector).positions(layout).tolist()
    return found


def _with_regions(sample: Sample) -> Sample:
    """The sample with the upper left part of its image as a region."""
    (image,) = sample.open_images()
    box = [0, 0, image.width * _PART[0], image.height * _PART[1]]
    return replace(sample, attributes={"regions": json.dumps({"thing": box})})
