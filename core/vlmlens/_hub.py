"""Whether the Hugging Face hub can be reached, found out within seconds.

Its client tries every request six times before it gives up, for about half a minute; a checkpoint
is several requests. One short request beforehand tells. If it fails, only the cache is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session

_SECONDS = 4.0
_VALID_FOR = 60.0

_lock = threading.Lock()
_last: tuple[float, str] | None = None


def hub_trouble() -> str:
    """Why the hub cannot be reached; empty if it can, or if it is not to be asked (offline).

    The answer holds for a minute. It takes at most `_SECONDS`, even where names are not resolved.
    """
    global _last  # noqa: PLW0603  one answer for the process
    if constants.HF_HUB_OFFLINE:
        return ""
    with _lock:
        if _last is None or time.monotonic() - _last[0] > _VALID_FOR:
            _last = (time.monotonic(), _asked())
        return _last[1]


@contextmanager
def hub_or_cache() -> Iterator[str]:
    """Ask only the cache inside, if the hub cannot be reached; gives the reason, or nothing."""
    trouble = hub_trouble()
    if not trouble:
        yield ""
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield trouble
    finally:
        constants.HF_HUB_OFFLINE = False


def _asked() -> str:
    found = [f"no answer from {constants.ENDPOINT} within {_SECONDS:.0f} s"]

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=_SECONDS)
            found[0] = ""
        except Exception as error:  # noqa: BLE001  the client, the proxy and TLS raise what they like
            why = " ".join(str(error).split())[:150] or type(error).__name__
            found[0] = f"{constants.ENDPOINT} cannot be reached ({why})"

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS)
    return found[0]
