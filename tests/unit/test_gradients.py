"""Gradients of a number that a pass gives, against plain backward passes made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from vlmlens.errors import CompositionError, SiteNotFound, SiteSilent, SpecError
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.passes.gradients import log_probability, logit, logit_difference
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, request, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens_adapter_minicpm.older.checks import MiniCpm2Checks

BLOCK = "llm.block.0"
ONE = Sample("a", "What is this?", (picture(32, 32, seed=1),))
DIFFERENCE = logit_difference([5], [9])


def encoded(vlm: TinyLlava) -> Batch:
    return vlm.encode([ONE])


@contextmanager
def leaf(vlm: TinyLlava, path: str, side: str = "out") -> Iterator[list[torch.Tensor]]:
    """Cut the pass at a module: what it gives, or is given, becomes a leaf of the graph."""
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor.detach().clone().requires_grad_())
        return found[-1]

    def after(module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return keep(output)
        return (keep(output[0]), *output[1:])

    def before(module: Any, args: Any) -> Any:
        return (keep(args[0]), *args[1:])

    module: Any = vlm.module.get_submodule(path)
    hook = module.register_forward_hook(after, prepend=True) if side == "out" else None
    hook = hook or module.register_forward_pre_hook(before)
    try:
        yield found
    finally:
        hook.remove()


def by_hand(vlm: TinyLlava, path: str, side: str = "out") -> torch.Tensor:
    """The gradient of the logit difference by a plain backward pass."""
    with leaf(vlm, path, side) as found:
        logits = vlm.module(**encoded(vlm).inputs).logits[0, -1]
    (logits[5] - logits[9]).backward()
    gradient = found[0].grad
    vlm.module.zero_grad()
    assert gradient is not None
    return gradient


@pytest.mark.parametrize("name", [BLOCK, "llm.block.1.mlp", "vision.block.1", "projector"])
def test_gradients_are_those_of_a_plain_backward_pass(name: str) -> None:
    vlm = tiny_model()
    found = vlm.gradients(encoded(vlm), name, DIFFERENCE)
    expected = by_hand(vlm, found.sites[name].path)
    torch.testing.assert_close(found[name].reshape(expected.shape), expected, atol=1e-6, rtol=1e-4)
    assert all(parameter.grad is None for parameter in vlm.module.parameters())


def test_gradients_of_a_head_are_columns_of_the_projection_s_input() -> None:
    vlm = tiny_model()
    found = vlm.gradients(encoded(vlm), ["llm.block.1.attn.heads[2]"], DIFFERENCE)
    (site,) = found.sites.values()
    expected = by_hand(vlm, site.path, "in")
    torch.testing.assert_close(found[site.name], expected[..., 16:24], atol=1e-6, rtol=1e-4)
    assert not torch.allclose(found[site.name], expected[..., 8:16], atol=1e-6)


def test_gradients_at_a_scaled_branch_are_those_at_what_the_block_adds() -> None:
    """The block's output is the residual stream plus the scaled MLP: both have one gradient."""
    vlm = MiniCpm2Checks().vlm
    batch = vlm.encode([ONE])
    found = vlm.gradients(batch, [f"{BLOCK}.mlp_out", BLOCK], DIFFERENCE)
    assert found.sites[f"{BLOCK}.mlp_out"].scale
    torch.testing.assert_close(found[f"{BLOCK}.mlp_out"], found[BLOCK], atol=1e-7, rtol=1e-4)


def test_gradients_under_edits_are_those_of_the_edited_pass() -> None:
    vlm = tiny_model()
    batch = encoded(vlm)
    half: Callable[[torch.Tensor], torch.Tensor] = lambda rows: rows * 0.5  # noqa: E731
    plain = vlm.gradients(batch, [BLOCK, "llm.block.1"], DIFFERENCE)
    with vlm.edited({BLOCK: half}):
        found = vlm.gradients(batch, [BLOCK, "llm.block.1"], DIFFERENCE)
        trace = vlm.trace(batch, [BLOCK], logits="last")
    torch.testing.assert_close(found.activations[BLOCK], trace[BLOCK])
    torch.testing.assert_close(found.value, DIFFERENCE(_given(trace.logits)))
    with leaf(vlm, found.sites[BLOCK].path) as leaves:
        module: Any = vlm.module.get_submodule(found.sites["llm.block.1"].path)
        hook = module.register_forward_pre_hook(lambda m, args: (leaves[0] * 0.5, *args[1:]))
        logits = vlm.module(**batch.inputs).logits[0, -1]
        hook.remove()
    (expected,) = torch.autograd.grad(logits[5] - logits[9], leaves[0])
    torch.testing.assert_close(found[BLOCK], expected * 2, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(found["llm.block.1"], plain["llm.block.1"], atol=1e-4)


def test_gradients_of_pixels() -> None:
    vlm = tiny_model()
    batch = encoded(vlm)
    found = vlm.gradients(batch, [], DIFFERENCE, inputs=["pixel_values"])
    pixels = batch.inputs["pixel_values"].clone().requires_grad_()
    logits = vlm.module(**{**batch.inputs, "pixel_values": pixels}).logits[0, -1]
    (expected,) = torch.autograd.grad(logits[5] - logits[9], pixels)
    torch.testing.assert_close(found.inputs["pixel_values"], expected, atol=1e-6, rtol=1e-4)
    assert not batch.inputs["pixel_values"].requires_grad


def test_gradients_of_an_activation() -> None:
    vlm = tiny_model()
    batch = encoded(vlm)
    found = vlm.gradients(batch, [BLOCK], lambda rows: rows[:, -1, 3], at="llm.block.1")
    last: Any = vlm.module.get_submodule(vlm.sites.canonical["llm.block.1"].path)
    kept: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda m, args, output: kept.append(output))
    with leaf(vlm, found.sites[BLOCK].path) as leaves:
        vlm.module(**batch.inputs)
    hook.remove()
    (expected,) = torch.autograd.grad(kept[0][0, -1, 3], leaves[0])
    torch.testing.assert_close(found[BLOCK], expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found.value, kept[0][:, -1, 3])
    assert found.logits is None
    with pytest.raises(SpecError, match="matches 2"):
        vlm.gradients(batch, [BLOCK], lambda rows: rows[:, -1, 3], at="llm.block.*")


def test_named_metrics() -> None:
    vlm = tiny_model()
    batch = vlm.encode([ONE, Sample("b", "Name it, please:", (picture(32, 32, seed=2),))])
    logits = _given(vlm.forward(batch, logits="last").logits)
    for metric, expected in (
        (logit([5, 9]), torch.stack([logits[0, 5], logits[1, 9]])),
        (log_probability([5, 9]), logits.log_softmax(-1)[[0, 1], [5, 9]]),
        (logit_difference([5, 9], [7, 8]), logits[[0, 1], [5, 9]] - logits[[0, 1], [7, 8]]),
    ):
        torch.testing.assert_close(vlm.gradients(batch, [BLOCK], metric).value, expected)


@pytest.mark.parametrize(("asked", "graph"), [(BLOCK, False), ("vision.block.0", True)])
def test_what_lies_before_the_first_site_is_not_in_the_graph(asked: str, graph: bool) -> None:
    vlm = tiny_model()
    seen: list[bool] = []
    projector: Any = vlm.module.get_submodule(vlm.sites.canonical["projector"].path)
    hook = projector.register_forward_hook(lambda m, a, output: seen.append(output.requires_grad))
    try:
        vlm.gradients(encoded(vlm), [asked], DIFFERENCE)
    finally:
        hook.remove()
    assert seen == [graph]


def test_after_a_plain_pass_nothing_is_left_that_refuses_gradients() -> None:
    vlm = TinyLlava.load(request())
    vlm.forward(encoded(vlm))
    found = vlm.gradients(encoded(vlm), [BLOCK], DIFFERENCE)
    torch.testing.assert_close(
        found[BLOCK], tiny_model().gradients(encoded(vlm), [BLOCK], DIFFERENCE)[BLOCK]
    )
    with torch.inference_mode():
        again = vlm.gradients(encoded(vlm), [BLOCK], DIFFERENCE)
    assert torch.equal(again[BLOCK], found[BLOCK])
    assert vlm.forward(encoded(vlm), logits="last").logits.is_inference()  # type: ignore[union-attr]


def test_a_model_may_write_into_an_activation() -> None:
    vlm = tiny_model()
    block: Any = vlm.module.get_submodule(vlm.sites.canonical["llm.block.1"].path)
    found = []
    for double in (lambda rows: rows * 2, lambda rows: rows.mul_(2)):
        hook = block.register_forward_pre_hook(lambda m, args, d=double: (d(args[0]), *args[1:]))
        found.append(vlm.gradients(encoded(vlm), [BLOCK], DIFFERENCE))
        hook.remove()
    assert torch.equal(found[0][BLOCK], found[1][BLOCK])
    assert torch.equal(found[0].activations[BLOCK], found[1].activations[BLOCK])
    assert float(found[0][BLOCK].norm()) > 0


# ------------------------------------------------------------------ refusals


def test_quantized_weights_are_refused() -> None:
    vlm: Any = TinyLlava.load(request())
    batch = encoded(vlm)
    vlm.module.is_quantized = True
    with pytest.raises(CompositionError, match="quantized"):
        vlm.gradients(batch, [BLOCK], DIFFERENCE)
    vlm.module.is_quantized = False
    vlm.gradients(batch, [BLOCK], DIFFERENCE)
    integers = torch.zeros(2, dtype=torch.int8)
    vlm.module.extra = torch.nn.Parameter(integers, requires_grad=False)
    with pytest.raises(CompositionError, match="quantized"):
        vlm.gradients(batch, [BLOCK], DIFFERENCE)


class InInferenceMode(TinyLlava):
    """An adapter as written before gradients existed."""

    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        with torch.inference_mode():
            return super().forward(batch, logits=logits)


class WithoutGrad(TinyLlava):
    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        with torch.no_grad():
            return super().forward(batch, logits=logits)


@pytest.mark.parametrize(
    ("adapter", "sites", "inputs"),
    [
        (InInferenceMode, [BLOCK], []),
        (InInferenceMode, [], ["pixel_values"]),
        (WithoutGrad, [BLOCK], []),
    ],
)
def test_an_adapter_that_forbids_gradients_is_told_what_to_use(
    adapter: type[TinyLlava], sites: list[str], inputs: list[str]
) -> None:
    vlm = adapter.load(request())
    with pytest.raises(CompositionError, match=r"inference mode") as error:
        vlm.gradients(encoded(vlm), sites, DIFFERENCE, inputs=inputs)
    assert "modes.inference()" in str(error.value.hint)


def test_pixels_that_a_pass_without_gradients_reads_are_refused() -> None:
    vlm = WithoutGrad.load(request())
    with pytest.raises(SiteSilent, match="depends on none of the inputs") as error:
        vlm.gradients(encoded(vlm), [], DIFFERENCE, inputs=["pixel_values"])
    assert "without gradients" in str(error.value.hint)


@pytest.mark.parametrize(
    "metric", [lambda x: x.mean(), lambda x: x, lambda x: 3.0, lambda x: x[:, :2]]
)
def test_a_metric_gives_a_number_per_sample(metric: Any) -> None:
    vlm = tiny_model()
    with pytest.raises(SpecError, match="one number per sample"):
        vlm.gradients(encoded(vlm), [BLOCK], metric)


def test_a_metric_that_depends_on_nothing_is_refused() -> None:
    vlm = tiny_model()
    with pytest.raises(SiteSilent, match="depends on none"):
        vlm.gradients(encoded(vlm), [BLOCK], lambda logits: torch.zeros(len(logits)))


def test_sites_behind_the_number_have_no_gradient_and_those_before_it_have() -> None:
    vlm = tiny_model()
    sites = ["vision.block.0", "llm.block.1"]
    found = vlm.gradients(encoded(vlm), sites, lambda rows: rows[:, -1, 0], at=BLOCK)
    assert not bool(found["llm.block.1"].any())
    assert bool(found["vision.block.0"].any())


def test_unknown_names_are_refused() -> None:
    vlm = tiny_model()
    with pytest.raises(SpecError, match="no input 'pixels'") as error:
        vlm.gradients(encoded(vlm), [], DIFFERENCE, inputs=["pixels"])
    assert "pixel_values" in str(error.value.hint)
    with pytest.raises(SpecError, match="of floats"):
        vlm.gradients(encoded(vlm), [], DIFFERENCE, inputs=["input_ids"])
    with pytest.raises(SiteNotFound):
        vlm.gradients(encoded(vlm), ["llm.block.7"], DIFFERENCE)
    text = vlm.encode([Sample("t", "Hello")])
    with pytest.raises(SiteSilent):
        vlm.gradients(text, ["vision.block.0"], DIFFERENCE)


def _given(logits: torch.Tensor | None) -> torch.Tensor:
    assert logits is not None
    return logits
