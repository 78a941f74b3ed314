"""Model work: what is seen inside while the model is about to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.errors import SelectorError, SiteSilent
from vlmlens.passes.attending import Attention, attended
from vlmlens.passes.batch import Batch
from vlmlens.passes.tracing import hooked
from vlmlens.sites import Site
from vlmlens.tokens import Selector, TokenKind, TokenLayout
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps.work import encoded
from vlmlens_plugins.analysis.hallucination.confidence import Confidence

_STACKS = ("llm", "llm.encoder")
_DIGITS = 5


class InsideOptions(Options):
    """Options of `Inside`."""

    depths: tuple[float, ...] = Field((1.0,), description="See `HallucinationOptions`.")
    coordinates: int = Field(
        1024, ge=1, description="Of wider rows, so many coordinates are kept, drawn at random."
    )


class Inside(ModelWork):
    """What is seen inside in the pass that gives the answer's first deciding token.

    Arguments: "prefix", tokens that all answers begin with; "answer" and "object", words as lists
    of tokens, see `Confidence`; "region", the names of its key regions.

    Result: "entropy" of the next token, in nats; "answer" and "object", each with the internal
    confidence without and with the final norm and whether its place is in the region; "chance",
    the region's share of the image rows; "looks", the share of attention on image rows by
    block; "image" and "last", hidden states by depth. What the model does not have is null.
    """

    Options: ClassVar[type[Options]] = InsideOptions
    options: InsideOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        prefixes = [unit.arguments["prefix"] for unit in units]
        batch = encoded(vlm, [unit.sample for unit in units], prefixes)
        where = _where(vlm, batch, self.options.depths)
        with torch.inference_mode():
            try:
                return self._read(vlm, batch, units, where)
            except SiteSilent:
                where.attentions = []
                return self._read(vlm, batch, units, where)

    def _read(
        self, vlm: ModelAdapter, batch: Batch, units: Sequence[WorkUnit], where: _Where
    ) -> list[dict[str, JSON]]:
        found: list[dict[str, Any]] = [{"image": [], "last": []} for _ in units]
        looks: list[list[float]] = [[] for _ in units]
        readers = [
            Confidence(vlm, [unit.arguments["answer"], unit.arguments["object"]]) for unit in units
        ]

        def visit(site: Site, hidden: torch.Tensor) -> None:
            flat = hidden.flatten(0, -2)
            for i, layout in enumerate(batch.layouts[site.axis].samples):
                image = layout.rows[layout.positions(TokenKind.IMAGE)]
                if site.name in where.lens:
                    readers[i].read(flat[torch.from_numpy(image).to(flat.device)])
                for name, row in (("image", image), ("last", layout.rows)):
                    if site.name in where.states[name]:
                        found[i][name].append(self._numbers(flat[int(row[-1])]))

        def see(site: Site, attention: Attention) -> None:
            for i, layout in enumerate(batch.layouts[site.axis].samples):
                last = attention.of(layout).weights[:, -1].float()
                image = torch.from_numpy(layout.kinds == TokenKind.IMAGE).to(last.device)
                looks[i].append(float((last * image).sum(-1).mean()))

        with attended(vlm, where.attentions, see), hooked(vlm.module, where.sites, visit):
            output = vlm.forward(batch, logits="last").logits
        assert output is not None  # noqa: S101
        logs = output.double().log_softmax(-1)
        entropies = -(logs.exp() * logs.clamp(min=torch.finfo(logs.dtype).min)).sum(-1)
        for i, unit in enumerate(units):
            found[i]["entropy"] = float(entropies[i])
            found[i]["looks"] = looks[i] or None
            inside = _region(unit, where.layout(batch, i))
            found[i]["chance"] = None if inside is None else float(inside.mean())
            found[i]["answer"], found[i]["object"] = readers[i].told(inside)
        return found

    def _numbers(self, row: torch.Tensor) -> list[float]:
        """A row as JSON; of a wide one, always the same coordinates."""
        values = row.float().cpu().numpy()
        if len(values) > self.options.coordinates:
            rng = generator(0, "hallucination", "coordinates", str(len(values)))
            values = values[np.sort(rng.permutation(len(values))[: self.options.coordinates])]
        return [float(f"{value:.{_DIGITS}g}") for value in values]


@dataclass(slots=True)
class _Where:
    """Where a model is read.

    Args:
        lens: Blocks of which image rows are read by the lens.
        states: By kind of row, the blocks whose rows are kept.
        attentions: Modules whose attention is read.
        sites: All blocks that are read, in order.
    """

    lens: list[str]
    states: dict[str, list[str]]
    attentions: list[Site]
    sites: list[Site] = field(default_factory=list)

    def layout(self, batch: Batch, sample: int) -> TokenLayout | None:
        """That of the rows that the lens reads."""
        for site in self.sites:
            if site.name in self.lens:
                return batch.layouts[site.axis].samples[sample]
        return None


def _where(vlm: ModelAdapter, batch: Batch, depths: Sequence[float]) -> _Where:
    blocks = {stack: vlm.sites.matching(f"{stack}.block.*") for stack in _STACKS}
    seeing = [stack for stack in _STACKS if blocks[stack] and _has_image(batch, blocks[stack][0])]
    own = "llm" in seeing
    attentions = [
        site for site in vlm.sites.matching("llm.block.*.attn") if own and vlm.sites.heads(site)
    ]
    lens = [site.name for site in blocks["llm"]] if own and vlm.readout() is not None else []
    states = {
        "image": _at(blocks[seeing[0]], depths) if seeing else [],
        "last": _at(blocks["llm"], depths),
    }
    wanted = {*lens, *states["image"], *states["last"]}
    every = [site for stack in reversed(_STACKS) for site in blocks[stack]]
    return _Where(lens, states, attentions, [site for site in every if site.name in wanted])


def _has_image(batch: Batch, site: Site) -> bool:
    """Whether all samples have image rows there."""
    layouts = batch.layouts[site.axis].samples
    return all(len(layout.positions(TokenKind.IMAGE)) for layout in layouts)


def _at(blocks: Sequence[Site], depths: Sequence[float]) -> list[str]:
    """The blocks after which so large a share of them has run; each once."""
    last = len(blocks) - 1
    numbers = {min(max(round(depth * len(blocks)) - 1, 0), last) for depth in depths}
    return [blocks[number].name for number in sorted(numbers)] if blocks else []


def _region(unit: WorkUnit, layout: TokenLayout | None) -> np.ndarray[Any, Any] | None:
    """Which image rows lie in the region; None where that is not known."""
    names = unit.arguments["region"]
    if not names or layout is None:
        return None
    try:
        rows = [Selector.parse(f"image.region({name})").positions(layout) for name in names]
    except SelectorError:
        return None
    return np.isin(layout.positions(TokenKind.IMAGE), np.concatenate(rows))
