"""Probe weights and features as files.

The weights are for raw activations: `features @ weights + bias` gives the scores of the classes
(of class 1 against class 0 where there is one output), or the number. A perceptron has a second
layer: `relu(features @ weights + bias) @ weights2 + bias2`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmlens._files import expanded
from vlmlens.errors import CompositionError
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis.probe.column_evaluation import is_large
from vlmlens_plugins.analysis.probe.cross_validation import scaling, standardized
from vlmlens_plugins.analysis.probe.layer_ranking import plateau_start
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.probe_kinds import family, known_strength
from vlmlens_plugins.analysis.probe.prober import Probed, Prober
from vlmlens_plugins.analysis.probe.targets import Target

Array = npt.NDArray[Any]


def export(probed: Probed, prober: Prober, options: ProbeOptions) -> str:
    """Write the chosen columns' probes, trained on all of the run's own samples, and features.

    Returns:
        A sentence on what was written.

    Raises:
        CompositionError: The folder cannot be written.
    """
    assert options.export is not None  # noqa: S101
    folder = expanded(options.export)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [
            _write(folder, probed, column, prober, options) for column in _chosen(probed, options)
        ]
    except OSError as error:
        raise CompositionError(
            f"The export folder {options.export!r} cannot be written ({error}).",
            subject=options.export,
            hint="Name another folder.",
        ) from error
    widths = prober.columns.widths()
    large = any(
        is_large(len(probed.target.y), widths[c], options) for c in _chosen(probed, options)
    )
    kept = " Features of large columns are left out; the run's store has them." if large else ""
    return f"Exported for {probed.target.name}: {', '.join(names)}.{kept}"


def read_export(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and facts of an exported file of either format."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files if name != "facts"}
            return arrays, json.loads(str(stored["facts"]))
    from safetensors import safe_open

    with safe_open(path, "np") as stored:
        names = list(stored.keys())
        return {name: stored.get_tensor(name) for name in names}, json.loads(
            stored.metadata()["facts"]
        )


def _chosen(probed: Probed, options: ProbeOptions) -> list[str]:
    scores = probed.scored.scores
    if options.export_column == "all":
        return [score.column for score in scores]
    if options.export_column == "best":
        return [max(scores, key=lambda score: score.accuracy).column]
    return [plateau_start(probed.places).column]


def _write(folder: Path, probed: Probed, column: str, prober: Prober, options: ProbeOptions) -> str:
    target = probed.target
    (strength,) = [s.strength for s in probed.scored.scores if s.column == column]
    arrays = {"labels": target.y[: target.learned]}
    if is_large(len(target.y), prober.columns.widths()[column], options):
        arrays |= _large_probe(target, column, prober, strength)
    else:
        x = prober.columns.read(column, target)[: target.learned]
        arrays["features"] = x.astype(np.float32)
        arrays |= _probe(x, probed, prober, options, strength)
    facts = {
        "target": target.name,
        "column": column,
        "classes": list(target.classes),
        "ids": list(target.ids[: target.learned]),
        "model": options.model,
        "C": strength,
    }
    name = f"{slug(target.name)}.{slug(column)}.{options.export_format}"
    (folder / name).write_bytes(_packed(arrays, facts, options.export_format))
    return name


def _probe(
    x: Array, probed: Probed, prober: Prober, options: ProbeOptions, strength: float
) -> dict[str, Array]:
    """Weights and bias for raw activations, float32."""
    target = probed.target
    everything = np.ones(len(x), bool)
    z = torch.from_numpy(standardized(x, everything))[None].to(prober.device)
    y = torch.from_numpy(target.y[: len(x), None]).to(prober.device)
    train = torch.ones(1, len(x), dtype=torch.bool, device=prober.device)
    kind = family(options, target, prober.seed)
    labels = y.float() if target.numbers else y
    fits = kind.fit(z, labels, train, known_strength(strength, z, train))
    arrays = {name: t.double().cpu().numpy() for name, t in fits.tensors().items()}
    mean, scale = scaling(x)
    factor = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1.0), 0.0)
    arrays["weights"] = arrays["weights"] * factor[:, None]
    arrays["bias"] = arrays["bias"] - mean @ arrays["weights"]
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def _large_probe(target: Target, column: str, prober: Prober, strength: float) -> dict[str, Array]:
    """The same where the column is read in blocks; its features stay in the run's store only."""
    rows, labels = prober.columns.own_rows(column, target), target.y[None, : target.learned]
    made = prober.large(target).trained(rows, labels, strength)
    weights, bias = made.weights[:, 0, :, 0], made.bias[0, :, 0]
    shifted = bias - made.shift @ weights
    return {"weights": weights.astype(np.float32), "bias": shifted.astype(np.float32)}


def _packed(arrays: Mapping[str, Array], facts: Mapping[str, Any], kind: str) -> bytes:
    text = json.dumps(facts)
    ready = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    if kind == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, facts=np.array(text), **ready)
        return buffer.getvalue()
    from safetensors.numpy import save

    return save(ready, metadata={"facts": text})
