"""What mkdocs asks for while it builds: pages of the Python API, and pages of files beside `docs/`.

mkdocs calls the functions `on_...` (see `hooks` in mkdocs.yml).

Use: python -m mkdocs build --strict
"""

from __future__ import annotations

import posixpath
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # mkdocs loads this file by its path

from scripts.site import public  # noqa: E402
from scripts.site.docstrings import shown  # noqa: E402

API = "api"
"""The word in mkdocs.yml's `nav` in whose place the pages of the API come; their folder, too."""
BESIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "report-a-weakness.md",
    "benchmarks/README.md": "speed.md",
}
"""The page that stands for a file beside `docs/`: a copy of it, but for README."""
LINK = re.compile(
    r"(?s:```.*?```)|`[^`\n]+`"  # code, which stays as it is
    r"|(?<!!)\[(?P<label>[^\[\]]+)\]\((?P<target>[^()\s#:]+)(?P<anchor>#[^()\s]*)?\)"
)


def on_config(config: MkDocsConfig) -> None:
    """Put the pages of the API into the navigation."""
    pages = [f"{API}/{module}.md" for module in public.modules()]
    config.nav = _with_pages(config.nav, [f"{API}/index.md", *pages])


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that `docs/` does not have."""
    for source, page in BESIDE.items():
        if source != "README.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=_linked(text, source, page)))
    for page, text in api_pages().items():
        files.append(File.generated(config, page, content=text))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links out of `docs/` to the pages that stand for their files."""
    if page.file.generated_by:
        return markdown
    return _linked(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def api_pages() -> dict[str, str]:
    """The pages of the API: an index, and one for each module, in Markdown for mkdocstrings."""
    pages = {f"{API}/{module}.md": _api_page(module) for module in public.modules()}
    rows = [
        f"| [`{module}`]({module}.md) | {_first_sentence(module)} |" for module in public.modules()
    ]
    head = "# API\n\nThe names that [the contract](../contract.md) keeps stable, by module.\n\n"
    return {f"{API}/index.md": head + "| module | |\n|---|---|\n" + "\n".join(rows) + "\n", **pages}


def _api_page(module: str) -> str:
    intro = shown(public.docstring(module))
    marked = "!!! note\n    Provisional: a minor version may change these names.\n\n"
    note = marked if module in public.PROVISIONAL else ""
    parts = [_api_entry(module, name) for name in public.names(module)]
    return "\n\n".join([f"# {module}", note + intro, *parts]) + "\n"


def _api_entry(module: str, name: str) -> str:
    """A name's documentation, or the link to it, where another public module is its home."""
    home = public.home(module, name)
    if home != module and home in public.modules():
        return (
            f"## `{name}` {{ #{module}.{name} }}\n\nThe same as [`{home}.{name}`][{home}.{name}]."
        )
    inherited = "\n    options:\n      inherited_members: true" if module == "vlmlens.abc" else ""
    return f"::: {module}.{name}{inherited}"


def _first_sentence(module: str) -> str:
    return re.split(r"(?<=\.)\s", public.docstring(module), maxsplit=1)[0].replace("\n", " ")


def _with_pages(nav: Any, pages: list[str]) -> Any:
    if isinstance(nav, list):
        return [_with_pages(entry, pages) for entry in nav]
    if isinstance(nav, dict):
        return {name: _with_pages(entry, pages) for name, entry in nav.items()}
    return pages if nav == API else nav


def _linked(text: str, source: str, page: str) -> str:
    """The text of a file of the repository with links as they are from its page of the site."""

    def replaced(found: re.Match[str]) -> str:
        label, target, anchor = found["label"], found["target"], found["anchor"] or ""
        if target is None:
            return found[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if file.startswith("docs/") and source.startswith("docs/"):
            return found[0]
        if (there := _page_of(file)) is None:
            return _elsewhere(label, file) if (ROOT / file).exists() else found[0]
        return f"[{label}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{anchor})"

    return LINK.sub(replaced, text)


def _page_of(file: str) -> str | None:
    if file in BESIDE:
        return BESIDE[file]
    return file.removeprefix("docs/") if file.startswith("docs/") and "." in file else None


def _elsewhere(label: str, file: str) -> str:
    """A file without a page: a link into the repository that pyproject.toml names, or its path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project.get("urls", {}).get("Repository")
    if repository:
        return f"[{label}]({repository.rstrip('/')}/blob/main/{file})"
    return f"{label} (`{file}`)"
