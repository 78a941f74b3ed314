"""Reading the next block while the one before is used."""

from __future__ import annotations

import threading
from contextvars import copy_context

from vlmlens_plugins.sae.feeding.blocks import Block, Blocks, Place


class Following:
    """A block that another thread reads, under the context of this one.

    The thread does not keep the process from ending.

    Args:
        blocks: Reads it.
        place: Where it begins.
    """

    def __init__(self, blocks: Blocks, place: Place) -> None:
        self._blocks, self._place = blocks, place
        self._found: Block | BaseException = RuntimeError("not read yet")
        run = copy_context().run
        self._thread = threading.Thread(
            target=run, args=(self._read,), name="vlmlens-feed", daemon=True
        )
        self._thread.start()

    def block(self) -> Block:
        """The block, once it is read.

        Raises:
            BaseException: What went wrong in reading it.
        """
        self._thread.join()
        if isinstance(self._found, BaseException):
            raise self._found
        return self._found

    def stop(self) -> None:
        """Read no further than the samples that are being read."""
        self._blocks.stopped = True
        self._thread.join()

    def _read(self) -> None:
        try:
            self._found = self._blocks.read(self._place)
        except BaseException as error:  # noqa: BLE001  raised again where the block is taken
            self._found = error
