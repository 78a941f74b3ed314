"""Direct logit attribution: what each component adds to the logits at a row.

The residual stream at the last block is the sum of what the embedding, each head and each MLP
wrote. With the scale of the final norm frozen at its value in this pass, a logit is linear in that
sum, so it is the sum of what the components add to it, and of a constant. Elhage et al., "A
Mathematical Framework for Transformer Circuits" (2021).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch

from vlmlens._display import brief, count
from vlmlens.errors import CompositionError, SiteNotFound, SpecError
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
_NEAR = 1e-2
"""A wrong slice of heads is off by about 1, and bfloat16 by less than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one component writes into the residual stream at a row of each sample.

    Args:
        name: A site; with a remark in brackets where no site has this value.
        written: float64 `[samples, width]`.
    """

    name: str
    written: torch.Tensor

    def __repr__(self) -> str:
        return brief(self, self.name, count(len(self.written), "sample"))


@dataclass(frozen=True, slots=True, eq=False)
class Contributions:
    """What components add to the logits of some tokens, per sample.

    The sum of `added` over components, and `constant`, is `total`.

    Args:
        names: The components; see `Part.name`.
        added: float64 `[components, samples, tokens]`.
        constant: float64 `[samples, tokens]`: the biases of the final norm and the unembedding.
        total: float64 `[samples, tokens]`: the logits before a soft cap, if the model has one.
        logits: float64 `[samples, tokens]`: the logits that the model gives.
    """

    names: Sequence[str]
    added: torch.Tensor
    constant: torch.Tensor
    total: torch.Tensor
    logits: torch.Tensor

    def __repr__(self) -> str:
        return brief(self, "", count(len(self.names), "component"), *self.names[:3])


def contributions(
    vlm: Any, batch: Batch, tokens: Sequence[Sequence[int]], *, row: str = "last"
) -> Contributions:
    """What each component adds to the logits of some tokens at a row.

    Args:
        vlm: The model, a `ModelAdapter`.
        batch: From `encode`.
        tokens: Per sample, token ids; equally many for all.
        row: A selector that keeps one row of each sample.

    Raises:
        CompositionError: The model has no readout, or its final norm cannot be frozen.
        SpecError: The selector keeps several rows.
    """
    readout = vlm.readout()
    if readout is None:
        raise CompositionError(
            "The model has no readout, so nothing adds to logits.",
            subject="readout",
            hint="Choose a model that writes.",
        )
    if len({len(each) for each in tokens}) > 1 or len(tokens) != len(batch):
        raise SpecError(
            f"{len(tokens)} lists of tokens were given for {len(batch)} samples.",
            subject="tokens",
            hint="Give equally many tokens for each sample.",
        )
    parts, total = residual_parts(vlm, batch, row=row)
    with torch.inference_mode():
        frozen = Frozen.of(lambda rows: readout.norm(rows).float(), total)
        normed = frozen(torch.stack([part.written for part in parts]))
        final = frozen(total[None])[0] + frozen.bias
        logits = readout.unembed(readout.norm(total)).double()
    directions, biases = _unembedding(readout, total, sorted({t for own in tokens for t in own}))
    chosen = torch.stack([torch.stack([directions[t] for t in own]) for own in tokens])
    constant = torch.tensor([[biases[t] for t in own] for own in tokens], dtype=torch.float64)
    constant = constant.to(chosen.device) + (chosen @ frozen.bias)
    numbers = torch.tensor(tokens, device=logits.device)
    return Contributions(
        [part.name for part in parts],
        torch.einsum("psw,stw->pst", normed, chosen),
        constant,
        torch.einsum("sw,stw->st", final, chosen) + constant - (chosen @ frozen.bias),
        logits.gather(-1, numbers),
    )


def residual_parts(vlm: Any, batch: Batch, *, row: str = "last") -> tuple[list[Part], torch.Tensor]:
    """What each component of the language model writes into the residual stream at a row.

    Args:
        vlm: The model.
        batch: From `encode`.
        row: A selector that keeps one row of each sample.

    Returns:
        The components, in order of depth; and what the last block gives, `[samples, width]`, which
        is the sum of all.
    """
    reader = _Reader(vlm, batch, Selector.parse(row))
    read = reader.read()
    parts: list[Part] = []
    before: torch.Tensor | None = None
    for block in reader.blocks:
        parts += _of_block(read, reader, block, before)
        before = read[block.name]
    assert before is not None  # noqa: S101
    return parts, before


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
        """By name of the site, what it gave at the row, `[samples, width]`."""
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
        rows = {}
        for name, own in zip(wanted, found, strict=True):
            if any(len(each) != 1 for each in own):
                raise SpecError(
                    f"{str(self._selector)!r} keeps several rows of a sample.",
                    subject=str(self._selector),
                    hint="Contributions are of one row, such as last.",
                )
            rows[name] = torch.cat(own)
        return rows

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
        if attention is None or attention.path == branch.path:
            return None
        return replace(branch, name=f"{branch.name}:in", side="in", scale="")

    def _site(self, name: str) -> Site | None:
        try:
            found = self.vlm.sites.resolve(name)
        except SiteNotFound:
            return None
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
        yield from _unless_nothing(f"{block.name}:in (added before it)", given - before.double())
    rest = read[block.name].double() - given
    for name, site in reader.branches[block.name].items():
        written = read[site.name].double()
        rest = rest - written
        if name == "attn_out" and block.name in reader.heads:
            yield from _of_heads(read, reader, block, written)
        else:
            yield Part(site.name, written)
    yield from _unless_nothing(f"{block.name} (the rest)", rest)


def _of_heads(
    read: dict[str, torch.Tensor], reader: _Reader, block: Site, written: torch.Tensor
) -> Iterator[Part]:
    """What each head adds, and what the attention adds beside: its bias."""
    branch, around = reader.branches[block.name]["attn_out"], reader.normed(block)
    given = branch if around is None else around
    unscaled = read[given.name] if around is not None else _divided(written, branch, reader)
    with torch.inference_mode():
        single = _projected(read, reader, block)
        if single is None or not _near(single.sum(0), unscaled.double()):
            single = reader.by_passes(block, replace(given, scale=""))
        single = single[:-1]
        if around is not None:
            norm = reader.vlm.module.get_submodule(around.path)
            single = Frozen.of(norm, read[around.name])(single)
        if branch.scale:
            scale = scale_of(branch, reader.vlm.module)
            single = single * torch.as_tensor(scale, device=single.device)
    for head, own in enumerate(single):
        yield Part(f"{block.name}.attn.heads[{head}]", own)
    yield from _unless_nothing(f"{block.name}.attn_out (bias)", written - single.sum(0))


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


def _unless_nothing(name: str, written: torch.Tensor) -> Iterator[Part]:
    if bool(written.any()):
        yield Part(name, written)


def _unembedding(
    readout: Any, like: torch.Tensor, tokens: Sequence[int]
) -> tuple[dict[int, torch.Tensor], dict[int, float]]:
    """Per token, the direction whose product with the normed row is its logit, and the rest.

    The derivative at 0: the unembedding with its scale, and without its soft cap.
    """
    numbers = torch.tensor(tokens, device=like.device)
    with differentiable():
        zero = torch.zeros_like(like[:1]).requires_grad_()
        if readout.some is None:
            logits = readout.unembed(zero)[0, numbers]
        else:
            logits = readout.some(zero, numbers)[0]
        found = [torch.autograd.grad(one, zero, retain_graph=True)[0][0].double() for one in logits]
    return dict(zip(tokens, found, strict=True)), dict(
        zip(tokens, logits.detach().double().tolist(), strict=True)
    )
