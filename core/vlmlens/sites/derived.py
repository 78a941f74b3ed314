"""Sites that follow from another site: the heads of an attention, its input, a block's branches."""

from __future__ import annotations

from dataclasses import replace

from vlmlens.errors import SiteNotFound, SiteSyntaxError
from vlmlens.sites.anatomy import OUTPUTS, Anatomy
from vlmlens.sites.patterns import head_numbers
from vlmlens.sites.site import Site


def input_of(site: Site) -> Site:
    """The site of what a module is given.

    Raises:
        SiteSyntaxError: The site is no module's output (heads, `attn_out`, `mlp_out`).
    """
    if site.side == "in" or site.name.rpartition(".")[2] in OUTPUTS:
        raise SiteSyntaxError(
            f"The site {site.name!r} has no input of its own.",
            subject=f"{site.name}:in",
            hint="Write `:in` after the name of a block or of another module.",
        )
    return replace(site, name=f"{site.name}:in", side="in")


def heads_of(site: Site, which: str, known: Anatomy) -> list[Site]:
    """The sites of an attention's heads.

    Args:
        site: The attention module.
        which: "" for all heads side by side; "*", "5" or "0-3,7" for single heads.
        known: The model's anatomy.

    Returns:
        The sites; empty if the module is no attention whose heads are known.

    Raises:
        SiteNotFound: There is no such head.
    """
    heads = known.heads.get(site.path)
    if heads is None:
        return []
    name = f"{site.name}.heads"
    side_by_side = replace(site, name=name, path=heads.projection, side="in")
    if not which:
        return [side_by_side]
    numbers = head_numbers(which, heads.count)
    beyond = [number for number in numbers if number >= heads.count]
    if beyond:
        raise SiteNotFound(
            f"The attention at {site.name!r} has no head {beyond[0]}.",
            subject=f"{name}[{which}]",
            hint=f"It has {heads.count}, numbered 0 to {heads.count - 1}.",
        )
    return [
        replace(side_by_side, name=f"{name}[{number}]", columns=heads.columns(number))
        for number in numbers
    ]


def branch_of(block: Site, name: str, known: Anatomy) -> Site | None:
    """What a block adds to the residual stream.

    Args:
        block: A block.
        name: "attn_out" or "mlp_out".
        known: The model's anatomy.

    Returns:
        The site; None if the block does not add its parts to its input, or this is not known.
    """
    branch = known.branches.get(block.path, {}).get(name)
    if branch is None:
        return None
    return replace(block, name=f"{block.name}.{name}", path=branch.path, scale=branch.scale)


def why_without(site: Site, known: Anatomy) -> str:
    """Why there are no heads at a site."""
    if site.path in known.windowed:
        return "it attends within windows of the image, whose rows are in another order"
    return (
        "it is no attention module, or does not say how many heads it has before one output "
        "projection"
    )
