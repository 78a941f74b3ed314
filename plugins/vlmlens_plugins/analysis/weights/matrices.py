"""The matrices of every head, read from what the attention module does to chosen rows.

No module of a family is named. The module is run alone, on unit vectors, with the arguments that a
pass gives it; queries, keys and values per head are what torch's attention is called with. So
fused projections, groups of heads and low-rank additions are in what is read. Every reading is
checked on random rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from vlmlens.abc import ModelAdapter
from vlmlens.errors import EditError, SiteError
from vlmlens.passes.activation import input_of, scale_of
from vlmlens.sites import Site
from vlmlens.sites.anatomy import Heads
from vlmlens_plugins.analysis.weights.calling import Alone, Call, Unreadable, block_of, in_float32
from vlmlens_plugins.analysis.weights.norms import Norm, near, read_norm

_FAILURES = (RuntimeError, TypeError, ValueError, IndexError, SiteError, EditError)
"""What a module may raise that is called in another way than by its model."""
_UNKNOWN = "the norm before it is not known, and not folded in"


@dataclass(frozen=True, slots=True)
class HeadMatrices:
    """The matrices of the heads of one attention module, float32, without biases.

    A head gives `output.T @ (weighted mean of value @ x)`; its scores are `(query @ x) . (key @ y)`
    before the factor of attention, for two rows at one position.

    Args:
        query: `[heads, size, width]`; None: queries or keys are not linear in the input.
        key: Likewise, per query head.
        value: `[heads, size, width]`, per query head.
        output: `[heads, size, width]`: what each coordinate of a head writes.
        kv_count: How many heads of keys and values there are.
        why: Why there are no queries and keys.
        norm: Whether the norms around the module are folded in; or why not.
    """

    query: torch.Tensor | None
    key: torch.Tensor | None
    value: torch.Tensor
    output: torch.Tensor
    kv_count: int
    why: str = ""
    norm: str = ""


def read_matrices(vlm: ModelAdapter, site: Site, call: Call, *, fold: bool = True) -> HeadMatrices:
    """The matrices of all heads of an attention module.

    Beside them, it needs as much memory as one call of the module in the pass, and its weights in
    float32.

    Args:
        vlm: The model.
        site: The module.
        call: How a pass calls it, from `calls`.
        fold: Whether the norm before attention and what scales its output are folded in.

    Raises:
        Unreadable: The module is not linear in the way that heads are, or cannot be run alone.
    """
    heads = vlm.sites.heads(site)
    if heads is None:
        raise Unreadable("how many heads it has is not known")
    module = vlm.module.get_submodule(site.path)
    try:
        with torch.no_grad(), in_float32([module]):
            alone = Alone(vlm, site, heads, call)
            found = _read(alone, heads)
        return _folded(vlm, site, call, found) if fold else found
    except _FAILURES as error:
        said = str(error).strip().partition("\n")[0][:200]
        raise Unreadable(f"it cannot be run alone ({type(error).__name__}: {said})") from error


def _read(alone: Alone, heads: Heads) -> HeadMatrices:
    resting = alone.respond(torch.zeros(alone.rows, alone.width))
    parts: list[list[torch.Tensor]] = [[], [], []]
    for rows, count in _unit_rows(alone.rows, alone.width):
        given = alone.respond(rows)
        for part, now, before in (
            (parts[0], given.query, resting.query),
            (parts[1], given.key, resting.key),
            (parts[2], given.value, resting.value),
        ):
            part.append((now - before)[:, :count].transpose(1, 2).contiguous())
    query, key, value = (torch.cat(part, 2) for part in parts)
    width = heads.count * heads.size
    silent = alone.write(torch.zeros(alone.rows, width))
    written = [
        (alone.write(rows) - silent)[:count] for rows, count in _unit_rows(alone.rows, width)
    ]
    output = torch.cat(written).unflatten(0, (heads.count, heads.size)).contiguous()
    return _checked(alone, resting, HeadMatrices(query, key, value, output, heads.kv_count))


def _checked(alone: Alone, resting: object, found: HeadMatrices) -> HeadMatrices:
    """The matrices, once they give what the module gives on random rows.

    Raises:
        Unreadable: They do not.
    """
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(alone.rows, alone.width, generator=random)
    given = alone.respond(rows)
    rows = rows.to(alone.device)

    def fits(name: str) -> bool:
        matrix, before = getattr(found, name), getattr(resting, name)
        return near(getattr(given, name) - before, torch.einsum("hsw,rw->hrs", matrix, rows))

    if not fits("value"):
        raise Unreadable("what its heads read is not linear in its input")
    same = rows[:1].expand(alone.rows, -1)
    whole = alone.respond(same).written - resting.written  # type: ignore[attr-defined]
    expected = torch.einsum("hsw,w,hsv->v", found.value, rows[0], found.output)
    if not near(whole, expected.expand_as(whole)):
        raise Unreadable("what it gives is not the sum of what its heads write")
    wrong = [name for name in ("query", "key") if not fits(name)]
    if wrong:
        why = "queries and keys are not linear in the input (they are normalised, or turned by a "
        return replace(found, query=None, key=None, why=why + "position that is not an argument)")
    return found


def _unit_rows(rows: int, width: int) -> Iterator[tuple[torch.Tensor, int]]:
    """Unit vectors in pieces of so many rows, and how many of a piece are unit vectors."""
    for start in range(0, width, rows):
        piece = torch.zeros(rows, width)
        count = min(rows, width - start)
        piece[torch.arange(count), start + torch.arange(count)] = 1
        yield piece, count


def _folded(vlm: ModelAdapter, site: Site, call: Call, found: HeadMatrices) -> HeadMatrices:
    """With the weight of the norm before it, and what scales its output behind it."""
    before, said = _norm_before(vlm, site, call)
    output = _behind(vlm, site, found.output)
    if before is None:
        return replace(found, output=output, norm=said)
    return replace(
        found,
        query=None if found.query is None else before.before(found.query),
        key=None if found.key is None else before.before(found.key),
        value=before.before(found.value),
        output=output,
        norm=said,
    )


def _norm_before(vlm: ModelAdapter, site: Site, call: Call) -> tuple[Norm | None, str]:
    """The norm that makes the module's input out of its block's, and how it was found."""
    block = block_of(vlm, site)
    own = input_of(call.arguments, site).float()
    if block is None or call.block is None or call.block.shape != own.shape:
        return None, _UNKNOWN
    if not call.block.any():  # any norm would do
        return None, _UNKNOWN
    if near(own, call.block.float(), 1e-6):
        return None, "no norm before it"
    for part in vlm.module.get_submodule(block.path).modules():
        weights = list(part.parameters())
        if any(True for _ in part.children()) or any(each.ndim != 1 for each in weights):
            continue
        norm = _as_norm(part, call.block, own)
        if norm is not None:
            return norm, "with the weight of the norm before it"
    return None, _UNKNOWN


def _as_norm(part: torch.nn.Module, start: torch.Tensor, own: torch.Tensor) -> Norm | None:
    """The linear part of a norm if it makes one tensor out of the other."""
    try:
        with torch.no_grad(), in_float32([part]):
            if not near(part(start.float()).float(), own, 2e-2):
                return None
            return read_norm(part, own.shape[-1], own.device)
    except _FAILURES:
        return None


def _behind(vlm: ModelAdapter, site: Site, output: torch.Tensor) -> torch.Tensor:
    """What heads write, as the residual stream gets it: scaled, or with the weight of a norm."""
    block = block_of(vlm, site)
    try:
        branches = [] if block is None else vlm.sites.resolve(f"{block.name}.attn_out")
    except SiteError:
        return output
    for branch in branches:
        if branch.path != site.path and not site.path.startswith(f"{branch.path}."):
            part = vlm.module.get_submodule(branch.path)
            norm = _linear(part, output.shape[-1], output.device)
            output = output if norm is None else norm.after(output)
        scale = scale_of(branch, vlm.module)
        output = output * (scale.to(output) if isinstance(scale, torch.Tensor) else scale)
    return output


def _linear(
    part: Callable[[torch.Tensor], torch.Tensor], width: int, device: torch.device
) -> Norm | None:
    try:
        modules = [part] if isinstance(part, torch.nn.Module) else []
        with torch.no_grad(), in_float32(modules):
            return read_norm(part, width, device)
    except _FAILURES:
        return None
