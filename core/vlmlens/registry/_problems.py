"""The errors for plugins that cannot be used: what is wrong, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vlmlens.errors import (
    BrokenPlugin,
    DisabledPlugin,
    MissingDependency,
    SlowPlugin,
    WrongApiVersion,
)
from vlmlens.registry._guard import Escaped, TooSlow
from vlmlens.registry._installed import index_name

if TYPE_CHECKING:
    from vlmlens.manifest import Manifest


def broken(what: str, name: str, error: BaseException, distribution: str) -> BrokenPlugin:
    """The error for a plugin whose import failed with `error`."""
    fix = f"Upgrade, reinstall or uninstall {distribution}." if distribution else "Repair it."
    if distribution == "vlmlens":
        fix = "Reinstall vlmlens."
    said = str(error) if isinstance(error, Escaped) else f"{type(error).__name__}: {error}"
    problem = BrokenPlugin(
        f"The {what} {name!r} cannot be imported: {said.rstrip('.: ')}.",
        subject=name,
        hint=f"{fix} Other plugins are not affected.",
    )
    problem.__cause__ = error
    return problem


def missing_dependency(
    what: str, name: str, modules: Iterable[str], distribution: str = ""
) -> MissingDependency:
    """The error for a plugin that needs modules which are not installed."""
    listed = list(modules)
    noun = "module" if len(listed) == 1 else "modules"
    which = ", ".join(listed)
    extra = _extra(distribution, listed[0])
    install = f"pip install '{distribution}[{extra}]'" if extra else ""
    if extra and distribution == "vlmlens":
        install += f" (in a checkout: pip install '.[{extra}]')"
    return MissingDependency(
        f"The {what} {name!r} needs the {noun} {which}, not installed in this environment.",
        subject=name,
        hint=f"It comes with an extra: {install}."
        if extra
        else f"Install the package of {which}; often that is `pip install {' '.join(listed)}`.",
    )


def _extra(distribution: str, module: str) -> str:
    """The extra of a distribution that installs a module, judged by names; else ""."""
    from importlib.metadata import PackageNotFoundError, requires

    wanted = index_name(module.partition(".")[0])
    try:
        declared = (requires(distribution) or []) if distribution else []
    except PackageNotFoundError:
        return ""
    for requirement in declared:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra *== *['\"]([\w.-]+)", requirement)
        if extra and index_name(name) == wanted:
            return extra[1]
    return ""


def wrong_version(manifest: Manifest, distribution: str) -> WrongApiVersion:
    """The error for a plugin that was written for another plugin API."""
    from vlmlens.manifest import API_VERSION

    newer = manifest.api_version > API_VERSION
    return WrongApiVersion(
        f"The {manifest.kind} {manifest.name!r} was written for plugin API "
        f"{manifest.api_version}; this vlmlens has plugin API {API_VERSION}.",
        subject=manifest.name,
        hint=f"Upgrade {'vlmlens' if newer else distribution or 'the plugin'}.",
    )


def slow(what: str, name: str, error: TooSlow, distribution: str) -> SlowPlugin:
    """The error for a plugin whose code did not finish in time."""
    waited = f"within {error.waited:g} seconds" if error.waited else "yet"
    return SlowPlugin(
        f"The {what} {name!r} was not imported {waited} and is left out.",
        subject=name,
        hint=f"If it is only slow, set VLMLENS_PLUGIN_TIMEOUT={error.more:g}; if it hangs, "
        f"VLMLENS_DISABLE_PLUGINS={distribution or name}. Other plugins are not affected.",
    )


def disabled(what: str, name: str, reason: str) -> DisabledPlugin:
    """The error for a plugin that an environment variable turns off."""
    return DisabledPlugin(
        f"The {what} {name!r} is disabled by {reason}.",
        subject=name,
        hint="Change or unset that environment variable.",
    )
