"""Where features fire in a batch, and products that touch nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import embedding_bag


@dataclass(frozen=True, eq=False)
class Entries:
    """Some places of a matrix `[bags, features]`, and what the encoder gives there.

    Args:
        ends: int64 `[bags + 1]`: from which to which entry each bag has its own. A bag is a row,
            or a row at one level.
        features: int64 `[n]`: the feature of each entry.
        before: float `[n]`: the encoder's output.
        count: How many features there are.
    """

    ends: torch.Tensor
    features: torch.Tensor
    before: torch.Tensor
    count: int

    @classmethod
    def where(cls, before: torch.Tensor, chosen: torch.Tensor) -> Entries:
        """Those of `[rows, features]` that are chosen, bool of the same shape."""
        flat = chosen.view(-1).nonzero()[:, 0]
        rows = flat.div(before.shape[1], rounding_mode="floor")
        lengths = torch.bincount(rows, minlength=len(before))
        features = flat - rows * before.shape[1]
        return cls(ends_of(lengths), features, before.view(-1)[flat], before.shape[1])

    @classmethod
    def joined(cls, parts: Sequence[Entries]) -> Entries:
        """Entries of several parts of a batch, one after the other."""
        lengths = torch.cat([part.ends.diff() for part in parts])
        features = torch.cat([part.features for part in parts])
        before = torch.cat([part.before for part in parts])
        return cls(ends_of(lengths), features, before, parts[0].count)

    @property
    def rows(self) -> int:
        """How many rows, or bags, there are."""
        return len(self.ends) - 1

    @cached_property
    def bags(self) -> torch.Tensor:
        """int64 `[n]`: the bag of each entry."""
        numbers = torch.arange(self.rows, device=self.ends.device)
        return numbers.repeat_interleave(self.ends.diff(), output_size=len(self.features))

    @cached_property
    def turned(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The order by feature `[n]`, the bags in it `[n]`, and its ends `[count + 1]`."""
        order = self.features.argsort(stable=True)
        return order, self.bags[order], ends_of(torch.bincount(self.features, minlength=self.count))

    def fired(self, code: torch.Tensor) -> torch.Tensor:
        """int64 `[count]`: in how many entries each feature has a code above 0."""
        above = (code > 0).to(torch.int64)
        return above.new_zeros(self.count).index_add_(0, self.features, above)

    def kept(self, numbers: torch.Tensor) -> Entries:
        """Some of them, int64 `[m]`, rising."""
        lengths = torch.bincount(self.bags[numbers], minlength=self.rows)
        features, before = self.features[numbers], self.before[numbers]
        return Entries(ends_of(lengths), features, before, self.count)

    def pieces(self, most: int) -> Iterator[tuple[slice, Entries]]:
        """Parts of the rows that have about so many entries at most, with their rows."""
        step = self.rows
        if len(self.features) > most:
            step = max(1, self.rows * most // len(self.features))
        for start in range(0, self.rows, step):
            ends = self.ends[start : start + step + 1]
            own = slice(int(ends[0]), int(ends[-1]))
            part = Entries(ends - ends[0], self.features[own], self.before[own], self.count)
            yield slice(start, start + step), part

    def by_level(self, levels: Sequence[int]) -> tuple[torch.Tensor, Entries]:
        """The same entries with a bag for each level and row; the order in which they now are."""
        edges = torch.tensor(levels, device=self.features.device)
        bags = torch.bucketize(self.features, edges, right=True) * self.rows + self.bags
        order = bags.argsort(stable=True)
        lengths = torch.bincount(bags, minlength=len(levels) * self.rows)
        features, before = self.features[order], self.before[order]
        return order, Entries(ends_of(lengths), features, before, self.count)


def ends_of(lengths: torch.Tensor) -> torch.Tensor:
    """int64 `[n + 1]`: 0, and where each of n parts ends."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def encoded(
    weight: torch.Tensor, bias: torch.Tensor | None, centre: torch.Tensor | None,
    rows: torch.Tensor, entries: Entries,
) -> torch.Tensor:  # fmt: skip
    """The encoder's output at the entries, `[n]`, with gradients of what it was made of.

    Args:
        weight: The encoder, `[features, inputs]`.
        bias: `[features]`, if there is one.
        centre: `[inputs]`: what was taken from the rows, if it is to get a gradient.
        rows: `[rows, inputs]`, as the encoder got them.
        entries: Where; its values are given back.
    """
    found: torch.Tensor = _Encoded.apply(weight, bias, centre, rows, entries)  # type: ignore[no-untyped-call]
    return found


def decoded(code: torch.Tensor, weight: torch.Tensor, entries: Entries) -> torch.Tensor:
    """What a code writes, `[bags, outputs]`, without a dense code in either direction.

    Args:
        code: `[n]`, at the entries.
        weight: The decoder, `[features, outputs]`.
        entries: Where.
    """
    found: torch.Tensor = _Decoded.apply(code, weight, entries)  # type: ignore[no-untyped-call]
    return found


class _Encoded(torch.autograd.Function):
    """Its weight's gradient is `dh' X`, with dh only at the entries."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, bias: torch.Tensor | None, centre: torch.Tensor | None,
        rows: torch.Tensor, entries: Entries,
    ) -> torch.Tensor:  # fmt: skip
        ctx.save_for_backward(weight, rows)
        ctx.entries, ctx.bias, ctx.centre = entries, bias is not None, centre is not None
        return entries.before.clone()

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> Any:
        weight, rows = ctx.saved_tensors
        entries: Entries = ctx.entries
        order, bags, ends = entries.turned
        made = _sums(bags, rows, ends, given[0][order])
        each = torch.zeros_like(weight[:, 0]).index_add_(0, entries.features, given[0])
        centre = -(each @ weight) if ctx.centre else None
        return made, each if ctx.bias else None, centre, None, None


class _Decoded(torch.autograd.Function):
    """Its weight's gradient is `z' G`, the code's is `G W'` at the entries."""

    @staticmethod
    def forward(
        ctx: Any, code: torch.Tensor, weight: torch.Tensor, entries: Entries
    ) -> torch.Tensor:
        with torch.enable_grad():
            own = code.detach().requires_grad_()
            out = _sums(entries.features, weight.detach(), entries.ends, own)
        ctx.own, ctx.out, ctx.entries = own, out, entries
        return out.detach()

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> Any:
        made = None
        if ctx.needs_input_grad[1]:
            order, bags, ends = ctx.entries.turned
            made = _sums(bags, given[0], ends, ctx.own.detach()[order])
        code = torch.autograd.grad(ctx.out, ctx.own, given[0])[0]
        ctx.own = ctx.out = None
        return code, made, None


def _sums(
    places: torch.Tensor, table: torch.Tensor, ends: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Weighted sums of rows of a table, `[bags, width]`."""
    return embedding_bag(
        places, table, ends, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
