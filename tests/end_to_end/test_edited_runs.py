"""Runs with the model changed: kept in the run, part of the fingerprint, refused before weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import vlmlens
from vlmlens.errors import (
    CompositionError,
    EditError,
    FingerprintMismatch,
    MissingAnnotation,
    SelectorError,
    SiteNotFound,
    UnknownPlugin,
    UntrustedRun,
)
from vlmlens.runs.trust import code_of, reach_of, with_whole_paths
from vlmlens.spec.model import make_spec

MINE = '''
"""Rows times two."""
from vlmlens.abc import Intervention

class Twice(Intervention):
    """Rows times two."""
    def change(self, rows, about):
        return rows * 2
'''


@pytest.fixture
def twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "twice.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "twice.py:Twice"


def test_columns_of_a_run_are_those_under_its_edits(tmp_path: Path, twice: str) -> None:
    edit = f"llm.block.2/image = {twice}"
    where = {"limit": 4, "sites": ["llm.block.*/image.mean"], "batch_size": 3}
    plain = vlmlens.extract(out=tmp_path / "plain", **where)
    edited = vlmlens.extract(out=tmp_path / "edited", edits=edit, **where)
    a, b = plain.activations, edited.activations
    assert np.array_equal(a["llm.block.1/image.mean"], b["llm.block.1/image.mean"])
    assert np.allclose(2 * a["llm.block.2/image.mean"], b["llm.block.2/image.mean"], atol=1e-5)
    assert not np.allclose(a["llm.block.3/image.mean"], b["llm.block.3/image.mean"], atol=1e-2)
    whole = f"llm.block.2/image = {tmp_path / 'twice.py'}:Twice"
    assert edited.spec.edits == [whole]
    said = json.loads((tmp_path / "edited" / "run.json").read_text(encoding="utf-8"))["model"]
    assert said["edits"] == [{"edit": whole, "options": {}}]
    with pytest.raises(FingerprintMismatch, match="edits was"):
        vlmlens.extract(out=tmp_path / "plain", edits=edit, mode="resume", **{**where, "limit": 5})


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        ("llm.block.2 = {0}", EditError, "does not say which rows"),
        ("llm.block.2/imag = {0}", SelectorError, "'imag' is not a selector"),
        ("llm.block.77/image = {0}", SiteNotFound, "llm.block.77"),
        ("llm.block.2/image = no-such", UnknownPlugin, "no intervention 'no-such'"),
        ("llm.block.2/image = {0}(1)", EditError, "has 1 arguments without a name"),
        ("llm.block.2/steps = {0}", CompositionError, "the model writes nothing"),
    ],
)
def test_wrong_edits_are_refused_before_weights(
    tmp_path: Path, twice: str, edit: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        vlmlens.extract(out=tmp_path / "x", limit=2, edits=[edit.format(twice)])
    assert not (tmp_path / "x").exists()


def test_edits_of_rows_by_name(tmp_path: Path) -> None:
    rows, cut = "image.region(main, ring=1)", "question <- image.region(main) = cut"
    where = {"data": "demo:pairs", "limit": 2, "sites": [f"llm.block.1/{rows}", "llm.block.3/last"]}
    plain = vlmlens.extract(out=tmp_path / "plain", **where)
    edits = [f"llm.block.1/{rows} = zero", f"llm.block.*.attn / {cut}"]
    edited = vlmlens.extract(out=tmp_path / "edited", edits=edits, **where)
    a, b = plain.activations, edited.activations
    zeroed, kept = b[f"llm.block.1/{rows}"], a[f"llm.block.1/{rows}"]
    assert [len(one) for one in zeroed] == [len(one) for one in kept]
    assert all(0 < len(one) < 64 and not one.any() for one in zeroed)
    assert not np.allclose(a["llm.block.3/last"], b["llm.block.3/last"], atol=1e-2)
    unknown = "llm.block.1/image.region(ball) = zero"
    with pytest.raises(MissingAnnotation, match="no region 'ball'") as caught:
        vlmlens.extract(out=tmp_path / "x", edits=[unknown], **where)
    assert "main" in caught.value.hint
    assert not (tmp_path / "x").exists()


def test_code_in_edits_needs_trust() -> None:
    edits = ["llm.block.1/last = mine.py:Mine", "llm.block.1/last = add(../v.npy)", "not one"]
    spec = make_spec({"edits": edits})
    assert code_of(spec) == {"edits llm.block.1/last = mine.py:Mine": "mine.py:Mine"}
    assert list(reach_of(spec)) == [f"edits {edit}" for edit in edits[:2]]


def test_paths_in_edits_become_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.npy").touch()
    edits = ["llm.block.1/last = m.py:M(v.npy, 2, by=x)", "llm.block.1/last = add(file=v.npy)"]
    assert with_whole_paths(make_spec({"edits": edits})).edits == [
        f"llm.block.1/last = {tmp_path}/m.py:M({tmp_path}/v.npy, 2, by=x)",
        f"llm.block.1/last = add(file={tmp_path}/v.npy)",
    ]


def test_a_run_of_others_does_not_run_their_edits(tmp_path: Path, twice: str) -> None:
    edit = f"llm.block.2/image = {twice}"
    run = vlmlens.extract(out=tmp_path / "r", limit=2, sites="llm.block.3/last", edits=edit)
    spec = run.path / "spec.yaml"
    spec.write_text(spec.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(UntrustedRun, match="It names edits"):
        vlmlens.open(run.path).check_trust("edits")
    vlmlens.open(run.path, trust=True).check_trust("edits")
