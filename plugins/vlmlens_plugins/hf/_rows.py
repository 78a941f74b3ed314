"""Attributing rows of vision modules to samples by experiment, or not at all.

An unknown tower may pack, pad or tile its images in any way. So the rows that enter its first
block are compared with those of each sample alone: where they are the same rows one after the
other, they are the sample's. Rows that no row attends to are padding. Rows that stay the same when
the images are inverted are special (CLS, registers).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import ImageOps

from vlmlens.errors import SiteShapeError
from vlmlens.passes.tracing import first_call, hooked
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.tokens import AxisLayout, TokenKind, TokenLayout

_ROUNDING = 1e-5
_EPS = 8


class LazyLayouts(Mapping[Axis, AxisLayout]):
    """Layouts of which some are found out when they are first asked for.

    Args:
        known: What is known.
        makers: How to find out the others.
    """

    def __init__(
        self,
        known: Mapping[Axis, AxisLayout],
        makers: Mapping[Axis, Callable[[], AxisLayout]],
    ) -> None:
        self._known = dict(known)
        self._makers = dict(makers)

    def __getitem__(self, axis: Axis) -> AxisLayout:
        if axis not in self._known and axis in self._makers:
            self._known[axis] = self._makers[axis]()
        return self._known[axis]

    def __iter__(self) -> Iterator[Axis]:
        return iter({**self._known, **self._makers})

    def __len__(self) -> int:
        return len({**self._known, **self._makers})


@dataclass(frozen=True, slots=True)
class Entry:
    """What enters the first block of a tower.

    Args:
        rows: `[rows, width]`, flattened, padding included.
        kept: int64 `[k]`, the rows that are no padding.
    """

    rows: torch.Tensor
    kept: torch.Tensor

    @property
    def own(self) -> torch.Tensor:
        """`[k, width]`: the rows without padding."""
        return self.rows[self.kept]


def entry_of(module: torch.nn.Module, block: str, run: Callable[[], object]) -> Entry:
    """What enters a tower's first block in a pass, which is stopped there.

    Args:
        module: The model.
        block: Path of the first block.
        run: Starts a forward pass.

    Raises:
        SiteShapeError: The block did not run, or was not given tokens.
    """
    call = first_call(module, block, run)
    if call is None:
        raise uncertain(f"{block} did not run.")
    forward = module.get_submodule(block).forward
    named = inspect.signature(forward).bind(*call[0], **call[1]).arguments
    hidden = next(iter(named.values()), None)
    if not isinstance(hidden, torch.Tensor) or hidden.ndim < 2:
        raise uncertain(f"{block} is not called with tokens.")
    mask = named.get("attention_mask", call[1].get("attention_mask"))
    seen = _seen(mask, hidden)
    flat = hidden.reshape(-1, hidden.shape[-1])
    kept = torch.arange(len(flat), device=flat.device)
    return Entry(flat, kept if seen is None else kept[seen.to(flat.device)])


def vision_layout(
    samples: Sequence[Sample],
    whole: Mapping[str, Any],
    encode: Callable[[Sample], Mapping[str, Any]],
    enter: Callable[[Mapping[str, Any]], Entry],
) -> AxisLayout:
    """The layout of a tower's tokens, found out by showing it each sample alone.

    Args:
        samples: Of the batch.
        whole: The batch's inputs.
        encode: The inputs of one sample.
        enter: What enters the first block for some inputs.

    Raises:
        SiteShapeError: The rows of a sample alone are not its rows in the batch.
    """
    if not any(sample.images for sample in samples):
        return AxisLayout(0, [_none() for _ in samples])
    together = enter(whole)
    places, kept = together.kept.cpu().numpy(), together.own
    layouts, first = [], 0
    for sample in samples:
        if not sample.images:
            layouts.append(_none())
            continue
        alone = kept if len(samples) == 1 else enter(encode(sample)).own
        kinds = _kinds(alone, enter(encode(_inverted(sample))).own)
        last = first + len(alone)
        _demand_same(kept[first:last], alone, sample)
        layouts.append(TokenLayout(places[first:last], kinds))
        first = last
    if first != len(kept):
        raise uncertain(f"The batch has {len(kept)} rows, its samples alone have {first}.")
    return AxisLayout(len(together.rows), layouts)


def projector_layout(
    module: torch.nn.Module,
    site: Site,
    decoder: str,
    run: Callable[[], object],
    counts: Sequence[int],
    positions: torch.Tensor,
) -> AxisLayout:
    """The layout of the connector's output, where it is just what the language model is given.

    Args:
        module: The model.
        site: The connector.
        decoder: Path of the language model.
        run: Starts a forward pass.
        counts: Image tokens of each sample.
        positions: bool `[samples, positions]`, where image tokens stand.

    Raises:
        SiteShapeError: Its rows are not those at the image tokens, in order.
    """
    given: list[torch.Tensor] = []
    if sum(counts):
        with hooked(module, [site], lambda _, activation: given.append(activation)):
            call = first_call(module, decoder, run)
        _demand_given(given[0], call, positions)
    ends = np.cumsum([0, *counts])
    layouts = [
        TokenLayout(np.arange(ends[i], ends[i + 1]), np.full(n, TokenKind.IMAGE, np.uint8))
        for i, n in enumerate(counts)
    ]
    return AxisLayout(int(ends[-1]), layouts)


def uncertain(why: str) -> SiteShapeError:
    """The error that says that the generic adapter does not guess."""
    return SiteShapeError(
        f"The generic adapter cannot tell with certainty which rows belong to which sample: {why}",
        subject="hf",
        hint="Use language-side columns (llm.block.*), or --batch-size 1, or the family's own "
        "adapter.",
    )


def _demand_given(
    output: torch.Tensor, call: tuple[Any, Mapping[str, Any]] | None, positions: torch.Tensor
) -> None:
    embeds = None if call is None else call[1].get("inputs_embeds")
    if not isinstance(embeds, torch.Tensor):
        raise uncertain("what the language model is given cannot be seen.")
    rows = output.reshape(-1, output.shape[-1])
    wanted = embeds[positions.to(embeds.device)]
    same = rows.shape == wanted.shape and torch.equal(rows.to(wanted), wanted)
    if not same:
        raise uncertain(
            f"the connector's {len(rows)} rows are not, in order, what stands at the "
            f"{len(wanted)} image tokens."
        )


def _demand_same(found: torch.Tensor, alone: torch.Tensor, sample: Sample) -> None:
    if found.shape != alone.shape:
        raise uncertain(f"{sample.id!r} has {len(alone)} rows alone, {len(found)} in the batch.")
    scale = alone.abs().max().float().clamp_min(1e-12)
    far = (found.float() - alone.float()).abs().max() / scale
    if not far <= max(_ROUNDING, _EPS * torch.finfo(alone.dtype).eps):
        raise uncertain(f"the rows of {sample.id!r} alone are not its rows in the batch.")


def _kinds(rows: torch.Tensor, inverted: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if rows.shape != inverted.shape:
        raise uncertain("the number of rows depends on the colours.")
    moved = (rows != inverted).any(-1).cpu().numpy()
    return np.where(moved, TokenKind.IMAGE, TokenKind.SPECIAL).astype(np.uint8)


def _inverted(sample: Sample) -> Sample:
    return replace(sample, images=tuple(ImageOps.invert(im) for im in sample.open_images()))


def _seen(mask: Any, hidden: torch.Tensor) -> torch.Tensor | None:
    """Bool `[rows]`: which rows any row attends to; None without a mask."""
    if not isinstance(mask, torch.Tensor) or hidden.ndim != 3 or mask.ndim not in (2, 4):
        return None
    if mask.shape[-1] != hidden.shape[1] or mask.shape[0] not in (1, len(hidden)):
        return None
    lowest = torch.finfo(mask.dtype).min / 2 if mask.is_floating_point() else 0
    seen = mask > lowest
    seen = seen.flatten(1, 2).any(1) if mask.ndim == 4 else seen
    return seen.expand(hidden.shape[:2]).reshape(-1)


def _none() -> TokenLayout:
    return TokenLayout(np.zeros(0, np.int64), np.zeros(0, np.uint8))
