"""Interventions along a direction: a vector at a site, kept in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from vlmlens.abc import EditedRows, Intervention, Options
from vlmlens.errors import DataNotFound, EditError


class DirectionOptions(Options):
    """Options of every intervention along a direction."""

    file: str | None = Field(
        None, description="The direction: a .npy file, or a .safetensors file with one tensor."
    )


class _AlongDirection(Intervention):
    """An intervention along a direction.

    Raises:
        EditError: No file is given, or it holds no direction.
        DataNotFound: There is no such file.
    """

    Options: ClassVar[type[Any]] = DirectionOptions
    options: Any

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._path = _existing(options.file, type(self).__name__)
        self.direction = _read(self._path)

    @property
    def width(self) -> int:
        """See `Intervention.width`."""
        return len(self.direction)

    def describe(self) -> Mapping[str, Any]:
        """See `Intervention.describe`; with a digest of the direction."""
        return {**super().describe(), "digest": self._digest}

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.direction.numpy().tobytes()).hexdigest()[:32]

    def _for(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """The direction, float32 `[width]`, on the device of the rows."""
        if len(self.direction) != rows.shape[1]:
            raise EditError(
                f"The direction in {str(self._path)!r} has {len(self.direction)} numbers, the rows "
                f"at {about.site.name!r} have {rows.shape[1]}.",
                subject=str(self._path),
                hint="Use a direction that was learned at a site of this width.",
            )
        return self.direction.to(rows.device)


class AddOptions(DirectionOptions):
    """Options of `add`."""

    strength: float = Field(1.0, description="What the direction is multiplied by.")
    unit: bool = Field(False, description="Whether to bring the direction to length 1 first.")


class Add(_AlongDirection):
    """`x + strength * v`: steering."""

    Options = AddOptions
    options: AddOptions

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        vector = self._for(rows, about)
        if self.options.unit:
            vector = vector / vector.norm()
        return (rows.float() + self.options.strength * vector).to(rows.dtype)


class ProjectOutOptions(DirectionOptions):
    """Options of `project-out`."""

    strength: float = Field(
        1.0, description="How much is taken away: 1 leaves nothing of the direction."
    )
    positive: bool = Field(
        False, description="Whether to change only rows that point along the direction."
    )


class ProjectOut(_AlongDirection):
    """`x - strength * (x . v) / (v . v) * v`.

    With `positive`, rows with `x . v <= 0` stay, as in Jiang et al., "Interpreting and Editing
    Vision-Language Representations to Mitigate Hallucinations" (2024, arXiv 2410.02762), section 4.
    """

    Options = ProjectOutOptions
    options: ProjectOutOptions

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        vector, exact = self._for(rows, about), rows.float()
        along = exact @ vector / (vector @ vector)
        if self.options.positive:
            along = along.clamp(min=0)
        less = exact - self.options.strength * along[:, None] * vector
        return torch.where(along[:, None] == 0, exact, less).to(rows.dtype)


class ClampOptions(DirectionOptions):
    """Options of `clamp`."""

    low: float | None = Field(None, description="The smallest coordinate; default: no limit.")
    high: float | None = Field(None, description="The largest coordinate; default: no limit.")


class Clamp(_AlongDirection):
    """The coordinate `x . v / |v|` is kept between `low` and `high`; the rest of x stays.

    Equal bounds set the coordinate.
    """

    Options = ClampOptions
    options: ClampOptions

    def __init__(self, options: ClampOptions) -> None:
        super().__init__(options)
        low, high = options.low, options.high
        if (low is None and high is None) or (None not in (low, high) and low > high):  # type: ignore[operator]
            raise EditError(
                f"clamp was given low = {low} and high = {high}.",
                subject="clamp",
                hint="Give one bound, or low <= high: clamp(FILE, low=0, high=4).",
            )

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        vector, exact = self._for(rows, about), rows.float()
        unit = vector / vector.norm()
        before = exact @ unit
        wanted = before.clamp(self.options.low, self.options.high)
        moved = exact + (wanted - before)[:, None] * unit
        return torch.where((wanted == before)[:, None], exact, moved).to(rows.dtype)


def _existing(file: str | None, name: str) -> Path:
    if file is None:
        raise EditError(
            f"{name} was given no direction.", subject=name, hint="Name a file: add(FILE, 4)."
        )
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataNotFound(f"There is no file {file!r}.", subject=file)
    return path


def _read(path: Path) -> torch.Tensor:
    """A direction: float32 `[width]`, finite and not zero."""
    try:
        values = _tensor_of(path) if path.suffix == ".safetensors" else np.load(path)
        vector = torch.from_numpy(np.asarray(values, np.float32).copy()).squeeze()
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise EditError(
            f"{str(path)!r} cannot be read as a direction: {error}", subject=str(path)
        ) from error
    if vector.ndim != 1 or not bool(vector.isfinite().all()) or not bool(vector.any()):
        raise EditError(
            f"{str(path)!r} holds no direction: its shape is {tuple(vector.shape)}.",
            subject=str(path),
            hint="Expected: one vector of finite numbers that are not all zero.",
        )
    return vector


def _tensor_of(path: Path) -> np.ndarray[Any, Any]:
    """The one tensor of a safetensors file, in float32."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if len(names) != 1:
                raise ValueError(f"it holds {len(names)} tensors, not one")
            tensor: torch.Tensor = file.get_tensor(names[0])
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    found: np.ndarray[Any, Any] = tensor.float().numpy()
    return found
