"""Positions of the samples that are shown, read in passes of their own: nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlmlens.abc import ModelAdapter
from vlmlens.errors import SelectorError
from vlmlens.passes.tracing import Trace
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.tokens import Selector, TokenKind
from vlmlens_plugins.analysis.logit_lens import sheets
from vlmlens_plugins.analysis.logit_lens.positions import Group, Rows
from vlmlens_plugins.analysis.logit_lens.readings import Reader
from vlmlens_plugins.analysis.logit_lens.several_positions import read_several
from vlmlens_plugins.analysis.logit_lens.vocabulary import Hidden

NOTE = (
    "Positions that are shown and not stored come from one more pass of the model for each sample "
    "shown. They are in the figures only."
)


def part(
    name: str,
    sites: Sequence[str],
    vlm: ModelAdapter,
    reader: Reader,
    samples: Sequence[Sample],
    words: Sequence[str],
) -> Result:
    """Figures of one kind of positions.

    Args:
        name: The selector: "image", "text" or "all".
        sites: Of the layers, in order of depth.
        vlm: Runs once for each sample; over patches, once for each picture.
        reader: Reads positions.
        samples: Those that are shown: see `shown`.
        words: Names of the reader's words.

    Returns:
        A part of the lens's result; empty where there are no samples.
    """
    group = Group(Selector.parse(name), tuple(f"{site}/{name}" for site in sites))
    if not samples:
        return Result("", "")
    final = group.final(reader.vocabulary.readout.site)
    many = read_several(
        reader,
        group,
        samples,
        _rows(vlm, group, final, samples),
        None,
        words,
        same=group.columns.index(final) if final in group.columns else None,
        shown=range(len(samples)),
        progress=lambda done: None,
    )
    return Result("", "", figures=sheets.figures(many, vlm))


def shown(
    name: str, vlm: ModelAdapter, samples: Sequence[Sample], most: int | None = None
) -> tuple[list[Sample], str]:
    """The samples whose positions can be shown, and why one has none.

    The decoder of an encoder-decoder has no image rows, for example: they are in its encoder.

    Args:
        name: The selector: "image", "text" or "all".
        vlm: Encodes them; a skeleton is enough.
        samples: Those that are to be shown. Over patches, one for each picture is.
        most: Look at so many; None: at all.
    """
    selector = Selector.parse(name)
    chosen = _one_for_each_picture(samples) if selector.kind == TokenKind.IMAGE else list(samples)
    kept: list[Sample] = []
    why = ""
    for sample in chosen[:most]:
        try:
            selector.positions(vlm.encode([sample]).layout(0))
        except SelectorError as error:
            why = why or error.message
        else:
            kept.append(sample)
    return kept, why


def _one_for_each_picture(samples: Sequence[Sample]) -> list[Sample]:
    """All prompts about a picture share the states over its patches."""
    first: dict[str, Sample] = {}
    for sample in samples:
        if sample.images:
            first.setdefault(sample.split_group, sample)
    return list(first.values())


def _rows(vlm: ModelAdapter, group: Group, final: str, samples: Sequence[Sample]) -> Iterator[Rows]:
    sites = list(dict.fromkeys(name.partition("/")[0] for name in (*group.columns, final)))
    for number, sample in enumerate(samples):
        trace = vlm.trace(vlm.encode([sample]), sites)

        def values(column: str, trace: Trace = trace) -> Hidden:
            (block,) = trace.select(column)
            return block.float().cpu().numpy()

        last = values(final)
        layers = [last if name == final else values(name) for name in group.columns]
        yield Rows((number,), layers, last, (len(last),))
