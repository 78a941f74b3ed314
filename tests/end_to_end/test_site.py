"""The documentation site: it builds strictly, links lead somewhere, public names have a place."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from scripts.site.public import PROVISIONAL, modules
from tests._site import COUNTED, Page, dead_links, pages_of, remote
from tests.unit.test_contract import public, stable_modules

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
NAV = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
BORROWED = {"TYPE_CHECKING", "annotations"}
"""What a module has from the language."""


def build(config: Path, to: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]  # with -q, it is not strict
    return subprocess.run(
        [*command, "-f", str(config), "-d", str(to)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once, also where tests run in several processes."""
    shared = tmp_path_factory.getbasetemp().resolve()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made = shared / "site"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            done = build(ROOT / "mkdocs.yml", shared / "site.new")
            assert done.returncode == 0, done.stderr
            (shared / "site.new").rename(made)
    return made


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return pages_of(site)


def test_every_page_has_one_place_in_the_navigation() -> None:
    named = Counter(re.findall(r"[\w/.-]+\.md", NAV))
    without = [page for page in map(in_docs, DOCS) if page not in named]
    assert not without, "add them to `nav` in mkdocs.yml"
    assert [page for page, places in named.items() if places > 1] == []


def test_the_navigation_is_in_every_page(site: Path, pages: dict[Path, Page]) -> None:
    listed = set(pages[site / "sae.html"].listed)
    assert {page.removesuffix(".md") + ".html" for page in map(in_docs, DOCS)} <= listed


def in_docs(page: Path) -> str:
    return page.relative_to(ROOT / "docs").as_posix()


def test_links_and_anchors_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > len(DOCS)
    assert sum(len(page.links) for page in pages.values()) > 5_000
    assert dead_links(site, pages) == []


def test_a_dead_link_of_a_built_page_would_be_seen(site: Path, pages: dict[Path, Page]) -> None:
    text = '<a href="nowhere.html">a</a><a href="sae.html#nowhere">b</a><img src="images/no.png">'
    made = {site / "sae.html": pages[site / "sae.html"], site / "made.html": Page(text)}
    assert len(dead_links(site, made)) == 3


def test_no_page_or_style_loads_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    loads = {str(path): page.loads for path, page in pages.items()}
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        loads[str(style)] = re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]+)", text)
    assert sum(map(len, loads.values())) > 200
    assert [link for found in loads.values() for link in found if remote(link)] == []
    font = Page('<link rel="stylesheet" href="https://fonts.example/a.css"><script src="//b.js">')
    assert [remote(link) for link in font.loads] == [True, True]


def test_every_public_name_is_in_the_reference(pages: dict[Path, Page]) -> None:
    ids = {name: page.ids for path, page in pages.items() if (name := path.stem) in modules()}
    assert set(ids) == {*stable_modules(), "vlmlens", *PROVISIONAL}
    wanted = [(module, name) for module in ids for name in public(module) if name not in BORROWED]
    assert len(wanted) > 150
    assert [f"{m}.{name}" for m, name in wanted if f"{m}.{name}" not in ids[m]] == []


def test_methods_are_in_the_reference_and_unknown_names_are_not(pages: dict[Path, Page]) -> None:
    (abc,) = [page.ids for path, page in pages.items() if path.stem == "vlmlens.abc"]
    named = public("vlmlens.abc")
    methods = {f"vlmlens.abc.{name}.{part}" for name, parts in named.items() for part in parts}
    assert len(methods) > 100
    assert methods - abc <= {"vlmlens.abc.Options.model_config"}
    assert "vlmlens.abc.Prism" not in abc


def test_the_contract_says_which_modules_are_provisional() -> None:
    page = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    named = re.findall(r"`(vlmlens\.[\w.]+)`", page.split("**Provisional**")[1].split("\n\n")[0])
    assert set(named) == set(PROVISIONAL)


def test_pages_look_as_they_do_in_the_repository(site: Path, pages: dict[Path, Page]) -> None:
    """Markdown of the site has other rules for lists than that of the repository's host."""
    elsewhere = MarkdownIt("commonmark").enable("table")
    other = []
    for path in DOCS:
        text = f"<article>{elsewhere.render(path.read_text(encoding='utf-8'))}</article>"
        here = pages[(site / in_docs(path)).with_suffix(".html")].counts
        there = Page(text).counts
        other += [(path.name, t, there[t], here[t]) for t in COUNTED if here[t] != there[t]]
    assert other == []


def test_python_of_pages_compiles() -> None:
    found = 0
    for page in DOCS:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```(?:python|py)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            compile(block, page.name, "exec")
            found += 1
    assert found > 40


WRONG = {
    "[a page](nowhere.md)": "'nowhere.md', but the target is not found",
    "[an anchor](#nowhere)": "'#nowhere', but there is no such anchor",
    "[a file beside docs](../nowhere.md)": "'../nowhere.md', but the target is not found",
    "[the root](/index.md)": "absolute link '/index.md'",
    "![a picture](images/nowhere.png)": "'images/nowhere.png', but the target is not found",
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of the site over a folder with a page of its own."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "docs").mkdir()
    own = {"INHERIT": str(ROOT / "mkdocs.yml"), "plugins": [], "hooks": [], "nav": ["index.md"]}
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(own), encoding="utf-8")
    return folder


def test_broken_links_and_pages_without_place_are_errors(settings: Path) -> None:
    page = settings / "docs" / "index.md"
    page.write_text("# Fine\n\n[Here](#fine)\n", encoding="utf-8")
    assert build(settings / "mkdocs.yml", settings / "fine").returncode == 0
    page.write_text("# Wrong\n\n" + "\n".join(WRONG), encoding="utf-8")
    (settings / "docs" / "lost.md").write_text("# Lost\n", encoding="utf-8")
    done = build(settings / "mkdocs.yml", settings / "wrong")
    assert done.returncode != 0
    for said in [*WRONG.values(), 'not included in the "nav" configuration']:
        assert said in done.stderr
