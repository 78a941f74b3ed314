"""The four tensors that nearly every SAE has, on their way from a file."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from vlmlens.errors import DataError
from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import Activation
from vlmlens_plugins.sae.files.tensors import Tensors
from vlmlens_plugins.sae.sae import Sae

_SHORTEST = 1e-8


@dataclass(frozen=True, slots=True)
class Weights:
    """Encoder and decoder.

    Args:
        W_enc: float32 `[inputs, features]`.
        b_enc: `[features]`.
        W_dec: `[features, outputs]`.
        b_dec: `[outputs]`.
        notes: What was done to them.
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def plain(cls, tensors: Tensors, bias: str = "b_enc") -> Weights:
        """From tensors of these names and shapes; without `bias` there is none in the encoder."""
        encoder = tensors.take("W_enc")
        b_enc = tensors.take(bias) if bias else encoder.new_zeros(encoder.shape[-1:])
        return cls(encoder, b_enc, tensors.take("W_dec"), tensors.take("b_dec"))

    @classmethod
    def linear(cls, tensors: Tensors, bias: str, encoder_bias: str = "encoder.bias") -> Weights:
        """From two linear layers of torch, whose matrices lie the other way round."""
        encoder = tensors.turned("encoder.weight")
        b_enc = tensors.take(encoder_bias) if encoder_bias else encoder.new_zeros(encoder.shape[1])
        return cls(encoder, b_enc, tensors.turned("decoder.weight"), tensors.take(bias))

    def folded(self, *notes: str) -> Weights:
        """Directions of length 1; codes are multiplied by what the lengths were."""
        self._check()
        norms = self.W_dec.norm(dim=1)
        shorter = self.W_dec / norms.clamp(min=_SHORTEST)[:, None]
        return Weights(self.W_enc * norms, self.b_enc * norms, shorter, self.b_dec, notes)

    def sae(
        self,
        activation: Activation,
        *,
        subtract: bool = True,
        layer_norm: bool = False,
        skip: torch.Tensor | None = None,
        crosses: bool = False,
        about: About | None = None,
    ) -> Sae:
        """The SAE of these weights; only one that `crosses` may write other rows than it reads.

        Raises:
            DataError: Shapes do not fit together, or numbers are not finite.
        """
        if not crosses:
            self._check()
        return Sae(
            self.W_enc,
            self.b_enc,
            self.W_dec,
            self.b_dec,
            activation,
            subtract=subtract,
            layer_norm=layer_norm,
            W_skip=skip,
            about=about or About(notes=self.notes),
        )

    def _check(self) -> None:
        """Refuse matrices that do not fit together."""
        shapes = tuple(self.W_enc.shape), tuple(self.W_dec.shape), tuple(self.b_enc.shape)
        fit = shapes[0] == shapes[1][::-1] and shapes[2] == shapes[0][1:] and len(shapes[0]) == 2
        if not fit:
            raise DataError(
                f"The encoder has the shape {shapes[0]}, its bias {shapes[2]}, and the decoder "
                f"{shapes[1]}: they do not fit together.",
                subject="W_dec",
                hint="The file is damaged, or of another format.",
            )
