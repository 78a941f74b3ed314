"""What is said where a pass gave no activation: errors that tell why."""

from __future__ import annotations

from collections.abc import Iterable

from vlmlens.errors import SiteNotFound, SiteSilent, did_you_mean
from vlmlens.sites import Site


class _NotTraced(SiteNotFound, KeyError):
    """A KeyError too, as mappings raise it: `trace.get` and `in` rest on that."""


def not_traced(name: str, traced: Iterable[str]) -> SiteNotFound:
    """The error for a name that a trace does not have."""
    return _NotTraced(
        f"The site {name!r} was not traced in this pass.",
        subject=name,
        hint=f"{did_you_mean(name, traced)} Pass the site to `trace`. A column needs the full name "
        "of one site, not a pattern.".strip(),
    )


def silent(site: Site, calls: int) -> SiteSilent:
    """The error for a site whose module did not run, or not so often."""
    if calls:
        return SiteSilent(
            f"The site {site.name!r} asks for call {site.call} of {site.path}, which ran "
            f"{calls} times in this pass.",
            subject=site.name,
            hint=f"Calls are numbered 0 to {calls - 1}.",
        )
    return SiteSilent(
        f"The site {site.name!r} ({site.path}) gave no activation: its module did not run.",
        subject=site.name,
        hint="Either the model calls one of its children or a function instead: choose a site "
        "around or inside it. Or it is the unembedding, which runs only if logits are asked for.",
    )


def called_often(site: Site, calls: int) -> SiteSilent:
    """The error for a site whose module ran several times, if no call is named."""
    return SiteSilent(
        f"The module of {site.name!r} ({site.path}) ran {calls} times in this pass.",
        subject=site.name,
        hint=f"Choose one call: {site.name}#0 to {site.name}#{calls - 1}.",
    )
