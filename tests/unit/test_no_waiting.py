"""Nothing on the way of a batch waits for the device: few copies, whatever the number of columns.

A model on torch's `meta` device computes shapes only. Whatever would wait for a device (`.item()`,
`.tolist()`, `bool(tensor)`, a copy to the host) is an error there, and copies to it can be counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlmlens.abc import Batch, ModelAdapter
from vlmlens.extraction.batching import Unit
from vlmlens.extraction.extraction import Extraction
from vlmlens.passes import host_copy
from vlmlens.passes.host_copy import Sent
from vlmlens.passes.later import for_later, waits
from vlmlens.passes.selection import select_in_passes
from vlmlens.rows.uploads import KeptRows
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing.model import TinyLlava, request
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector, select
from vlmlens_plugins.extract.activations import ActivationExtractor
from vlmlens_plugins.extract.attention import AttentionExtractor

FEW = ["llm.block.0/last"]
MANY = [
    *("llm.block.*/last", "llm.block.*.mlp/last", "llm.embed/last", "llm.block.*/text.mean"),
    *("vision.block.*/all", "projector/image", "llm.block.*.attn/last"),
]
SELECTORS = 4
"""Different pairs of a selector and an axis in `MANY`."""


class Crossings(TorchDispatchMode):
    """Counts copies from the CPU to `meta`, and whatever reads values."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads = 0
        self.read: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {leaf.device.type for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)}
        if given == {"cpu"} and getattr(result, "is_meta", False):
            self.uploads += 1
        if "local_scalar_dense" in str(func):
            self.read.append(str(func))
        return result


@pytest.fixture(scope="module")
def there() -> Iterator[ModelAdapter]:
    """A model on `meta`, with eager attention; transformers' own check of a batch is left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")
        yield TinyLlava.skeleton(request(attention="eager"))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What was sent to the host."""
    found: list[torch.Tensor] = []

    def send(packed: torch.Tensor) -> Sent:
        found.append(packed)
        return Sent(torch.zeros(packed.shape, dtype=torch.uint8), None)

    monkeypatch.setattr(host_copy, "sent", send)
    return found


def samples(count: int = 3) -> list[Sample]:
    return [Sample(f"s{i}", "Hm? " * (i + 1), (picture(64, 64, seed=i),)) for i in range(count)]


def on_meta(batch: Batch) -> Batch:
    moved = {
        name: value.to("meta") if isinstance(value, torch.Tensor) else value
        for name, value in batch.inputs.items()
    }
    return replace(batch, inputs=moved)


@pytest.mark.parametrize(
    ("columns", "uploads"), [(FEW, 1), (MANY, SELECTORS)], ids=["one column", "many columns"]
)
def test_columns_cost_one_copy_and_few_uploads(
    there: ModelAdapter, sent: list[torch.Tensor], columns: Sequence[str], uploads: int
) -> None:
    extractor = ActivationExtractor(there, columns, ActivationExtractor.Options())
    batch = on_meta(there.encode(samples()))
    with Crossings() as crossings:
        found = extractor.extract(batch)
    assert list(found) == extractor.columns()
    assert len(sent) == 1
    assert sum(values.array.nbytes for values in found.values()) == len(sent[0])
    assert crossings.uploads == uploads
    assert not crossings.read


@pytest.mark.parametrize("regions", [["image", "text"], ["patches"]])
def test_attention_costs_no_more(
    there: ModelAdapter, sent: list[torch.Tensor], regions: Sequence[str]
) -> None:
    options = AttentionExtractor.Options(regions=regions)
    found = []
    for columns in (["llm.block.0.attn/last"], ["llm.block.*.attn/last"]):
        extractor = AttentionExtractor(there, columns, options)
        batch = on_meta(there.encode(samples()))
        with Crossings() as crossings:
            extractor.extract(batch)
        found.append(crossings.uploads)
    assert found == [2, 2]
    assert len(sent) == 2


def test_a_selection_that_waits_is_seen(there: ModelAdapter) -> None:
    """The control: the guard of these tests sees a read, and an upload for each column."""
    batch = there.encode(samples())
    layout, site = batch.layouts[Axis.LLM], there.sites.canonical["llm.block.0"]
    activation = torch.zeros(layout.total, 8, device="meta")
    with Crossings() as crossings:
        for _ in range(5):
            select(activation, Selector.parse("last"), layout, site)
    assert crossings.uploads == 5
    with pytest.raises(RuntimeError, match="meta"):
        select(activation, Selector.parse("last"), layout, site)[0, 0].item()


def test_rows_of_a_batch_are_found_once_per_device(there: ModelAdapter) -> None:
    layout = there.encode(samples()).layouts[Axis.LLM]
    kept, selector = KeptRows(), Selector.parse("image")
    first, counts = kept.of(selector, layout, torch.device("cpu"))
    assert kept.of(selector, layout, torch.device("cpu"))[0] is first
    assert kept.of(selector, layout, torch.device("meta"))[0].is_meta
    right = [selector.rows(sample).tolist() for sample in layout.samples]
    assert [part.tolist() for part in first.split(list(counts))] == right


def test_batches_of_several_passes(there: ModelAdapter) -> None:
    """Columns with one selector on one axis share their rows."""
    asked = [replace(one, images=samples()[0].images) for one in samples()]
    batch = there.encode_shared([asked])
    assert batch is not None
    sites = [there.sites.canonical[f"llm.block.{i}"] for i in range(2)]
    inputs = {"input_ids": torch.zeros(0)}

    def run(head: bool) -> None:
        del head
        rows = next(counts)
        for site in sites:
            module = there.module.get_submodule(site.path)
            for hook in list(module._forward_hooks.values()):
                hook(module, (), torch.zeros(1, rows, 8, device="meta"))

    counts = iter([batch.passes[0].rows, batch.layouts[Axis.LLM].total - batch.passes[0].rows])
    passes = tuple(replace(each, run=run) for each in batch.passes)
    columns = {
        f"{s.name}/{which}": (s, Selector.parse(which))
        for s in sites
        for which in ("last", "image.mean")
    }
    with Crossings() as crossings:
        found = select_in_passes(
            there, replace(batch, inputs=inputs, passes=passes), columns, batch.layouts
        )
    assert {name: rows.shape for name, rows in found.items()} == dict.fromkeys(columns, (3, 8))  # type: ignore[union-attr]
    assert crossings.uploads == 2 * 4  # of each selector: two parts, places, owners


# ---------------------------------------------------------------------- batches that wait


class Later(TinyLlava):
    """Says where its inputs go, and when."""

    placed_in: list[bool]

    def placed(self, inputs: Any) -> Any:
        self.placed_in.append(waits())
        return super().placed(inputs)


@pytest.mark.parametrize("share", [False, True])
def test_batches_wait_on_the_host_until_their_pass(share: bool) -> None:
    vlm = Later.load(request())
    vlm.placed_in = []
    asked = [replace(one, images=samples()[0].images) for one in samples(4)]
    extractor = ActivationExtractor(vlm, FEW, ActivationExtractor.Options())
    work = Extraction(vlm, extractor, asked, 4, share, print)
    units = (
        [Unit((tuple(range(4)),), shared=True)] if share else [Unit(tuple((i,) for i in range(4)))]
    )
    ((numbers, values),) = work.columns(units)
    assert numbers == (0, 1, 2, 3)
    assert vlm.placed_in[0]
    assert not any(vlm.placed_in[1:])
    assert len(vlm.placed_in) >= 2
    assert not waits()
    assert values[FEW[0]].array.shape[0] == 4


def test_encoding_for_later_ends_with_its_block() -> None:
    with for_later():
        assert waits()
    with pytest.raises(ValueError, match="x"), for_later():
        raise ValueError("x")
    assert not waits()
