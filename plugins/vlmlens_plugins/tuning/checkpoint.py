"""The state of a training of a part in one file."""

from __future__ import annotations

from typing import ClassVar

from vlmlens_plugins import _checkpoint


class Checkpoint(_checkpoint.Checkpoint):
    """See `vlmlens_plugins._checkpoint.Checkpoint`."""

    __slots__ = ()
    name: ClassVar[str] = "vlmlens.tuning"
    of: ClassVar[str] = "a part of a model"
