"""Attention columns of every family equal transformers' own `output_attentions`, to 1e-5."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from vlmlens.abc import WorkUnit
from vlmlens.errors import SiteSilent
from vlmlens.manifest import PluginKind
from vlmlens.passes.tracing import first_call
from vlmlens.registry import Registry
from vlmlens.testing._rounding import close
from vlmlens.tokens import Selector, TokenKind, TokenLayout
from vlmlens_plugins.analysis.weights.analysis import stacks
from vlmlens_plugins.analysis.weights.work import HeadOptions, HeadWork
from vlmlens_plugins.extract.attention import AttentionExtractor, AttentionOptions

TOLERANCE = 1e-5
"""84 eps of a whole: weights are at most 1. Those of MiniCPM-V 4 were up to 1e-6 off."""
KINDS = (TokenKind.IMAGE, TokenKind.TEXT, TokenKind.SPECIAL)
SELECTORS = ("last", "all", "mean")
SITES = (
    "vision.block.*.attn",
    "qformer.block.*.attn.attn",
    "llm.encoder.block.*.attn",
    "llm.block.*.attn",
    "text.block.*.attn",
)
SILENT_FAMILIES = {"cogvlm", "qwen2vl"}
SILENT_SUITES = {"MiniCpm46Checks", "MiniCpm47Checks", "MiniCpmFineChecks"}
"""Whose vision towers never give weights: fused, or thrown away. MiniCPM 2.x's towers do."""
GATED_SUITES = {"MiniCpm46Checks", "MiniCpm47Checks", "MiniCpmFineChecks"}
"""Whose language models multiply what heads give by a gate, so that there are no OV matrices."""
NORMED_SUITES = {
    "InternVL35Checks", "Molmo2Checks", "Molmo2OlmoChecks", "MolmoEChecks", "MolmoOlmoChecks",
    "Qwen3VLChecks", "Qwen3VLMoeChecks",
}  # fmt: skip
"""Whose language models normalise queries and keys, so that there are no QK matrices."""
TURNED_SUITES = {"DINOv3Checks"}
"""Whose towers turn queries and keys of patches alone, by positions that are not an argument."""

pytestmark = pytest.mark.no_cover  # adapters' towers, mostly; `test_attention.py` has the lines


def suites() -> list[Any]:
    """Every conformance suite of every installed adapter; each makes a tiny checkpoint."""
    found = []
    for entry in Registry.default().entries(PluginKind.ADAPTER):
        if entry.manifest and entry.manifest.checks and entry.name != "hf":
            module, _, name = entry.manifest.checks.partition(":")
            found += getattr(import_module(module), name)
    return found


@pytest.fixture(params=suites(), ids=lambda suite: suite.__name__, scope="module")
def suite(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture(scope="module")
def eager(suite: Any) -> Any:
    return suite.load(attention="eager")


def silent_tower(suite: Any) -> bool:
    """Whether a suite, or its class, has a vision tower that gives no weights."""
    name = suite.__name__ if isinstance(suite, type) else type(suite).__name__
    return suite.manifest.name in SILENT_FAMILIES or name in SILENT_SUITES


def readable(suite: Any, vlm: Any) -> list[str]:
    """The patterns that this model has, without those whose modules are known to be silent."""
    heads = {name.split(".block.")[0] for name in vlm.sites.canonical if ".block." in name}
    patterns = [pattern for pattern in SITES if pattern.split(".block.")[0] in heads]
    if silent_tower(suite):
        patterns.remove("vision.block.*.attn")
    return patterns


def own_attentions(vlm: Any, batch: Any, paths: Iterable[str]) -> dict[str, torch.Tensor]:
    """What transformers gives for attention modules with `output_attentions=True`, by path.

    Where the tower is no model of transformers (Molmo's, GLaMM's), its attention module is called
    again as the pass calls it.
    """
    of_owner: dict[str, list[torch.Tensor]] = {}
    found = {}
    for path in paths:
        owner = owner_of(vlm, path)
        if owner not in of_owner:
            of_owner[owner] = recorded(vlm, batch, owner)
        names = recordable(vlm.module.get_submodule(owner), path)
        if len(of_owner[owner]) == len(names):
            found[path] = of_owner[owner][names.index(path.removeprefix(f"{owner}."))]
        else:
            found[path] = called_again(vlm, batch, path)
    return found


def owner_of(vlm: Any, path: str) -> str:
    """The innermost model of transformers that a module is in."""
    owner = path
    while not isinstance(vlm.module.get_submodule(owner), transformers.PreTrainedModel):
        owner = owner.rpartition(".")[0]
    return owner


def called_again(vlm: Any, batch: Any, path: str) -> torch.Tensor:
    """What an attention module gives when it is called as the pass calls it."""
    with torch.inference_mode():
        args, kwargs = first_call(vlm.module, path, lambda: vlm.forward(batch)) or ((), {})
        weights: torch.Tensor = vlm.module.get_submodule(path)(*args, **kwargs)[1]
    return weights


def recorded(vlm: Any, batch: Any, owner: str) -> list[torch.Tensor]:
    """The attentions that a part of the model records of itself; none where it cannot."""
    part = vlm.module.get_submodule(owner)
    forward = inspect.signature(type(part).forward).parameters.values()
    takes_any = any(each.kind is each.VAR_KEYWORD for each in forward)
    if "attentions" not in (type(part)._can_record_outputs or {}) or not takes_any:
        return []
    with torch.inference_mode():
        called = first_call(vlm.module, owner, lambda: vlm.forward(batch)) if owner else None
        args, kwargs = called or ((), {**batch.inputs, "use_cache": False})
        output = part(*args, **{**kwargs, "output_attentions": True})
    return [each for each in output.attentions or () if each is not None]


def recordable(part: torch.nn.Module, path: str) -> list[str]:
    """The innermost attention modules of a part, of the name of the last part of `path`."""
    named = [
        name for name, module in part.named_modules() if type(module).__name__.endswith("Attention")
    ]
    inner = [name for name in named if not any(other.startswith(f"{name}.") for other in named)]
    return [name for name in inner if name.endswith(path.rpartition(".")[2])]


def expected(weights: torch.Tensor, layout: TokenLayout, selector: str) -> np.ndarray:
    """Features of one unpadded sample, query by query, out of the whole matrix."""
    groups, heads, length, _ = weights.shape
    features = []
    for row in Selector.parse(selector).rows(layout):
        group, place = divmod(int(row), length)
        everything = np.zeros((heads, groups, length), np.float32)
        everything[:, group] = weights[group, :, place].numpy()
        flat = everything.reshape(heads, -1)
        sums = [flat[:, layout.rows[layout.kinds == kind]].sum(1) for kind in KINDS]
        features.append(np.stack(sums, 1).ravel())
    found = np.stack(features)
    return found.mean(0, keepdims=True) if selector == "mean" else found


def columns(vlm: Any, suite: Any) -> Iterator[tuple[Any, str]]:
    extractor = AttentionExtractor(vlm, readable(suite, vlm), AttentionOptions())
    for site in extractor._sites:
        for selector in SELECTORS:
            yield site, f"{site.name}/{selector}"


def test_columns_equal_output_attentions(suite: Any, eager: Any) -> None:
    pairs = list(columns(eager, suite))
    assert pairs
    extractor = AttentionExtractor(eager, [name for _, name in pairs], AttentionOptions())
    extractor.check(suite.samples)
    together = extractor.extract(eager.encode(suite.samples))
    worst = 0.0
    for number, sample in enumerate(suite.samples):
        batch = eager.encode([sample])
        alone = extractor.extract(batch)
        truths = own_attentions(eager, batch, dict.fromkeys(site.path for site, _ in pairs))
        for site, name in pairs:
            layout = batch.layouts[site.axis]
            weights = truths[site.path]
            found = layout.at(weights.shape[0] * weights.shape[2])
            assert found is not None
            truth = expected(weights, found.samples[0], name.rpartition("/")[2])
            close(truth.reshape(len(truth), -1, 3).sum(-1), 1)
            for values in (alone[name].per_sample()[0], together[name].per_sample()[number]):
                assert values.shape == truth.shape, name
                worst = max(worst, float(np.abs(values - truth).max()))
                assert np.abs(values - truth).max() <= TOLERANCE, name
    print(f"worst {worst:.1e}")


def test_every_block_that_attends_has_its_attention(suite: Any, eager: Any) -> None:
    """Blocks without `attn` are those of hybrid models that run a linear attention instead."""
    blocks = {n: s for n, s in eager.sites.canonical.items() if ".block." in n}
    kinds = {name.rpartition(".")[0] for name in blocks}
    found = [site for kind in kinds for site in eager.sites.resolve(f"{kind}.*.attn")]
    named = {site.name.removesuffix(".attn") for site in found}
    assert len(found) == len(named)
    for name in set(blocks) - named:
        assert f"{blocks[name].path}.linear_attn" in eager.sites.modules, name


def test_matrices_of_heads_are_read_or_it_is_said_why_not(suite: Any, eager: Any) -> None:
    """Those that are read have passed the check of `read_matrices` on random rows."""
    name = type(suite).__name__
    without = {"llm": NORMED_SUITES, "vision": TURNED_SUITES}
    units = [
        (stack, WorkUnit(suite.samples[0], {"site": site.name, "earlier": [], "language": False}))
        for stack, sites in stacks(eager, None).items()
        for site in sites
    ]
    found = HeadWork(HeadOptions()).run(eager, [unit for _, unit in units])
    for (stack, _), one in zip(units, found, strict=True):
        language = stack == "llm"
        assert ("refused" in one) is (language and name in GATED_SUITES), one.get("refused")
        if "refused" in one:
            assert one["refused"] == "what it gives is not the sum of what its heads write"
            continue
        folded, why = one["said"]
        assert "not known" not in folded
        assert bool(why) is (name in without.get(stack, ()))
        assert all(("qk" in head) is not bool(why) for head in one["heads"])


@pytest.mark.parametrize(
    "silent",
    [each for each in suites() if silent_tower(each)],
    ids=lambda each: each.__name__,
)
def test_silent_towers_say_so(silent: Any) -> None:
    kit = silent()
    vlm = kit.load(attention="eager")
    extractor = AttentionExtractor(vlm, ["vision.block.*.attn/image.mean"], AttentionOptions())

    def whole() -> None:
        extractor.check(kit.samples)
        extractor.extract(vlm.encode(kit.samples))

    with pytest.raises(SiteSilent, match=r"vision\.block\.0\.attn.*no attention weights"):
        whole()
