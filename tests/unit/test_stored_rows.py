"""Edits that take the mean or the spread of a stored column."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vlmlens
from vlmlens import Run
from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.compose.plan import compose
from vlmlens.errors import ColumnNotFound, EditError, RunNotFound, StoreError, VlmlensError
from vlmlens.passes.edits import Edit
from vlmlens.registry import Registry
from vlmlens.spec.model import make_spec
from vlmlens.stores.opening import open_named

SITE = "llm.block.2"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("stored") / "run"
    sites = [f"{SITE}/image", "vision.block.0/all"]
    return vlmlens.extract(limit=4, sites=sites, device="cpu", dtype="float32", out=folder)


def edit(text: str) -> Edit:
    made = Registry.default().edit(f"{SITE}/image = {text}")
    assert isinstance(made, Edit)
    return made


def stored(folder: Path, rows: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> Path:
    place = folder / "rows"
    with open_named(Registry.default(), "lmdb", str(place), mode="a") as store:
        values = Values(rows, "float32", (len(rows),))
        store.write(ColumnBlock(("a",), {"x/all": values}))
    return place


def test_the_run_that_holds_the_samples_gives_their_mean_and_spread(run: Run) -> None:
    vlm, column = vlmlens.load("demo", device="cpu", dtype="float32"), f"{run.path}@{SITE}/image"
    samples = list(run.samples)
    batch = vlm.encode(samples[:2])
    for of_samples, of_stored in (("mean", f"mean({column})"), ("noise", f"noise(3, 0, {column})")):
        with vlm.edited([edit(of_samples)], others=samples):
            wanted = vlm.trace(batch, [SITE])[SITE]
        with vlm.edited([edit(of_stored)]):
            found = vlm.trace(batch, [SITE])[SITE]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_it_is_described_by_its_values(tmp_path: Path) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    one, other = stored(tmp_path / "a", rows), stored(tmp_path / "b", rows + 1)
    said = [json.dumps(edit(f"mean({place}@x/all)").describe()) for place in (one, other)]
    digests = [json.loads(each)["digest"] for each in said]
    assert len(set(digests)) == 2
    assert edit("mean").describe() == {"edit": f"{SITE}/image = mean", "options": {}}
    assert edit("mean").operation.needs == "spread"
    assert edit(f"mean({one}@x/all)").operation.needs == "nothing"


def test_what_is_no_stored_column(run: Run, tmp_path: Path) -> None:
    cases: list[tuple[str, type[VlmlensError], str]] = [
        (f"{run.path}@llm.block.2/images", ColumnNotFound, "Did you mean llm.block.2/image?"),
        (f"{run.path}@x/all", ColumnNotFound, "Stored: .*vision.block.0/all"),
        (str(run.path), EditError, "Expected: RUN@COLUMN"),
        ("@llm.block.2/image", EditError, "names no stored column"),
        (f"{tmp_path / 'nothing'}@x/all", RunNotFound, "There is no"),
        (f"{tmp_path}@x/all", StoreError, "neither a run nor a store"),
    ]
    for column, error, message in cases:
        with pytest.raises(error, match=message):
            edit(f"mean({column})")
    lost = stored(tmp_path, np.full((2, 3), np.nan, np.float32))
    with pytest.raises(EditError, match="values that are not finite"):
        edit(f"mean({lost}@x/all)").describe()


def test_another_width_is_refused_before_weights_are_loaded(run: Run, tmp_path: Path) -> None:
    place = stored(tmp_path, np.ones((2, 5), np.float32))
    for site in (SITE, f"{SITE}.attn.heads[1]"):
        asked = {"limit": 1, "edits": [f"{site}/image = mean({place}@x/all)"]}
        with pytest.raises(EditError, match=r"changes rows of 5 numbers; those at .* have \d+"):
            compose(make_spec(asked), Registry.default())
    vlm = vlmlens.load("demo", device="cpu")
    batch = vlm.encode(list(run.samples)[:1])
    with pytest.raises(EditError, match=f"rows of 5 numbers, those at '{SITE}:in' have"):
        vlm.trace(batch, [], edits=[f"{SITE}:in/image = mean({place}@x/all)"])


def test_a_run_keeps_the_whole_path(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.path.parent)
    asked = {"limit": 1, "edits": [f"{SITE}/image = mean(column=run@{SITE}/image)"]}
    (kept,) = compose(make_spec(asked), Registry.default()).spec.edits
    assert kept == f"{SITE}/image = mean(column={run.path}@{SITE}/image)"
