"""A check of adapters: every component of a model can be trained on answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.errors import CompositionError
from vlmlens.testing._checks import expect, skip
from vlmlens.testing._gradient_checks import MANY
from vlmlens.testing._limit_checks import LimitChecks

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.batch import Batch
    from vlmlens.passes.frozen_prefix import FrozenPrefix

    Values = Mapping[str, torch.Tensor]

_ANSWERS = ("yes", "perhaps")
_NEAR = 1e-6
"""Largest distance of a gradient with the prefix from that of a whole pass, relative to the largest
gradient, in float32."""
_LENGTH = 2e-2
"""The length of a step, relative to that of the weights, at first; it is halved until the loss
falls."""
_HALVINGS = 12


class TuningChecks(LimitChecks):
    """What training a component of an adapter's model does."""

    def check_tuning(self, folder: Path) -> None:
        """A step on any component lowers the answers' loss, and the frozen prefix changes nothing.

        A pass in which frozen modules give back what they gave has the loss and gradients of a
        whole one. A step leaves the other components as they are, bit for bit.
        """
        del folder
        from vlmlens.tuned.components import components_of

        self._needs("readout")
        if sum(each.numel() for each in self.vlm.module.parameters()) > MANY:
            raise skip("its weights would be in memory twice; a tiny checkpoint will do")
        batch = self.vlm.encode(self._two, answers=_ANSWERS)
        try:
            with self._restored() as weights:
                for component in components_of(self.vlm):
                    self._check_component(component, batch, weights)
        except CompositionError as error:
            raise skip(error.message) from error  # check_limits_are_said asks why

    def _check_component(self, component: str, batch: Batch, weights: Values) -> None:
        """Everything that is promised of one component; its weights are then as before."""
        from vlmlens.passes.frozen_prefix import FrozenPrefix

        with self._trainable(component) as chosen:
            loss, whole = self._slope(batch, chosen)
            steep = max((float(each.abs().max()) for each in whole.values()), default=0.0)
            expect(steep > 0, f"{component}: the loss does not depend on it")
            prefix = FrozenPrefix(self.vlm, batch)
            with prefix.given():
                _, found = self._slope(prefix.batch, chosen)
            far = max(float((whole[name] - found[name]).abs().max()) for name in whole) / steep
            expect(far <= _NEAR, f"{component}, gradients: the frozen prefix is {far:.1e} off")
            after = self._after_step(prefix, chosen, whole, loss)
            expect(after < loss, f"{component}: no step along the gradient lowers the loss")
            far = abs(after - self._loss(batch))
            expect(far <= self.tolerance, f"{component}, a step on: the prefix is {far:.1e} off")
            moved = self._moved(weights, chosen)
            expect(not moved, f"a step on {component} changed {', '.join(moved[:3])}")
            _put(chosen, weights)

    @contextmanager
    def _restored(self) -> Iterator[Values]:
        """The values of all weights, which the model has again afterwards."""
        named = dict(self.vlm.module.named_parameters())
        weights = {name: value.detach().clone() for name, value in named.items()}
        try:
            yield weights
        finally:
            _put(named, weights)

    @contextmanager
    def _trainable(self, component: str) -> Iterator[dict[str, torch.nn.Parameter]]:
        """The parameters of a component, which want gradients inside."""
        from vlmlens.tuned.components import parameters_of

        chosen = parameters_of(self.vlm, component)
        before = {name: value.requires_grad for name, value in chosen.items()}
        try:
            for value in chosen.values():
                value.requires_grad_(True)
            yield chosen
        finally:
            for name, value in chosen.items():
                value.requires_grad_(before[name])

    def _slope(self, batch: Batch, chosen: Mapping[str, Any]) -> tuple[float, Values]:
        """The loss of a batch, and its gradients."""
        import torch

        from vlmlens.passes.answer_loss import answer_loss
        from vlmlens.passes.gradients import check_differentiable, cut_off
        from vlmlens.passes.modes import differentiable

        check_differentiable(self.vlm)
        with differentiable():
            loss = answer_loss(self.vlm, batch)
            if not loss.requires_grad:
                raise cut_off(next(iter(chosen)))
            found = torch.autograd.grad(
                loss, list(chosen.values()), allow_unused=True, materialize_grads=True
            )
        return float(loss.detach()), dict(zip(chosen, found, strict=True))

    def _loss(self, batch: Batch) -> float:
        from vlmlens.passes.answer_loss import answer_loss

        return float(answer_loss(self.vlm, batch))

    def _after_step(
        self, prefix: FrozenPrefix, chosen: Mapping[str, Any], slope: Values, loss: float
    ) -> float:
        """The loss after a step down, as long as one may be."""
        import torch

        start = {name: value.detach().clone() for name, value in chosen.items()}
        rate = _LENGTH * _length(start) / _length(slope)
        after = loss
        for _ in range(_HALVINGS):
            optimizer = torch.optim.SGD(chosen.values(), lr=rate)
            for name, value in chosen.items():
                value.grad = slope[name].clone()
            optimizer.step()
            optimizer.zero_grad()
            with prefix.given():
                after = self._loss(prefix.batch)
            if after < loss:
                return after
            _put(chosen, start)
            rate /= 2
        return after

    def _moved(self, weights: Values, chosen: Mapping[str, Any]) -> list[str]:
        """The weights outside of a component that are not what they were."""
        named = self.vlm.module.named_parameters()
        return [
            name
            for name, value in named
            if name not in chosen and not bool((value == weights[name]).all())
        ]


def _put(into: Mapping[str, Any], values: Values) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in into.items():
            parameter.copy_(values[name])


def _length(values: Values) -> float:
    return float(sum(float(each.square().sum()) for each in values.values()) ** 0.5)
