"""Interventions with the features of a sparse autoencoder (SAE)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field

from vlmlens.abc import Edit, EditedRows, EditPlace, Intervention, Options
from vlmlens.errors import EditError
from vlmlens_plugins.edits.features import (
    check_features,
    check_rows,
    codes_of,
    directions,
    given_sae,
    in_float32,
    largest,
    on_device,
    parsed_features,
    refuse_elsewhere,
)

File = Annotated[
    str | None,
    Field(description="The SAE: a folder or file of SAELens, or of another format that is read."),
]
Features = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...],
    BeforeValidator(parsed_features, json_schema_input_type=int | str | tuple[int, ...]),
    Field(description="The feature's number, or several: 12+40."),
]
Number = Annotated[float, Field(allow_inf_nan=False)]
Unit = Annotated[
    Literal["code", "max"],
    Field(
        description="What the number is counted in: code (as it is), or max (times the feature's "
        "largest code in training, where the file has it)."
    ),
]
Kept = Annotated[
    bool,
    Field(
        description="Whether rows keep what the SAE does not reconstruct; if not, they become what "
        "it decodes."
    ),
]
Anyway = Annotated[
    bool, Field(description="Whether to use it also with another model, site or rows than its own.")
]


Turned = Annotated[
    int | None,
    Field(
        ge=0,
        description="Of a control: the features write random directions as long as their own, "
        "drawn with this seed.",
    ),
]


class ReconstructOptions(Options):
    """Options of `sae.reconstruct`."""

    file: File = None
    anyway: Anyway = False


class _WithSae(Intervention):
    """An intervention with an SAE.

    Raises:
        EditError: No file is given, the SAE writes to another place than it reads, or it has no
            such feature.
        DataError: The file cannot be read as an SAE; `DataNotFound` if there is none.
    """

    Options: ClassVar[type[Any]] = ReconstructOptions
    called: ClassVar[str] = "sae.reconstruct"
    options: Any

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.sae = given_sae(options.file, self.called)

    @property
    def width(self) -> int:
        """See `Intervention.width`."""
        return self.sae.inputs

    def check_place(self, place: EditPlace) -> None:
        """See `Intervention.check_place`: an SAE belongs to a model, a site and rows."""
        refuse_elsewhere(self.sae, self.options.file, place, anyway=self.options.anyway)

    def describe(self) -> Mapping[str, Any]:
        """See `Intervention.describe`; with a digest of the SAE."""
        return {**super().describe(), "digest": self.sae.digest}

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        check_rows(self.sae, self.options.file, rows, about)
        with in_float32(rows.device):
            return self._changed(rows.float()).to(rows.dtype)

    @abstractmethod
    def _changed(self, rows: torch.Tensor) -> torch.Tensor:
        """What float32 rows `[k, width]` become."""


class Reconstruct(_WithSae):
    """`x' = decode(encode(x))`: what is left of rows that pass through the SAE."""

    def _changed(self, rows: torch.Tensor) -> torch.Tensor:
        return on_device(self.sae, rows.device).reconstruct(rows)


class _OfFeatures(_WithSae):
    """An intervention with some features."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        check_features(self.sae, options.feature, options.file, self.called)
        self._write = directions(self.sae, self.chosen, options.turned)

    @property
    def chosen(self) -> list[int]:
        """The numbers of the features."""
        return list(self.options.feature)

    def _in_codes(self, number: float, like: torch.Tensor) -> torch.Tensor:
        """A number in the unit that was chosen: float32 `[features]`, on the device of `like`."""
        one = torch.ones(len(self.chosen))
        if self.options.unit == "max":
            one = largest(self.sae, self.options.file)[self.chosen]
        return (number * one).to(like.device)


class _OfCodes(_OfFeatures):
    """New codes of some features; the rest of the row stays, or is what the SAE decodes.

    With the error term, `x' = x + sum_j (z'_j - z_j) W_dec[j]`, of an SAE with layer norm times the
    row's deviation; a row whose codes stay is not touched. Without, `x' = decode(z')`.
    """

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        if options.turned is not None and not options.error:
            raise EditError(
                f"{self.called} was given turned and error=false.",
                subject=self.called,
                hint="Directions are turned in what is added to rows: leave error=false out.",
            )

    def at(self, site: str, selector: str, *, text: str = "", strict: bool = False) -> Edit:
        """See `Intervention.at`. It is not strict: a feature need not fire in every sample."""
        return super().at(site, selector, text=text, strict=strict)

    def _changed(self, rows: torch.Tensor) -> torch.Tensor:
        sae = on_device(self.sae, rows.device)
        if not self.options.error:
            code = sae.encode(rows)
            code[:, self.chosen] = self._new(code[:, self.chosen])
            return sae.decode(code, rows)
        before = codes_of(sae, self.chosen, rows)
        after = self._new(before)
        added = ((after - before) @ self._write.to(rows.device)) * sae.scale(rows)
        return torch.where((after == before).all(1, keepdim=True), rows, rows + added)

    @abstractmethod
    def _new(self, codes: torch.Tensor) -> torch.Tensor:
        """The new codes of the features, float32 `[k, features]`."""


class AblateOptions(Options):
    """Options of `sae.ablate`."""

    file: File = None
    feature: Features = ()
    error: Kept = True
    anyway: Anyway = False
    turned: Turned = None


class Ablate(_OfCodes):
    """`z'_j = 0`: the features write nothing."""

    Options = AblateOptions
    called = "sae.ablate"

    def _new(self, codes: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(codes)


class ClampOptions(Options):
    """Options of `sae.clamp`."""

    file: File = None
    feature: Features = ()
    value: Number = Field(0.0, description="The code that the features get in every row.")
    unit: Unit = "code"
    error: Kept = True
    anyway: Anyway = False
    turned: Turned = None


class Clamp(_OfCodes):
    """`z'_j = c`: the features fire in every row, equally strongly."""

    Options = ClampOptions
    called = "sae.clamp"

    def __init__(self, options: ClampOptions) -> None:
        super().__init__(options)
        self._in_codes(options.value, self.sae.W_dec)

    def _new(self, codes: torch.Tensor) -> torch.Tensor:
        return self._in_codes(self.options.value, codes).expand_as(codes)


class ScaleOptions(Options):
    """Options of `sae.scale`."""

    file: File = None
    feature: Features = ()
    factor: Number = Field(0.5, description="What the features' codes are multiplied by.")
    error: Kept = True
    anyway: Anyway = False
    turned: Turned = None


class Scale(_OfCodes):
    """`z'_j = a z_j`: the features write more, or less, where they fire."""

    Options = ScaleOptions
    called = "sae.scale"

    def _new(self, codes: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = codes * self.options.factor
        return scaled


class SteerOptions(Options):
    """Options of `sae.steer`."""

    file: File = None
    feature: Features = ()
    strength: Number = Field(1.0, description="What the features' directions are multiplied by.")
    unit: Unit = "code"
    anyway: Anyway = False
    turned: Turned = None


class Steer(_OfFeatures):
    """`x' = x + a W_dec[j]`: each row as if the code were larger by a; nothing is encoded.

    Of an SAE with layer norm, the direction is multiplied by the row's deviation, as when decoding.
    """

    Options = SteerOptions
    called = "sae.steer"

    def __init__(self, options: SteerOptions) -> None:
        super().__init__(options)
        self._in_codes(options.strength, self.sae.W_dec)

    def _changed(self, rows: torch.Tensor) -> torch.Tensor:
        sae = on_device(self.sae, rows.device)
        direction = self._in_codes(self.options.strength, rows) @ self._write.to(rows.device)
        moved: torch.Tensor = rows + direction * sae.scale(rows)
        return moved
