"""What lifecycle plugins have to say to a run before it is one: their options, their refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmlens.errors import BrokenPlugin, SpecError, VlmlensError, did_you_mean
from vlmlens.registry import call_hook
from vlmlens.spec.model import validated

if TYPE_CHECKING:
    from vlmlens.abc.options import Options
    from vlmlens.registry import Entry, Registry
    from vlmlens.spec.model import RunSpec


def check_lifecycle(spec: RunSpec, registry: Registry) -> None:
    """Check the options of lifecycle plugins, and ask these whether the run may be.

    Raises:
        SpecError: Options of a plugin that is not there, or that it has not.
        BrokenPlugin: Options of a plugin that cannot say which it has.
        VlmlensError: A plugin refuses the run.
    """
    if spec.options.plugins:
        _check_options(spec, registry)
    for refusal in call_hook(registry.hooks(), "vlmlens_check", spec=spec):
        if isinstance(refusal, VlmlensError):
            raise refusal


def _check_options(spec: RunSpec, registry: Registry) -> None:
    installed = {entry.name: entry for entry in registry.entries() if entry.kind is None}
    for name, given in spec.options.plugins.items():
        if name not in installed:
            raise SpecError(
                f"There is no lifecycle plugin {name!r}, and options.plugins has options for it.",
                subject=name,
                hint=did_you_mean(name, installed) or "`vlmlens plugins list` shows all.",
            )
        entry = installed[name]
        if entry.problem is not None:
            raise entry.problem
        model = _options(registry, entry)
        if model is not None:
            validated(model, given, where=f"The plugin {name}")
        elif given:
            raise SpecError(
                f"The lifecycle plugin {name!r} has no options.",
                subject=name,
                hint=f"Leave options.plugins.{name} out.",
            )


def _options(registry: Registry, entry: Entry) -> type[Options] | None:
    try:
        return registry.hook_options(entry)
    except Exception as error:
        raise BrokenPlugin(
            f"The options of the plugin {entry.name!r} cannot be imported: {error!r}.",
            subject=entry.name,
            hint=f"Upgrade, reinstall or uninstall {entry.distribution or 'it'}.",
        ) from error
