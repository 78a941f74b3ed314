"""What can be trained: a part that is put into a model, and taken out again."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from vlmlens.abc import ModelAdapter
from vlmlens.sites import Site
from vlmlens.tuned.record import Kind


class Part(ABC):
    """A part of one model that is trained: whole weights, LoRA, or virtual tokens.

    It is made for a model, and begins with values that leave the model as it is (virtual tokens
    excepted). Values are kept here while the part is not in the model.
    """

    kind: Kind
    component: str

    @abstractmethod
    def attached(self, vlm: ModelAdapter) -> AbstractContextManager[None]:
        """Have the part in the model inside the `with` block: every pass and all writing use it.

        Inside, exactly the parameters of the part want gradients, and `encode` makes batches that
        fit. Afterwards the model is as it was, bit for bit, and no parameter wants gradients.
        """

    @abstractmethod
    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """What an optimizer changes, in a fixed order. Valid while the part is attached."""

    def stepped(self) -> None:  # noqa: B027 - most parts have nothing to do
        """Called while attached, after an optimizer changed `parameters`.

        A part whose values the model has copies of renews them here.
        """

    @abstractmethod
    def places(self, vlm: ModelAdapter) -> Sequence[Site]:
        """The sites at or inside which the part changes something.

        What a pass computes before all of them does not depend on the part, so it need not be
        computed again.
        """

    @abstractmethod
    def state(self) -> dict[str, torch.Tensor]:
        """The values, as copies on the CPU, by name."""

    @abstractmethod
    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over values that `state` gave, attached or not."""

    @abstractmethod
    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write the values so that `vlmlens.tuned` can open the folder.

        Args:
            folder: Where to; exists and is empty.
            about: What is said of them beside the kind, JSON-ready: "component", "base" (what the
                model says of itself), how it was trained.
        """

    def describe(self) -> dict[str, Any]:
        """What the model says of the part while it is attached: part of every fingerprint.

        The digest is of the values at that moment. Hand it to `vlm.holding` in `attached`.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.state().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return {
            "kind": self.kind,
            "component": self.component,
            "digest": digest.hexdigest(),
            "merged": False,
        }
