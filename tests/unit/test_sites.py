"""The site grammar, and its resolution against a plain-Python reference."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vlmlens.errors import SiteNotFound, SiteSyntaxError
from vlmlens.sites import Axis, Rename, Site, SiteMap, SiteTemplate, parse_pattern

TEMPLATES = (
    SiteTemplate("vision.block.{i}", ("visual.blocks.{i}", "tower.layers.{i}"), Axis.VISION),
    SiteTemplate("projector", ("connector", "proj"), Axis.PROJECTOR),
    SiteTemplate("llm.block.{i}", ("model.layers.{i}",), Axis.LLM),
    SiteTemplate("llm.norm", ("model.norm",), Axis.LLM),
)


def tree(vision: int, llm: int, *extra: str) -> list[str]:
    """Modules of a small model, in the tree's order."""
    paths = ["tower", "tower.layers"]
    for i in range(vision):
        paths += [f"tower.layers.{i}", f"tower.layers.{i}.mlp", f"tower.layers.{i}.mlp.fc1"]
    paths += ["proj", "model", "model.layers"]
    for i in range(llm):
        paths += [f"model.layers.{i}{tail}" for tail in ("", ".attn", ".mlp", ".mlp.up")]
        paths += [f"model.layers.{i}.experts.{k}" for k in range(2)]
    return [*paths, "model.norm", "lm_head", *extra]


def site_map(vision: int = 3, llm: int = 12, *extra: str) -> SiteMap:
    return SiteMap(TEMPLATES, ["", *tree(vision, llm, *extra)])


def names(pattern: str, sites: SiteMap | None = None) -> list[str]:
    return [site.name for site in (sites or site_map()).resolve(pattern)]


def test_canonical_sites_in_forward_order() -> None:
    assert list(site_map(2, 2).canonical) == [
        *("vision.block.0", "vision.block.1", "projector"),
        *("llm.block.0", "llm.block.1", "llm.norm"),
    ]
    assert site_map(2, 2).canonical["vision.block.1"] == Site(
        "vision.block.1", "tower.layers.1", Axis.VISION, index=1
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("projector", ["projector"]),
        ("llm.block.3-5", ["llm.block.3", "llm.block.4", "llm.block.5"]),
        ("llm.block.-1", ["llm.block.11"]),
        ("llm.block.-12.mlp", ["llm.block.0.mlp"]),
        ("vision.block.*", ["vision.block.0", "vision.block.1", "vision.block.2"]),
        ("llm.block.2.{mlp,attn}", ["llm.block.2.attn", "llm.block.2.mlp"]),
        ("{vision,llm}.block.-1", ["vision.block.2", "llm.block.11"]),
        ("llm.block.9-99.mlp.up", [f"llm.block.{i}.mlp.up" for i in (9, 10, 11)]),
        ("llm.block.10.experts.-1", ["llm.block.10.experts.1"]),
        ("model.layers.10", ["llm.block.10"]),
        ("model.layers.-1.mlp", ["llm.block.11.mlp"]),
        ("*.layers.1", ["vision.block.1", "llm.block.1"]),
        ("tower", ["tower"]),
        ("llm.*", ["llm.norm"]),
        ("llm.norm#2", ["llm.norm#2"]),
    ],
)
def test_examples(pattern: str, expected: list[str]) -> None:
    assert names(pattern) == expected


def test_sites_below_inherit_axis_and_index() -> None:
    (site,) = site_map().resolve("vision.block.1.mlp.fc1#3")
    assert site == Site(
        "vision.block.1.mlp.fc1#3", "tower.layers.1.mlp.fc1", Axis.VISION, index=1, call=3
    )
    assert str(site) == "vision.block.1.mlp.fc1#3"


@pytest.mark.parametrize(
    ("path", "axis"),
    [("tower.pooler", Axis.VISION), ("model.embed", Axis.LLM), ("other", Axis.LLM)],
)
def test_axis_of_raw_paths(path: str, axis: Axis) -> None:
    (site,) = site_map(1, 1, path).resolve(path)
    assert (site.name, site.path, site.axis) == (path, path, axis)


def test_resolve_all_keeps_order_and_drops_repeats() -> None:
    found = site_map().resolve_all(["llm.norm", "llm.block.0-1", "model.layers.1"])
    assert [site.name for site in found] == ["llm.norm", "llm.block.0", "llm.block.1"]


def test_canonical_name() -> None:
    assert site_map().canonical_name("model.layers.3.mlp.up") == "llm.block.3.mlp.up"
    assert site_map().canonical_name("lm_head") == "lm_head"
    assert "lm_head" in site_map().modules


def test_candidate_paths_are_tried_in_order() -> None:
    sites = SiteMap(TEMPLATES, ["visual.blocks.0", "tower.layers.0", "connector", "proj"])
    assert [site.path for site in sites.canonical.values()] == ["visual.blocks.0", "connector"]


def test_a_number_that_stands_twice_is_the_same_number() -> None:
    twice = SiteTemplate("x.{i}", ("a.{i}.b.{i}",), Axis.LLM)
    sites = SiteMap([twice], ["a.0.b.0", "a.1.b.0", "a.1.b.1"])
    assert [site.path for site in sites.canonical.values()] == ["a.0.b.0", "a.1.b.1"]


def test_the_longest_canonical_prefix_wins() -> None:
    sites = SiteMap([SiteTemplate("llm", ("model",), Axis.LLM), *TEMPLATES], tree(1, 2))
    assert names("llm.*.1", sites) == ["llm.block.1"]
    assert names("llm.layers", sites) == ["llm.layers"]


def test_template_calls_and_shared_modules() -> None:
    twice = [SiteTemplate(f"pass.{k}", ("shared",), Axis.LLM, call=k) for k in range(2)]
    sites = SiteMap(twice, ["shared", "shared.mlp"])
    assert [(s.name, s.call) for s in sites.resolve("pass.*")] == [("pass.0", 0), ("pass.1", 1)]
    assert [(s.path, s.call) for s in sites.resolve("pass.1.mlp")] == [("shared.mlp", 1)]


def test_renames_apply_one_on_top_of_the_other() -> None:
    renames = [
        Rename(r"^language_model\.", ""),
        Rename(r"^unrelated$", "x"),
        Rename(r"^decoder\.", "model."),
    ]
    sites = SiteMap(TEMPLATES, tree(1, 3), renames)
    assert names("language_model.model.layers.2.mlp", sites) == ["llm.block.2.mlp"]
    assert names("language_model.decoder.layers.*", sites) == [f"llm.block.{i}" for i in range(3)]
    assert names("language_model.decoder.norm#1", sites) == ["llm.norm#1"]
    with pytest.raises(SiteNotFound):
        sites.resolve("language_model.decoder.nothing")


def test_an_existing_path_is_never_renamed() -> None:
    sites = SiteMap(TEMPLATES, tree(1, 1, "old.norm"), [Rename("^old", "model")])
    assert names("old.norm", sites) == ["old.norm"]


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("llm.blok.3", "llm.block.3"),
        ("llm.block.99", "llm.block.9"),
        ("projectr", "projector"),
        ("model.layer.0.mlp.up", "model.layers.0.mlp.up"),
    ],
)
def test_errors_list_the_nearest_names(pattern: str, near: str) -> None:
    with pytest.raises(SiteNotFound, match=f"No site of this model matches '{pattern}'") as caught:
        site_map().resolve(pattern)
    assert near in caught.value.hint.split("Nearest names: ")[1]
    assert caught.value.subject == pattern


def test_where_nothing_is_near_some_canonical_names_are_listed() -> None:
    with pytest.raises(SiteNotFound, match=r"vision.block.0, vision.block.1"):
        site_map().resolve("zzzzqqqq")


@pytest.mark.parametrize("pattern", ["llm.-1", "*.-1", "llm.block.-13", "llm.block.20-30", "x#1"])
def test_well_formed_patterns_that_match_nothing(pattern: str) -> None:
    assert site_map().matching(pattern) == []
    with pytest.raises(SiteNotFound):
        site_map().resolve(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *("", ".", "llm.", ".llm", "llm..norm", "llm.block.-0", "llm.block.-01", "a-b", "3-"),
        *("{a", "{}", "{a,}", "**", "a*", "llm norm", "a#b", "#1", "llm.norm#1\n", "[0]"),
        "-" + "9" * 5000,
    ],
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(SiteSyntaxError, match="is not a site") as caught:
        site_map().resolve(pattern)
    assert caught.value.hint
    with pytest.raises(SiteSyntaxError, match="is not a site"):
        site_map().matching(pattern)


PIECE = st.one_of(
    st.just("*"),
    st.integers(0, 12).map(str),
    st.integers(1, 13).map(lambda i: f"-{i}"),
    st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    st.sampled_from(
        [
            "llm",
            "vision",
            "block",
            "model",
            "layers",
            "mlp",
            "attn",
            "tower",
            "experts",
            "up",
            "norm",
            "proj",
        ]
    ),
    st.lists(
        st.sampled_from(["mlp", "attn", "llm", "vision", "0", "3", "model"]), min_size=1, max_size=3
    ).map(lambda parts: "{" + ",".join(parts) + "}"),
)
HEAD = st.sampled_from(
    ["llm.block", "vision.block", "*.block", "model.layers", "tower.layers", "{vision,llm}.block"]
)
PATTERN = st.lists(PIECE, min_size=1, max_size=5).map(".".join) | st.builds(
    lambda head, pieces: ".".join([head, *pieces]), HEAD, st.lists(PIECE, min_size=1, max_size=3)
)


def plain_match(candidates: list[str], parts: list[str]) -> list[str]:
    """Which names match, judged name by name: the grammar's table, spelt out."""
    same = [name for name in candidates if len(name.split(".")) == len(parts)]

    def ok(name: str, depth: int) -> bool:
        """Whether the first `depth` parts of a name match."""
        if depth == 0:
            return True
        part, word = parts[depth - 1], name.split(".")[depth - 1]
        if not ok(name, depth - 1):
            return False
        if part == "*":
            return True
        if part.startswith("{"):
            return word in part.strip("{}").split(",")
        if re.fullmatch(r"-\d+", part):
            head = name.split(".")[: depth - 1]
            rivals = {
                int(other.split(".")[depth - 1])
                for other in same
                if ok(other, depth - 1)
                and other.split(".")[: depth - 1] == head
                and other.split(".")[depth - 1].isdecimal()
            }
            behind = sum(1 for rival in rivals if word.isdecimal() and rival >= int(word))
            return word.isdecimal() and behind == int(part[1:])
        if "-" in part and word.isdecimal():
            low, high = map(int, part.split("-"))
            return low <= int(word) <= high
        return word == part

    return [name for name in same if ok(name, len(parts))]


def plain_resolve(vision: int, llm: int, pattern: str) -> set[str]:
    """Module paths: the longest canonical prefix that matches, then its tails; else raw paths."""
    modules, parts = tree(vision, llm), pattern.split(".")
    canonical = {f"vision.block.{i}": f"tower.layers.{i}" for i in range(vision)}
    canonical |= {f"llm.block.{i}": f"model.layers.{i}" for i in range(llm)}
    canonical |= {"projector": "proj", "llm.norm": "model.norm"}
    for length in range(len(parts), 0, -1):
        found: set[str] = set()
        for head in plain_match(list(canonical), parts[:length]):
            path = canonical[head]
            if length == len(parts):
                found.add(path)
                continue
            tails = [name[len(path) + 1 :] for name in modules if name.startswith(path + ".")]
            found |= {f"{path}.{tail}" for tail in plain_match(tails, parts[length:])}
        if found:
            return found
    return set(plain_match(modules, parts))


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 3), st.integers(0, 12), PATTERN)
def test_resolution_equals_the_reference(vision: int, llm: int, pattern: str) -> None:
    expected = plain_resolve(vision, llm, pattern)
    sites = site_map(vision, llm)
    if not expected:
        with pytest.raises(SiteNotFound):
            sites.resolve(pattern)
        return
    found = sites.resolve(pattern)
    assert {site.path for site in found} == expected
    assert len(found) == len(expected)


def test_the_reference_would_catch_an_off_by_one() -> None:
    found = {site.path for site in site_map(2, 8).resolve("llm.block.3-6")}
    assert found != plain_resolve(2, 8, "llm.block.3-7")
    assert found != plain_resolve(2, 8, "llm.block.4-6")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3), st.integers(0, 12), PATTERN, st.none() | st.integers(0, 9))
def test_every_resolved_name_names_its_site(
    vision: int, llm: int, pattern: str, call: int | None
) -> None:
    sites = site_map(vision, llm)
    try:
        found = sites.resolve(pattern if call is None else f"{pattern}#{call}")
    except SiteNotFound:
        assume(False)
    for site in found:
        assert sites.resolve(site.name) == [site]
        assert site.call == call


@given(PATTERN)
def test_patterns_round_trip(pattern: str) -> None:
    assert ".".join(parse_pattern(pattern)) == pattern


WORD = st.text(st.sampled_from("ab0123²٣_"), min_size=1, max_size=3)
PATH = st.lists(WORD, min_size=1, max_size=4).map(".".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(PATH, max_size=8), st.text() | st.text(st.sampled_from("ab0123²٣.-*{},#")))
def test_arbitrary_text_raises_site_errors_only(paths: list[str], text: str) -> None:
    sites = SiteMap([SiteTemplate("n.{i}", ("a.{i}",), Axis.LLM)], paths)
    try:
        found = sites.resolve(text)
    except (SiteSyntaxError, SiteNotFound):
        return
    assert found
    assert all(site.path in paths for site in found)


@settings(max_examples=200, deadline=None)
@given(st.lists(PATH, min_size=1, max_size=8))
def test_every_path_of_any_tree_is_a_site(paths: list[str]) -> None:
    sites = SiteMap([SiteTemplate("n.{i}", ("a.{i}",), Axis.LLM)], paths)
    for path in paths:
        assert path in {site.path for site in sites.resolve(path)}
        assert path in {site.path for site in sites.resolve(sites.canonical_name(path))}


def test_renamed_says_what_a_legacy_path_became() -> None:
    renames = [Rename(r"^language_model\.", ""), Rename(r"^decoder\.", "model.")]
    sites = SiteMap(TEMPLATES, tree(1, 3), renames)
    assert sites.renamed("language_model.decoder.layers.*.mlp") == "model.layers.*.mlp"
    assert sites.renamed("decoder.norm#1") == "model.norm#1"
    assert sites.renamed("model.norm") is None
    assert sites.renamed("llm.block.*") is None
    assert sites.renamed("decoder.nothing") is None
    with pytest.raises(SiteSyntaxError):
        sites.renamed("a..b")
