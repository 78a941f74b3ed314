"""Which SAEs share their baselines, and the baselines themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from vlmlens.errors import DataError
from vlmlens_plugins.analysis.sae.judging.judged import Peers, Role
from vlmlens_plugins.analysis.sae.judging.material import Block, Material, blocks
from vlmlens_plugins.sae import Relu, Sae
from vlmlens_plugins.sae.baselines import neurons, principal, random_rows, untrained

Floats = npt.NDArray[np.float64]
_ALIKE = 0.1
_FITTED = 4096
_AT_ONCE = 8192
_ENOUGH = 16_384
_PROJECTIONS = 4096
_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class Moments:
    """What rows are like as a whole.

    Args:
        mean: float64 `[width]`.
        covariance: float64 `[width, width]`.
        wanted: float64 `[outputs]`: the mean of what is to be given back.
        some: float32 `[n, width]`: up to 4096 of the rows.
    """

    mean: Floats
    covariance: Floats
    wanted: Floats
    some: torch.Tensor


def moments(material: Material, samples: Sequence[int], most: int) -> Moments:
    """The mean and covariance of the rows of samples, in one pass.

    16,384 rows are enough for both, or four times their width.

    Args:
        material: Where they come from.
        samples: Numbers of samples.
        most: Rows, at most.

    Raises:
        DataError: They have no rows at all.
    """
    enough = min(most, max(_ENOUGH, 4 * material.rows.width))
    found: _Sums | None = None
    for block in blocks(material, samples, enough, _AT_ONCE):
        if len(block.rows):
            found = found or _Sums.around(block)
            found.add(block)
    if found is None:
        raise DataError(
            f"The samples to learn from have no rows of {material.rows.column or 'the column'}.",
            subject=material.rows.column,
            hint="Choose a column with rows in every sample.",
        )
    return found.moments()


@dataclass(slots=True)
class _Sums:
    """Sums over rows, less a row near their mean, so that no precision is lost."""

    shift: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    wanted: torch.Tensor
    count: int = 0
    some: list[torch.Tensor] = field(default_factory=list)

    @classmethod
    def around(cls, block: Block) -> _Sums:
        shift = block.rows.double().mean(0)
        width = len(shift)
        return cls(
            shift,
            torch.zeros(width, dtype=torch.float64),
            torch.zeros(width, width, dtype=torch.float64),
            torch.zeros(block.wanted.shape[1], dtype=torch.float64),
        )

    def add(self, block: Block) -> None:
        away = block.rows.double() - self.shift
        self.first += away.sum(0)
        self.second += away.T @ away
        self.wanted += block.wanted.double().sum(0)
        if self.count < _FITTED:
            self.some.append(block.rows)
        self.count += len(block.rows)

    def moments(self) -> Moments:
        away = self.first / self.count
        covariance = self.second / self.count - torch.outer(away, away)
        return Moments(
            (self.shift + away).numpy(),
            covariance.numpy(),
            (self.wanted / self.count).numpy(),
            torch.cat(self.some)[:_FITTED],
        )


def peers_of(saes: Mapping[str, Sae], l0: Mapping[str, float], controls: int = 1) -> list[Peers]:
    """SAEs by size and L0: those of equal size whose L0 differs by a tenth at most are together.

    Args:
        saes: By name.
        l0: By name, how many features fire per row.
        controls: How many untrained dictionaries are drawn for each.
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
        roles = (Role.UNTRAINED, Role.EXAMPLES, Role.NEURONS, Role.PRINCIPAL)
        baselines = {role: _free(f"{role}{ending}", saes) for role in roles}
        first = baselines[Role.UNTRAINED]
        more = [_free(f"{first}, draw {number}", saes) for number in range(2, controls + 1)]
        found.append(Peers(features, mean, tuple(names), baselines, (first, *more)))
    return found


def _free(name: str, taken: Collection[str]) -> str:
    """A name that no SAE has."""
    return name if name not in taken else _free(f"{name} (baseline)", taken)


def baselines(peers: Peers, about: Moments, seed: int) -> dict[str, Sae]:
    """The baselines of some peers, by name.

    Args:
        peers: The SAEs.
        about: Of the rows to learn from.
        seed: Of the untrained directions.
    """
    mean, k = torch.from_numpy(about.mean).float(), _kept(peers.l0)
    covariance = torch.from_numpy(about.covariance)
    made = {peers.baselines[Role.NEURONS]: neurons(mean, k)}
    made[peers.baselines[Role.PRINCIPAL]] = principal(mean, covariance, k)
    few = min(k, peers.features)
    made[peers.baselines[Role.EXAMPLES]] = random_rows(peers.features, mean, about.some, few, seed)
    for draw, name in enumerate(peers.draws):
        own = _SEEDS * seed + draw
        made[name] = untrained(peers.features, mean, about.some, few, own)
    order = (*peers.draws, *peers.baselines.values())
    return {name: made[name] for name in order}


def projections(sae: Sae) -> Sae:
    """The directions of a baseline, all of which may fire; the first 4096.

    What it gives back means nothing.
    """
    return replace(
        sae,
        W_enc=sae.W_enc[:, :_PROJECTIONS],
        b_enc=sae.b_enc[:_PROJECTIONS],
        W_dec=sae.W_dec[:_PROJECTIONS],
        activation=Relu(),
    )


def _kept(l0: float) -> int:
    return max(1, round(l0))
