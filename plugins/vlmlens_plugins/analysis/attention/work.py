"""Model work: where the attention of some rows goes, and maps that are made of attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from vlmlens.abc import Batch, ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.errors import VlmlensError
from vlmlens.passes.attending import Attention, attended
from vlmlens.passes.tracing import hooked
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Selector, TokenKind, TokenLayout
from vlmlens_plugins.analysis._maps.attending import (
    Reader,
    attention_sites,
    check_images,
    read_through,
)
from vlmlens_plugins.analysis._maps.attention import Weights
from vlmlens_plugins.analysis._maps.relevance import Relevance
from vlmlens_plugins.analysis._maps.rollout import Rollout
from vlmlens_plugins.analysis._maps.value_weighted import Written
from vlmlens_plugins.analysis._patches import rounded
from vlmlens_plugins.analysis._sweeps.work import encoded
from vlmlens_plugins.analysis.attention.measured import mean
from vlmlens_plugins.analysis.attention.places import Place
from vlmlens_plugins.analysis.heads.sinks import sinks_of

Floats = npt.NDArray[np.float64]
SHARES = (
    "image", "text", "special", "sinks", "rest", "region", "elsewhere", "others", "entropy",
    "spread",
)  # fmt: skip
"""What is measured of each head: shares of attention; and how it is spread.

image, text, special: by kind of row; sinks: those of any kind; rest: the image without sinks;
region: the key region; elsewhere: the same shape at all places; others: where the regions of other
samples lie; entropy: in bits, over all rows; spread: that over image rows alone, as a share of the
most it can be.
"""

_DIGITS = 7
_FEW_HEADS = 8


class ShareOptions(Options):
    """Options of `ShareWork`."""

    query: str = Field("last", description="The rows whose attention it is, as a selector.")
    sink: float = Field(20.0, description="See `sinks_of`.")


class ShareWork(ModelWork):
    """Where the attention of some rows of a sample goes, by block and head.

    Arguments: "region", the names of the key regions; "others", see `others_by_sample`.

    Result: for each of `SHARES` a list per block with a number per head, NaN where it is not known;
    "area", the region's share of the image rows, or None; "dimensions", those by which sinks are
    known in any block; "rows", how many image rows there are; "sink_rows", how many of them are
    sinks in any block.
    """

    Options: ClassVar[type[Options]] = ShareOptions
    options: ShareOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        batch = vlm.encode([unit.sample for unit in units])
        check_images(batch)
        layouts = batch.layouts[Axis.LLM].samples
        sites = attention_sites(vlm)
        inputs = [vlm.sites.resolve(f"{_block(site)}:in")[0] for site in sites]
        queries = [Selector.parse(self.options.query).positions(layout) for layout in layouts]
        places = [
            Place.of(layout, unit.arguments["region"], unit.arguments["others"])
            for layout, unit in zip(layouts, units, strict=True)
        ]
        told: list[dict[str, Any]] = [{name: [] for name in SHARES} for _ in units]
        sinks: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}
        dimensions: list[set[int]] = [set() for _ in units]

        def enter(site: Site, hidden: torch.Tensor) -> None:
            flat = hidden.flatten(0, -2)
            for i, layout in enumerate(layouts):
                own = flat[torch.from_numpy(layout.rows).to(flat.device)]
                found, known = sinks_of(own, self.options.sink)
                sinks[site.name, i] = found.cpu().numpy()
                dimensions[i].update(known)

        def see(site: Site, attention: Attention) -> None:
            for i, layout in enumerate(layouts):
                rows = attention.of(layout).weights[:, queries[i].tolist()]
                own = sinks[f"{_block(site)}:in", i]
                found = shares(rows.double().cpu().numpy(), layout, own, places[i])
                for name, values in found.items():
                    told[i][name].append(np.round(values, _DIGITS).tolist())

        with torch.inference_mode(), attended(vlm, sites, see), hooked(vlm.module, inputs, enter):
            vlm.forward(batch, logits="none")
        for i, layout in enumerate(layouts):
            ever = np.any([sinks[site.name, i] for site in inputs], 0)
            image = layout.kinds == TokenKind.IMAGE
            place = places[i]
            told[i]["area"] = None if place is None else place.area
            told[i]["dimensions"] = sorted(dimensions[i])
            told[i]["rows"], told[i]["sink_rows"] = int(image.sum()), int((ever & image).sum())
        return told


def shares(
    weights: Floats, layout: TokenLayout, sinks: npt.NDArray[np.bool_], place: Place | None
) -> dict[str, Floats]:
    """By name of `SHARES`, float64 `[heads]`: the mean over queries.

    Args:
        weights: `[heads, queries, rows]`, over the sample's own rows.
        layout: Of the sample.
        sinks: bool `[rows]`.
        place: The key region, if there is one.
    """
    image = layout.kinds == TokenKind.IMAGE
    text = (layout.kinds == TokenKind.TEXT) | (layout.kinds == TokenKind.ANSWER)
    to_image = weights[..., image]
    found = {
        name: weights[..., chosen].sum(-1)
        for name, chosen in {
            "image": image,
            "text": text,
            "special": ~image & ~text,
            "sinks": sinks,
            "rest": image & ~sinks,
        }.items()
    }
    found |= of_image(to_image, place)
    found["entropy"] = _entropy(weights)
    means = {name: found[name].mean(-1) for name in SHARES}
    return means | {"spread": mean(found["spread"], -1)}  # some queries do not see the image


def of_image(weights: Floats, place: Place | None) -> dict[str, Floats]:
    """Of weights on image rows, `[..., image rows]`: "region", its controls and "spread"."""
    total = weights.sum(-1)
    unknown = np.full(total.shape, np.nan)
    most = np.log2(weights.shape[-1]) if weights.shape[-1] > 1 else np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = _entropy(weights / total[..., None]) / most
    others = None if place is None else place.others
    return {
        "region": unknown if place is None else weights[..., place.inside].sum(-1),
        "elsewhere": unknown if place is None else weights @ place.elsewhere,
        "others": unknown if others is None else weights @ others,
        "spread": np.where(total > 0, spread, np.nan),
    }


class MapOptions(Options):
    """Options of `MapWork`."""

    query: str = Field("last", description="The rows whose attention and rollout it is.")
    methods: tuple[str, ...] = Field(("attention",), description="Names of methods.")
    heads: tuple[int, ...] | None = Field(None, description="Heads that are told alone.")


class MapWork(ModelWork):
    """Maps from attention of a sample, made in one pass and those that methods need.

    What is followed is the logit of the answer that the model gives, less that of its strongest
    rival. Arguments: "prefix", the tokens that all choices begin with; "among", the next one of
    each, or none: any token; "drawn", whether maps of single blocks are wanted; "region", the
    names of the key regions.

    Result: "tokens", the two that are compared; "left_out", by method why it cannot be had;
    "region", by method the share of the map's positive part that lies in the key region, or None;
    and, if drawn, "maps": by method and by "all" or a head's number, a list per block with a number
    per image row.
    """

    Options: ClassVar[type[Options]] = MapOptions
    options: MapOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        results: dict[int, dict[str, JSON]] = {}
        for begun in (False, True):
            alike = [i for i, u in enumerate(units) if bool(u.arguments["prefix"]) == begun]
            if alike:
                results |= zip(alike, self._some(vlm, [units[i] for i in alike]), strict=True)
        return [results[i] for i in range(len(units))]

    def _some(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        given = [unit.arguments for unit in units]
        batch = encoded(vlm, [unit.sample for unit in units], [one["prefix"] for one in given])
        check_images(batch)
        tokens = _compared(vlm, batch, [one["among"] for one in given])
        readers, left_out = self._readers(vlm, batch, tokens)
        told = []
        for i, layout in enumerate(batch.layouts[Axis.LLM].samples):
            place, image = Place.of(layout, given[i]["region"]), layout.kinds == TokenKind.IMAGE
            found: dict[str, JSON] = {"tokens": tokens[i], "left_out": left_out}
            found["region"] = {
                name: _positive_share(reader.whole(i)[image], place)
                for name, reader in readers.items()
            }
            if given[i]["drawn"]:
                found["maps"] = {
                    name: self._blocks([block[:, image] for block in reader.blocks[i]], name)
                    for name, reader in readers.items()
                }
            told.append(found)
        return told

    def _readers(
        self, vlm: ModelAdapter, batch: Batch, tokens: Sequence[Sequence[int]]
    ) -> tuple[dict[str, Reader], dict[str, str]]:
        """By method, what has read the pass; and why methods are missing."""
        query = self.options.query
        ways: dict[str, Callable[[], Reader]] = {
            "attention": lambda: Weights(batch, query),
            "rollout": lambda: Rollout(batch, query),
            "relevance": lambda: Relevance(vlm, batch, tokens),
            "value-weighted": lambda: Written(vlm, batch, tokens),
        }
        found: dict[str, Reader] = {}
        left_out: dict[str, str] = {}
        for name in self.options.methods:
            try:
                found[name] = ways[name]()
            except VlmlensError as error:
                left_out[name] = error.message
        failed = read_through(vlm, batch, list(found.values()))
        left_out |= {name: failed[r].message for name, r in found.items() if r in failed}
        return {name: r for name, r in found.items() if r not in failed}, left_out

    def _blocks(self, blocks: Sequence[Floats], method: str) -> dict[str, JSON]:
        heads = len(blocks[0])
        wanted = self.options.heads
        if wanted is None:
            wanted = tuple(range(heads)) if 1 < heads <= _FEW_HEADS else ()
        together = np.sum if method == "value-weighted" else np.mean
        found = {"all": rounded(np.stack([together(block, 0) for block in blocks]))}
        if heads == 1:
            return found
        return found | {
            str(head): rounded(np.stack([block[head] for block in blocks]))
            for head in wanted
            if all(head < len(block) for block in blocks)
        }


def _compared(vlm: ModelAdapter, batch: Batch, among: Sequence[Sequence[int]]) -> list[list[int]]:
    """Per sample, the most probable next token and its rival: of some tokens, or of all."""
    logits = vlm.forward(batch, logits="last").logits
    assert logits is not None  # noqa: S101
    found = []
    for row, some in zip(logits.float().cpu(), among, strict=True):
        unlike = list(dict.fromkeys(some))
        known = torch.tensor(unlike if len(unlike) > 1 else range(len(row)))
        found.append(known[row[known].topk(2).indices].tolist())
    return found


def _positive_share(values: Floats, place: Place | None) -> float | None:
    positive = np.maximum(values, 0)
    if place is None or not positive.sum() > 0:
        return None
    return float(np.round(positive[place.inside].sum() / positive.sum(), _DIGITS))


def _entropy(weights: Floats) -> Floats:
    """In bits, over the last axis."""
    found: Floats = -(weights * np.log2(np.where(weights > 0, weights, 1.0))).sum(-1)
    return found


def _block(attention: Site) -> str:
    return attention.name.removesuffix(".attn")
