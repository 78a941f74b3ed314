"""Interventions that compare with other samples, or take rows from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from vlmlens.abc import EditedRows, Intervention, Need, Options, Spread
from vlmlens.errors import EditError
from vlmlens.samples import Sample
from vlmlens_plugins.edits.stored_rows import HELP, StoredRows


class MeanOptions(Options):
    """Options of `mean`."""

    column: str | None = Field(None, description=HELP)


class _Compared(Intervention):
    """An intervention that compares with rows of other samples: of the run, or stored ones."""

    Options: ClassVar[type[Any]] = MeanOptions
    options: Any

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        column: str | None = options.column
        self._stored = None if column is None else StoredRows.named(column)
        self.needs: Need = "spread" if column is None else "nothing"

    @property
    def width(self) -> int | None:
        """See `Intervention.width`."""
        return None if self._stored is None else self._stored.width

    def describe(self) -> Mapping[str, Any]:
        """See `Intervention.describe`; with a digest of what is known of the stored column."""
        if self._stored is None:
            return {"options": self.options.model_dump(mode="json", exclude={"column"})}
        return {**super().describe(), "digest": self._stored.digest}

    def _spread(self, rows: torch.Tensor, about: EditedRows) -> Spread:
        if self._stored is None:
            return about.of_others(rows)
        self._stored.check_fits(rows, about.site.name)
        return replace(about, spread=self._stored.spread).of_others(rows)


class Mean(_Compared):
    """The mean of such rows over other samples, the same for every row.

    Rows of the image get the mean of rows of images, and rows of text that of text, as the
    selector says: a mean over both would put text into the image. A stored column has the mean of
    its own rows, whatever they are.
    """

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        return self._spread(rows, about).mean.to(rows.dtype).expand_as(rows)


class NoiseOptions(Options):
    """Options of `noise`."""

    sigma: float = Field(
        3.0, gt=0, description="The standard deviation, in units of each dimension's spread."
    )
    seed: int = Field(0, ge=0, description="Seed of the noise.")
    column: str | None = Field(None, description=HELP)


class Noise(_Compared):
    """Gaussian noise, added to each dimension in units of its spread over other samples.

    Meng et al., "Locating and Editing Factual Associations in GPT" (2022, arXiv 2202.05262),
    section 2.1, add noise of three standard deviations. One number for all dimensions, as there,
    lets the few very large dimensions of a residual stream decide how much the others get.

    The noise of a row depends on the seed, the sample, the site and the place of the row, and on
    nothing else: not on the batch, nor on the device.
    """

    Options = NoiseOptions
    options: NoiseOptions

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        drawn = [
            _generator(self.options.seed, about.sample.id, about.site.name, int(place))
            .standard_normal(rows.shape[1], np.float32)
            for place in about.positions
        ]  # fmt: skip
        noise = torch.from_numpy(np.stack(drawn)).to(rows.device) * self.options.sigma
        return (rows.float() + noise * self._spread(rows, about).deviation).to(rows.dtype)


class ResampleOptions(Options):
    """Options of `resample`."""

    seed: int = Field(0, ge=0, description="Seed of the choice.")


class Resample(Intervention):
    """Such rows of another sample, chosen at random among the others.

    The sample is the same wherever the sample is edited, so that several edits stay consistent.
    Samples with the same images and prompt are not chosen.
    """

    Options = ResampleOptions
    options: ResampleOptions
    needs: Need = "donor"

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        return about.of_donor(rows)

    def donor(self, sample: Sample, others: Sequence[Sample]) -> Sample | None:
        """See `Intervention.donor`."""
        fitting = [
            other
            for other in others
            if other.id != sample.id
            and (other.images, other.prompt) != (sample.images, sample.prompt)
        ]
        if not fitting:
            raise EditError(
                f"There is no other sample to take rows from for {sample.id!r}.",
                subject=sample.id,
                hint="Pass others=[...], with samples that differ.",
            )
        return fitting[int(_generator(self.options.seed, sample.id).integers(len(fitting)))]


class PatchOptions(Options):
    """Options of `patch`."""

    sample: str | None = Field(
        None, description="Id of the donor; default: the one that is given for each sample."
    )


class Patch(Intervention):
    """The same rows of a donor's pass: activation patching, or interchange intervention."""

    Options = PatchOptions
    options: PatchOptions
    needs: Need = "donor"

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        return about.of_donor(rows)

    def donor(self, sample: Sample, others: Sequence[Sample]) -> Sample | None:
        """See `Intervention.donor`."""
        del sample
        wanted = self.options.sample
        if wanted is None:
            return None
        found = next((other for other in others if other.id == wanted), None)
        if found is None:
            raise EditError(
                f"There is no sample {wanted!r} to take rows from.",
                subject=wanted,
                hint="The donor is a sample of the run, or one of others=[...].",
            )
        return found


def _generator(*parts: object) -> np.random.Generator:
    """A generator that depends on these values and on nothing else."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16]))
