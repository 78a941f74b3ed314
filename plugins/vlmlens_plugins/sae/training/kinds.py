"""What a kind of SAE has to say; each kind is a module beside this one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import torch

from vlmlens_plugins.sae.activations import Activation
from vlmlens_plugins.sae.training.entries import Entries, decoded
from vlmlens_plugins.sae.training.recipe import Recipe

Parameters: TypeAlias = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Rows of a batch with the entries in them.

    Args:
        entries: Where features may fire.
        before: float `[n]`: the encoder's output there, with its gradient.
        target: float `[rows, outputs]`: what is to be written.
        size: How many rows the whole batch has; losses are means over them.
    """

    entries: Entries
    before: torch.Tensor
    target: torch.Tensor
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """What a piece adds to the loss of its batch.

    Args:
        total: What is minimised.
        squared: The squared error alone.
        error: float `[rows, outputs]`: the reconstruction minus the target.
        code: float `[n]`: the code at the entries.
    """

    total: torch.Tensor
    squared: torch.Tensor
    error: torch.Tensor
    code: torch.Tensor


@dataclass(frozen=True, slots=True)
class Setting:
    """What a kind may want to know of its training.

    Args:
        width: How many numbers a row has that is read.
        unit: The root mean square of a number in the rows as they are trained on.
        spread: The mean squared norm of the targets.
        steps: How many steps there are.
    """

    width: int
    unit: float
    spread: float
    steps: int


class Sparsity(ABC):
    """What makes codes sparse: the part in which kinds differ.

    Parameters have these names: `encoder [features, inputs]`, `b_enc`, `decoder [features,
    outputs]`, `b_dec`, and those of `own`.

    Args:
        recipe: What is trained.
        setting: On what.
    """

    auxiliary = True
    """Whether dead features learn by AuxK; else they are started anew."""

    bias = True
    """Whether the encoder has a bias of its own."""

    def __init__(self, recipe: Recipe, setting: Setting) -> None:
        self.recipe, self.setting = recipe, setting
        self.numbers: dict[str, float] = {}
        """What it learns beside parameters; kept in checkpoints."""

    def own(self, features: int) -> Parameters:
        """The parameters that only this kind has, as they start."""
        return {}

    def faster(self, name: str) -> float:
        """By how much the learning rate of a parameter is higher than that of the others."""
        return 1.0

    def begin(self, before: torch.Tensor, p: Parameters) -> None:
        """Look at the encoder's output on the first rows of the first batch."""
        return

    @abstractmethod
    def choose(self, before: torch.Tensor, p: Parameters) -> Entries:
        """Where features may fire in some rows: all places that get a code or a gradient."""

    def settle(self, entries: Entries, p: Parameters) -> Entries | None:
        """What is left when the batch is seen as a whole; None: `choose` again."""
        return entries

    @abstractmethod
    def code(self, piece: Piece, p: Parameters) -> torch.Tensor:
        """The code at the entries, float `[n]`."""

    def loss(self, piece: Piece, p: Parameters) -> Loss:
        """The loss: squared error summed over a row, and `penalty`."""
        code = self.code(piece, p)
        error = decoded(code, p["decoder"], piece.entries) + p["b_dec"] - piece.target
        squared = error.square().sum() / piece.size
        total = squared + self.penalty(code, piece, p)
        return Loss(total, squared.detach(), error.detach(), code.detach())

    def penalty(self, code: torch.Tensor, piece: Piece, p: Parameters) -> torch.Tensor | float:
        """What is added to the squared error."""
        return 0.0

    def after(self, entries: Entries, fired: float, pace: float) -> None:
        """Learn from a batch that is done.

        Args:
            entries: Those of the batch.
            fired: How many features fired in a row, on average.
            pace: The learning rate's part of its highest.
        """
        return

    def keep(self, p: Parameters) -> None:
        """Bring own parameters back to where they may be, after a step."""
        return

    def revive(self, p: Parameters, dead: torch.Tensor) -> None:
        """Start own parameters of these features anew."""
        return

    @abstractmethod
    def activation(self, p: Parameters, scale: float) -> Activation:
        """How it is used after training, with codes multiplied by the scale."""

    def offset(self, p: Parameters, shift: torch.Tensor) -> None:
        """Take a constant into the biases: the encoder's output will lack it, `[features]`."""
        p["b_enc"] = p["b_enc"] + shift
