"""What each component of the language model writes into the residual stream at some rows.

The stream at the last block is the sum of what the embedding, each head and each MLP wrote; what no
component of a known kind wrote is given as the rest, so that the sum is always whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch

from vlmlens._display import brief, count
from vlmlens.errors import CompositionError
from vlmlens.passes.activation import scale_of
from vlmlens.passes.frozen import Frozen
from vlmlens.passes.modes import differentiable
from vlmlens.passes.others import Others
from vlmlens.sites import Site
from vlmlens.tokens import Selector

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch
    from vlmlens.sites.anatomy import Heads

_STACK = "llm.block."
_ROUNDING = 1e-6
_NEAR = 1e-2
"""A wrong slice of heads is off by about 1, and bfloat16 by less than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one component writes into the residual stream at some rows.

    Args:
        name: A site; with a remark in brackets where no site has this value.
        written: float64 `[rows, width]`, the rows of all samples after each other.
    """

    name: str
    written: torch.Tensor

    def __repr__(self) -> str:
        return brief(self, self.name, count(len(self.written), "row"))


def residual_parts(vlm: Any, batch: Batch, rows: str = "last") -> Iterator[tuple[Site, list[Part]]]:
    """What each component of the language model writes into the residual stream at some rows.

    Args:
        vlm: The model, a `ModelAdapter`.
        batch: From `encode`.
        rows: A selector.

    Yields:
        Each block, in order of depth, with its components. The sum of all is what the last block
        gives. With the first block is its input, what the embedding and the projector give.
    """
    reader = _Reader(vlm, batch, Selector.parse(rows))
    read = reader.read()
    before: torch.Tensor | None = None
    for block in reader.blocks:
        yield block, list(_of_block(read, reader, block, before))
        before = read[block.name]


class _Reader:
    """Which sites are read for the parts of blocks, and what they gave."""

    def __init__(self, vlm: Any, batch: Batch, selector: Selector) -> None:
        blocks = _blocks(vlm)
        self.vlm = vlm
        self._batch = batch
        self.blocks = blocks
        self._selector = selector
        self.branches: dict[str, dict[str, Site]] = {}
        self.heads: dict[str, Site] = {}
        for block in blocks:
            found = {name: self._site(f"{block.name}.{name}") for name in ("attn_out", "mlp_out")}
            self.branches[block.name] = {n: s for n, s in found.items() if s is not None}
            joined = self._site(f"{block.name}.attn.heads")
            if joined is not None and "attn_out" in self.branches[block.name]:
                self.heads[block.name] = joined

    def read(self) -> dict[str, torch.Tensor]:
        """By name of the site, what it gave, `[rows, width]`."""
        wanted: dict[str, Site] = {}
        for block in self.blocks:
            for site in (block, replace(block, name=f"{block.name}:in", side="in")):
                wanted[site.name] = site
            wanted |= {site.name: site for site in self.branches[block.name].values()}
            joined = self.heads.get(block.name)
            if joined is not None:
                wanted[joined.name] = joined
                around = self.normed(block)
                if around is not None:
                    wanted[around.name] = around
        places = [(site, self._selector) for site in wanted.values()]
        found = Others(self.vlm, ()).rows(self._batch, places)
        return {name: torch.cat(own) for name, own in zip(wanted, found, strict=True)}

    def by_passes(self, block: Site, given: Site) -> torch.Tensor:
        """float64 `[heads + 1, samples, width]`: what each head alone gives, and none of them.

        The block runs once for each of them, with the other heads zero.

        Args:
            block: The block.
            given: The site of what the heads give together.
        """
        joined = self.heads[block.name]
        heads = self.vlm.sites.heads(joined)
        replay, found = self._replay, []
        for head in [*range(heads.count), None]:
            alone = partial(_alone, heads, head)
            with self.vlm.edited({joined.name: alone}), replay.before([joined]):
                rows = Others(self.vlm, ()).rows(self._batch, [(given, self._selector)])[0]
            found.append(torch.cat(rows).double())
        made = torch.stack(found)
        made[:-1] -= made[-1].clone()
        return made

    @cached_property
    def _replay(self) -> Any:
        return self.vlm.replay(self._batch, logits="none")

    def normed(self, block: Site) -> Site | None:
        """What is given to the norm behind the attention, if there is one."""
        branch = self.branches[block.name]["attn_out"]
        attention = self._site(f"{block.name}.attn")
        own = ("" if attention is None else attention.path, self.heads[block.name].path)
        if attention is None or branch.path in own:
            return None
        return replace(branch, name=f"{branch.name}:in", side="in", scale="")

    def _site(self, name: str) -> Site | None:
        found = self.vlm.sites.matching(name)
        site: Site | None = found[0] if len(found) == 1 else None
        return site


def _alone(heads: Heads, head: int | None, joined: torch.Tensor) -> torch.Tensor:
    """The activation of all heads with those zero that are not meant; None: all of them."""
    kept = torch.zeros_like(joined)
    if head is not None:
        low, high = heads.columns(head)
        kept[..., low:high] = joined[..., low:high]
    return kept


def _blocks(vlm: Any) -> list[Site]:
    known = vlm.sites.canonical
    found = [
        site
        for name, site in known.items()
        if name.startswith(_STACK) and name == f"{_STACK}{site.index}"
    ]
    return sorted(found, key=lambda site: site.index or 0)


def _of_block(
    read: dict[str, torch.Tensor], reader: _Reader, block: Site, before: torch.Tensor | None
) -> Iterator[Part]:
    """What a block adds, what its input holds beside the block before it, and what is left."""
    given = read[f"{block.name}:in"].double()
    if before is None:
        yield Part(f"{block.name}:in", given)
    else:
        added = given - before.double()
        yield from _unless_rounding(f"{block.name}:in (added before it)", added, given)
    rest = read[block.name].double() - given
    for name, site in reader.branches[block.name].items():
        written = read[site.name].double()
        rest = rest - written
        if name == "attn_out" and block.name in reader.heads:
            yield from _of_heads(read, reader, block, written)
        else:
            yield Part(site.name, written)
    yield from _unless_rounding(f"{block.name} (the rest)", rest, read[block.name])


def _of_heads(
    read: dict[str, torch.Tensor], reader: _Reader, block: Site, written: torch.Tensor
) -> Iterator[Part]:
    """What each head adds, and what the attention adds beside: its bias."""
    branch, around = reader.branches[block.name]["attn_out"], reader.normed(block)
    given = branch if around is None else around
    with torch.inference_mode():
        single = _projected(read, reader, block)
        if single is None or not _near(single.sum(0), _unscaled(read, reader, block)):
            single = reader.by_passes(block, replace(given, scale=""))
        single = _behind(single[:-1], read, reader, block)
    for head, own in enumerate(single):
        yield Part(f"{block.name}.attn.heads[{head}]", own)
    left = written - single.sum(0)
    yield from _unless_rounding(f"{block.name}.attn_out (bias)", left, read[block.name])


def head_writes(vlm: Any, batch: Batch, head: Site, gives: torch.Tensor) -> torch.Tensor:
    """What a head writes at the last row where it gives something else: a linear map.

    The norm behind the attention, if there is one, keeps the scale that it has in the pass.

    Args:
        vlm: The model.
        batch: A batch of one sample.
        head: The site of a single head.
        gives: float `[k, size]`: what the head might give.

    Returns:
        float64 `[k, width]`.

    Raises:
        CompositionError: The output projection cannot be run alone.
    """
    block = vlm.sites.resolve(head.name.partition(".attn")[0])[0]
    reader = _Reader(vlm, batch, Selector.parse("last"))
    read = reader.read()
    with torch.inference_mode():
        single = _projected(read, reader, block)
        if single is None or not _near(single.sum(0), _unscaled(read, reader, block)):
            raise _not_alone(block)
        joined = reader.heads[block.name]
        rows = torch.zeros(
            len(gives) + 1, 1, read[joined.name].shape[-1], dtype=gives.dtype, device=gives.device
        )
        low, high = head.columns or (0, rows.shape[-1])
        rows[:-1, 0, low:high] = gives
        made = vlm.module.get_submodule(joined.path)(rows.to(read[joined.name].dtype)).double()
        found = _behind(made[:-1] - made[-1], read, reader, block)
    return found[:, 0]


def head_slopes(
    vlm: Any, batch: Batch, directions: torch.Tensor
) -> Iterator[tuple[Site, torch.Tensor, torch.Tensor]]:
    """How what heads give at the last row moves along a direction of the residual stream.

    The product of what a head gives with its part is what it writes along the direction; the norm
    behind the attention, if there is one, keeps the scale that it has in the pass.

    Args:
        vlm: The model, a `ModelAdapter`.
        batch: From `encode`.
        directions: float `[samples, width]`.

    Yields:
        By block in order of depth: the site of all heads; what they give, `[samples, width]`; and
        that by which it is to be multiplied, likewise, in float64.

    Raises:
        CompositionError: An output projection cannot be run alone.
    """
    reader = _Reader(vlm, batch, Selector.parse("last"))
    read = {name: rows.clone() for name, rows in reader.read().items()}
    for block in reader.blocks:
        joined = reader.heads.get(block.name)
        if joined is None:
            continue
        with differentiable():
            given = read[joined.name].requires_grad_()
            projection = vlm.module.get_submodule(joined.path)
            alone = _arguments(projection) == 1
            made = projection(given).double() if alone else None
            if made is None or not _near(made.detach(), _unscaled(read, reader, block)):
                raise _not_alone(block)
            written = _behind(made[None], read, reader, block)[0] * directions.to(made.device)
            (found,) = torch.autograd.grad(written.sum(), given)
        yield joined, given.detach(), found.double()


def _unscaled(read: dict[str, torch.Tensor], reader: _Reader, block: Site) -> torch.Tensor:
    """What the heads of a block give together, before a norm and a scale behind them."""
    around = reader.normed(block)
    if around is not None:
        return read[around.name].double()
    branch = reader.branches[block.name]["attn_out"]
    return _divided(read[branch.name].double(), branch, reader)


def _not_alone(block: Site) -> CompositionError:
    return CompositionError(
        f"The output projection of {block.name} cannot be run alone.",
        subject=f"{block.name}.attn.heads",
        hint="What its heads take from each row is not known for this family.",
    )


def _behind(
    single: torch.Tensor, read: dict[str, torch.Tensor], reader: _Reader, block: Site
) -> torch.Tensor:
    """What parts of an attention's output `[parts, rows, width]` become in the residual stream."""
    branch, around = reader.branches[block.name]["attn_out"], reader.normed(block)
    if around is not None:
        norm = reader.vlm.module.get_submodule(around.path)
        with torch.no_grad():
            frozen = Frozen.of(norm, read[around.name])
        single = frozen(single)
    if branch.scale:
        scale = scale_of(branch, reader.vlm.module)
        single = single * torch.as_tensor(scale, device=single.device)
    return single


def _projected(read: dict[str, torch.Tensor], reader: _Reader, block: Site) -> torch.Tensor | None:
    """What the output projection makes of each head alone, and of nothing.

    float64 `[heads + 1, samples, width]`; None if it cannot be run alone.
    """
    joined = reader.heads[block.name]
    projection = reader.vlm.module.get_submodule(joined.path)
    heads, rows = reader.vlm.sites.heads(joined), read[joined.name]
    if _arguments(projection) != 1:
        return None
    masked = torch.zeros(heads.count + 1, *rows.shape, dtype=rows.dtype, device=rows.device)
    for head in range(heads.count):
        low, high = heads.columns(head)
        masked[head, :, low:high] = rows[:, low:high]
    made: torch.Tensor = projection(masked).double()
    made[:-1] -= made[-1].clone()
    return made


def _arguments(module: torch.nn.Module) -> int:
    """How many arguments a module must be given."""
    given = inspect.signature(module.forward).parameters.values()
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return sum(each.default is inspect.Parameter.empty and each.kind not in free for each in given)


def _divided(written: torch.Tensor, branch: Site, reader: _Reader) -> torch.Tensor:
    """What a branch gives before the block scales it."""
    if not branch.scale:
        return written
    return written / torch.as_tensor(scale_of(branch, reader.vlm.module), device=written.device)


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are equal but for rounding."""
    if one.shape != other.shape:
        return False
    return float((one - other).norm()) <= _NEAR * float(other.norm())


def _unless_rounding(name: str, written: torch.Tensor, stream: torch.Tensor) -> Iterator[Part]:
    """The part, unless it is no more than how float32 rounds the stream.

    Coarser numbers round the stream by more than small parts are, so theirs is named.
    """
    if float(written.norm()) > _ROUNDING * float(stream.norm()):
        coarse = stream.dtype not in (torch.float32, torch.float64)
        yield Part(f"{name[:-1]}, rounding)" if coarse else name, written)
