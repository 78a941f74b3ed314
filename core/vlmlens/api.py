"""The Python API: `vlmlens.load` and `vlmlens.run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmlens.abc.adapter import ModelAdapter
from vlmlens.compose.plan import compose, load_model, load_request
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.runner.execution import RunMode, execute
from vlmlens.runs.run import Run
from vlmlens.spec.model import make_spec

if TYPE_CHECKING:
    from vlmlens.abc.observer import Observer


def load(adapter: str = "demo", model: str | None = None, **settings: Any) -> ModelAdapter:
    """Load a vision-language model.

    Args:
        adapter: Model family, or FILE.py:Class.
        model: Hub id or folder; default: the adapter's own checkpoint.
        settings: More fields of the run spec: device, dtype, revision, attention, ...

    Raises:
        PluginError: The adapter is not installed or cannot be used.
        CheckpointError: The checkpoint cannot be had.
        SpecError: An unknown setting.
    """
    registry = Registry.default()
    spec = make_spec({"adapter": adapter, "model": model, **settings})
    manifest = registry.find(PluginKind.ADAPTER, spec.adapter)
    adapter_class: type[ModelAdapter] = registry.load(manifest)
    return load_model(spec, adapter_class, load_request(spec, registry, manifest))


def run(*, mode: RunMode = "new", observer: Observer | None = None, **settings: Any) -> Run:
    """Do a whole run: what `vlmlens run` does.

    Args:
        mode: "new", "resume" or "fresh"; see `vlmlens.runner.execution.execute`.
        observer: Told how it goes; default: nobody.
        settings: Fields of the run spec: adapter, model, data, prompt, sites, analysis, out, ...

    Returns:
        The finished run: `run.results`, `run.activations`, `run.report_path`.

    Raises:
        VlmlensError: Bad input, before anything heavy starts.
    """
    plan = compose(make_spec(settings), Registry.default(), observer=observer)
    return execute(plan, mode=mode, observer=observer)
