"""The numbers of VLM-Lens' concept scripts, from databases as VLM-Lens writes them.

What is expected is computed here from the blobs, in loops over torch tensors.
"""

from __future__ import annotations

import io
import math
import sqlite3
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit._vlmlens_database import make_database

import vlmlens
from vlmlens.errors import MissingAnnotation, SpecError
from vlmlens.results import Result, Table
from vlmlens_plugins.analysis.steering.files import open_direction

LAYERS = ("language_model.model.layers.0", "language_model.model.layers.31")
COLORS = ("red", "dark_blue", "green")
FAST = {"permutations": 99, "resamples": 200, "by": "image-name"}
Vectors = list[tuple[torch.Tensor, str]]


def database(path: Path, images: list[str], seed: int, *, pooled: bool = False) -> Path:
    """Rows of several tokens, near a corner for each color in the last layer only."""
    noise = torch.Generator().manual_seed(seed)
    rows = []
    for number, image in enumerate(images):
        color = next(i for i, name in enumerate(COLORS) if name in image)
        for layer in LAYERS:
            tokens = 1 if pooled else 2 + number % 3
            tensor = torch.randn(1, tokens, 6, generator=noise) + 1
            tensor[..., color] += 5.0 * (layer == LAYERS[1])
            row: dict[str, Any] = {"image_path": f"./images/{image}", "layer": layer}
            rows.append({**row, "tensor": tensor.squeeze(0) if pooled else tensor})
            rows[-1]["pooling_method"] = "mean" if pooled else None
    make_database(path, rows)
    return path


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The one of the targets, and that of the concepts' own images."""
    folder = tmp_path_factory.mktemp("databases")
    shown = [f"{color}_{i:02}.jpg" for i in range(6) for color in COLORS]
    concepts = database(folder / "colors.db", shown, 2)
    asked = [f"{color}_{i:02}.png" for i in range(4) for color in COLORS]
    return database(folder / "asked.db", asked, 1), concepts


@cache
def analyzed(path: Path, **options: Any) -> Result:
    given = {**FAST, "vlm_lens": True, **options}
    return vlmlens.analyze(path, {"concepts": given}, fresh=True)["concepts"]


def vectors(path: Path, layer: str) -> Vectors:
    """The mean over tokens of each blob of a layer, and the color in its image's name."""
    db = sqlite3.connect(path)
    found = db.execute("SELECT layer, tensor, image_path FROM tensors ORDER BY id").fetchall()
    db.close()
    loaded = [(n, torch.load(io.BytesIO(blob), weights_only=True), i) for n, blob, i in found]
    return [
        (tensor.reshape(-1, tensor.shape[-1]).mean(0), Path(image).stem.rsplit("_", 1)[0])
        for name, tensor, image in loaded
        if name == layer
    ]


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def in_components(known: Vectors, moved: Vectors, count: int) -> Vectors:
    """In the first right singular vectors of the known rows, less their mean."""
    rows = torch.stack([vector for vector, _ in known]).double()
    axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:count]
    return [((vector.double() - rows.mean(0)) @ axes.T, color) for vector, color in moved]


def rows_of(table: Table) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows()]


@pytest.mark.parametrize("components", [None, 2])
def test_the_numbers_are_those_of_its_formulas(
    databases: tuple[Path, Path], components: int | None
) -> None:
    targets, concepts = databases
    result = analyzed(targets, prototypes=str(concepts), components=components, k=4)
    told = rows_of(result.table("concepts-vlm-lens"))
    votes = rows_of(result.table("concepts-vlm-lens-nearest"))
    assert len(told) == 2 * 12 * 3
    for layer in LAYERS:
        known, asked = vectors(concepts, layer), vectors(targets, layer)
        if components is not None:
            asked, known = (in_components(known, each, components) for each in (asked, known))
        of_layer = [row for row in told if row["column"] == f"{layer}/all"]
        for number, (vector, color) in enumerate(asked):
            cosines = [(cosine(vector, other), name) for other, name in known]
            for row in (r for r in of_layer if r["sample"] == str(number + 1)):
                own = [value for value, name in cosines if name == row["concept"]]
                mean = torch.stack([v for v, name in known if name == row["concept"]]).mean(0)
                angle = math.degrees(math.acos(cosine(vector, mean)))
                expected = {
                    "min_similarity": min(own), "max_similarity": max(own),
                    "mean_similarity": sum(own) / len(own), "min_distance": 1 - max(own),
                    "mean_distance": sum(1 - each for each in own) / len(own),
                    "centroid_similarity": cosine(vector, mean), "prototypes": len(own),
                }  # fmt: skip
                assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-4)
                assert row["centroid_angle"] == pytest.approx(angle, abs=0.1)
            nearest = sorted(cosines, reverse=True)[:4]
            weights: dict[str, float] = {}
            for value, name in nearest:
                weights[name] = weights.get(name, 0.0) + max(value, 0.0)
            (vote,) = [
                each
                for each in votes
                if (each["column"], each["sample"]) == (f"{layer}/all", str(number + 1))
            ]
            assert vote["concept"] == color
            assert vote["nearest"] == nearest[0][1]
            assert vote["similarity"] == pytest.approx(nearest[0][0], abs=1e-4)
            assert vote["voted"] == max(weights, key=lambda name: weights[name])


def test_distances_and_deviations_are_in_two_components(databases: tuple[Path, Path]) -> None:
    targets, concepts = databases
    result = analyzed(targets, prototypes=str(concepts), components=None, k=4)
    told = rows_of(result.table("concepts-vlm-lens-separation"))
    assert len(told) == 2 * 3 * 2
    for row in told:
        known = vectors(concepts, row["column"].removesuffix("/all"))
        placed = in_components(known, known, 2)
        own, other = (
            torch.stack([v for v, name in placed if name == row[which]])
            for which in ("concept", "other")
        )
        distance = float((own.mean(0) - other.mean(0)).norm())
        assert row["distance"] == pytest.approx(distance, rel=1e-3)
        spread = own.std(0, correction=0).tolist()
        assert [row["deviation_1"], row["deviation_2"]] == pytest.approx(spread, rel=1e-3)


def test_a_database_is_measured_with_controls_too(databases: tuple[Path, Path]) -> None:
    """Its images are not there, so that the concepts are read from what it stores."""
    result = analyzed(databases[1], k=3)
    found = {row["column"]: row for row in rows_of(result.table("concepts-columns"))}
    assert found[f"{LAYERS[1]}/all"]["verdict"] == "encoded"
    assert found[f"{LAYERS[0]}/all"]["verdict"] != "encoded"
    directions = rows_of(result.table("concepts-directions"))
    saved = [
        databases[1].with_name("colors.db.vlmlens") / "results" / d["file"] for d in directions
    ]
    assert len(saved) == 2 * 3
    assert all(open_direction(str(file)).usable for file in saved)
    (warning,) = [each for each in result.warnings if "compared with themselves" in each]
    assert "prototypes=RUN" in warning
    nearest = rows_of(result.table("concepts-vlm-lens-nearest"))
    assert all(row["nearest"] == row["concept"] for row in nearest)
    assert all(row["similarity"] == pytest.approx(1, abs=1e-6) for row in nearest)


def test_a_mistake_in_the_formula_would_be_seen(databases: tuple[Path, Path]) -> None:
    """Centred cosines are other numbers: the test above tells them apart."""
    targets, concepts = databases
    result = analyzed(targets, prototypes=str(concepts), components=None, k=4)
    told = rows_of(result.table("concepts-vlm-lens"))
    known, asked = (vectors(path, LAYERS[1]) for path in (concepts, targets))
    mean = torch.stack([vector for vector, _ in known]).mean(0)
    row = next(r for r in told if r["column"] == f"{LAYERS[1]}/all" and r["sample"] == "1")
    own = [cosine(asked[0][0] - mean, v - mean) for v, name in known if name == row["concept"]]
    assert abs(row["mean_similarity"] - sum(own) / len(own)) > 0.05


def test_what_cannot_be_compared_is_said(databases: tuple[Path, Path], tmp_path: Path) -> None:
    targets, concepts = databases
    with pytest.raises(SpecError, match=r"components is 7, and there are 18 prototypes of 6"):
        analyzed(targets, prototypes=str(concepts), components=7)
    with pytest.raises(MissingAnnotation, match=r"No two values of label have 3 samples"):
        analyzed(targets, prototypes=str(concepts), by="label")
    pooled = database(tmp_path / "pooled.db", ["red_1.jpg", "green_1.jpg"], 3, pooled=True)
    result = analyzed(targets, prototypes=str(pooled))
    assert sum("prototypes lack such a column" in each for each in result.warnings) == 2
