"""Opening the app: runs, an address, a browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vlmlens.view.access import Access
from vlmlens.view.server import check_host, listen, serve
from vlmlens.view.shown_run import ShownRun
from vlmlens.view.viewer import Viewer

if TYPE_CHECKING:
    from vlmlens.runs.run import Run


def view(
    runs: Sequence[Run],
    *,
    host: str,
    port: int,
    token: str | None,
    show: bool,
    said: Callable[[Any, str], None],
) -> None:
    """Serve the app until it is stopped.

    Args:
        runs: What is shown.
        host: The address to listen at.
        port: Its port; 0 takes a free one.
        token: The secret of its address; None makes one.
        show: Whether to open a browser.
        said: Called with the address, as data and as text, once the app answers.

    Raises:
        SpecError: The address cannot be used, or others can reach it without a token.
    """
    check_host(host, token)
    at = listen(host, port)
    where = {"host": host, "port": at.getsockname()[1]}
    access = Access(**where, token=token) if token else Access(**where)

    def ready() -> None:
        said({"url": access.url}, f"view    {access.url}")
        if show:
            webbrowser.open(access.url)

    viewer = Viewer([ShownRun(run, number) for number, run in enumerate(runs)])
    serve(viewer, access, at, ready)
