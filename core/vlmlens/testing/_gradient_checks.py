"""Checks of adapters that are about gradients, attention weights and what adds to logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vlmlens.errors import CompositionError, SiteSilent
from vlmlens.sites import Axis
from vlmlens.testing._adapter_suite import distance, replaced
from vlmlens.testing._checks import expect, skip
from vlmlens.testing._edit_checks import EditChecks

if TYPE_CHECKING:
    import torch

    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.passes.batch import Batch
    from vlmlens.passes.contributions import Contributions
    from vlmlens.passes.gradients import Gradients, Metric
    from vlmlens.sites import Site

_STEP = 1e-7
"""How far activations are moved, relative to their length."""
_NEAR = 1e-4
"""Largest relative distance of a gradient from what it should be, in float64."""
_SUMS = 1e-5
"""Largest distance of a sum from the logit, relative to the logit (at least 1), in float32."""
_READ = 1e-3
"""Weights of attention above this must show in what the head gives."""
MANY = 100_000_000
"""Models of more parameters are not loaded a second time, in float64."""
_TOKENS = (5, 9)


class GradientChecks(EditChecks):
    """What an adapter's gradients, attention weights and contributions are."""

    _exact_models: ClassVar[dict[type, ModelAdapter]] = {}

    def check_gradients_are_slopes(self, folder: Path) -> None:
        """A number changes as its gradients say where sites and inputs are moved, in float64."""
        del folder
        sites = self._sloped()
        batch, inputs = self._exact_batch(self.samples[:1])
        found = self._gradients(batch, sites, inputs)
        moves = _moves({**found.activations, **_inputs(batch, inputs)}, {**found, **found.inputs})
        far = self._off(batch, found, moves)
        wrong = {} if far <= _NEAR else {
            name: each
            for name, move in moves.items()
            if (each := self._off(batch, found, {name: move})) > _NEAR
        }  # fmt: skip
        expect(
            far <= _NEAR,
            f"the gradients are no slopes; they are off by: {wrong or far}. Does the model detach "
            "something, or compute a part without gradients?",
        )

    def check_gradients_of_batches(self, folder: Path) -> None:
        """Gradients in a padded batch are those of the samples alone, in float64."""
        del folder
        self._needs("readout")
        sites = [site for site in self._sloped() if site.side == "out"]
        batch, _ = self._exact_batch(self._two)
        together = self._gradients(batch, sites)
        for i, sample in enumerate(self._two):
            single, _ = self._exact_batch([sample])
            alone = self._gradients(single, sites)
            for site in sites:
                column = f"{site.name}/all"
                one, other = alone.select(column)[0], together.select(column)[i]
                far = float((one - other).norm() / one.norm().clamp(min=1e-30))
                expect(far <= _NEAR, f"{column}, {sample.id}: {far:.1e} away from alone")

    def check_contributions_sum(self, folder: Path) -> None:
        """What heads, MLPs and the rest add to a logit sums to the logit that the model gives."""
        del folder
        self._needs("readout")
        import torch

        batch = self.vlm.encode(self._two)
        try:
            found = self._contributions(batch)
        except (CompositionError, SiteSilent) as error:
            raise skip(error.message) from error  # check_limits_are_said asks why
        logits = self.vlm.forward(batch, logits="last").logits
        assert logits is not None
        real = logits[:, list(_TOKENS)].double()
        total = found.added.sum(0) + found.constant
        for what, numbers in (
            ("the sum", self._from_total(total)),
            ("the total", self._from_total(found.total)),
            ("the logits", found.logits),
        ):
            far = float(((numbers - real).abs() / real.abs().clamp(min=1)).max())
            expect(far <= _SUMS, f"{what} is {far:.1e} away from the logits that the model gives")
        expect(len(set(found.names)) == len(found.names), "two components have the same name")
        for block in self._blocks():
            for joined in self.vlm.sites.matching(f"{block.name}.attn.heads"):
                heads = self.vlm.sites.heads(joined)
                assert heads is not None
                own = [f"{joined.name}[{head}]" for head in range(heads.count)]
                lacking = set(own) - set(found.names)
                expect(not lacking, f"nothing is said of {', '.join(sorted(lacking))}")
        expect(bool(torch.isfinite(found.added).all()), "a contribution is not finite")

    def check_attention_is_read(self, folder: Path) -> None:
        """Weights of attention sum to 1, say what is read, and are the same in eager and sdpa."""
        del folder
        import torch

        batch, tried = self.vlm.encode(self._two), 0
        for site in self._read_attentions():
            try:
                found = [self._attention(batch, site) for _ in self._implementations()]
            except SiteSilent:
                continue  # check_limits_are_said asks why
            for own in found:
                far = max(distance(a, b) for a, b in zip(found[0], own, strict=True))
                expect(far <= self.tolerance * 10, f"{site}: eager and sdpa differ by {far:.1e}")
            given, changed = self._given(batch, site), self._changed_by_last(batch, site)
            for i, weights in enumerate(found[0][::2]):
                far = distance(weights.sum(-1), weights.sum(-1) * 0 + 1)
                expect(far <= self.tolerance, f"{site}: weights sum to 1 only within {far:.1e}")
                reads = weights[:, :, -1].amax(0)
                expect(
                    bool(torch.where(changed[i], reads > 0, reads < _READ).all()),
                    f"{site}: rows that depend on the last one are not those with weights for it",
                )
                if not self._gated(site):
                    made = (weights @ found[0][1::2][i]).transpose(0, 1).flatten(1)
                    far = distance(given[i], made)
                    expect(far <= self.tolerance, f"{site}: weights times values: {far:.1e} off")
            tried += 1
        if not tried:
            raise skip("no attention of the language side can be read")

    # ------------------------------------------------------------------ parts

    def _ungiven(self) -> Iterator[tuple[str, str]]:
        """Which gradients, contributions and weights are refused: a word, and why."""
        batch = self.vlm.encode(self.samples[:1])
        wanted = self._sloped()[:1]
        tries: dict[str, Any] = {
            "gradients": lambda: self.vlm.gradients(batch, wanted, _difference),
            "contributions": lambda: self._contributions(batch),
        }
        for site in self._read_attentions():
            tries[f"attention weights of {site.name}"] = partial(self._attention, batch, site)
        for what, attempt in tries.items():
            try:
                attempt()
            except (CompositionError, SiteSilent) as error:
                yield " ".join(what.split()[:2]).removesuffix(" of"), f"{what}: {error.message}"

    def _sloped(self) -> list[Site]:
        """Sites on every axis, before and inside blocks, at which gradients are checked."""
        first = (self._blocks() or self._last_blocks())[0].name
        heads = next(
            iter(self.vlm.sites.matching(f"{first.rpartition('.')[0]}.*.attn.heads")), None
        )
        names = ["vision.block.0", "projector", f"{first}:in", "llm.norm"]
        found = [site for name in names for site in self.vlm.sites.matching(name)[:1]]
        return [*found, *([heads] if heads is not None else [])]

    def _exact_model(self) -> ModelAdapter:
        from vlmlens.testing._exact import make_exact

        suite = self._suite()
        if suite not in self._exact_models:
            if sum(each.numel() for each in self.vlm.module.parameters()) > MANY:
                raise skip("in float64 it would take twice the memory; a tiny checkpoint will do")
            self._exact_models[suite] = make_exact(self.load())
        return self._exact_models[suite]

    def _exact_batch(self, samples: Sequence[Any]) -> tuple[Batch, list[str]]:
        """A batch in float64, and the names of its inputs that may vary."""
        from vlmlens.testing._exact import exact_batch

        batch = exact_batch(self.vlm.encode(samples))
        names = [name for name, value in batch.inputs.items() if _is_float(value)]
        return batch, [name for name in names if "mask" not in name]  # where models ask if > 0

    def _gradients(
        self, batch: Batch, sites: Iterable[Site], inputs: Sequence[str] = ()
    ) -> Gradients:
        """Gradients in float64: of logits; of the last vision block where there are none."""
        from vlmlens.testing._exact import exact

        metric, at = self._measured()
        try:
            with exact():
                vlm = self._exact_model()
                return vlm.gradients(batch, list(sites), metric, inputs=inputs, at=at)
        except CompositionError as error:
            raise skip(error.message) from error  # check_limits_are_said asks why

    def _measured(self) -> tuple[Metric, Site | None]:
        if self.offers("readout"):
            return _difference, None
        return (lambda block: block.flatten()[:8].sum()[None]), self._last_blocks()[0]

    def _off(self, batch: Batch, found: Gradients, moves: Mapping[str, torch.Tensor]) -> float:
        """How far, relatively, the slope along some moves is from what the gradients say."""
        from vlmlens.passes.tracing import trace_forward
        from vlmlens.testing._exact import exact

        metric, at = self._measured()
        vlm, all_gradients = self._exact_model(), {**found, **found.inputs}
        said = sum(float((all_gradients[name] * move).sum()) for name, move in moves.items())
        values = []
        for step in (_STEP, -_STEP):
            edits = {
                name: partial(_moved, move * step) for name, move in moves.items() if name in found
            }
            inputs = {
                name: batch.inputs[name] + move * step
                for name, move in moves.items()
                if name in found.inputs
            }
            with exact(), vlm.edited(edits):
                trace = trace_forward(
                    vlm,
                    replaced(batch, **inputs),
                    [at] if at else [],
                    logits="none" if at else "last",
                )
            given = trace.logits if at is None else trace[at.name]
            assert given is not None
            values.append(float(metric(given).sum()))
        slope = (values[0] - values[1]) / (2 * _STEP)
        return abs(slope - said) / max(abs(said), 1e-30)

    def _contributions(self, batch: Batch) -> Contributions:
        from vlmlens.passes.contributions import contributions

        return contributions(self.vlm, batch, [list(_TOKENS)] * len(batch))

    def _from_total(self, total: torch.Tensor) -> torch.Tensor:
        """The logits of tokens that a final row has whose logits before a soft cap are these.

        That row is made from the unembedding alone: it lies along the token's own direction.
        """
        import torch

        readout = self.vlm.readout()
        assert readout is not None
        (site,) = self.vlm.sites.resolve(readout.site)
        width = self.vlm.widths()[site.path]
        assert width is not None
        found, small = total.clone(), 1e-3
        with torch.inference_mode():
            device = total.device
            nothing = readout.unembed(torch.zeros(1, width, device=device)).double()
            units = readout.unembed(torch.eye(width, device=device) * small).double()
            for k, token in enumerate(_TOKENS):
                direction = (units[:, token] - nothing[0, token]) / small
                along = (total[:, k] - nothing[0, token])[:, None] * direction
                rows = (along / direction.square().sum()).float()
                found[:, k] = readout.unembed(rows)[:, token].double()
        return found

    def _read_attentions(self) -> list[Site]:
        """The attention of the last block of each language stack, where its heads are known.

        Without text, that of the vision tower.
        """
        sides = (Axis.LLM, Axis.ENCODER) if self.text else (Axis.VISION,)
        return [site for site, _ in self._attentions() if site.axis in sides]

    def _attention(self, batch: Batch, site: Site) -> list[torch.Tensor]:
        """Weights and values of each sample, in turn."""
        read = self.vlm.attention(batch, [site])[site.name]
        samples = [read.of(layout) for layout in batch.layouts[site.axis].samples]
        return [part for own in samples for part in (own.weights, own.values)]

    def _given(self, batch: Batch, site: Site) -> Any:
        """What heads give, side by side, per sample."""
        joined = f"{site.name}.heads"
        return self.vlm.trace(batch, [joined]).select(f"{joined}/all")

    def _changed_by_last(self, batch: Batch, site: Site) -> list[torch.Tensor]:
        """Which rows' heads change, per sample, if the last row that the block gets is another."""
        block = site.name.removesuffix(".attn")
        with self.vlm.edited({f"{block}:in/all[-1]": lambda rows: rows * -0.5}):
            after = self._given(batch, site)
        before = self._given(batch, site)
        return [(a != b).any(-1) for a, b in zip(before, after, strict=True)]


def _difference(logits: torch.Tensor) -> torch.Tensor:
    right, wrong = _TOKENS
    return logits[:, right] - logits[:, wrong]


def _is_float(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _inputs(batch: Batch, names: Sequence[str]) -> dict[str, torch.Tensor]:
    return {name: batch.inputs[name] for name in names}


def _moves(
    places: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A direction for each place: half along its gradient and half at random.

    They are as long as the activations, or shorter, so that each adds the same to the slope.
    """
    import torch

    weights = {
        name: float(gradients[name].norm()) * float(places[name].norm()) for name in gradients
    }
    least = min((weight for weight in weights.values() if weight), default=0.0)
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, gradient in gradients.items():
        chance = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        chance = chance.to(gradient.device)
        share = least / weights[name] if weights[name] else 1.0
        unit = gradient / gradient.norm().clamp(min=1e-30) + chance / chance.norm()
        found[name] = unit * places[name].norm() * share
    return found


def _moved(move: torch.Tensor, activation: torch.Tensor) -> torch.Tensor:
    return activation + move
