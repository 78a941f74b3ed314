"""What lies before the trainable part of a model is computed once per batch, and kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from vlmlens.sites import Site

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch
    from vlmlens.passes.model import Model

Kept = Literal["lean", "blocks", "nothing"]


@dataclass(frozen=True, slots=True)
class Form:
    """What was found out of a model with the first batch: given to the prefixes of later ones."""


class FrozenPrefix:
    """What a pass of a batch computes before some sites, for many passes.

    Args:
        vlm: The model, with the trainable part in it; in evaluation mode.
        batch: From `encode`.
        sites: Where, or inside which, something changes from pass to pass. Parameters that want
            gradients are found without being named.
        form: The `form` of an earlier prefix of the same model and sites; None: it is found out,
            which takes a few passes.
        device: Where to keep tensors ("cpu"); None: where the model computes them.
    """

    def __init__(
        self,
        vlm: Model,
        batch: Batch,
        sites: Sequence[Site] = (),
        *,
        form: Form | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self._batch = batch
        self.form = form or Form()
        self.kept: Kept = "nothing"
        self.bytes = 0

    @property
    def batch(self) -> Batch:
        """The batch for passes inside `given`; what they do not need of its inputs is zeros.

        Keep this prefix instead of the batch. The inputs are made anew at each access.
        """
        return self._batch

    @contextmanager
    def given(self) -> Iterator[None]:
        """Have passes of `batch` inside compute only what the sites can change."""
        yield
