"""Tables of how SAEs were judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlmlens.results import Cell, Table
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis._sweeps.scores import number
from vlmlens_plugins.analysis.sae.judging.conclusion import conclude
from vlmlens_plugins.analysis.sae.judging.judged import Basis, Compared, Judged, Kind, Role
from vlmlens_plugins.analysis.sae.judging.material import MODALITIES
from vlmlens_plugins.analysis.sae.judging.probing import SIZES
from vlmlens_plugins.analysis.sae.judging.resampling import Interval

Floats = npt.NDArray[np.float64]
_LOSSES = ("clean", "replaced", "zero", "mean")


def tables(judged: Sequence[Judged]) -> list[Table]:
    """A row per basis, per concept of a basis, per value of a concept, and per pair of seeds.

    Args:
        judged: One for each column.
    """
    made = [
        table(
            "sae",
            "SAEs and what nobody trained, on held-out rows",
            [_basis(each, basis) for each in judged for basis in each.bases.values()],
            keys=("column", "basis"),
        ),
        table(
            "sae-concepts",
            "What single features, few features and whole rows tell (AUC in held-out samples)",
            [row for each in judged for row in _concepts(each)],
            keys=("column", "basis", "concept"),
        ),
        table(
            "sae-best-features",
            "The feature that tells each value best, chosen by other samples",
            [row for each in judged for row in _best(each)],
            keys=("column", "basis", "concept", "value"),
        ),
        table(
            "sae-stability",
            "Whether another seed gives the same features (matched cosine)",
            [row for each in judged for row in _stability(each)],
            keys=("column", "one", "other"),
        ),
        table(
            "sae-loss",
            "Loss of the right answers, in nats per token, with rows replaced",
            [row for each in judged for row in _loss(each)],
            keys=("column", "basis", "rows"),
        ),
    ]
    return [each for each in made if len(each)]


def _basis(judged: Judged, basis: Basis) -> dict[str, Cell]:
    trained = basis.role is Role.SAE
    gain = judged.variance(basis.name) if trained else None
    row: dict[str, Cell] = {
        "column": judged.column,
        "basis": basis.name,
        "kind": str(basis.role),
        "features": basis.sae.features,
        "l0": number(basis.l0),
        **_interval("explained", basis.explained),
    }
    for modality in MODALITIES:
        row[f"explained_{modality}"] = number(basis.by_modality.get(modality, np.nan))
    row |= {
        **_interval("over_untrained", None if gain is None else gain.difference),
        "verdict": str(conclude(judged, basis.name).overall) if trained else None,
        "dead": number(basis.dead),
        "rows": basis.rows,
        "cosine": number(basis.cosine),
        "shrinkage": number(basis.shrinkage),
        "monosemanticity": _mean(basis.monosemanticity),
        "monosemanticity_chance": number(judged.chance),
        "moran": _mean(basis.coherence),
        "moran_permuted": _mean(basis.permuted),
    }
    return row


def _concepts(judged: Judged) -> list[dict[str, Cell]]:
    rows = []
    for basis in judged.bases.values():
        trained = basis.role is Role.SAE
        limited = judged.against(basis.name, Kind.CONCEPT) if trained else {}
        free = judged.against(basis.name, Kind.CONCEPT, limited=False) if trained else {}
        for name, found in basis.singles.items():
            sparse = basis.probed[name]
            unlimited = basis.unlimited.get(name)
            rows.append(
                {
                    "column": judged.column,
                    "basis": basis.name,
                    "concept": name,
                    **_interval("auc", found.auc),
                    "auc_all_firing": None if unlimited is None else number(unlimited.auc.value),
                    **_against("over_untrained", limited.get(name)),
                    **_against("over_projections", free.get(name)),
                    **{f"probe_{size}": number(sparse.sparse[size]) for size in SIZES},
                    "probe_rows": number(sparse.dense),
                    **{f"share_{size}": number(sparse.concentration(size)) for size in SIZES},
                }
            )
    return rows


def _best(judged: Judged) -> list[dict[str, Cell]]:
    return [
        {
            "column": judged.column,
            "basis": basis.name,
            "concept": name,
            "value": best.value,
            "feature": best.feature,
            "density": None if best.feature is None else number(basis.density[best.feature]),
            "auc_learnt": number(best.learnt),
            "auc": number(best.judged),
        }
        for basis in judged.bases.values()
        for name, found in basis.singles.items()
        for best in found.best
    ]


def _stability(judged: Judged) -> list[dict[str, Cell]]:
    return [
        {
            "column": judged.column,
            "one": each.one,
            "other": each.other,
            "cosine": number(each.value),
            "untrained": number(each.untrained),
            "matched": "one to one" if each.exact else "nearest, both ways",
        }
        for each in judged.stability
    ]


def _loss(judged: Judged) -> list[dict[str, Cell]]:
    rows = []
    for each in judged.loss:
        trained = judged.bases[each.basis].role is Role.SAE
        gain = judged.against(each.basis, Kind.LOSS).get(each.rows) if trained else None
        rows.append(
            {
                "column": judged.column,
                "basis": each.basis,
                "rows": each.rows,
                "samples": len(each.clean),
                **{name: float(getattr(each, name).mean()) for name in _LOSSES},
                **_interval("recovered_of_zero", each.of_zero),
                **_interval("recovered_of_mean", each.of_mean),
                **_against("under_untrained", gain),
            }
        )
    return rows


def _against(name: str, found: Compared | None) -> dict[str, Cell]:
    return {
        **_interval(name, None if found is None else found.difference),
        f"{name}_p": None if found is None else number(found.p),
        f"{name}_word": None if found is None else str(found.word),
    }


def _interval(name: str, found: Interval | None) -> dict[str, Cell]:
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {
        name: number(found.value),
        f"{name}_low": number(found.low),
        f"{name}_high": number(found.high),
    }


def _mean(values: Floats | None) -> Cell:
    known = np.zeros(0) if values is None else values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
