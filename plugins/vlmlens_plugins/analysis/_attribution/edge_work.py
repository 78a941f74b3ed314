"""Model work of edge attribution: what each component writes and another reads, from gradients.

For a sender u and a receiver v, the estimate is (u_source - u_run) . dM/d(input of v), where only
what flows through v counts: Syed et al. 2023 (arXiv 2310.10348). The gradient is the mean over
points on the way from the inputs of one run to those of the other: Hanna et al. 2024 (arXiv
2403.17806); here at the middles of equal steps.

A block adds to the residual stream, so the gradient by way of its attention is that at the block's
input less that behind the attention, and by way of its MLP that behind the attention less that
behind the block. Norms are in it as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from vlmlens.abc import Batch, ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.errors import SelectorError
from vlmlens.passes.gradients import logit_difference
from vlmlens.passes.others import rows_of
from vlmlens.passes.residual import Part, residual_parts
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._attribution.putting import Put
from vlmlens_plugins.analysis._sweeps.work import encoded_runs

Floats = npt.NDArray[np.float64]
_ALL = Selector.parse("all")


class EdgeOptions(Options):
    """Where edges are, and how the gradient is taken."""

    rows: list[str] = Field(
        default_factory=list, description="Groups of rows: an edge is between equal rows."
    )
    steps: int = Field(5, ge=1, description="Points on the way from one run's inputs to the other.")


class EdgeWork(ModelWork):
    """Edge attribution of one item.

    Arguments: those of `CellWork` with a donor. Result: "senders" and "receivers", names in order
    of depth; "scores" by sender, receiver and group of rows, NaN where the receiver is not behind
    the sender; "run" and "source", the logit differences.
    """

    Options: ClassVar[type[Options]] = EdgeOptions
    options: EdgeOptions
    version: ClassVar[int | None] = 1

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        targets, donors = encoded_runs(vlm, units)
        tokens = np.array([unit.arguments["tokens"][:2] for unit in units])
        metric = logit_difference(tokens[:, 0].tolist(), tokens[:, 1].tolist())
        receivers, slopes, values = self._slopes(vlm, donors, targets, metric)
        layouts = targets.layouts[Axis.LLM].samples
        member = _membership(layouts, self.options.rows)
        names: list[str] = []
        scores: list[torch.Tensor] = []
        for block, parts in _differences(vlm, donors, targets):
            for part in parts:
                names.append(part.name)
                behind = [_is_behind(receiver, part.name, block) for receiver in receivers]
                scores.append(_products(part.written, slopes, behind, member))
        found = torch.stack(scores).reshape(
            len(scores), len(receivers), len(layouts), len(self.options.rows)
        )
        return [
            {
                "senders": names,
                "receivers": [receiver for receiver, _ in receivers],
                "scores": found[:, :, i].tolist(),
                "run": float(values[0][i]),
                "source": float(values[1][i]),
            }
            for i in range(len(units))
        ]

    def _slopes(
        self, vlm: ModelAdapter, donors: Batch, targets: Batch, metric: Any
    ) -> tuple[list[tuple[str, int]], torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """The receivers with their blocks, their gradients, and both runs' metric.

        The gradients are float64 `[receivers, rows, width]`.
        """
        blocks = vlm.sites.resolve("llm.block.*")
        start = vlm.sites.resolve(f"{blocks[0].name}:in")[0]
        replay, given = vlm.replay(targets), vlm.replay(donors)
        assert replay.logits is not None  # noqa: S101
        assert given.logits is not None  # noqa: S101
        own, other = (torch.cat(one.rows(start, _ALL)) for one in (replay, given))
        sites = [start, *vlm.sites.resolve("llm.block.*:in")[1:], blocks[-1], *_attentions(vlm)]
        total: dict[str, torch.Tensor] = {}
        for step in range(self.options.steps):
            share = (step + 0.5) / self.options.steps
            mixed = Put(_places(targets), own + share * (other - own))
            with vlm.edited({start.name: mixed}), replay.before([start]):
                found = vlm.gradients(targets, sites, metric)
            for site in sites:
                rows = torch.cat(rows_of(found[site.name], site, _ALL, targets)).double()
                total[site.name] = total.get(site.name, 0) + rows / self.options.steps
        receivers, slopes = [], []
        for number, block in enumerate(blocks):
            for name, slope in _read_by(total, blocks, number):
                receivers.append((name, number))
                slopes.append(slope)
            del block
        receivers.append(("llm.norm", len(blocks)))
        slopes.append(total[blocks[-1].name])
        return receivers, torch.stack(slopes), (metric(replay.logits), metric(given.logits))


def _places(batch: Batch) -> torch.Tensor:
    """The row numbers of all samples, one after the other."""
    kept = [layout.rows for layout in batch.layouts[Axis.LLM].samples]
    return torch.from_numpy(np.concatenate(kept))


def _attentions(vlm: ModelAdapter) -> list[Site]:
    """What the attention of each block adds, where that is known."""
    return vlm.sites.matching("llm.block.*.attn_out")


def _read_by(
    total: dict[str, torch.Tensor], blocks: Sequence[Site], number: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """What a block's attention and MLP read: names, and the gradient by way of each."""
    block = blocks[number]
    last = number + 1 == len(blocks)
    into = total[f"{block.name}:in"]
    behind = total[block.name] if last else total[f"{blocks[number + 1].name}:in"]
    between = total.get(f"{block.name}.attn_out")
    if between is None or torch.equal(between, behind):  # both read the block's input
        yield block.name, into - behind
        return
    yield f"{block.name}.attn", into - between
    yield f"{block.name}.mlp", between - behind


def _differences(
    vlm: ModelAdapter, donors: Batch, targets: Batch
) -> Iterator[tuple[int, list[Part]]]:
    """Per block, what its components write in the donors' run less what they write in the own."""
    runs = (residual_parts(vlm, batch, "all") for batch in (donors, targets))
    for number, ((_, given), (_, own)) in enumerate(zip(*runs, strict=True)):
        by_name = [{part.name: part.written for part in parts} for parts in (given, own)]
        names = dict.fromkeys(part.name for part in (*own, *given))
        nothing = torch.zeros_like(own[0].written)
        yield (
            number,
            [
                Part(name, by_name[0].get(name, nothing) - by_name[1].get(name, nothing))
                for name in names
            ],
        )


def _is_behind(receiver: tuple[str, int], sender: str, block: int) -> bool:
    """Whether a receiver reads what a sender in a block writes."""
    name, number = receiver
    if number != block:
        return number > block
    if ":in" in sender:
        return True
    return ".attn" in sender and name.endswith(".mlp")


def _membership(layouts: Sequence[Any], rows: Sequence[str]) -> torch.Tensor:
    """float64 `[samples x groups, rows]`: 1 where a row is one of the sample's group.

    A sample need not have rows of each group: only some answers begin with the same token.
    """
    total = sum(len(layout) for layout in layouts)
    found = torch.zeros(len(layouts) * len(rows), total, dtype=torch.float64)
    start = 0
    for i, layout in enumerate(layouts):
        for g, selector in enumerate(rows):
            try:
                positions = Selector.parse(selector).positions(layout)
            except SelectorError:
                continue
            found[i * len(rows) + g, torch.from_numpy(positions) + start] = 1
        start += len(layout)
    return found


def _products(
    written: torch.Tensor, slopes: torch.Tensor, behind: Sequence[bool], member: torch.Tensor
) -> torch.Tensor:
    """float64 `[receivers, samples x groups]`; NaN for receivers that do not read the sender."""
    by_row = torch.einsum("rw,vrw->vr", written, slopes)
    found = by_row @ member.T.to(by_row.device)
    found[~torch.tensor(behind)] = torch.nan
    return found.cpu()
