"""Sites: names for the places in a model where an activation is read or edited.

A site's canonical name is the same in every family: `vision.block.15`, `projector`,
`llm.block.14`, `llm.norm`, `llm.head`. Whatever follows a canonical name goes on in the module
tree (`llm.block.14.mlp.down_proj`), and a raw module path is a site too
(`model.language_model.layers.14`). One more name is the same in every family: `attn` after a
block is its self-attention, whatever that module is called (`llm.block.14.attn`). A pattern names
several sites at once:

=============  =============================================================
`*`            any one part (`vision.block.*`, `llm.block.*.mlp`)
`3-7`          the numbers 3 to 7, both included (`llm.block.3-7`)
`-1`           counted from the end (`llm.block.-1` is the last block)
`{a,b}`        either part (`llm.block.3.{mlp,self_attn}`)
`NAME#k`       the k-th call (from 0) of a module that runs more than once per pass
`re:...`       module paths, of today or older, by regular expression, from end to end
=============  =============================================================

A pattern that matches nothing is an error that lists the nearest names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from vlmlens.errors import SiteNotFound, SiteSyntaxError, nearest
from vlmlens.expressions import PREFIX, paths_matching

_PART = re.compile(r"\*|-[1-9][0-9]{0,8}|[0-9]{1,9}-[0-9]{1,9}|\w+|\{\w+(?:,\w+)*\}")
_ATTENTION = "attn"
_ATTENTION_MODULES = frozenset(
    {"attn", "self_attn", "self_attention", "attention", "SelfAttention"}
)
_CALL = re.compile(r"#([0-9]{1,9})\Z")


class Axis(StrEnum):
    """What the rows of a site's activation stand for.

    `vision`: the vision tower's tokens; `projector`: the tokens that the connector hands to the
    language model; `llm`: positions of the language model's sequence (in an encoder-decoder, the
    decoder's; in a family of two towers, the text tower's); `encoder`: positions of an
    encoder-decoder's encoder; `sample`: one row per sample (pooled outputs).
    """

    VISION = "vision"
    PROJECTOR = "projector"
    LLM = "llm"
    ENCODER = "encoder"
    SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class Site:
    """One place in a model.

    Args:
        name: Canonical name, or the raw module path where there is none.
        path: Module path in the loaded model's tree.
        axis: What the rows of its activation stand for.
        index: Number of the block it belongs to, if any.
        call: Which call of the module in a pass is meant, where it runs several times.
    """

    name: str
    path: str
    axis: Axis
    index: int | None = None
    call: int | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class SiteTemplate:
    """How one canonical name maps to module paths.

    Args:
        name: Canonical name; `{i}` stands for the block's number: `llm.block.{i}`.
        paths: Candidate module paths, tried in order, with the same `{i}`.
        axis: What the rows stand for.
        call: Which call is meant, for a module that runs more than once per pass.
    """

    name: str
    paths: tuple[str, ...]
    axis: Axis
    call: int | None = None


@dataclass(frozen=True, slots=True)
class Rename:
    """A legacy module path: `pattern` (a regular expression) was once what `replacement` is now."""

    pattern: str
    replacement: str


class SiteMap:
    """All sites of one model: its canonical names over its module tree.

    Args:
        templates: The family's canonical names.
        modules: Every module path of the tree, in the tree's order.
        renames: Legacy paths, tried in order where a raw path is not found as given.
    """

    def __init__(
        self,
        templates: Sequence[SiteTemplate],
        modules: Iterable[str],
        renames: Sequence[Rename] = (),
    ) -> None:
        self._modules = {path: None for path in modules if path}
        self._templates = tuple(templates)
        self._renames = tuple(renames)

    @cached_property
    def canonical(self) -> Mapping[str, Site]:
        """The canonical sites that exist in this model, in forward order."""
        sites: dict[str, Site] = {}
        for template in self._templates:
            for site in self._instances(template):
                sites.setdefault(site.name, site)
        return sites

    @property
    def modules(self) -> Sequence[str]:
        """Every module path of the tree."""
        return tuple(self._modules)

    def resolve(self, pattern: str) -> list[Site]:
        """The sites that a pattern names, in forward order.

        Raises:
            SiteSyntaxError: The pattern does not parse.
            SiteNotFound: It matches nothing.

        >>> block = SiteTemplate("llm.block.{i}", ("model.layers.{i}",), Axis.LLM)
        >>> tree = SiteMap([block], ["model", "model.layers.0", "model.layers.0.mlp"])
        >>> [site.path for site in tree.resolve("llm.block.*.mlp")]
        ['model.layers.0.mlp']
        """
        text, call = _split_call(pattern)
        if text.startswith(PREFIX):
            paths = paths_matching(text, self._modules, self._renames)
            sites = [self._site_of(path) for path in paths]
        else:
            sites = self._match(parse_pattern(text)) or self._renamed(text)[1]
        if not sites:
            raise self._not_found(pattern)
        if call is not None:
            sites = [replace(site, name=f"{site.name}#{call}", call=call) for site in sites]
        return sites

    def renamed(self, pattern: str) -> str | None:
        """What a legacy path (or a pattern of them) is called now.

        Returns:
            The pattern that `resolve` takes for it; None where no rename is needed, or none helps.

        Raises:
            SiteSyntaxError: The pattern does not parse.

        >>> moved = Rename("^layers", "model.layers")
        >>> tree = SiteMap([], ["model", "model.layers.0"], [moved])
        >>> tree.renamed("layers.*"), tree.renamed("model.layers.*")
        ('model.layers.*', None)
        """
        text, call = _split_call(pattern)
        if text.startswith(PREFIX) or self._match(parse_pattern(text)):
            return None
        new, sites = self._renamed(text)
        if not sites:
            return None
        return new if call is None else f"{new}#{call}"

    def resolve_all(self, patterns: Iterable[str]) -> list[Site]:
        """The sites of several patterns, each once, in the order of the patterns."""
        found = {site.name: site for pattern in patterns for site in self.resolve(pattern)}
        return list(found.values())

    def canonical_name(self, path: str) -> str:
        """The canonical name of a module path, or the path itself."""
        return self._site_of(path).name

    def owner(self, path: str) -> Site | None:
        """The canonical site whose module a path names or lies in, the innermost; or None."""
        around = (
            site
            for site in self.canonical.values()
            if path == site.path or path.startswith(site.path + ".")
        )
        return max(around, key=lambda site: len(site.path), default=None)

    def _instances(self, template: SiteTemplate) -> list[Site]:
        for candidate in template.paths:
            numbers = self._numbers(candidate)
            if numbers:
                return [
                    Site(
                        template.name.format(i=i),
                        candidate.format(i=i),
                        template.axis,
                        index=i,
                        call=template.call,
                    )
                    for i in numbers
                ]
        return []

    def _numbers(self, candidate: str) -> Sequence[int | None]:
        if "{i}" not in candidate:
            return [None] if candidate in self._modules else []
        head, tail = (re.escape(part) for part in candidate.split("{i}", 1))
        again = tail.replace(re.escape("{i}"), "(?P=i)")
        pattern = re.compile(rf"{head}(?P<i>0|[1-9][0-9]{{0,8}}){again}")
        found = (pattern.fullmatch(path) for path in self._modules)
        return sorted({int(match["i"]) for match in found if match})

    def _match(self, parts: Sequence[str]) -> list[Site]:
        canonical = self._match_canonical(parts)
        return canonical or self._match_modules(parts)

    def _match_canonical(self, parts: Sequence[str]) -> list[Site]:
        sites: list[Site] = []
        by_length = self._canonical_by_length
        for length in sorted(by_length, reverse=True):
            if length > len(parts):
                continue
            heads = _filter(by_length[length], parts[:length])
            for head in heads:
                sites.extend(self._below(self.canonical[head], parts[length:]))
            if sites:
                break
        return sites

    @cached_property
    def _canonical_by_length(self) -> dict[int, list[str]]:
        grouped: dict[int, list[str]] = {}
        for name in self.canonical:
            grouped.setdefault(name.count(".") + 1, []).append(name)
        return grouped

    def _below(self, head: Site, rest: Sequence[str]) -> list[Site]:
        if not rest:
            return [head]
        names = rest[0].strip("{}").split(",")
        attention = self._attention_in(head) if _ATTENTION in names else None
        if attention is not None:
            others = [name for name in names if name != _ATTENTION]
            more = self._below(head, ["{" + ",".join(others) + "}", *rest[1:]]) if others else []
            return [*self._below(attention, rest[1:]), *more]
        depth = head.path.count(".") + 1
        prefix = head.path + "."
        paths = [
            path
            for path in self._modules
            if path.startswith(prefix) and path.count(".") + 1 == depth + len(rest)
        ]
        tails = {path[len(prefix) :]: path for path in paths}
        return [
            Site(f"{head.name}.{tail}", tails[tail], head.axis, index=head.index, call=head.call)
            for tail in _filter(list(tails), rest)
        ]

    def _attention_in(self, head: Site) -> Site | None:
        """The self-attention of a block, where one module is called so and none above it."""
        if head.index is None:
            return None
        inside = (path for path in self._modules if path.startswith(head.path + "."))
        found = [path for path in inside if path.rpartition(".")[2] in _ATTENTION_MODULES]
        depth = min((path.count(".") for path in found), default=0)
        found = [path for path in found if path.count(".") == depth]
        if len(found) != 1:
            return None
        return replace(head, name=f"{head.name}.{_ATTENTION}", path=found[0])

    def _match_modules(self, parts: Sequence[str]) -> list[Site]:
        same_depth = [path for path in self._modules if path.count(".") + 1 == len(parts)]
        return [self._site_of(path) for path in _filter(same_depth, parts)]

    def _site_of(self, path: str) -> Site:
        """The site of a raw path, named canonically where a canonical site contains it."""
        owner = self.owner(path)
        if owner is None:
            return Site(path, path, self._axis_of(path))
        name = owner.name + path[len(owner.path) :]
        return replace(owner, name=name, path=path)

    def _axis_of(self, path: str) -> Axis:
        """The axis of a path outside all canonical sites: that of its nearest relative."""
        best, shared = Axis.LLM, 0
        for site in self.canonical.values():
            common = _common_parts(path, site.path)
            if common > shared:
                best, shared = site.axis, common
        return best

    def _renamed(self, text: str) -> tuple[str, list[Site]]:
        """A legacy path's new form and sites: the renames apply one on top of the other."""
        for rename in self._renames:
            new = re.sub(rename.pattern, rename.replacement, text)
            if new != text:
                text = new
                sites = self._match(parse_pattern(text))
                if sites:
                    return text, sites
        return text, []

    def _not_found(self, pattern: str) -> SiteNotFound:
        close = nearest(pattern.removeprefix(PREFIX), [*self.canonical, *self._modules])
        listed = ", ".join(close) if close else ", ".join(list(self.canonical)[:5])
        return SiteNotFound(
            f"No site of this model matches {pattern!r}.",
            subject=pattern,
            hint=f"Nearest names: {listed}. `vlmlens sites` shows the whole tree.",
        )


def parse_pattern(pattern: str) -> list[str]:
    """The parts of a site pattern.

    Raises:
        SiteSyntaxError: A part is empty or is no name, number, range, `*` or `{a,b}`.

    >>> parse_pattern("llm.block.3-7.{mlp,self_attn}")
    ['llm', 'block', '3-7', '{mlp,self_attn}']
    """
    parts = pattern.split(".")
    for part in parts:
        if not _PART.fullmatch(part):
            raise SiteSyntaxError(
                f"{pattern!r} is not a site: {part!r} is no name, number, range (3-7), "
                "'*' or choice ({a,b}).",
                subject=pattern,
                hint="Examples: llm.block.14, vision.block.*, llm.block.3-7.mlp.",
            )
    return parts


def _split_call(pattern: str) -> tuple[str, int | None]:
    match = _CALL.search(pattern)
    return (pattern[: match.start()], int(match[1])) if match else (pattern, None)


def _filter(names: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The names of as many parts as the pattern has, which match it part by part."""
    live = [(name, name.split(".")) for name in names]
    live = [(name, split) for name, split in live if len(split) == len(parts)]
    for depth, part in enumerate(parts):
        if re.fullmatch(r"-\d+", part):
            live = _from_end(live, depth, int(part))
        else:
            live = [item for item in live if _part_matches(part, item[1][depth])]
    return [name for name, _ in live]


def _from_end(
    live: list[tuple[str, list[str]]], depth: int, offset: int
) -> list[tuple[str, list[str]]]:
    by_head: dict[tuple[str, ...], set[int]] = {}
    for _, split in live:
        if _is_number(split[depth]):
            by_head.setdefault(tuple(split[:depth]), set()).add(int(split[depth]))
    kept = []
    for item in live:
        numbers = sorted(by_head.get(tuple(item[1][:depth]), ()))
        if len(numbers) >= -offset and item[1][depth] == str(numbers[offset]):
            kept.append(item)
    return kept


def _part_matches(part: str, name: str) -> bool:
    if part == "*":
        return True
    if part.startswith("{"):
        return name in part[1:-1].split(",")
    if "-" in part and _is_number(name):
        low, high = part.split("-")
        return int(low) <= int(name) <= int(high)
    return part == name


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 10


def _common_parts(a: str, b: str) -> int:
    count = 0
    for left, right in zip(a.split("."), b.split("."), strict=False):
        if left != right:
            break
        count += 1
    return count
