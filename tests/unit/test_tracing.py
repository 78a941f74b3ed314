"""Hooks: what they read, what they edit, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from vlmlens.errors import SiteNotFound, SiteSilent, VlmlensError
from vlmlens.passes.activation import activation_of, check_axis
from vlmlens.passes.tracing import first_call, hooked
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.testing._rounding import close


class Pair(nn.Module):
    """Gives a tuple, as attention modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.inner(x), None


class Net(nn.Module):
    """A module that runs once, one that gives a tuple, one that runs twice, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.pair = Pair()
        self.twice = nn.Linear(3, 3)
        self.never = nn.Linear(3, 3)
        self.mapping = Mapping()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pair(self.first(x))[0]
        return self.mapping(self.twice(self.twice(x)))["hidden"]


class Mapping(nn.Module):
    """Gives a mapping, as model outputs are."""

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"loss": None, "hidden": x * 2}


def site(path: str, call: int | None = None) -> Site:
    return Site(path, path, Axis.LLM, call=call)


def read(net: nn.Module, *sites: Site, edits: Any = ()) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    torch.manual_seed(1)
    with hooked(net, sites, lambda s, t: seen.__setitem__(s.name, t), edits):
        seen["output"] = net(torch.randn(2, 3))
    return seen


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def test_reads_what_the_module_gave(net: Net) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 3)
    seen = read(net, site("first"), site("pair"), site("mapping"))
    assert torch.equal(seen["first"], net.first(x))
    assert torch.equal(seen["pair"], net.pair.inner(net.first(x)))
    assert torch.equal(seen["mapping"], seen["output"])


def test_a_module_that_runs_twice_needs_a_call_number(net: Net) -> None:
    with pytest.raises(SiteSilent, match="ran 2 times") as caught:
        read(net, site("twice"))
    assert "twice#0 to twice#1" in caught.value.hint
    second = read(net, site("twice", call=1))["twice"]
    assert torch.equal(second * 2, read(net, site("mapping"))["mapping"])
    with pytest.raises(SiteSilent, match="asks for call 5"):
        read(net, site("twice", call=5))


def test_a_silent_module_is_an_error(net: Net) -> None:
    with pytest.raises(SiteSilent, match="did not run"):
        read(net, site("never"))
    with pytest.raises(SiteSilent, match="did not run"):
        read(net, edits=[(site("never"), torch.zeros_like)])


@pytest.mark.parametrize("path", ["first", "pair", "mapping"])
def test_an_edit_reaches_everything_downstream(net: Net, path: str) -> None:
    plain = read(net, site(path))
    edited = read(net, site(path), edits=[(site(path), lambda t: t + 1)])
    assert torch.equal(edited[path], plain[path] + 1), "a read sees the edit of the same module"
    assert not torch.allclose(edited["output"], plain["output"])
    assert torch.equal(read(net)["output"], plain["output"]), "the edit is gone afterwards"


def test_an_edit_must_keep_the_shape(net: Net) -> None:
    with pytest.raises(VlmlensError, match=r"from \(2, 3\) to \(2, 1\)"):
        read(net, edits=[(site("first"), lambda t: t[:, :1])])


def test_hooks_go_away_whatever_happens(net: Net) -> None:
    def stumble(_site: Site, _tensor: torch.Tensor) -> None:
        raise RuntimeError("in a visit")

    with pytest.raises(RuntimeError, match="in a visit"), hooked(net, [site("first")], stumble):
        net(torch.randn(2, 3))
    assert all(not module._forward_hooks for module in net.modules())


def test_an_output_without_a_tensor() -> None:
    with pytest.raises(SiteSilent, match="NoneType, which holds no tensor"):
        activation_of(None, site("x"))
    with pytest.raises(SiteSilent, match="tuple"):
        activation_of((None, 3), site("x"))


def test_an_axis_that_the_batch_lacks() -> None:
    check_axis(site("x"), [Axis.LLM])
    with pytest.raises(SiteSilent, match="the llm axis"):
        check_axis(site("x"), [Axis.VISION])


def test_trace_on_the_demo_model(vlm: Any, scenes: Any) -> None:
    batch = vlm.encode(scenes[:3])
    trace = vlm.trace(batch, ["llm.block.-1", "llm.norm"], logits="last")
    assert list(trace) == ["llm.block.5", "llm.norm"]
    assert len(trace) == 2
    assert trace.logits.shape == (3, vlm.config.get_text_config().vocab_size)
    readout = vlm.readout()
    close(readout(trace.select("llm.block.5/last")), trace.logits)
    with pytest.raises(SiteNotFound, match=r"llm\.blok"):
        vlm.trace(batch, ["llm.blok.3"])


def test_a_column_needs_a_traced_site_whose_axis_has_rows(vlm: Any) -> None:
    trace = vlm.trace(vlm.encode([Sample("a", "Hello?")]), ["llm.block.3"])
    with pytest.raises(SiteNotFound, match=r"'llm\.block\.4' was not traced") as caught:
        trace.select("llm.block.4/last")
    assert "Did you mean llm.block.3?" in caught.value.hint
    blind = replace(trace.batch, layouts={})
    with pytest.raises(SiteSilent, match="lies on the llm axis, which this batch lacks"):
        replace(trace, batch=blind).select("llm.block.3/all")
    assert trace.select("llm.block.3/last").shape == (1, 128)


def test_knocking_out_the_image_changes_the_answer(vlm: Any, scenes: Any) -> None:
    batch = vlm.encode(scenes[:5])
    plain = vlm.trace(batch, [], logits="last").logits
    cut = vlm.trace(batch, [], logits="last", edits={"projector": torch.zeros_like}).logits
    assert (plain - cut).abs().max() > 1
    same = vlm.trace(batch, [], logits="last", edits={"projector": lambda t: t}).logits
    assert torch.equal(same, plain)


def test_first_call_stops_the_pass_and_leaves_no_hook() -> None:
    parts = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    ran: list[int] = []
    parts[1].register_forward_hook(lambda *_: ran.append(1))
    given = torch.ones(5, 3)
    call = first_call(parts, "1", lambda: parts(given))
    assert call is not None
    assert torch.equal(call[0][0], parts[0](given))
    assert not ran
    assert not parts[1]._forward_pre_hooks
    assert first_call(parts, "1", lambda: parts[0](given)) is None
    with pytest.raises(RuntimeError):
        first_call(parts, "1", lambda: parts(torch.ones(5, 9)))
    assert not parts[1]._forward_pre_hooks
