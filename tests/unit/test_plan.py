"""Composition: what fits, what is left out, and what is refused before weights are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vlmlens.abc import Analysis
from vlmlens.compose.applicability import suitable
from vlmlens.compose.plan import Plan, compose, open_sites
from vlmlens.errors import (
    CompositionError,
    DataNotFound,
    DuplicateSample,
    ImageError,
    MissingAnnotation,
    SelectorError,
    SiteNotFound,
    SpecError,
    StoreFull,
    UnknownPlugin,
)
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Registry
from vlmlens.results import Result
from vlmlens.spec.model import make_spec


class Told:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def stage(self, name: str, total: int | None) -> None: ...

    def advance(self, done: int) -> None: ...

    def note(self, message: str) -> None: ...

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def result(self, result: Result) -> None: ...


def plan(told: Told | None = None, *, analyse: bool = True, **values: Any) -> Plan:
    spec = make_spec({"limit": 60, **values})
    return compose(spec, Registry.default(), observer=told, analyse=analyse)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"id": "a", "prompt": "Hello?"}\n{"id": "b", "prompt": "And you?"}\n')
    return path


def test_the_default_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    composed = compose(make_spec({"limit": 500}), Registry.default())
    assert composed.spec.data == "demo:scenes"
    assert list(composed.analyses) == ["probe", "logit-lens", "blind-test"]
    assert composed.left_out == {}
    assert composed.columns[0] == "vision.block.0/image.mean"
    assert composed.columns[-1] == "llm.block.5/last"
    assert len(composed.columns) == 11
    estimate = composed.estimate
    assert estimate.columns["llm.block.5/last"] == 500 * 128 * 4
    assert estimate.bytes == 11 * 500 * 128 * 4
    assert estimate.to_dict()["fits"] is True


def test_suggestions_of_the_data_apply_where_the_user_gave_none() -> None:
    chosen = plan(limit=500, analysis={"probe": {"folds": 4}})
    assert chosen.spec.analysis["probe"] == {"folds": 4, "targets": ["label", "photographer@color"]}
    own = plan(limit=500, analysis={"probe": {"targets": ["label"]}})
    assert own.spec.analysis["probe"] == {"targets": ["label"]}
    shapes = {"pairs": 60, "swap": "shape"}
    pairs = plan(data="demo:pairs", options={"dataset": shapes}, analysis=["probe"])
    assert pairs.spec.analysis["probe"] == {"targets": ["label", "photographer"]}


def test_default_analyses_that_do_not_fit_are_left_out_visibly(table: Path) -> None:
    told = Told()
    composed = plan(told, data=str(table), sites=["llm.block.*"])
    assert set(composed.left_out) == {"probe", "blind-test"}
    assert list(composed.analyses) == ["logit-lens"]
    assert any("probe is left out" in line and "labels" in line for line in told.warnings)
    assert list(composed.spec.analysis) == ["logit-lens"]


def test_asked_analyses_that_do_not_fit_are_errors(table: Path) -> None:
    with pytest.raises(MissingAnnotation, match="'probe' needs labels"):
        plan(data=str(table), sites=["llm.block.*"], analysis=["probe"])


def test_columns_of_images_need_images(table: Path) -> None:
    with pytest.raises(MissingAnnotation, match="needs images"):
        plan(data=str(table), analyse=False)


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"adapter": "lava"}, UnknownPlugin, "lava"),
        ({"storage": "lmbd"}, UnknownPlugin, "lmbd"),
        ({"analysis": ["prob"]}, UnknownPlugin, "prob"),
        ({"extractor": "nothing"}, UnknownPlugin, "nothing"),
        ({"sites": ["llm.blok.3"]}, SiteNotFound, "llm.blok.3"),
        ({"sites": ["llm.block.3/lst"]}, SelectorError, "lst"),
        ({"data": "demo:nothing"}, DataNotFound, "nothing"),
        ({"data": "no/such/folder"}, DataNotFound, "no/such/folder"),
        ({"analysis": {"probe": {"fold": 3}}}, SpecError, "fold"),
        ({"options": {"storage": {"speed": 3}}}, SpecError, "speed"),
        ({"options": {"dataset": {"scenes": 0}}}, SpecError, "scenes"),
    ],
)
def test_refused_before_anything_heavy(values: Any, error: Any, said: str) -> None:
    with pytest.raises(error) as caught:
        plan(**values)
    assert said in str(caught.value)


def test_bad_samples_are_refused(tmp_path: Path) -> None:
    twice = tmp_path / "twice.jsonl"
    twice.write_text('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}\n')
    with pytest.raises(DuplicateSample, match="'a'"):
        plan(data=str(twice), analyse=False)
    missing = tmp_path / "missing.jsonl"
    missing.write_text('{"id": "a", "prompt": "x", "image": "gone.png"}\n')
    with pytest.raises(ImageError, match=r"gone\.png"):
        plan(data=str(missing), analyse=False)


def test_other_adapters_need_data(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from vlmlens_plugins.demo.adapter import DemoAdapter\n"
        "class Own(DemoAdapter):\n    '''An adapter in a file.'''\n"
    )
    with pytest.raises(SpecError, match="No data was named"):
        plan(adapter=f"{own}:Own")
    composed = plan(adapter=f"{own}:Own", data="demo:scenes", analyse=False)
    assert len(composed.samples) == 60


def test_what_the_adapter_does_not_offer() -> None:
    bare = Manifest(PluginKind.ADAPTER, "bare", "nowhere:Bare", "Offers nothing.")
    registry = Registry.default()
    samples = plan(analyse=False).samples
    with pytest.raises(CompositionError, match="needs 'readout', which the adapter 'bare'"):
        suitable(
            registry, {"logit-lens": {}}, adapter=bare, samples=samples, columns=[], strict=True
        )
    made, left_out = suitable(
        registry, {"logit-lens": {}}, adapter=bare, samples=samples, columns=[], strict=False
    )
    assert made == {}
    assert "readout" in left_out["logit-lens"]


def test_analyses_see_the_columns() -> None:
    with pytest.raises(CompositionError):
        plan(sites=["vision.block.*"], analysis=["logit-lens"])
    made: dict[str, Analysis] = dict(plan(sites=["llm.block.*"], analysis=["logit-lens"]).analyses)
    assert list(made) == ["logit-lens"]


def test_ragged_columns_are_estimated_from_encoded_samples() -> None:
    composed = plan(sites=["llm.block.0/all", "vision.block.0/image"], analyse=False)
    columns = composed.estimate.columns
    assert columns["vision.block.0/image"] == 60 * 64 * 128 * 4
    assert 60 * 70 * 512 < columns["llm.block.0/all"] < 60 * 100 * 512
    unknown = plan(sites=["llm.block.0.mlp.act_fn"], analyse=False).estimate
    assert unknown.columns == {"llm.block.0.mlp.act_fn/last": None}


def test_what_cannot_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = type("Usage", (), {"free": 70 * 2**20})()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    plan(analyse=False)
    with pytest.raises(StoreFull, match=r"70\.0 MiB are free, of which 64\.0 MiB are kept"):
        plan(limit=None, sites=["llm.block.*/all"], analyse=False)
    huge = make_spec({"sites": ["llm.block.*/all"]})
    told = compose(huge, Registry.default(), analyse=False, must_fit=False).estimate
    assert not told.fits
    assert told.bytes > 70 * 2**20


def test_sites_from_the_config_alone() -> None:
    sites, widths, classes = open_sites(make_spec({}), Registry.default())
    block = sites.resolve("llm.block.3")[0]
    assert widths[block.path] == 128
    assert classes[block.path] == "LlamaDecoderLayer"
