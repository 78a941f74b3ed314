"""`vlmlens sites`: the places in a model where activations are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from vlmlens.cli import _completion as completion
from vlmlens.cli._options import SpecFlags, installed, model_flags, output_flags, shares
from vlmlens.cli._output import Output, table

if TYPE_CHECKING:
    from vlmlens.sites import Site, SiteMap

_FIELDS = ("given", "became", "site", "path", "class", "width", "axis")


@shares(flags=model_flags, output=output_flags)
def sites(
    flags: SpecFlags,
    output: Output,
    pattern: Annotated[
        list[str] | None,
        Argument(
            metavar="SITE",
            help="Sites, for example llm.block.*.mlp. [default: all that have a name]",
            autocompletion=completion.sites,
        ),
    ] = None,
    every: Annotated[bool, Option("--all", help="List every module of the model.")] = False,
) -> None:
    """List the sites of a model.

    They are read from its configuration; no weights are loaded. Module paths of older versions of
    transformers work, too; their new names are shown.

    Examples:
        vlmlens sites
        vlmlens sites "llm.block.*.mlp" --adapter qwen2vl --model Qwen/Qwen2-VL-2B-Instruct
    """
    from vlmlens.runner import execution as runner

    tree, widths, classes = runner.open_sites(flags.spec(), installed())
    moved = {given: tree.renamed(given) for given in pattern or ()}
    chosen = _chosen(tree, pattern or [], every=every)
    rows = list(_rows(tree, chosen, moved, widths, classes))
    hidden = set() if any(moved.values()) else {"given", "became"}
    headers = [name for name in _FIELDS if name not in hidden]
    output.data(
        {"sites": rows}, table(*headers, rows=([row[name] for name in headers] for row in rows))
    )


def _chosen(tree: SiteMap, patterns: list[str], *, every: bool) -> dict[Site, str | None]:
    """The sites, each with the first pattern that asked for it."""
    if patterns:
        asked = ((site, given) for given in reversed(patterns) for site in tree.resolve(given))
        first = dict(asked)
        return {site: first[site] for site in tree.resolve_all(patterns)}
    if every:
        return dict.fromkeys(tree.resolve_all(tree.modules))
    return dict.fromkeys(tree.canonical.values())


def _rows(
    tree: SiteMap,
    chosen: Mapping[Site, str | None],
    moved: Mapping[str, str | None],
    widths: Mapping[str, int],
    classes: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    for site, given in chosen.items():
        yield {
            "given": given,
            "became": moved.get(given or ""),
            "site": site.name,
            "path": site.path,
            "class": classes.get(site.path),
            "width": tree.width(site, widths),
            "axis": site.axis.value,
        }
