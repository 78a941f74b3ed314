"""Whether a head writes what it reads: the logits that its own output raises directly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch

from vlmlens.abc import ModelAdapter, Readout
from vlmlens.sites import Site

Map = Callable[[torch.Tensor], torch.Tensor]
_SMALL = 1e-2
"""So small are the residual streams that are unembedded: there a soft cap changes nothing."""


def copying_of(
    vlm: ModelAdapter, attention: Site
) -> Callable[[torch.Tensor, torch.Tensor, Sequence[int]], list[float | None]] | None:
    """A function that gives the copying score of each head of a module; None if it is not known.

    For a row, the logits that the head's output adds are taken for some tokens, less their mean.
    Those above 0 are the head's gain. The score is the share of the gain that falls on a token,
    averaged with the attention that the head pays to each: 1 if it raises just what it reads, and
    1 / tokens by chance. A positive factor of a whole row does not change it. So the scales of
    norms, which are frozen at those of the run, need not be known.

    The function's arguments: what the heads give to the output projection, side by side,
    `[rows, width]`; the attention that each pays to each token, `[heads, rows, tokens]`; the ids of
    the tokens.

    Args:
        vlm: The model.
        attention: An attention module with heads.
    """
    readout, heads = vlm.readout(), vlm.sites.heads(attention)
    if readout is None or heads is None:
        return None
    projection = vlm.module.get_submodule(heads.projection)
    added_at = _added_at(vlm, attention)
    if added_at is None or not _is_map(projection):
        return None
    norm = None if added_at == attention.path else vlm.module.get_submodule(added_at)

    def scores(
        given: torch.Tensor, paid: torch.Tensor, tokens: Sequence[int]
    ) -> list[float | None]:
        found: list[float | None] = []
        for head in range(heads.count):
            alone = torch.zeros_like(given)
            alone[:, slice(*heads.columns(head))] = given[:, slice(*heads.columns(head))]
            added = _linear(projection, alone).float()
            through = added if norm is None else _direction(norm, added.to(given.dtype))
            final = _direction(readout.norm, through)
            found.append(_share(_logits(readout, final, tokens).cpu(), paid[head].cpu()))
        return found

    return scores


def _is_map(projection: torch.nn.Module) -> bool:
    """Whether a module is an output projection that takes rows and nothing else."""
    try:
        inspect.signature(projection.forward).bind(None)
    except TypeError:
        return False
    return any(True for _ in projection.parameters())


def _added_at(vlm: ModelAdapter, attention: Site) -> str | None:
    """Path of the module whose output joins the residual stream: the attention, or a norm behind.

    None: it is not known.
    """
    found = vlm.sites.matching(f"{attention.name.removesuffix('.attn')}.attn_out")
    return found[0].path if len(found) == 1 else None


def _linear(map_of: Map, hidden: torch.Tensor) -> torch.Tensor:
    """What a map does beside adding a constant."""
    return (map_of(hidden) - map_of(-hidden)) / 2


def _direction(norm: Map, hidden: torch.Tensor) -> torch.Tensor:
    """What a norm of fixed scale makes of rows, up to a positive factor of each."""
    spread = hidden.float().square().mean(-1, keepdim=True).sqrt()
    tiny = torch.finfo(torch.float32).tiny
    even = (hidden / spread.clamp(min=tiny)).to(hidden.dtype)
    made = _linear(norm, even).float()
    return torch.where((spread > tiny).to(made.device), made, 0)


def _logits(readout: Readout, hidden: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    ids = torch.tensor(tokens)
    some = readout.some

    def unembed(rows: torch.Tensor) -> torch.Tensor:
        return readout.unembed(rows)[..., ids] if some is None else some(rows, ids)

    return _linear(unembed, hidden * _SMALL).float()


def _share(logits: torch.Tensor, paid: torch.Tensor) -> float | None:
    """The share of the gain on tokens that are attended to; None where nothing is raised."""
    gain = (logits - logits.mean(-1, keepdim=True)).clamp(min=0)
    whole = gain.sum(-1, keepdim=True)
    raises = whole[:, 0] > 0
    paid = paid[raises].double()
    if not raises.any() or not float(paid.sum()):
        return None
    return float((paid * (gain / whole)[raises]).sum() / paid.sum())
