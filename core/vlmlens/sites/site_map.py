"""SiteMap: from a pattern to the sites of one model.

Canonical names are the same in every family: `vision.block.15`, `projector`, `llm.block.14`,
`llm.norm`, `llm.head`. A canonical name can be continued with a path inside its module
(`llm.block.14.mlp.down_proj`). A module path is a site too (`model.language_model.layers.14`).
`attn` after a block is its self-attention in every family, whatever that module is called
(`llm.block.14.attn`). A pattern can match several sites:

=============  =============================================================
`*`            any one part (`vision.block.*`, `llm.block.*.mlp`)
`3-7`          the numbers 3 to 7, both included (`llm.block.3-7`); also `[3-7]`
`-1`           counted from the end (`llm.block.-1` is the last block)
`{a,b}`        either part (`llm.block.3.{mlp,self_attn}`)
`NAME#k`       the k-th call (from 0) of a module that runs more than once per pass
`re:...`       a regular expression over whole module paths, current or older ones
=============  =============================================================

Some sites are not the output of a module that has their name:

=================  =====================================================================
`NAME:in`          what the module is given (`llm.block.14:in`)
`BLOCK.attn_out`   what attention adds to the residual stream, after a norm or scale behind
                   it; `BLOCK.mlp_out` likewise
`ATTN.heads`       all heads side by side: the input of the output projection
                   (`llm.block.14.attn.heads`); `heads[5]`, `heads[0-3]`, `heads[*]`: single ones
=================  =====================================================================

If a pattern matches nothing, the error lists the nearest names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from vlmlens._display import AsHtml, brief, count
from vlmlens.errors import SiteNotFound, nearest
from vlmlens.sites.anatomy import OUTPUTS, Anatomy, Heads
from vlmlens.sites.derived import branch_of, heads_of, input_of, why_without
from vlmlens.sites.patterns import (
    head_numbers,
    matching,
    parse_pattern,
    split_call,
    split_heads,
    split_input,
)
from vlmlens.sites.regex import PREFIX, paths_matching
from vlmlens.sites.site import Axis, Rename, Site, SiteTemplate

_ATTENTION = "attn"
_ATTENTION_MODULES = frozenset(
    {"attn", "self_attn", "self_attention", "attention", "SelfAttention"}
)


class SiteMap(AsHtml):
    """All sites of one model: its canonical names over its module tree.

    Args:
        templates: The family's canonical names.
        modules: Every module path of the tree, in the tree's order.
        renames: Older module paths, tried in order if a path is not found as given.
        anatomy: What is known of attention heads and of blocks (`vlmlens.sites.anatomy`); None:
            there are no sites of heads, nor `attn_out` and `mlp_out`.
    """

    def __init__(
        self,
        templates: Sequence[SiteTemplate],
        modules: Iterable[str],
        renames: Sequence[Rename] = (),
        anatomy: Anatomy | None = None,
    ) -> None:
        self._modules = {path: None for path in modules if path}
        self._templates = tuple(templates)
        self._renames = tuple(renames)
        self._anatomy = anatomy or Anatomy()

    @cached_property
    def canonical(self) -> Mapping[str, Site]:
        """The canonical sites that exist in this model, in forward order."""
        sites: dict[str, Site] = {}
        for template in self._templates:
            for site in self._instances(template):
                sites.setdefault(site.name, site)
        return sites

    def __repr__(self) -> str:
        sites, modules = len(self.canonical), len(self._modules)
        return brief(self, "", count(sites, "site"), count(modules, "module"))

    @property
    def modules(self) -> Sequence[str]:
        """Every module path of the tree."""
        return tuple(self._modules)

    def resolve(self, pattern: str) -> list[Site]:
        """The sites that a pattern matches, in forward order.

        Raises:
            SiteSyntaxError: The pattern does not parse.
            SiteNotFound: It matches nothing.

        >>> block = SiteTemplate("llm.block.{i}", ("model.layers.{i}",), Axis.LLM)
        >>> tree = SiteMap([block], ["model", "model.layers.0", "model.layers.0.mlp"])
        >>> [site.path for site in tree.resolve("llm.block.*.mlp")]
        ['model.layers.0.mlp']
        """
        sites = self.matching(pattern)
        if not sites:
            raise self._not_found(pattern)
        return sites

    def matching(self, pattern: str) -> list[Site]:
        """The sites that a pattern names, as `resolve` gives them; an empty list if there are none.

        To ask whether there are any, this is faster than to catch `SiteNotFound`, whose hint
        compares the pattern with all names.

        Raises:
            SiteSyntaxError: The pattern does not parse.
        """
        text, call = split_call(pattern)
        text, is_input = split_input(text)
        sites = self._of_expression(text) if text.startswith(PREFIX) else self._named(text)
        if is_input:
            sites = [input_of(site) for site in sites]
        if call is not None:
            sites = [replace(site, name=f"{site.name}#{call}", call=call) for site in sites]
        return sites

    def _of_expression(self, text: str) -> list[Site]:
        paths = paths_matching(text, self._modules, self._renames)
        return [self._site_of(path) for path in paths]

    def _named(self, text: str) -> list[Site]:
        """The sites of a pattern without `#k` and `:in`."""
        outer, which = split_heads(text)
        if which is None:
            return self._match(parse_pattern(text)) or self._renamed(text)[1]
        owners = self._match(parse_pattern(outer)) or self._renamed(outer)[1]
        found = [head for site in owners for head in heads_of(site, which, self._anatomy)]
        if not found and owners and not which:
            found = self._match(parse_pattern(text))  # a module that is called "heads"
        return found

    def attentions(self, pattern: str) -> list[tuple[Site, int | None]]:
        """The attention modules that a pattern matches, each with the head that it names, or None.

        Raises:
            SiteError: The pattern is malformed, or matches no attention or no such head.

        >>> block = SiteTemplate("llm.block.{i}", ("layers.{i}",), Axis.LLM)
        >>> tree = SiteMap([block], ["layers.0", "layers.0.self_attn"])
        >>> [(site.path, head) for site, head in tree.attentions("llm.block.*.attn")]
        [('layers.0.self_attn', None)]
        """
        outer, which = split_heads(pattern)
        sites = self.resolve(outer)
        if not which:
            return [(site, None) for site in sites]
        found: list[tuple[Site, int | None]] = []
        for site in sites:
            self.resolve(f"{site.name}.heads[{which}]")  # says which heads there are
            count = self._anatomy.heads[site.path].count
            found += [(site, number) for number in head_numbers(which, count)]
        return found

    def heads(self, site: Site) -> Heads | None:
        """The heads of an attention module, or of the module whose input they are; or None."""
        known = self._anatomy.heads
        by_projection = (each for each in known.values() if each.projection == site.path)
        return known.get(site.path) or next(by_projection, None)

    def renamed(self, pattern: str) -> str | None:
        """The current name of an older module path, or of a pattern of such paths.

        Returns:
            The pattern that `resolve` uses instead; None if no rename is needed, or none helps.

        Raises:
            SiteSyntaxError: The pattern does not parse.

        >>> moved = Rename("^layers", "model.layers")
        >>> tree = SiteMap([], ["model", "model.layers.0"], [moved])
        >>> tree.renamed("layers.*"), tree.renamed("model.layers.*")
        ('model.layers.*', None)
        """
        text, _ = split_input(split_call(pattern)[0])
        text, _ = split_heads(text)
        if text.startswith(PREFIX) or self._match(parse_pattern(text)):
            return None
        new, sites = self._renamed(text)
        return new + pattern[len(text) :] if sites else None

    def width(self, site: Site, widths: Mapping[str, int]) -> int | None:
        """The width of a site's activation, if it is known.

        Args:
            site: A site of this map.
            widths: The output width of modules, by path.
        """
        if site.columns is not None:
            return site.columns[1] - site.columns[0]
        if site.side == "out":
            return widths.get(site.path)
        heads = self.heads(site) if site.name.endswith(".heads") else None
        if heads is not None:
            return heads.count * heads.size
        of_block = site.index is not None and self.canonical_name(site.path).endswith(
            f".block.{site.index}"
        )
        return widths.get(site.path) if of_block else None

    def resolve_all(self, patterns: Iterable[str]) -> list[Site]:
        """The sites of several patterns, each once, in the order of the patterns."""
        found = {site.name: site for pattern in patterns for site in self.resolve(pattern)}
        return list(found.values())

    def canonical_name(self, path: str) -> str:
        """The canonical name of a module path; the path itself if it has none."""
        return self._site_of(path).name

    def owner(self, path: str) -> Site | None:
        """The innermost canonical site whose module is, or contains, the path; or None."""
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
            heads = matching(by_length[length], parts[:length])
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
        if len(rest) == 1 and set(names) & set(OUTPUTS):
            return self._with_branches(head, names)
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
            for tail in matching(list(tails), rest)
        ]

    def _with_branches(self, block: Site, names: Sequence[str]) -> list[Site]:
        """The branches of a block among some names, and its modules of the other names."""
        found = [branch_of(block, name, self._anatomy) for name in names if name in OUTPUTS]
        others = [name for name in names if name not in OUTPUTS]
        more = self._below(block, ["{" + ",".join(others) + "}"]) if others else []
        return [site for site in found if site is not None] + more

    def _attention_in(self, head: Site) -> Site | None:
        """The self-attention of a block: the one outermost module with such a name, if any."""
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
        return [self._site_of(path) for path in matching(same_depth, parts)]

    def _site_of(self, path: str) -> Site:
        """The site of a module path, with a canonical name if a canonical site contains it."""
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
        """The new form of an older path, and its sites. The renames are applied in sequence."""
        for rename in self._renames:
            new = re.sub(rename.pattern, rename.replacement, text)
            if new != text:
                text = new
                sites = self._match(parse_pattern(text))
                if sites:
                    return text, sites
        return text, []

    def _not_found(self, pattern: str) -> SiteNotFound:
        text = split_input(split_call(pattern)[0])[0]
        outer, which = split_heads(text)
        owners = [] if which is None or text.startswith(PREFIX) else self.matching(outer)
        if owners:
            return SiteNotFound(
                f"The heads of {owners[0].name!r} ({owners[0].path}) are not known: "
                f"{why_without(owners[0], self._anatomy)}.",
                subject=text,
                hint="Write `.heads` after an attention module: llm.block.3.attn.heads.",
            )
        close = nearest(pattern.removeprefix(PREFIX), [*self.canonical, *self._modules])
        listed = ", ".join(close) if close else ", ".join(list(self.canonical)[:5])
        branch = text.rpartition(".")[2] in OUTPUTS
        why = " Its blocks do not add their parts, or this is not known." if branch else ""
        return SiteNotFound(
            f"No site of this model matches {pattern!r}.{why}",
            subject=pattern,
            hint=f"Nearest names: {listed}. `vlmlens sites` shows the whole tree.",
        )


def _common_parts(a: str, b: str) -> int:
    count = 0
    for left, right in zip(a.split("."), b.split("."), strict=False):
        if left != right:
            break
        count += 1
    return count
