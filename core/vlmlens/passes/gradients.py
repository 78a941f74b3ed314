"""Gradients of a number that a pass gives, at sites and at inputs of the model.

Nothing before the first asked site is in the graph, so the vision tower costs no more than in a
plain pass unless its sites or the pixels are asked for. What is kept longer than the pass are the
activations of the asked sites and their gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from vlmlens._display import brief, count
from vlmlens.errors import CompositionError, SiteSilent, SpecError
from vlmlens.passes.activation import check_axis, part_of, scale_of
from vlmlens.passes.modes import differentiable
from vlmlens.passes.tracing import edit_hooks
from vlmlens.passes.untraced import not_traced
from vlmlens.sites import Site

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch, Logits
    from vlmlens.passes.model import Model

Metric: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From logits `[samples, vocabulary]` at the last row of each sample (with `logits="all"`, those of
all positions; with a site, its activation) to one number per sample, `[samples]`."""

Of: TypeAlias = Literal["gradients", "activations"]


def logit(tokens: Sequence[int]) -> Metric:
    """The logit of a token, one for each sample."""
    return lambda logits: _taken(logits, tokens)


def logit_difference(right: Sequence[int], wrong: Sequence[int]) -> Metric:
    """The logit of one token less that of another, one of each for every sample."""
    return lambda logits: _taken(logits, right) - _taken(logits, wrong)


def log_probability(tokens: Sequence[int]) -> Metric:
    """The natural logarithm of a token's probability, one token for each sample."""
    return lambda logits: _taken(logits.float().log_softmax(-1), tokens)


@dataclass(slots=True)
class Gradients(Mapping[str, torch.Tensor]):
    """Gradients of a metric by site name, in the shape of the activations, `[..., width]`.

    Args:
        batch: The batch of the pass.
        sites: The sites by name.
        value: The metric, float `[samples]`.
        activations: The activations at which the gradients were taken, by site name.
        gradients: The gradients by site name.
        inputs: The gradients at inputs of the model, by their name in `Batch.inputs`.
        logits: The logits from which the metric was computed; None if it was computed from an
            activation.
        without: For each group of sites through which no gradient was to flow, the gradients.
    """

    batch: Batch
    sites: Mapping[str, Site]
    value: torch.Tensor
    activations: Mapping[str, torch.Tensor]
    gradients: Mapping[str, torch.Tensor]
    inputs: Mapping[str, torch.Tensor]
    logits: torch.Tensor | None
    without: Sequence[Mapping[str, torch.Tensor]] = ()

    def __getitem__(self, site: str) -> torch.Tensor:
        if site not in self.gradients:
            raise not_traced(site, self.gradients)
        return self.gradients[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.gradients)

    def __len__(self) -> int:
        return len(self.gradients)

    def __repr__(self) -> str:
        sites = count(len(self), "site")
        return brief(self, "", count(len(self.batch), "sample"), sites, *list(self)[:3])

    def select(self, column: str, of: Of = "gradients") -> list[torch.Tensor] | torch.Tensor:
        """A column of the gradients, or of the activations: `select("llm.block.3/last")`.

        Raises:
            SelectorError: The column does not parse, or a sample has no such token.
            SiteNotFound: Its site was not asked for.
        """
        from vlmlens.tokens import Column, select

        parsed = Column.parse(column)
        if parsed.site not in self.sites:
            raise not_traced(parsed.site, self.sites)
        site = self.sites[parsed.site]
        check_axis(site, self.batch.layouts)
        given = self.gradients if of == "gradients" else self.activations
        return select(given[parsed.site], parsed.selector, self.batch.layouts[site.axis], site)


def gradients_of(
    vlm: Model,
    batch: Batch,
    patterns: Iterable[str | Site],
    metric: Metric,
    *,
    inputs: Sequence[str] = (),
    logits: Logits = "last",
    at: str | Site | None = None,
    without: Sequence[Iterable[str | Site]] = (),
) -> Gradients:
    """The implementation of `ModelAdapter.gradients`."""
    sites = {site.name: site for item in patterns for site in _resolved(vlm, item)}
    for site in sites.values():
        check_axis(site, batch.layouts)
    check_differentiable(vlm)
    source = None if at is None else _single(vlm, at)
    ends = [] if source is None else [_whole(source)]
    groups = [{_whole(s) for item in group for s in _resolved(vlm, item)} for group in without]
    closable = [site for group in groups for site in group]
    watch = _Watch(dict.fromkeys([*map(_whole, sites.values()), *ends, *closable]), closable)
    with differentiable():
        fed, leaves = _with_inputs(batch, inputs)
        with edit_hooks(vlm.module, watch.edits()):
            given = vlm.forward(fed, logits="none" if source else logits).logits
        if source is not None:
            given = part_of(watch.kept[_whole(source)], source, vlm.module)
        if given is None:
            raise CompositionError(
                "The model gives no logits, so there is nothing to differentiate.",
                subject="logits",
                hint="Choose a model that writes.",
            )
        if given.is_inference():
            raise cut_off("the model")
        values = _checked(metric(given), len(batch))
        wanted = [*watch.kept.values(), *leaves.values()]
        rounds = []
        for number, closed in enumerate([*groups, set()]):
            watch.closed, more = closed, number < len(groups)
            rounds.append(_differentiated(values, wanted, sites, again=more))
    named = [
        {
            name: _part(found[list(watch.kept).index(_whole(site))], site, vlm.module)
            for name, site in sites.items()
        }
        for found in rounds
    ]
    return Gradients(
        batch,
        sites,
        values.detach(),
        {
            name: part_of(watch.kept[_whole(site)].detach(), site, vlm.module)
            for name, site in sites.items()
        },
        named[-1],
        dict(zip(leaves, rounds[-1][len(watch.kept) :], strict=True)),
        None if source else given.detach(),
        named[:-1],
    )


def check_differentiable(vlm: Model) -> None:
    """Raise an error for a model through which no gradient can be taken.

    Raises:
        CompositionError: Its weights are quantized.
    """
    module: Any = vlm.module
    quantized = getattr(module, "is_quantized", False) or any(
        not parameter.is_floating_point() for parameter in module.parameters()
    )
    if quantized:
        raise CompositionError(
            "No gradient can be taken through quantized weights.",
            subject="quantization",
            hint="Load the model without --quantization, in bfloat16 if memory is short.",
        )


def _resolved(vlm: Model, item: str | Site) -> list[Site]:
    return [item] if isinstance(item, Site) else vlm.sites.resolve(item)


def _single(vlm: Model, item: str | Site) -> Site:
    found = _resolved(vlm, item)
    if len(found) > 1:
        raise SpecError(
            f"The metric is of one site, and {str(item)!r} matches {len(found)}.",
            subject=str(item),
            hint="Name one site.",
        )
    return found[0]


def _whole(site: Site) -> Site:
    """The site of everything that the module gives or is given, whatever is meant of it."""
    return replace(site, name=f"{site.path} ({site.side})", columns=None, scale="", index=None)


class _Watch:
    """Keeps the activations of modules as parts of the graph, which begins with the first."""

    def __init__(self, sites: Iterable[Site], closable: Iterable[Site]) -> None:
        self._sites = list(sites)
        self._closable = set(closable)
        self.kept: dict[Site, torch.Tensor] = {}
        self.closed: set[Site] = set()
        """Through these, no gradient flows."""

    def edits(self) -> list[tuple[Site, Callable[[torch.Tensor], torch.Tensor]]]:
        """What keeps the activation of each site, and hands it on."""
        return [(site, self._keeper(site)) for site in self._sites]

    def _keeper(self, site: Site) -> Callable[[torch.Tensor], torch.Tensor]:
        def keep(activation: torch.Tensor) -> torch.Tensor:
            if activation.is_inference() or not torch.is_grad_enabled():
                raise cut_off(site.path)
            own = activation if activation.requires_grad else activation.detach().requires_grad_()
            self.kept[site] = own
            handed = own.clone()  # models write into some activations
            if site in self._closable:
                handed.register_hook(lambda g: torch.zeros_like(g) if site in self.closed else g)
            return handed

        return keep


def cut_off(where: str) -> CompositionError:
    """The error of a part of a model that runs in inference mode."""
    return CompositionError(
        f"No gradient can be taken: {where} runs in inference mode or without gradients.",
        subject=where,
        hint="In the adapter's `forward`, use `vlmlens.passes.modes.inference()` in place of "
        "`torch.inference_mode()`.",
    )


def _with_inputs(batch: Batch, names: Sequence[str]) -> tuple[Batch, dict[str, torch.Tensor]]:
    """The batch with some inputs as leaves of the graph, and these."""
    leaves: dict[str, torch.Tensor] = {}
    for name in names:
        value = batch.inputs.get(name)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            floats = [
                key
                for key, each in batch.inputs.items()
                if isinstance(each, torch.Tensor) and each.is_floating_point()
            ]
            raise SpecError(
                f"The model has no input {name!r} of floats.",
                subject=name,
                hint=f"It has {', '.join(floats) or 'none'}.",
            )
        leaves[name] = value.detach().clone().requires_grad_()
    return replace(batch, inputs={**batch.inputs, **leaves}), leaves


def _checked(values: torch.Tensor, samples: int) -> torch.Tensor:
    if not isinstance(values, torch.Tensor) or values.shape != (samples,):
        given = tuple(getattr(values, "shape", ())) or type(values).__name__
        raise SpecError(
            f"The metric gave {given}, and expected is one number per sample: ({samples},).",
            subject="metric",
            hint="Do not average or sum over samples.",
        )
    return values


def _differentiated(
    values: torch.Tensor,
    wanted: Sequence[torch.Tensor],
    sites: Mapping[str, Site],
    *,
    again: bool,
) -> list[torch.Tensor]:
    """The gradients; 0 where the metric does not depend on an activation."""
    if not wanted:
        return []
    if not values.requires_grad:
        raise SiteSilent(
            f"The metric depends on none of {', '.join(list(sites)[:3]) or 'the inputs'}, so "
            "there is no gradient.",
            subject=next(iter(sites), "inputs"),
            hint="Choose sites before the logits; and the adapter must not run parts of the model "
            "without gradients.",
        )
    found = torch.autograd.grad(
        values.sum(), list(wanted), allow_unused=True, materialize_grads=True, retain_graph=again
    )
    return list(found)


def _part(gradient: torch.Tensor, site: Site, module: torch.nn.Module) -> torch.Tensor:
    """The gradient at what a site means of a module's activation: its columns, times its scale."""
    if site.scale:
        scale = torch.as_tensor(scale_of(site, module), device=gradient.device)
        if bool((scale == 0).any()):
            raise SiteSilent(
                f"The model multiplies {site.name!r} by 0 ({site.scale}), so the gradient at the "
                "product is not known.",
                subject=site.name,
                hint="Ask at the block itself.",
            )
        gradient = gradient / scale
    return gradient if site.columns is None else gradient[..., slice(*site.columns)]


def _taken(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    chosen = torch.as_tensor(list(tokens), device=logits.device)
    return logits.float().gather(-1, chosen[:, None])[:, 0]
