"""Which SAEs share their baselines, and the baselines themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.errors import DataError
from vlmlens_plugins.analysis.sae.judging.judged import Role, Setting
from vlmlens_plugins.analysis.sae.judging.material import Material, blocks
from vlmlens_plugins.sae import Sae
from vlmlens_plugins.sae.baselines import neurons, principal, untrained

Floats = npt.NDArray[np.float64]
_ALIKE = 0.1
_FITTED = 4096
_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Moments:
    """What rows are like as a whole.

    Args:
        rows: How many were seen.
        mean: float64 `[width]`.
        covariance: float64 `[width, width]`.
        wanted: float64 `[outputs]`: the mean of what is to be given back.
        some: float32 `[n, width]`: up to 4096 of the rows.
    """

    rows: int
    mean: Floats
    covariance: Floats
    wanted: Floats
    some: torch.Tensor


def moments(material: Material, samples: Sequence[int], most: int) -> Moments:
    """The mean and covariance of the rows of samples, in one pass.

    Args:
        material: Where they come from.
        samples: Numbers of samples.
        most: Rows, at most.

    Raises:
        DataError: They have no rows at all.
    """
    shift: torch.Tensor | None = None
    count = 0
    some: list[torch.Tensor] = []
    for block in blocks(material, samples, most, _AT_ONCE):
        if not len(block.rows):
            continue
        if shift is None:
            shift = block.rows.double().mean(0)
            first = torch.zeros_like(shift)
            second = torch.zeros(len(shift), len(shift), dtype=torch.float64)
            wanted = torch.zeros(block.wanted.shape[1], dtype=torch.float64)
        away = block.rows.double() - shift
        first += away.sum(0)
        second += (block.rows - shift.float()).T @ (block.rows - shift.float())
        wanted += block.wanted.double().sum(0)
        if sum(map(len, some)) < _FITTED:
            some.append(block.rows)
        count += len(block.rows)
    if shift is None:
        raise DataError(
            f"The samples to learn from have no rows of {material.rows.column or 'the column'}.",
            subject=material.rows.column,
            hint="Choose a column with rows in every sample.",
        )
    away = first / count
    covariance = (second / count - torch.outer(away, away)).numpy()
    mean = (shift + away).numpy()
    return Moments(count, mean, covariance, (wanted / count).numpy(), torch.cat(some)[:_FITTED])


def settings(saes: Mapping[str, Sae], l0: Mapping[str, float]) -> list[Setting]:
    """SAEs by size and L0: those of equal size whose L0 differs by a tenth at most are together.

    Args:
        saes: By name.
        l0: By name, how many features fire per row.
    """
    together: list[list[str]] = []
    for name, sae in saes.items():
        for names in together:
            known = l0[names[0]]
            near = abs(l0[name] - known) <= _ALIKE * max(known, 1.0)
            if near and saes[names[0]].features == sae.features:
                names.append(name)
                break
        else:
            together.append([name])
    found = []
    for names in together:
        mean = float(np.mean([l0[name] for name in names]))
        features = saes[names[0]].features
        ending = "" if len(together) == 1 else f" of {features}, L0 {_kept(mean)}"
        roles = (Role.UNTRAINED, Role.NEURONS, Role.PRINCIPAL)
        baselines = {role: f"{role}{ending}" for role in roles}
        found.append(Setting(features, mean, tuple(names), baselines))
    return found


def baselines(setting: Setting, about: Moments, seed: int) -> dict[str, Sae]:
    """The baselines of a setting, by name.

    Args:
        setting: The setting.
        about: Of the rows to learn from.
        seed: Of the untrained directions.
    """
    mean, k = torch.from_numpy(about.mean).float(), _kept(setting.l0)
    covariance = torch.from_numpy(about.covariance)
    made = {
        Role.UNTRAINED: untrained(
            setting.features, mean, about.some, min(k, setting.features), seed
        ),
        Role.NEURONS: neurons(mean, k),
        Role.PRINCIPAL: principal(mean, covariance, k),
    }
    return {setting.baselines[role]: sae for role, sae in made.items()}


def _kept(l0: float) -> int:
    return max(1, round(l0))
