"""Opening the app: runs, a model to ask, an address, a browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vlmlens.errors import MissingDependency, SpecError
from vlmlens.spec.model import AUTO_ADAPTER, RunSpec, make_spec

if TYPE_CHECKING:
    from vlmlens.registry import Registry
    from vlmlens.runs.run import Run
    from vlmlens.view.live.model import LiveModel

_OF_MODEL = (
    "adapter", "model", "revision", "device", "device_map", "dtype", "attention", "autocast",
    "quantization", "trust_remote_code", "tuned", "merge_tuned", "edits", "batch_size", "seed",
)  # fmt: skip
_CHOOSES = ("adapter", "model")


def view(
    runs: Sequence[Run],
    *,
    host: str,
    port: int,
    token: str | None,
    show: bool,
    said: Callable[[Any, str], None],
    live: LiveModel | None = None,
    page: str = "/",
) -> None:
    """Serve the app until it is stopped.

    Args:
        runs: What is shown.
        host: The address to listen at.
        port: Its port; 0 takes a free one.
        token: The secret of its address; None makes one.
        show: Whether to open a browser.
        said: Called with the address, as data and as text, once the app answers.
        live: The model that can be asked; None: none.
        page: The page that is opened first.

    Raises:
        MissingDependency: The extra `view` is not installed.
        SpecError: The address cannot be used, or others can reach it without a token.
    """
    check_installed()
    from vlmlens.view.access import Access
    from vlmlens.view.live.worker import ModelWorker
    from vlmlens.view.server import check_host, listen, serve
    from vlmlens.view.shown_run import ShownRun
    from vlmlens.view.viewer import Viewer

    check_host(host, token)
    at = listen(host, port)
    where = {"host": host, "port": at.getsockname()[1]}
    access = Access(**where, token=token) if token else Access(**where)
    address = access.address(page)

    def ready() -> None:
        said({"url": address}, f"view    {address}")
        if show:
            webbrowser.open(address)

    shown = [ShownRun(run, number) for number, run in enumerate(runs)]
    worker = None
    if live is not None:
        live.show(shown, tells_paths=not access.is_open)
        worker = ModelWorker(live)
    serve(Viewer(shown, worker), access, at, ready)


def check_installed() -> None:
    """Check that the packages of the extra `view` are there.

    Raises:
        MissingDependency: One is not.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"The viewer needs {error.name}, which is not installed.",
            subject="view",
            hint="Install it with: pip install 'vlmlens[view]'.",
        ) from error


def model_for(
    runs: Sequence[Run], given: Mapping[str, Any], registry: Registry
) -> LiveModel | None:
    """The model that can be asked: the one that is named, or that of the first run with one.

    Nothing is loaded yet. A run that somebody else made has no model here unless it is trusted, or
    is one of the demo model.

    Args:
        runs: The open runs.
        given: Settings of a model, such as "model" and "device".
        registry: The installed plugins.

    Raises:
        VlmlensError: The named model cannot be used.
    """
    from vlmlens.view.live.model import LiveModel

    if any(name in given for name in _CHOOSES) or not runs:
        return LiveModel(make_spec(given), registry)
    for number, run in enumerate(runs):
        if run.has_model and may_load(run):
            spec = model_settings(run.spec)
            spec = make_spec({**spec.model_dump(), **given})
            return LiveModel(spec, registry, of_run=number)
    if given:
        raise SpecError(
            f"No model can be asked, so there is no use for {', '.join(given)}.",
            subject=next(iter(given)),
            hint="Name one with --model and --adapter, or add --trust if you trust whoever made "
            "the run.",
        )
    return None


def may_load(run: Run) -> bool:
    """Whether a run's own model may be loaded: its maker is trusted, or it is the demo model."""
    if run.trusted:
        return True
    plain = RunSpec(adapter="demo", batch_size=run.spec.batch_size, seed=run.spec.seed)
    return model_settings(run.spec) in (plain, plain.model_copy(update={"adapter": AUTO_ADAPTER}))


def model_settings(spec: RunSpec) -> RunSpec:
    """A spec that says which model, and nothing else."""
    named = {name: getattr(spec, name) for name in _OF_MODEL}
    return RunSpec(**named, options={"adapter": spec.options.adapter})  # type: ignore[arg-type]
