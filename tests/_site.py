"""The built site as tests see it: links, anchors and what pages load."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"img": "src", "script": "src", "source": "src", "iframe": "src", "video": "src"}
"""What a browser requests by itself, beside `link`."""
COUNTED = (
    "h1",
    "h2",
    "h3",
    "ul",
    "ol",
    "li",
    "table",
    "tr",
    "pre",
    "blockquote",
    "strong",
    "em",
    "img",
)


class Page(HTMLParser):
    """One page: its anchors, links, those of its navigation, what it loads, and its parts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.listed: list[str] = []
        self.loads: list[str] = re.findall(r"url\(\s*['\"]?([^'\")]+)", text)
        self.counts: Counter[str] = Counter()
        self._in_article = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._in_article |= tag == "article"
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            if "md-nav__link" in given.get("class", ""):
                self.listed.append(given["href"])
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given["href"])
        if tag in LOADED and LOADED[tag] in given:
            self.loads.append(given[LOADED[tag]])
        if self._in_article and tag in COUNTED:
            self.counts[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._in_article &= tag != "article"


def pages_of(site: Path) -> dict[Path, Page]:
    """All pages of a built site."""
    found = sorted(site.rglob("*.html"))
    return {path: Page(path.read_text(encoding="utf-8")) for path in found}


def dead_links(site: Path, pages: dict[Path, Page]) -> list[str]:
    """Links and loaded files that lead nowhere in the site, anchors included."""
    dead = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            at_root = path.name == "404.html" and parts.path.startswith("/")
            folder = site if at_root else path.parent
            file = unquote(parts.path).removeprefix("/" if at_root else "")
            target = (folder / file).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            wanted = unquote(parts.fragment)
            there = target.is_file() and target.is_relative_to(site.resolve())
            if not there or (wanted and target in pages and wanted not in pages[target].ids):
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead


def remote(link: str) -> bool:
    """Whether a browser would ask another host for it."""
    return bool(urlsplit(link).netloc) and urlsplit(link).scheme in ("", "http", "https")
