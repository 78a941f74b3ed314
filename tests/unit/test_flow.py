"""Marks spread with the data of a pass, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vlmlens.passes.flow import Flow

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def written_into(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    y[:, :2] += x[:, :2]
    return y


def placed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    where = torch.zeros(3, 4, dtype=torch.bool)
    where[0] = True
    return y.masked_scatter(where, x)


def through_a_view(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    y.view(-1)[3:5].copy_(x.flatten()[:2])
    return y.t()


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda x, y: x @ y.t(), {"x", "y"}),
        (lambda x, y: torch.cat([y, y[:1]]), {"y"}),
        (lambda x, y: torch.zeros_like(x) + y, {"x", "y"}),
        (lambda x, y: torch.zeros(x.shape) + y, {"y"}),
        (lambda x, y: torch.nn.functional.layer_norm(y, [4]).split(2, -1)[1], {"y"}),
        (written_into, {"x", "y"}),
        (placed, {"x", "y"}),
        (through_a_view, {"x", "y"}),
    ],
)
def test_marks_follow_the_data(step: Step, expected: set[str]) -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    flow = Flow()
    flow.mark(x, {"x"})
    flow.mark([y], {"y"})
    with torch.no_grad(), flow:
        found = step(x, y)
    assert flow.of(found) == expected
    assert flow.of({"a": (found, 1)}) == expected


def test_memory_that_is_used_again_has_no_marks() -> None:
    flow = Flow()
    for _ in range(50):  # the allocator gives the same places again
        x = torch.randn(1000)
        assert not flow.of(x)
        flow.mark(x, {"x"})
        with flow:
            y = x + 1
        assert flow.of(y)
        del x, y


def test_values_that_decide_are_remembered() -> None:
    flow, x, y, z = Flow(), torch.randn(4), torch.randn(4), torch.randn(4)
    places = torch.tensor([2, 0])
    for tensor, name in ((x, "x"), (y, "y"), (z, "z")):
        flow.mark(tensor, {name})
    with flow:
        float(x.sum())
        y[y > 0].sum()
        z[places].sum()
    assert flow.steering == {"x", "y"}


def test_what_wants_gradients_is_marked_without_being_named() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 4))
    flow = Flow("trained")
    with torch.no_grad(), flow:
        free, bound = torch.randn(2, 4) * 2, torch.randn(2, 4) @ weight
    assert (flow.of(free), flow.of(bound)) == (frozenset(), {"trained"})
    assert flow.met > 0


def test_nothing_is_followed_while_it_pauses() -> None:
    flow, x = Flow(), torch.randn(4)
    flow.mark(x, {"x"})
    with flow:
        with flow.paused():
            aside = x + 1
        with flow.paused(False):
            seen = x + 1
    assert (flow.of(aside), flow.of(seen)) == (frozenset(), {"x"})
