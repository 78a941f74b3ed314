"""What is frozen is computed once, and passes, losses and gradients stay what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch

import vlmlens.registry  # noqa: F401  edits as text need it
from vlmlens.errors import EditError, SpecError
from vlmlens.passes.answer_loss import answer_loss
from vlmlens.passes.batch import Batch
from vlmlens.passes.frozen_prefix import FrozenPrefix
from vlmlens.passes.modes import differentiable
from vlmlens.samples import Sample
from vlmlens.testing.model import TinyLlava, request, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tuned.components import parameters_of

LANGUAGE = "model.language_model.layers"
TOWER = "model.vision_tower"
PROJECTOR = "model.multi_modal_projector"
COMPONENTS = {
    "projector": {TOWER},
    "llm": {TOWER, PROJECTOR},
    "llm.block.1": {TOWER, PROJECTOR, f"{LANGUAGE}.0"},
    "llm.block.1.mlp.down_proj": {TOWER, PROJECTOR, f"{LANGUAGE}.0"},
    "llm.norm": {TOWER, PROJECTOR, f"{LANGUAGE}.0", f"{LANGUAGE}.1"},
    "vision.block.0.mlp": {f"{TOWER}.embeddings"},
}
"""What is trained, and what then runs once."""


@pytest.fixture
def vlm() -> TinyLlava:
    return tiny_model()


def encoded(vlm: TinyLlava, seed: int = 0, *, shown: bool = True) -> Batch:
    prompts = ("What is this?", "Name the colour of it:")
    images = [(picture(32, 32, seed=seed + i),) if shown else () for i in range(2)]
    samples = [Sample(f"s{i}", text, images[i]) for i, text in enumerate(prompts)]
    return vlm.encode(samples, answers=["red", "blue"])


@contextmanager
def trainable(vlm: TinyLlava, component: str) -> Iterator[list[torch.nn.Parameter]]:
    chosen = list(parameters_of(vlm, component).values())
    for value in chosen:
        value.requires_grad_(True)
    try:
        yield chosen
    finally:
        for value in chosen:
            value.requires_grad_(False)


def slope(
    vlm: TinyLlava,
    batch: Batch,
    chosen: Iterable[torch.Tensor],
    given: AbstractContextManager[None] | None = None,
) -> list[torch.Tensor]:
    """The loss, and its gradients."""
    with differentiable(), given or nullcontext():
        loss = answer_loss(vlm, batch)
        found = torch.autograd.grad(loss, list(chosen), allow_unused=True, materialize_grads=True)
    return [loss.detach(), *found]


def far(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """The largest difference, relative to the largest value."""
    largest = max(float(each.abs().max()) for each in one[1:])
    assert largest > 0
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / largest


@contextmanager
def counted(vlm: TinyLlava, paths: Iterable[str]) -> Iterator[Counter[str]]:
    """How often something inside modules runs."""
    ran = Counter[str]()
    inside = {p: next(m for m in modules(vlm, p) if not list(m.children())) for p in paths}
    handles = [
        module.register_forward_hook(lambda *_, path=path: ran.update([path]))
        for path, module in inside.items()
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def modules(vlm: TinyLlava, path: str) -> list[torch.nn.Module]:
    return list(vlm.module.get_submodule(path).modules())


@pytest.mark.parametrize("component", COMPONENTS)
def test_gradients_are_those_of_whole_passes(vlm: TinyLlava, component: str) -> None:
    batch, frozen = encoded(vlm), COMPONENTS[component]
    with trainable(vlm, component) as chosen:
        whole = slope(vlm, batch, chosen)
        prefix = FrozenPrefix(vlm, batch)
        with counted(vlm, frozen) as ran:
            found = [slope(vlm, prefix.batch, chosen, prefix.given()) for _ in range(2)]
        assert not ran
    assert prefix.kept == "lean"
    assert all(far(whole, each) <= 1e-6 for each in found)
    assert not any("forward" in vars(each) for each in vlm.module.modules())


def test_a_step_later_it_is_still_a_whole_pass(vlm: TinyLlava) -> None:
    batch = encoded(vlm)
    with trainable(vlm, "llm.block.1") as chosen:
        prefix = FrozenPrefix(vlm, batch)
        before = [value.detach().clone() for value in chosen]
        try:
            with torch.no_grad():
                for value in chosen:
                    value.mul_(1.1)
            moved = slope(vlm, batch, chosen)
            assert far(moved, slope(vlm, prefix.batch, chosen, prefix.given())) <= 1e-6
        finally:
            with torch.no_grad():
                for value, own in zip(chosen, before, strict=True):
                    value.copy_(own)


def test_only_what_is_needed_is_kept(vlm: TinyLlava) -> None:
    batch = encoded(vlm)
    rows = batch.inputs["input_ids"].numel()
    others = sum(v.nbytes for k, v in batch.inputs.items() if k != "pixel_values")
    with trainable(vlm, "llm.block.1"):
        late = FrozenPrefix(vlm, batch)
    with trainable(vlm, "projector"):
        early = FrozenPrefix(vlm, batch, device="cpu")
    assert late.bytes == others + rows * 32 * 4  # what one block gives, of width 32
    seen = batch.layouts[vlm.sites.canonical["vision.block.0"].axis].total
    assert early.bytes == others + seen * 32 * 4
    assert not late.batch.inputs["pixel_values"].any()
    assert late.batch.inputs["pixel_values"].shape == batch.inputs["pixel_values"].shape
    assert torch.equal(late.batch.inputs["input_ids"], batch.inputs["input_ids"])


def test_later_batches_are_only_recorded(vlm: TinyLlava) -> None:
    with trainable(vlm, "llm.block.1") as chosen:
        form = FrozenPrefix(vlm, encoded(vlm)).form
        batch = encoded(vlm, seed=5)
        with counted(vlm, [TOWER, f"{LANGUAGE}.0", f"{LANGUAGE}.1"]) as ran:
            later = FrozenPrefix(vlm, batch, form=form)
        assert ran == {TOWER: 1, f"{LANGUAGE}.0": 1}  # and the pass ends where the part begins
        found = slope(vlm, later.batch, chosen, later.given())
        assert far(slope(vlm, batch, chosen), found) <= 1e-6
        assert len(form.plans) == 1
        text = encoded(vlm, shown=False)
        bare = FrozenPrefix(vlm, text, form=form)
        assert len(form.plans) == 2  # no images: another kind of batch
        found = slope(vlm, bare.batch, chosen, bare.given())
        assert far(slope(vlm, text, chosen), found) <= 1e-6


@contextmanager
def hooks(*added: tuple[torch.nn.Module, Callable[..., Any]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in added]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def between_blocks(vlm: TinyLlava, use: Callable[[torch.Tensor], Any]) -> Any:
    """What the projector gave is added after the first block, too."""
    seen: list[torch.Tensor] = []
    first = vlm.module.get_submodule(f"{LANGUAGE}.0")
    return hooks(
        (vlm.module.get_submodule(PROJECTOR), lambda _, __, given: seen.append(given) or None),
        (first, lambda _, __, given: given + use(seen[-1])),
    )


@pytest.mark.parametrize(
    ("use", "kept"),
    [
        (lambda features: features.mean(), "lean"),
        (lambda features: float(features.mean()), "lean"),
        (lambda features: float(features.numpy().mean()), "blocks"),
        (lambda features: torch.rand(()), "nothing"),
    ],
    ids=["added", "as a number", "past torch", "random"],
)
def test_what_is_used_again_is_kept(vlm: TinyLlava, use: Any, kept: str) -> None:
    batch = encoded(vlm)
    with between_blocks(vlm, use), trainable(vlm, "llm.block.1") as chosen:
        prefix = FrozenPrefix(vlm, batch)
        torch.manual_seed(0)
        whole = slope(vlm, batch, chosen)
        torch.manual_seed(0)
        found = slope(vlm, prefix.batch, chosen, prefix.given())
        assert prefix.kept == kept
        assert far(whole, found) <= 1e-6
        later = FrozenPrefix(vlm, batch, form=prefix.form)
        torch.manual_seed(0)
        assert far(whole, slope(vlm, later.batch, chosen, later.given())) <= 1e-6
    if kept == "lean":
        assert prefix.bytes > FrozenPrefix(vlm, batch, vlm.sites.resolve("llm.block.1")).bytes


def test_sites_may_change_without_parameters(vlm: TinyLlava) -> None:
    batch = encoded(vlm)
    prefix = FrozenPrefix(vlm, batch, vlm.sites.resolve("llm.block.1:in"))
    with vlm.edited(["llm.block.1:in/image = zero"]):
        whole = vlm.forward(batch, logits="all").logits
        with counted(vlm, [TOWER, f"{LANGUAGE}.0"]) as ran, prefix.given():
            found = vlm.forward(prefix.batch, logits="all").logits
    assert not ran
    assert torch.equal(whole, found)


def test_edits_that_are_active_hold_and_are_met(vlm: TinyLlava) -> None:
    batch = encoded(vlm)
    plain = answer_loss(vlm, batch)
    with vlm.edited(["vision.block.1/image = scale(0.5)"]), trainable(vlm, "llm") as chosen:
        whole = slope(vlm, batch, chosen)
        prefix = FrozenPrefix(vlm, batch)
        found = slope(vlm, prefix.batch, chosen, prefix.given())
    assert far(whole, found) <= 1e-6
    assert whole[0] != plain


def test_under_autocast_it_is_the_pass_under_autocast() -> None:
    vlm = TinyLlava.load(request())
    batch = encoded(vlm)
    with trainable(vlm, "llm.block.1") as chosen, torch.autocast("cpu", torch.bfloat16):
        whole = slope(vlm, batch, chosen)  # weights that were cast are remembered
        prefix = FrozenPrefix(vlm, batch)
        found = slope(vlm, prefix.batch, chosen, prefix.given())
    assert prefix.kept == "lean"
    assert far(whole, found) <= 1e-6


def test_wrong_use_is_refused(vlm: TinyLlava) -> None:
    batch = encoded(vlm)
    with pytest.raises(SpecError, match="every pass is the same"):
        FrozenPrefix(vlm, batch)
    shared = vlm.encode_shared([[batch.samples[0], batch.samples[0]]])
    assert shared is not None
    with trainable(vlm, "projector"):
        with pytest.raises(EditError, match="encode_shared"):
            FrozenPrefix(vlm, shared)
        prefix = FrozenPrefix(vlm, batch)
    with prefix.given():
        answer_loss(vlm, prefix.batch)
        with pytest.raises(EditError, match="Run one pass"):
            answer_loss(vlm, prefix.batch)
