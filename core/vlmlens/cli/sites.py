"""`vlmlens sites`: the places in a model where activations are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from vlmlens.cli._options import SpecFlags, installed, model_flags, output_flags, shares
from vlmlens.cli._output import Output, table

if TYPE_CHECKING:
    from vlmlens.sites import Site, SiteMap


@shares(flags=model_flags, output=output_flags)
def sites(
    flags: SpecFlags,
    output: Output,
    pattern: Annotated[
        list[str] | None, Argument(help="Sites, as llm.block.*.mlp; default: the named ones.")
    ] = None,
    every: Annotated[bool, Option("--all", help="List every module of the model.")] = False,
) -> None:
    """List the sites of a model.

    They are read from its configuration; no weights are loaded.
    """
    from vlmlens import runner

    tree, widths, classes = runner.open_sites(flags.spec(), installed())
    chosen = _chosen(tree, pattern or [], every=every)
    rows = list(_rows(chosen, widths, classes))
    headers = ("site", "path", "class", "width", "axis")
    output.data({"sites": rows}, table(*headers, rows=(list(row.values()) for row in rows)))


def _chosen(tree: SiteMap, patterns: list[str], *, every: bool) -> list[Site]:
    if patterns:
        return tree.resolve_all(patterns)
    if every:
        return tree.resolve_all(tree.modules)
    return list(tree.canonical.values())


def _rows(
    chosen: list[Site], widths: Mapping[str, int], classes: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    for site in chosen:
        yield {
            "site": site.name,
            "path": site.path,
            "class": classes.get(site.path),
            "width": widths.get(site.path),
            "axis": site.axis.value,
        }
