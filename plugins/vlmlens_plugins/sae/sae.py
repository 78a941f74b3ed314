"""The SAE as it is used: codes of rows, and rows of codes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, vstack

from vlmlens._display import brief, shape
from vlmlens.errors import DataError
from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import Activation, Gated, JumpRelu, Relu, TopK

_AT_ONCE = 2**25
_EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class Sae:
    """A sparse autoencoder: `x` is written as a sum of few features, each with a direction.

    With `x' = x - b_dec` (if `subtract`), the encoder gives `h = x' W_enc + b_enc`, the activation
    turns h into the code z, and the decoder gives `z W_dec + b_dec`. Tensors are float32.

    Args:
        W_enc: `[inputs, features]`.
        b_enc: `[features]`.
        W_dec: `[features, outputs]`: the direction of each feature.
        b_dec: `[outputs]`.
        activation: What turns the encoder's output into the code.
        subtract: Whether `b_dec` is taken from the input.
        layer_norm: Whether the mean of each row is taken away and the row divided by its
            deviation (with n - 1) plus 1e-5. The decoder multiplies by the deviation alone and
            adds the mean, as SAELens and OpenAI's code do.
        W_skip: `[inputs, outputs]`, of a transcoder with a skip: `x W_skip` is added.
        about: Where it belongs.

    Raises:
        DataError: Shapes do not fit together, or numbers are not finite.
    """

    W_enc: torch.Tensor
    b_enc: torch.Tensor
    W_dec: torch.Tensor
    b_dec: torch.Tensor
    activation: Activation = field(default_factory=Relu)
    subtract: bool = True
    layer_norm: bool = False
    W_skip: torch.Tensor | None = None
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        for name, (tensor, wanted) in self._expected().items():
            if tuple(tensor.shape) != wanted:
                raise DataError(
                    f"The SAE's {name} has the shape {tuple(tensor.shape)}, expected {wanted}.",
                    subject=name,
                    hint="The file is damaged, or of another format.",
                )
            if not bool(tensor.isfinite().all()):
                raise DataError(
                    f"The SAE's {name} has numbers that are not finite.",
                    subject=name,
                    hint="The file is damaged, or the training failed.",
                )
        of = self.activation
        if isinstance(of, TopK) and not 1 <= of.k <= self.features:
            raise DataError(
                f"The SAE keeps the k = {of.k} largest of {self.features} features.",
                subject="k",
                hint=f"Expected: 1 to {self.features}.",
            )

    @property
    def inputs(self) -> int:
        """The width of the rows that it reads."""
        return int(self.W_enc.shape[0])

    @property
    def outputs(self) -> int:
        """The width of the rows that it writes."""
        return int(self.W_dec.shape[1])

    @property
    def features(self) -> int:
        """How many features it has."""
        return int(self.W_enc.shape[1])

    @property
    def architecture(self) -> str:
        """The name of its form: "standard", "topk", "jumprelu" or "gated"."""
        return _NAMES[type(self.activation)]

    @cached_property
    def norms(self) -> torch.Tensor:
        """float32 `[features]`: the length of each feature's direction."""
        found: torch.Tensor = self.W_dec.norm(dim=1)
        return found

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        """The code of each row.

        Args:
            rows: float `[n, inputs]`.

        Returns:
            float32 `[n, features]` on the device of the SAE. `codes` needs less memory.
        """
        given, of = self._prepared(rows), self.activation
        if isinstance(of, Gated):
            gate = given @ self.W_enc
            fires = gate + of.b_gate > 0
            return torch.relu(gate * of.r_mag.exp() + of.b_mag) * fires
        before = given @ self.W_enc + self.b_enc
        if isinstance(of, Relu):
            return torch.relu(before)
        if isinstance(of, JumpRelu):
            return torch.relu(before) * (before > of.threshold)
        ranked = before * self.norms if of.by_norm else before
        places = ranked.topk(of.k, dim=1, sorted=False).indices
        kept = before.gather(1, places)
        kept = torch.relu(kept) if of.rectified else kept
        return torch.zeros_like(before).scatter_(1, places, kept)

    def codes(self, rows: torch.Tensor) -> csr_array:
        """The codes of many rows, in little memory.

        Args:
            rows: float `[n, inputs]`.

        Returns:
            float32 `[n, features]`, sparse, on the CPU.
        """
        step = max(1, _AT_ONCE // self.features)
        parts = [csr_array((0, self.features), dtype=np.float32)]
        for start in range(0, len(rows), step):
            code = self.encode(rows[start : start + step]).cpu()
            parts.append(csr_array(code.numpy()))
        found: csr_array = vstack(parts, format="csr")
        return found

    def decode(self, code: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """What the features of a code write.

        Args:
            code: float `[n, features]`.
            rows: The rows that the code is of, `[n, inputs]`. Needed with `layer_norm` or `W_skip`.

        Returns:
            float32 `[n, outputs]`.

        Raises:
            DataError: The rows are needed and not given.
        """
        made = code @ self.W_dec + self.b_dec
        if rows is None and (self.layer_norm or self.W_skip is not None):
            raise DataError(
                "This SAE cannot decode without the rows that were encoded.",
                subject="rows",
                hint="Call decode(code, rows).",
            )
        if self.W_skip is not None and rows is not None:
            made = made + self._normalised(rows)[0] @ self.W_skip
        if self.layer_norm and rows is not None:
            _, mean, deviation = self._normalised(rows)
            made = made * deviation + mean
        return made

    def reconstruct(self, rows: torch.Tensor) -> torch.Tensor:
        """float32 `[n, outputs]`: what is left of rows that pass through it."""
        return self.decode(self.encode(rows), rows)

    def scale(self, rows: torch.Tensor) -> torch.Tensor:
        """float32 `[n, 1]`: what a feature's direction is multiplied by when it is written."""
        one = torch.ones(len(rows), 1, device=self.W_dec.device)
        return self._normalised(rows)[2] if self.layer_norm else one

    def to(self, device: str | torch.device) -> Sae:
        """The same SAE on another device."""
        moved: dict[str, Any] = {name: each.to(device) for name, each in self.tensors().items()}
        inner = {name: moved.pop(name) for name in list(moved) if name not in _OWN}
        activation: Any = self.activation
        return replace(self, activation=replace(activation, **inner), **moved)

    @cached_property
    def digest(self) -> str:
        """Of everything that determines its codes."""
        found = hashlib.sha256(repr(self._form()).encode())
        for _, (tensor, _) in sorted(self._expected().items()):
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:32]

    def tensors(self) -> dict[str, torch.Tensor]:
        """All its tensors by name, those of the activation too."""
        return {name: tensor for name, (tensor, _) in self._expected().items()}

    def __repr__(self) -> str:
        return brief(self, self.about.column, self.architecture, shape(self.W_enc))

    def _form(self) -> dict[str, Any]:
        of = self.activation
        kept = (of.k, of.rectified, of.by_norm) if isinstance(of, TopK) else ()
        return {"of": self.architecture, "kept": kept, "flags": (self.subtract, self.layer_norm)}

    def _expected(self) -> dict[str, tuple[torch.Tensor, tuple[int, ...]]]:
        """All tensors with the shapes that they must have."""
        d, f = self.W_enc.shape if self.W_enc.ndim == 2 else (0, 0)
        out = self.W_dec.shape[-1] if self.W_dec.ndim == 2 else 0
        found: dict[str, tuple[torch.Tensor, tuple[int, ...]]] = {
            "W_enc": (self.W_enc, (d, f)),
            "b_enc": (self.b_enc, (f,)),
            "W_dec": (self.W_dec, (f, out)),
            "b_dec": (self.b_dec, (out,)),
        }
        if self.W_skip is not None:
            found["W_skip"] = self.W_skip, (d, out)
        of = self.activation
        if isinstance(of, JumpRelu):
            found["threshold"] = of.threshold, (f,)
        if isinstance(of, Gated):
            found |= {name: (getattr(of, name), (f,)) for name in ("b_gate", "b_mag", "r_mag")}
        return found

    def _prepared(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.ndim != 2 or rows.shape[1] != self.inputs:
            raise DataError(
                f"The rows have the shape {tuple(rows.shape)}, the SAE reads rows of "
                f"{self.inputs} numbers.",
                subject=self.about.column or "rows",
                hint=f"It belongs to {self.about.column or 'another site'}.",
            )
        given = self._normalised(rows)[0]
        return given - self.b_dec if self.subtract else given

    def _normalised(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows as the encoder takes them, with their means and deviations."""
        given = rows.to(self.W_enc.device, torch.float32)
        if not self.layer_norm:
            return given, torch.zeros(1, device=given.device), torch.ones(1, device=given.device)
        mean = given.mean(1, keepdim=True)
        deviation = given.std(1, keepdim=True)
        return (given - mean) / (deviation + _EPSILON), mean, deviation


_OWN = ("W_enc", "b_enc", "W_dec", "b_dec", "W_skip")
_NAMES = {Relu: "standard", TopK: "topk", JumpRelu: "jumprelu", Gated: "gated"}
