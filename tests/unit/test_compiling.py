"""Compiled blocks: the same numbers, every site, edits; refused where it cannot work."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc.adapter import ModelAdapter
from vlmlens.compose.plan import compose
from vlmlens.errors import CompositionError, MissingDependency
from vlmlens.passes import compiling
from vlmlens.passes.compiling import blocks_around, check_can_compile, compile_blocks, is_compiled
from vlmlens.passes.tracing import hooked
from vlmlens.registry import Registry
from vlmlens.runner.execution import execute
from vlmlens.sites import Site
from vlmlens.spec.model import make_spec
from vlmlens.testing._rounding import ROUNDING, close
from vlmlens.testing.model import TinyLlava, request, tiny_model
from vlmlens_plugins.extract.activations import ActivationExtractor

FEW_KERNELS = {
    "compile_threads": 1,
    "cpp_cache_precompile_headers": False,
}
"""Settings of inductor: what it does first for many kernels takes longer than a block's few.

No pool of processes, and no header compiled beforehand.
"""

COLUMNS = ["vision.block.*/image.mean", "llm.block.*/last", "llm.block.0/all"]
INSIDE = ["llm.block.1.mlp/last", "llm.block.1/last", "vision.block.0.self_attn/all"]

BLOCKS = 5
BLOCK_SITES = ["vision.block.0", "vision.block.1", "vision.block.2", "llm.block.0", "llm.block.1"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


@pytest.fixture(scope="module")
def plain() -> ModelAdapter:
    """Three blocks and two: what is compiled costs seconds per block and shape."""
    return tiny_model()


@pytest.fixture(scope="module")
def compiled() -> Iterator[ModelAdapter]:
    """Through all of dynamo and AOT autograd, but for the code that a C++ compiler would make."""
    vlm = TinyLlava.load(request())
    names = compile_blocks(vlm, backend="aot_eager")
    assert len(names) == BLOCKS
    assert is_compiled(vlm.module)
    yield vlm
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def samples() -> Any:
    spec = make_spec({"limit": 10})
    return compose(spec, Registry.default(), analyse=False).samples


def extract(vlm: ModelAdapter, batch: Any, columns: list[str]) -> Any:
    return ActivationExtractor(vlm, columns, ActivationExtractor.Options()).extract(batch)


def farthest(one: Any, other: Any) -> float:
    assert list(one) == list(other)
    return max(
        float(np.abs(one[n].array - other[n].array).max() / np.abs(other[n].array).max())
        for n in other
    )


def compiled_calls(vlm: ModelAdapter, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the blocks whose compiled forward runs from here on."""
    ran: list[str] = []
    for name, site in vlm.sites.canonical.items():
        module = vlm.module.get_submodule(site.path)
        if compiling._PLAIN in module.__dict__:
            forward = module.__dict__["forward"]

            def run(*args: Any, forward: Any = forward, name: str = name, **kwargs: Any) -> Any:
                ran.append(name)
                return forward(*args, **kwargs)

            monkeypatch.setitem(module.__dict__, "forward", run)
    return ran


def test_numbers_are_the_same(
    plain: ModelAdapter, compiled: ModelAdapter, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = compiled_calls(compiled, monkeypatch)
    right = extract(plain, plain.encode(samples), COLUMNS)
    assert farthest(extract(compiled, compiled.encode(samples), COLUMNS), right) < ROUNDING
    assert len(ran) == BLOCKS
    few = samples[:3]
    right = extract(plain, plain.encode(few), COLUMNS)
    assert farthest(extract(compiled, compiled.encode(few), COLUMNS), right) < ROUNDING


def test_shared_beginnings_and_short_passes(
    plain: ModelAdapter, compiled: ModelAdapter, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = compiled_calls(compiled, monkeypatch)
    groups = [samples[:5], samples[5:]]
    columns = ["vision.block.1/all", "llm.block.*/last"]
    right = extract(plain, plain.encode_shared(groups), columns)
    extractor = ActivationExtractor(compiled, columns, ActivationExtractor.Options())
    for _ in range(2):
        ran.clear()
        found = extractor.extract(compiled.encode_shared(groups))  # type: ignore[arg-type]
        assert farthest(found, right) < ROUNDING
        assert ran.count("llm.block.1") == 2


def test_sites_inside_blocks_are_read(
    plain: ModelAdapter, compiled: ModelAdapter, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = compiled_calls(compiled, monkeypatch)
    right = extract(plain, plain.encode(samples), INSIDE)
    assert farthest(extract(compiled, compiled.encode(samples), INSIDE), right) < ROUNDING
    assert "llm.block.1" not in ran
    assert "vision.block.0" not in ran
    assert {"llm.block.0", "vision.block.1"} <= set(ran)
    extract(compiled, compiled.encode(samples), ["llm.block.1/last"])
    assert "llm.block.1" in ran


@pytest.mark.parametrize("site", ["llm.block.0", "llm.block.0.mlp"])
def test_edits_reach_everything(
    plain: ModelAdapter, compiled: ModelAdapter, samples: Any, site: str
) -> None:
    def halved(tensor: torch.Tensor) -> torch.Tensor:
        return tensor / 2

    logits = []
    for vlm in (plain, compiled):
        batch = vlm.encode(samples[:3])
        logits.append(vlm.trace(batch, [], logits="last", edits={site: halved}).logits)
    untouched = plain.forward(plain.encode(samples[:3]), logits="last").logits
    assert logits[0] is not None
    assert logits[1] is not None
    assert untouched is not None
    close(logits[1], logits[0])
    assert float((logits[0] - untouched).abs().max()) > 1e-2


def test_hooks_that_come_after_the_first_call_run_once_per_pass(
    compiled: ModelAdapter, samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = compiled.encode(samples)
    compiled.forward(batch)
    ran = compiled_calls(compiled, monkeypatch)
    sites = compiled.sites.resolve_all([*BLOCK_SITES, "llm.block.0.mlp"])
    calls: Counter[str] = Counter()

    def visit(site: Site, activation: torch.Tensor) -> None:
        calls[site.name] += len(activation) > 0

    for _ in range(2):
        with torch.inference_mode(), hooked(compiled.module, sites, visit):
            compiled.forward(batch)
    assert calls == Counter({site.name: 2 for site in sites})
    assert sorted(ran) == sorted([name for name in BLOCK_SITES if name != "llm.block.0"] * 2)


def test_cuda_graphs_are_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """They give outputs in memory that the next pass overwrites, whatever torch's settings say."""
    given: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda forward, **how: given.append(how) or forward)
    compile_blocks(TinyLlava.load(request()))
    assert len(given) == BLOCKS
    for how in given:
        assert how["options"] == {"triton.cudagraphs": False}
        assert "mode" not in how


def test_which_blocks_stay_plain(compiled: ModelAdapter) -> None:
    paths = [compiled.sites.resolve(c.partition("/")[0])[0].path for c in INSIDE]
    assert blocks_around(compiled, paths) == ["vision.block.0", "llm.block.1"]


def test_a_block_that_does_not_compile_is_an_error(samples: Any) -> None:
    vlm = TinyLlava.load(request())

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no code for this")

    compile_blocks(vlm, backend=broken)  # type: ignore[arg-type]
    with pytest.raises(CompositionError, match=r"vision\.block\.0 cannot be compiled") as caught:
        vlm.forward(vlm.encode(samples[:1]))
    assert "--compile" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"quantization": "4bit"}, CompositionError, "--quantization"),
        ({"device_map": "auto"}, CompositionError, "--device-map"),
        ({"device": "cpu"}, MissingDependency, r"C\+\+ compiler"),
    ],
)
def test_refused_early(
    settings: dict[str, Any],
    kind: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(kind, match=message):
        check_can_compile(make_spec({"compile": True, **settings}))


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no C++ compiler")
def test_a_compiled_run(tmp_path: Path) -> None:
    """The whole road, with real compiled code; the record says what was left uncompiled."""
    settings = {"limit": 6, "device": "cpu", "share_prefix": False, "batch_size": 6}
    sites = ["llm.block.0/last", "llm.block.1-5.mlp/last", "vision.block.*.mlp/image.mean"]
    runs = []
    for compile_ in (False, True):
        out = str(tmp_path / str(compile_))
        spec = make_spec({**settings, "sites": sites, "out": out, "compile": compile_})
        with torch._inductor.config.patch(FEW_KERNELS):
            planned = compose(spec, Registry.default(), analyse=False)
            runs.append(execute(planned, extract_only=True))
    torch._dynamo.reset()
    for name in runs[0].activations:
        one, other = (np.asarray(run.activations[name]) for run in runs)
        close(other, one)
    left = runs[1].info["compiled"]["not_compiled"]
    assert len(left) == 9
    assert "llm.block.0" not in left
    with runs[1].store() as store:
        assert store.get_meta()["fingerprint"]["compiled"] is True
