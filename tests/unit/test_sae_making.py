"""The analysis `sae` with stored rows: interrupted, with other options, of several columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlmlens.abc import AnalysisContext, ModelAdapter, Values
from vlmlens.errors import CompositionError, DataError, SpecError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.testing import Planted
from vlmlens.testing.analysis import _stored
from vlmlens_plugins.analysis.sae import SaeAnalysis
from vlmlens_plugins.analysis.sae.options import SaeOptions
from vlmlens_plugins.sae import train

ONE, OTHER = "llm.block.1/text", "llm.block.2/text"
COUNT, ROWS, WIDTH = 24, 6, 8
SAMPLES = [
    Sample(f"s{i}", "What?", group=f"g{i}", label="ab"[i % 2], task="t") for i in range(COUNT)
]
FEW = {
    "column": ONE, "model": "off", "width": 16, "k": 2, "rows": 64 * 80, "batch": 64, "seeds": 1,
    "pages": 2, "effects": 0, "draws": 100, "permutations": 99,
}  # fmt: skip


def no_model() -> ModelAdapter:
    raise CompositionError("There is no model.", subject="model", hint="None is needed.")


@pytest.fixture(scope="module")
def context() -> Iterator[AnalysisContext]:
    rng = np.random.default_rng(0)
    columns = {
        name: Values(
            rng.normal(size=(COUNT * ROWS, WIDTH)).astype("<f4"), "float32", (ROWS,) * COUNT
        )
        for name in (ONE, OTHER)
    }
    pooled = rng.normal(size=(COUNT, WIDTH)).astype("<f4")
    columns["llm.block.2/last"] = Values(pooled, "float32")
    with _stored(Planted(SAMPLES, columns)) as store:
        yield AnalysisContext(SAMPLES, store, no_model)


@pytest.fixture
def analyse(context: AnalysisContext, tmp_path: Path) -> Callable[..., Result]:
    """Runs the analysis in a folder, with other options, up to a call of `progress`."""

    def run(stop: int | None = None, into: str = "a", **given: object) -> Result:
        calls: list[int] = []

        def progress(done: int, total: int) -> None:
            calls.append(done)
            if len(calls) == stop:
                raise KeyboardInterrupt

        folder, analysis = tmp_path / into, SaeAnalysis(SaeOptions(**FEW | given))
        analysis.check(SAMPLES, [ONE, OTHER])
        return analysis.run(replace(context, folder=folder, progress=progress))

    return run


def weights(folder: Path) -> bytes:
    (found,) = folder.glob("*/sae_weights.safetensors")
    return found.read_bytes()


def test_an_interrupted_training_goes_on_and_stands_in_no_one_s_way(
    analyse: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(train.__kwdefaults__, "every", 50)
    with suppress(KeyboardInterrupt):
        analyse(stop=60, into="b")
    (kept,) = (tmp_path / "b").glob("*.training.safetensors")
    before = kept.read_bytes()
    told = analyse(into="b", rows=640, lr=0.01)
    assert [text for text in told.warnings if str(kept) in text]
    assert kept.read_bytes() == before
    for folder in (tmp_path / "b").glob("*k2-s0"):
        folder.rename(tmp_path / "other")
    found = analyse(into="b")
    assert not list((tmp_path / "b").glob("*.training.safetensors"))
    assert not [text for text in found.warnings if str(kept) in text]
    analyse(into="a")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_k_that_is_lowered_is_said(analyse: Callable[..., Result]) -> None:
    told = analyse(rows=640, k=[1, 9])
    assert [text for text in told.warnings if "k is 2 instead of 9 with 16 features" in text]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"column": [ONE, OTHER], "join": True}, f"{ONE} + {OTHER}"),
        ({"target": OTHER}, f"{ONE} -> {OTHER}"),
    ],
)
def test_features_of_several_columns_have_pages(
    analyse: Callable[..., Result], given: dict[str, object], name: str
) -> None:
    pages = analyse(rows=640, **given).figures[0].pages
    assert [page.column for page in pages] == [name, name]


def test_places_are_looked_at_before_any_is_trained(
    analyse: Callable[..., Result], context: AnalysisContext, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="are there to learn from"):
        analyse(column=[ONE, "llm.block.2/last"])
    with pytest.raises(SpecError, match="There is no feature 16: the SAE has 16"):
        analyse(width="2x", features=[16])
    with pytest.raises(CompositionError, match="loss of the answers cannot be measured"):
        analyse(loss="on")
    assert not list((tmp_path / "a").iterdir())
