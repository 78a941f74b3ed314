"""Reading attention: the weights and the values of every head, whatever implementation computes it.

torch's functions are watched while an attention module runs: behind torch's softmax, or in torch's
scaled dot-product attention, which is asked again for its weights. So masks, windows, groups of
heads and rotations are in what is read, and the pass itself stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.overrides import TorchFunctionMode

from vlmlens._display import brief, shape
from vlmlens.errors import SiteSilent
from vlmlens.passes.activation import check_axis
from vlmlens.passes.compiling import uncompiled
from vlmlens.passes.forwards import Forward, replaced_forward
from vlmlens.passes.tracing import depth
from vlmlens.rows.uploads import uploaded_array
from vlmlens.sites import Site

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch
    from vlmlens.passes.model import Model
    from vlmlens.tokens import TokenLayout

SCALED_DOT_PRODUCT = torch.nn.functional.scaled_dot_product_attention
SOFTMAX = (torch.nn.functional.softmax, torch.softmax, torch.Tensor.softmax)
OPERANDS = ("query", "key", "value")
_PRODUCTS = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm)


@dataclass(frozen=True, slots=True)
class Attention:
    """What the attention of one module computes in a pass.

    Args:
        weights: float `[samples, heads, queries, keys]`; over keys they sum to 1.
        values: `[samples, heads, keys, size]`: what each key gives, per query head.
    """

    weights: torch.Tensor
    values: torch.Tensor

    def of(self, layout: TokenLayout) -> Attention:
        """That of one sample: `[heads, n, n]` and `[heads, n, size]`, with its own n rows.

        Args:
            layout: The rows of the sample on the site's axis.
        """
        rows = uploaded_array(layout.rows, self.weights.device)
        sample = int(rows[0]) // self.weights.shape[2]
        own = rows % self.weights.shape[2]
        return Attention(self.weights[sample][:, own][:, :, own], self.values[sample][:, own])

    def __repr__(self) -> str:
        return brief(self, f"weights {shape(self.weights)}", f"values {shape(self.values)}")


See: TypeAlias = Callable[[Site, Attention], None]
"""A function that is called with a site and its attention during the pass."""


@contextmanager
def attended(vlm: Model, sites: Iterable[Site], see: See) -> Iterator[None]:
    """Call `see` with the attention of each site in the passes inside; once per call of a module.

    Args:
        vlm: The model.
        sites: Attention modules whose heads are known.
        see: What to call.

    Raises:
        SiteSilent: The heads of a module are not known; or, in a pass, it does not compute
            attention once, in a way that is known.
    """
    with ExitStack() as stack:
        wanted = list(sites)
        stack.enter_context(uncompiled(vlm.module, [site.path for site in wanted]))
        for site in wanted:
            heads = vlm.sites.heads(site)
            if heads is None:
                raise unread(site, "how many heads it has is not known")
            wrap = partial(_watched, site, heads.count, see, depth())
            stack.enter_context(replaced_forward(vlm.module.get_submodule(site.path), wrap))
        yield


def attention_of(vlm: Model, batch: Batch, patterns: Iterable[str | Site]) -> dict[str, Attention]:
    """The attention of some modules in one pass of a batch; the implementation of `attention`."""
    found: dict[str, Attention] = {}
    sites: list[Site] = []
    for item in patterns:
        sites += [item] if isinstance(item, Site) else vlm.sites.resolve(item)
    for site in sites:
        check_axis(site, batch.layouts)

    def keep(site: Site, attention: Attention) -> None:
        found[site.name] = attention

    with torch.inference_mode(), attended(vlm, sites, keep):
        vlm.forward(batch)
    missing = [site for site in sites if site.name not in found]
    if missing:
        raise unread(missing[0], "it did not run in this pass")
    return {site.name: found[site.name] for site in sites}


def unread(site: Site, why: str) -> SiteSilent:
    """The error of a module whose attention cannot be read."""
    return SiteSilent(
        f"The attention of {site.name!r} ({site.path}) cannot be read: {why}.",
        subject=site.name,
        hint="Name attention modules of the language model, as llm.block.*.attn, and use "
        "--attention sdpa or eager.",
    )


def _watched(site: Site, heads: int, see: See, began: int, plain: Forward) -> Forward:
    @wraps(plain)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if depth() != began:
            return plain(*args, **kwargs)
        with _Reading() as reading:
            output = plain(*args, **kwargs)
        see(site, reading.attention(site, heads))
        return output

    return forward


class _Reading(TorchFunctionMode):
    """Keeps the weights and the values of the attention that a module computes in one call."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """See `TorchFunctionMode`: called for every function of torch."""
        del types
        given = dict(kwargs or {})
        output = func(*args, **given)
        if func is SCALED_DOT_PRODUCT:
            self._found.append(_asked_again(args, given))
        elif func in SOFTMAX:
            self._found.append((output, None))
        elif func in _PRODUCTS and self._found and self._found[-1][1] is None:
            weights, _ = self._found[-1]
            if args[0].shape == weights.shape:
                self._found[-1] = (weights, args[1])
        return output

    def attention(self, site: Site, heads: int) -> Attention:
        """What was kept.

        Raises:
            SiteSilent: The module computed no attention, or several; or it has another form.
        """
        if len(self._found) != 1:
            times = len(self._found)
            raise unread(
                site,
                f"it calls torch's softmax or scaled dot-product attention {times} times, not once",
            )
        weights, values = self._found[0]
        if values is None:
            raise unread(site, "what it does with the weights is not known")
        if weights.ndim == 3:
            weights = weights.unflatten(0, (-1, heads))
        keys = values.shape[-2]
        values = values.reshape(len(weights), -1, keys, values.shape[-1])
        if weights.shape[1] != heads or heads % values.shape[1]:
            raise unread(site, f"its weights have the shape {tuple(weights.shape)}")
        return Attention(weights, values.repeat_interleave(heads // values.shape[1], 1))


def _asked_again(args: Sequence[Any], given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of scaled dot-product attention: what it gives where each key's value is its own.

    They are computed in float32.
    """
    named = {**dict(zip(OPERANDS, args[:3], strict=False)), **given}
    value = named["value"]
    keys = value.shape[-2]
    own = torch.eye(keys, device=value.device).expand(*value.shape[:-1], keys)
    rest = [_exact(item) for item in args[3:]]
    options = {name: _exact(item) for name, item in given.items() if name not in OPERANDS}
    weights = SCALED_DOT_PRODUCT(
        named["query"].float(), named["key"].float(), own, *rest, **options
    )
    return weights, value


def _exact(item: Any) -> Any:
    exact = isinstance(item, torch.Tensor) and item.is_floating_point()
    return item.float() if exact else item
