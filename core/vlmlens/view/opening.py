"""Opening the app: runs, a model to ask, an address, a browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from vlmlens._files import expanded
from vlmlens.errors import ImageError, MissingDependency, SpecError
from vlmlens.spec.model import AUTO_ADAPTER, RunSpec, make_spec

if TYPE_CHECKING:
    from vlmlens.registry import Registry
    from vlmlens.runs.run import Run
    from vlmlens.view.live.model import LiveModel
    from vlmlens.view.shown_run import ShownRun

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
) -> bool:
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

    Returns:
        Whether all threads ended; if not, a pass of the model still runs.

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
        Thread(target=_read_ahead, args=(shown,), daemon=True).start()
        if show:
            once = access.address_once(page)
            Thread(target=webbrowser.open, args=(once,), daemon=True).start()

    shown = [ShownRun(run, number) for number, run in enumerate(runs)]
    worker = None
    if live is not None:
        live.show(shown, tells_paths=not access.is_open)
        worker = ModelWorker(live)
    return serve(Viewer(shown, worker), access, at, ready)


def view_picture(
    picture: str,
    text: str,
    choices: Sequence[str],
    given: Mapping[str, Any],
    registry: Registry,
    said: Callable[[Any, str], None],
) -> bool:
    """Serve the app with a picture and a question, until it is stopped.

    Args:
        picture: An image file.
        text: The question.
        choices: The answers to choose from.
        given: Settings of a model.
        registry: The installed plugins.
        said: See `view`.

    Returns:
        See `view`.

    Raises:
        VlmlensError: The picture or the question cannot be used, or see `view`.
    """
    check_installed()
    from vlmlens.compose.looking import checked
    from vlmlens.view.live.commands import shown_path
    from vlmlens.view.live.model import LiveModel

    text, options = checked(text, choices)
    live = LiveModel(make_spec(given), registry)
    upload = live.uploads.add(content_of(picture), shown_path(picture))
    query = {"upload": upload.name, "text": text}
    query |= {"choices": ",".join(options)} if options else {}
    where: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "token": None, "show": True}
    return view([], said=said, live=live, page=f"/live?{urlencode(query)}", **where)


def content_of(picture: str) -> bytes:
    """The content of an image file.

    Raises:
        ImageError: There is none, or it is too large.
    """
    from vlmlens.view.live.uploads import MOST_BYTES

    path = expanded(picture)
    try:
        if not path.is_file():
            raise ImageError(
                f"The picture {picture!r} is no file.",
                subject=picture,
                hint="Name one image: vlmlens look photo.jpg 'What is it?' --live.",
            )
        if path.stat().st_size > MOST_BYTES:
            raise ImageError(
                f"The picture {picture!r} has more than {MOST_BYTES // 10**6} MB.",
                subject=picture,
                hint="Make it smaller, or leave --live out.",
            )
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"The picture {picture!r} cannot be read: {error.strerror}.", subject=picture
        ) from error


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
    from vlmlens.view.live.commands import SETTINGS

    kept = (*SETTINGS, "autocast", "edits", "batch_size", "seed")
    named = {name: getattr(spec, name) for name in kept}
    return RunSpec(**named, options={"adapter": spec.options.adapter})


def _read_ahead(runs: Sequence[ShownRun]) -> None:
    for run in runs:
        run.read_ahead()
