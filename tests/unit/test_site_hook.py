"""The site's hook: links out of docs/, names of the contract, examples in docstrings."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.site import hook, public
from scripts.site.docstrings import shown

import vlmlens

CASES = [
    ("docs/python.md", "[run](../README.md)", "[run](index.md)"),
    ("docs/gpu.md", "[b](../benchmarks/README.md#x)", "[b](speed.md#x)"),
    ("docs/benchmarks/a.md", "[c](../../CHANGELOG.md)", "[c](../changelog.md)"),
    ("docs/benchmarks/a.md", "[c](../data.md#pairs)", "[c](../data.md#pairs)"),
    ("CHANGELOG.md", "[Pairs](docs/data.md#pairs)", "[Pairs](data.md#pairs)"),
    ("CHANGELOG.md", "[how](CONTRIBUTING.md#docs)", "[how](contributing.md#docs)"),
    ("CHANGELOG.md", "[pages](docs/benchmarks)", "pages (`docs/benchmarks`)"),
    ("benchmarks/README.md", "[x](causal.py)", "x (`benchmarks/causal.py`)"),
]
LEFT = [
    ("docs/gpu.md", "[nowhere](../nowhere.md)"),  # mkdocs refuses it
    ("CHANGELOG.md", "[nowhere](nowhere.py)"),
    ("CHANGELOG.md", "[x](https://a.b/c) and `f[0](x)`"),
    ("CHANGELOG.md", "```\nf[0](x)\n```\n![p](docs/images/p.png)"),
]


@pytest.mark.parametrize(("source", "text", "expected"), [*CASES, *[(*each, "") for each in LEFT]])
def test_links_lead_to_pages(source: str, text: str, expected: str) -> None:
    page = hook.BESIDE.get(source, source.removeprefix("docs/"))
    assert hook._linked(text, source, page) == (expected or text)


def test_a_file_without_page_is_linked_where_the_project_names_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = '[project]\nurls = {Repository = "https://forge.example/vlmlens/"}\n'
    (tmp_path / "pyproject.toml").write_text(named)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/causal.py").touch()
    monkeypatch.setattr(hook, "ROOT", tmp_path)
    linked = hook._linked("[x](causal.py)", "benchmarks/README.md", "speed.md")
    assert linked == "[x](https://forge.example/vlmlens/blob/main/benchmarks/causal.py)"


def test_names_are_those_that_modules_offer() -> None:
    assert set(vlmlens.__all__) <= set(public.names("vlmlens"))
    assert {"check_block", "T", "DTYPES"} <= set(public.names("vlmlens.stores.writing"))
    assert "TYPE_CHECKING" not in public.names("vlmlens.abc.hookspecs")
    assert public.home("vlmlens", "Sample") == "vlmlens.samples"
    assert public.home("vlmlens.samples", "Sample") == "vlmlens.samples"


def test_a_name_has_one_place_and_links_to_it() -> None:
    page = hook.api_pages()["api/vlmlens.md"]
    assert "::: vlmlens.run\n" in page
    assert "[`vlmlens.samples.Sample`][vlmlens.samples.Sample]" in page
    assert "::: vlmlens.Sample" not in page


def test_pages_come_in_place_of_the_word_only() -> None:
    nav = ["index.md", {"Reference": [{"API": "api"}, "design.md"]}]
    assert hook._with_pages(nav, ["a.md"]) == [
        "index.md",
        {"Reference": [{"API": ["a.md"]}, "design.md"]},
    ]


def test_examples_in_docstrings_become_code() -> None:
    assert shown("Twice.\n\n>>> 2 * 3\n6\n\nMore.") == (
        "Twice.\n\n```python\n>>> 2 * 3\n6\n```\n\nMore."
    )
    assert shown("Pairs.\n\nExample:\n    >>> 1\n    1\n\nMore.") == (
        "Pairs.\n\n\n```python\n>>> 1\n1\n```\n\nMore."
    )
    assert shown("The kit.\n\n::\n\n    code") == "The kit.\n\n    code"
    assert shown("Set some::\n\n    code") == "Set some:\n\n    code"
    assert shown("a::b and\n    >>> x") == "a::b and\n    >>> x"
