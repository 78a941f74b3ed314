"""Sites by regular expression, over module paths of today and of older versions."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from vlmlens.errors import SiteNotFound, SiteSyntaxError
from vlmlens.hf import LLAVA_RENAMES
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.sites import Axis, Rename, SiteMap, SiteTemplate
from vlmlens.sites.regex import inverses, names_of, older

TEMPLATES = [
    SiteTemplate("vision.block.{i}", ("model.vision_tower.encoder.layers.{i}",), Axis.VISION),
    SiteTemplate("llm.block.{i}", ("model.language_model.layers.{i}",), Axis.LLM),
    SiteTemplate("llm.head", ("lm_head",), Axis.LLM),
]
TREE = [
    "model",
    "model.vision_tower",
    *(f"model.vision_tower.encoder.layers.{i}" for i in range(2)),
    "model.multi_modal_projector",
    "model.language_model",
    *(
        f"model.language_model.layers.{i}{tail}"
        for i in range(12)
        for tail in ("", ".self_attn", ".mlp")
    ),
    "lm_head",
]
SITES = SiteMap(TEMPLATES, TREE, LLAVA_RENAMES)


def names(pattern: str) -> list[str]:
    return [site.name for site in SITES.resolve(pattern)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"re:model\.language_model\.layers\.(1|3)\.mlp", ["llm.block.1.mlp", "llm.block.3.mlp"]),
        (r"re:model.language_model.layers.1\d", ["llm.block.10", "llm.block.11"]),
        ("re:lm_head", ["llm.head"]),
        ("re:model", ["model"]),
        ("re:language_model.model.layers.2.mlp", ["llm.block.2.mlp"]),
        ("re:language_model.lm_head", ["llm.head"]),
        ("re:vision_tower.vision_model.encoder.layers.1", ["vision.block.1"]),
        ("re:multi_modal_projector", ["model.multi_modal_projector"]),
        ("re:lm_head#1", ["llm.head#1"]),
    ],
)
def test_matches(pattern: str, found: list[str]) -> None:
    assert names(pattern) == found


def test_a_whole_part_of_an_older_tree() -> None:
    """`language_model.*` named the head too, when the head lay inside."""
    found = names("re:language_model.*")
    assert "llm.head" in found
    assert "llm.block.11.self_attn" in found
    assert not any(name.startswith("vision") for name in found)
    assert found == names("re:.*language_model.*")


def test_from_end_to_end() -> None:
    with pytest.raises(SiteNotFound):
        SITES.resolve(r"re:layers\.1")
    with pytest.raises(SiteNotFound):
        SITES.resolve("re:lm_hea")


def test_what_matches_nothing_names_what_is_near() -> None:
    with pytest.raises(SiteNotFound) as caught:
        SITES.resolve("re:model.language_modl.layers.3.mlp")
    assert "'re:model.language_modl.layers.3.mlp'" in caught.value.message
    assert "model.language_model.layers.3.mlp" in caught.value.hint


def test_no_expression() -> None:
    with pytest.raises(SiteSyntaxError, match="is no regular expression: unterminated"):
        SITES.resolve("re:layers.[0-9")


def test_it_is_no_legacy_path() -> None:
    assert SITES.renamed("re:language_model.*") is None


# -------------------------------------------------------------------------- undoing


@pytest.mark.parametrize(
    ("rename", "name", "before"),
    [
        (Rename(r"^visual(?=\.|$)", "model.visual"), "model.visual.blocks.3", ["visual.blocks.3"]),
        (Rename(r"^visual(?=\.|$)", "model.visual"), "model.visuals", []),
        (Rename(r"^(a|b)(?=\.|$)", r"model.\1"), "model.b.c", ["b.c"]),
        (Rename(r"^x\.(output|lm_head)$", "lm_head"), "lm_head", ["x.output", "x.lm_head"]),
        (Rename(r"^(t\.[^.]+)\.w([qk])(?=\.|$)", r"\1.\2_proj"), "t.3.q_proj", ["t.3.wq"]),
        (Rename(r"^a\.(?P<i>[^.]+)\.n$", r"b.\g<i>.norm"), "b.7.norm", ["a.7.n"]),
        (Rename(r"\.embed\.patch$", ".embed.projection"), "v.embed.projection", ["v.embed.patch"]),
        (Rename(r"^b\.([^.]+)(\.attn)?\.n$", r"l.\1.norm"), "l.3.norm", ["b.3.attn.n", "b.3.n"]),
        (Rename(r"^b\.(?:\.x)?(q|k)$", r"l.\1"), "l.k", ["b..xk", "b.k"]),
        (Rename(r"^b\.m(\.gate)?$", r"l.m\1"), "l.m.gate", ["b.m.gate"]),
        (Rename(r"^b\.m(\.gate)?$", r"l.m\1"), "l.m", ["b.m"]),
        (Rename(r"^a.b\.c$", "a.d"), "a.d", ["a.b.c"]),
        (Rename(r"^x\.(\w+)$", "y"), "y", []),
        (Rename(r"^x(?!y)", "z"), "z", []),
    ],
)
def test_undoing_a_rename(rename: Rename, name: str, before: list[str]) -> None:
    assert list(older(name, rename)) == before
    for old in before:
        assert re.sub(rename.pattern, rename.replacement, old) == name


def test_renames_on_top_of_each_other() -> None:
    known = names_of("model.vision_tower.encoder.layers.3", LLAVA_RENAMES)
    assert known[0] == "model.vision_tower.encoder.layers.3"
    assert "model.vision_tower.vision_model.encoder.layers.3" in known
    assert "vision_tower.vision_model.encoder.layers.3" in known


def adapters_renames() -> list[tuple[str, Sequence[Rename]]]:
    registry = Registry.default()
    manifests = [entry.manifest for entry in registry.entries(PluginKind.ADAPTER)]
    classes = [(m.name, registry.load(m)) for m in manifests if m is not None]
    return [(name, getattr(adapter, "renames", ())) for name, adapter in classes]


@pytest.mark.parametrize(("name", "renames"), adapters_renames())
def test_every_rename_of_every_adapter_can_be_undone(name: str, renames: Sequence[Rename]) -> None:
    assert [rename for rename in renames if not inverses(rename)] == []
