"""Model work: what heads read in random sequences, and of the image in real questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.passes.attending import Attention, attended
from vlmlens.passes.tracing import hooked
from vlmlens.sites import Axis, Site
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis.heads.copying import copying_of
from vlmlens_plugins.analysis.heads.patterns import occurrences, patterns
from vlmlens_plugins.analysis.heads.sinks import sinks_of

ATTENTIONS = "llm.block.*.attn"


def attentions(vlm: ModelAdapter) -> list[Site]:
    """The self-attention modules of the language model whose heads are known, in order."""
    return [site for site in vlm.sites.matching(ATTENTIONS) if vlm.sites.heads(site) is not None]


class SequenceScores(ModelWork):
    """The scores of all heads in one sequence of tokens behind a prompt.

    Arguments: "tokens", the sequence; "length", how many tokens a copy has; "copying", whether the
    copying score is wanted. Result: by name of the pattern, a list per module with a number per
    head; and "copying" likewise, with null where a head raises nothing.
    """

    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, Any]]:
        """See `ModelWork.run`."""
        tokens = [unit.arguments["tokens"] for unit in units]
        batch = vlm.encode([unit.sample for unit in units], answers=tokens)
        sites = attentions(vlm)
        own = [layout.positions(TokenKind.ANSWER) for layout in batch.layouts[Axis.LLM].samples]
        found: list[dict[str, Any]] = [{} for _ in units]
        paid: dict[tuple[str, int], torch.Tensor] = {}
        given: dict[tuple[str, int], torch.Tensor] = {}
        copying = [i for i, unit in enumerate(units) if unit.arguments["copying"]]
        joined = [vlm.sites.resolve(f"{site.name}.heads")[0] for site in sites if copying]

        def see(site: Site, attention: Attention) -> None:
            for i, unit in enumerate(units):
                weights = attention.of(batch.layout(i)).weights
                rows = torch.from_numpy(own[i]).to(weights.device)
                inside = weights[:, rows][:, :, rows].float()
                for name, scores in _scores(inside, unit).items():
                    found[i].setdefault(name, []).append(scores)
                if i in copying:
                    paid[site.name, i] = inside[:, unit.arguments["length"] :]

        def keep(site: Site, heads: torch.Tensor) -> None:
            for i in copying:
                rows = batch.layout(i).rows[own[i]][units[i].arguments["length"] :]
                where = torch.from_numpy(rows).to(heads.device)
                given[site.name.removesuffix(".heads"), i] = heads.flatten(0, -2)[where]

        with torch.inference_mode():
            with attended(vlm, sites, see), hooked(vlm.module, joined, keep):
                vlm.forward(batch)
            for i in copying:
                found[i]["copying"] = [
                    _copying(vlm, site, tokens[i], given[site.name, i], paid[site.name, i])
                    for site in sites
                ]
        return found


class ImageOptions(Options):
    """Options of `ImageShares`."""

    sink: float = Field(20.0, description="See `sinks_of`.")


class ImageShares(ModelWork):
    """What the last row of a question reads of the image, with and without sinks.

    Result: "image", "rest" (the image without sinks) and "sinks" (all sinks), each a list per
    module with a share per head; "dimensions", those by which sinks are known in any block;
    "rows", how many image rows there are; "sink_rows", how many of them are sinks at any depth.
    """

    Options: ClassVar[type[Options]] = ImageOptions
    options: ImageOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, Any]]:
        """See `ModelWork.run`."""
        batch = vlm.encode([unit.sample for unit in units])
        layouts = batch.layouts[Axis.LLM].samples
        sites = attentions(vlm)
        inputs = [site for each in sites for site in vlm.sites.resolve(f"{_block(each)}:in")]
        found: list[dict[str, Any]] = [{"image": [], "rest": [], "sinks": []} for _ in units]
        sinks: dict[tuple[str, int], torch.Tensor] = {}
        dimensions: list[set[int]] = [set() for _ in units]

        def enter(site: Site, hidden: torch.Tensor) -> None:
            flat = hidden.flatten(0, -2)
            for i, layout in enumerate(layouts):
                own = flat[torch.from_numpy(layout.rows).to(flat.device)]
                sinks[site.name, i], known = sinks_of(own, self.options.sink)
                dimensions[i].update(known)

        def see(site: Site, attention: Attention) -> None:
            for i, layout in enumerate(layouts):
                last = attention.of(layout).weights[:, -1].float()
                image = torch.from_numpy(layout.kinds == TokenKind.IMAGE).to(last.device)
                sink = sinks[f"{_block(site)}:in", i].to(last.device)
                for name, rows in (("image", image), ("rest", image & ~sink), ("sinks", sink)):
                    found[i][name].append((last * rows).sum(-1).tolist())

        with (
            torch.inference_mode(),
            attended(vlm, sites, see),
            hooked(vlm.module, inputs, enter),
        ):
            vlm.forward(batch)
        for i, layout in enumerate(layouts):
            ever = np.any([sinks[site.name, i].cpu().numpy() for site in inputs], 0)
            image = layout.kinds == TokenKind.IMAGE
            found[i]["dimensions"] = sorted(dimensions[i])
            found[i]["rows"] = int(image.sum())
            found[i]["sink_rows"] = int((ever & image).sum())
        return found


def _scores(weights: torch.Tensor, unit: WorkUnit) -> dict[str, list[float]]:
    """The scores of each head from its attention `[heads, tokens, tokens]`."""
    made = patterns(unit.arguments["tokens"], unit.arguments["length"])
    found = {}
    for name, pattern in made.items():
        cells = torch.from_numpy(pattern).to(weights.device)
        queries = max(1, int(pattern.any(1).sum()))
        found[name] = ((weights * cells).sum((1, 2)) / queries).tolist()
    return found


def _copying(
    vlm: ModelAdapter,
    site: Site,
    tokens: Sequence[int],
    given: torch.Tensor,
    weights: torch.Tensor,
) -> list[float | None]:
    scores = copying_of(vlm, site)
    if scores is None:
        return [None] * len(weights)
    unlike, where = occurrences(tokens)
    return scores(given, weights @ torch.from_numpy(where).to(weights.device), unlike)


def _block(attention: Site) -> str:
    return attention.name.removesuffix(".attn")
