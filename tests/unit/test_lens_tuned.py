"""The tuned lens: it learns what can be learned, and is tested on what it never saw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.abc import AnalysisContext, ColumnBlock, Options, Readout, Values
from vlmlens.errors import CompositionError, RunError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.logit_lens import LensOptions, LogitLens, tuned_gain, tuned_lens
from vlmlens_plugins.analysis.logit_lens.readings import Reader
from vlmlens_plugins.analysis.logit_lens.vocabulary import Vocabulary
from vlmlens_plugins.storage.memory import MemoryStore, forget

WIDTH = 12


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def vocabulary() -> Vocabulary:
    weight = torch.from_numpy(rng().normal(size=(60, WIDTH)).astype(np.float32))
    readout = Readout(
        norm=lambda h: torch.nn.functional.rms_norm(h, (WIDTH,)),
        unembed=lambda h: h @ weight.T,
        some=lambda h, tokens: h @ weight[tokens].T,
        site="llm.block.1",
    )
    return Vocabulary(readout, np.ones(WIDTH, np.float32))


def divergence(vocabulary: Vocabulary, x: Any, y: Any, translate: Any = None) -> Any:
    moved = None if translate is None else (lambda _, rows: translate(rows))
    return Reader(vocabulary, 1, translate=moved).read([x], y).divergence[0]


def test_an_affine_change_is_undone(vocabulary: Vocabulary) -> None:
    final = rng(1).normal(size=(900, WIDTH)).astype(np.float32)
    turn = np.linalg.qr(rng(2).normal(size=(WIDTH, WIDTH)))[0]
    layer = (100 * (final @ turn.T + 0.3)).astype(np.float32)
    made = tuned_lens.train(
        vocabulary, (layer[:600], layer[600:700]), (final[:600], final[600:700]),
        norm=True, rng=rng(3),
    )  # fmt: skip
    plain = divergence(vocabulary, layer[700:], final[700:])
    after = divergence(vocabulary, layer[700:], final[700:], made)
    assert plain.mean() > 1
    assert after.mean() < 0.1 * plain.mean()


def test_what_cannot_be_learned_is_left_as_the_plain_lens(vocabulary: Vocabulary) -> None:
    """The plain lens is right already, and there is little to learn from: no harm is done."""
    final = rng(1).normal(size=(300, WIDTH)).astype(np.float32)
    made = tuned_lens.train(
        vocabulary, (final[:6], final[6:60]), (final[:6], final[6:60]), norm=True, rng=rng(3)
    )
    assert divergence(vocabulary, final[60:], final[60:], made).mean() < 0.01


def test_no_group_stands_on_two_sides() -> None:
    owners = [f"g{i % 40}" for i in range(200)]
    parts = tuned_lens.split(owners, rng())
    sides = [{owners[i] for i in part} for part in (parts.train, parts.valid, parts.test)]
    assert sum(len(side) for side in sides) == len(set.union(*sides)) == 40
    assert [len(side) for side in sides] == [24, 8, 8]
    with pytest.raises(ValueError, match="five groups"):
        tuned_lens.split(["a", "b", "c", "d"], rng())


def test_the_gain_has_an_interval_over_groups() -> None:
    change = rng().normal(size=400).astype(np.float32) + 0.5
    owners = [f"g{i // 4}" for i in range(400)]
    mean, low, high = tuned_lens.gain(change, np.zeros(400, np.float32), owners, rng(1))
    assert mean == pytest.approx(float(change.mean()))
    assert low < mean < high
    assert high - low == pytest.approx(4 / 400**0.5, rel=0.3)
    # Four equal rows per group say no more than one: the interval is twice as wide.
    same = np.repeat(change[::4], 4)
    _, low4, high4 = tuned_lens.gain(same, np.zeros(400, np.float32), owners, rng(1))
    assert (high4 - low4) / (high - low) == pytest.approx(2, rel=0.3)


def test_translators_are_kept_without_pickle(tmp_path: Path) -> None:
    made = tuned_lens.Translator(torch.randn(3, 3), torch.randn(3))
    path = tmp_path / "deep" / "lens.safetensors"
    tuned_lens.save(path, {"llm.block.0/last": made}, {"norm": True})
    found, about = tuned_lens.load(path)
    assert list(found) == ["llm.block.0/last"]
    assert torch.equal(found["llm.block.0/last"].matrix, made.matrix)
    x = torch.randn(5, 3)
    assert torch.equal(found["llm.block.0/last"](x), x + x @ made.matrix.T + made.offset)
    assert about == {"norm": True}
    path.write_bytes(b"not a lens")
    with pytest.raises(RunError, match="holds no tuned lens"):
        tuned_lens.load(path)


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    forget("lens-tuned")
    with MemoryStore.open("lens-tuned", mode="a", options=Options()) as opened:
        yield opened


def run(
    vlm: Any, samples: list[Sample], store: Any, selector: str, folder: Path | None = None
) -> Result:
    trace = vlm.trace(vlm.encode(samples), ["llm.block.*"])
    columns = {}
    for site in trace:
        rows = trace.select(f"{site}/{selector}")
        lengths = None if isinstance(rows, torch.Tensor) else tuple(map(len, rows))
        array = rows if isinstance(rows, torch.Tensor) else torch.cat(rows)
        columns[f"{site}/{selector}"] = Values(array.numpy(), "float32", lengths)
    store.write(ColumnBlock(tuple(s.id for s in samples), columns))
    lens = LogitLens(LensOptions(columns=[f"llm.block.*/{selector}"], tuned=True))
    return lens.run(AnalysisContext(samples, store, lambda: vlm, folder=folder))


def test_on_the_demo_model_patches_read_better(
    vlm: Any, scenes: list[Sample], store: Any, tmp_path: Path
) -> None:
    before = [p.detach().clone() for p in vlm.module.parameters()]
    file = tmp_path / "logit-lens.tuned.safetensors"
    colors = [sample for sample in scenes if sample.task == "color"]
    result = run(vlm, colors, store, "image", tmp_path)
    table = result.table("lens-image-tuned")
    assert len(table) == 5
    columns = table.columns
    for i in range(5):
        assert columns["gain"][i] == pytest.approx(  # type: ignore[index]
            columns["divergence_plain"][i] - columns["divergence_tuned"][i],
            abs=1e-5,  # type: ignore[operator]
        )
        assert columns["gain_low"][i] <= columns["gain"][i] <= columns["gain_high"][i]  # type: ignore[operator]
    assert columns["gain_low"][0] > 0.2  # type: ignore[operator]
    found, about = tuned_lens.load(file)
    assert list(found) == [f"llm.block.{i}/image" for i in range(5)]
    assert [len(groups) for groups in about["held_out_groups"].values()] == [1]
    assert any("tuned lens" in finding.subject for finding in result.findings)
    for parameter, old in zip(vlm.module.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None


def test_held_out_samples_are_never_trained_on(
    vlm: Any, scenes: list[Sample], store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = tuned_lens.train

    def train(vocabulary: Any, layer: Any, final: Any, **kwargs: Any) -> Any:
        seen.extend(layer)
        return real(vocabulary, layer, final, **kwargs)

    monkeypatch.setattr(tuned_lens, "train", train)
    monkeypatch.setattr(tuned_gain, "_gain", lambda *args: seen.append(args[3]) or _NOTHING)
    run(vlm, scenes, store, "last")
    trained, stopped, tested = ({row.tobytes() for row in rows} for rows in seen[:3])
    assert len(trained) > len(tested) > 0
    assert not tested & (trained | stopped)


_NOTHING = tuned_gain.LayerGain("llm.block.0/last", 0.0, 0.0, 0.0, 0.0, 0.0, (0.0, 0.0))


def test_too_few_groups_are_an_error(vlm: Any, scenes: list[Sample], store: Any) -> None:
    with pytest.raises(CompositionError, match="needs at least 5 groups"):
        run(vlm, scenes[:10], store, "last")
