"""Pictures that the page sends: decoded once, and kept in memory for a while."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vlmlens.compose.image_reading import decoded
from vlmlens.errors import DataError
from vlmlens.images import open_content

if TYPE_CHECKING:
    from PIL.Image import Image
    from starlette.requests import Request

MOST_BYTES = 20 * 10**6
"""Of an uploaded file."""

MOST_PIXELS = 50_000_000
"""Of an uploaded picture."""

_MOST_KEPT = 32
_MOST_KEPT_BYTES = 200 * 10**6


@dataclass(frozen=True)
class Upload:
    """An uploaded picture.

    Args:
        name: Its random name.
        file: What the sender calls the file; only for commands that are copied.
        png: The decoded picture, a PNG file.
        size: (width, height) in pixels.
    """

    name: str
    file: str
    png: bytes
    size: tuple[int, int]

    def picture(self) -> Image:
        """The picture."""
        return open_content(BytesIO(self.png))


class Uploads:
    """The last few pictures; older ones are dropped."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = Lock()
        self._decoding = Lock()

    def add(self, content: bytes, file: str = "") -> Upload:
        """Keep the picture that a file holds.

        Raises:
            ImageError: It holds no picture that can be read, or too large a one.
        """
        with self._decoding:
            picture = decoded(content, max_pixels=MOST_PIXELS)
            made = BytesIO()
            picture.save(made, "PNG", compress_level=1)
        name = secrets.token_urlsafe(12)
        upload = Upload(name, file or "picture.png", made.getvalue(), picture.size)
        with self._lock:
            self._kept[name] = upload
            while len(self._kept) > _MOST_KEPT or self._bytes() > _MOST_KEPT_BYTES:
                if len(self._kept) == 1:
                    break
                self._kept.popitem(last=False)
        return upload

    def get(self, name: str) -> Upload:
        """An uploaded picture by its name.

        Raises:
            DataError: It is not there, or not any more.
        """
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        raise DataError(
            "This picture is not there any more: only the last few are kept.",
            subject="upload",
            hint="Choose the file again.",
        )

    def _bytes(self) -> int:
        return sum(len(each.png) for each in self._kept.values())


async def body_of(request: Request, most: int) -> bytes:
    """The body of a request, refused as soon as it is known to be too long.

    Args:
        request: The request.
        most: The most bytes.

    Raises:
        HTTPException: 413: it is longer; 400: its length is no number, or it ends too early.
    """
    said = request.headers.get("content-length")
    if said is not None and not said.isdecimal():
        raise HTTPException(400, "The length of the request is no number.")
    if said is not None and int(said) > most:
        raise _too_long(most)
    parts = bytearray()
    try:
        async for part in request.stream():
            parts += part
            if len(parts) > most:
                raise _too_long(most)
    except ClientDisconnect:
        raise HTTPException(400, "The request ended before its end.") from None
    return bytes(parts)


def _too_long(most: int) -> HTTPException:
    shown = f"{most // 10**6} MB" if most >= 10**6 else f"{most // 1024} kB"
    return HTTPException(413, f"This is longer than {shown}.", {"connection": "close"})
