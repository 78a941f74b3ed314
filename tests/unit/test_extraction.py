"""Extraction: shared beginnings, early stops, generated steps, halves; equal to the plain way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vlmlens
from vlmlens import Run
from vlmlens.abc.adapter import ModelAdapter
from vlmlens.compose.plan import compose
from vlmlens.errors import CompositionError, OutOfMemory, SiteSilent
from vlmlens.extraction.extraction import Extraction
from vlmlens.registry import Registry
from vlmlens.runner.execution import execute
from vlmlens.runs.generated_texts import GeneratedTexts
from vlmlens.spec.model import make_spec
from vlmlens.testing._rounding import ROUNDING, close
from vlmlens.tokens import Selector
from vlmlens_plugins.extract.activations import ActivationExtractor
from vlmlens_plugins.storage.memory import MemoryStore

SITES = ["vision.block.1/image.mean", "projector/all", "llm.block.*/last", "llm.block.2/all"]


def extract(out: Path, **values: Any) -> Run:
    spec = make_spec({"out": str(out), "limit": 40, "sites": SITES, **values})
    return execute(compose(spec, Registry.default(), analyse=False), extract_only=True)


def farthest(one: Run, other: Run) -> float:
    """Largest difference of any column, relative to its largest value."""
    worst = 0.0
    assert list(one.activations) == list(other.activations)
    for name in one.activations:
        for mine, theirs in zip(one.activations[name], other.activations[name], strict=True):
            assert mine.shape == theirs.shape
            worst = max(worst, float(np.abs(mine - theirs).max() / np.abs(theirs).max()))
    return worst


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("plain") / "run"
    return extract(folder, batch_size=1, share_prefix=False)


@pytest.mark.parametrize("batch_size", ["auto", 3, 16])
def test_shared_beginnings_change_no_number(tmp_path: Path, plain: Run, batch_size: Any) -> None:
    run = extract(tmp_path / "run", batch_size=batch_size)
    assert run.info["shared_beginnings"] == 40
    assert farthest(run, plain) < ROUNDING
    assert "shared_beginnings" not in plain.info


def test_what_questions_on_an_image_share_is_stored_once(tmp_path: Path, plain: Run) -> None:
    run = extract(tmp_path / "run")
    images = len({sample.images for sample in run.samples})
    assert 1 < images < len(run.samples) == 40
    with run.store() as store:
        stored = {check.column: check.bytes for check in store.verify()}
        info = {info.name: info for info in store.columns()}
        lengths = store.read("projector/all").lengths
    assert lengths is not None
    row = info["projector/all"].width * 4
    assert stored["projector/all"] == images * lengths[0] * row
    assert (
        stored["vision.block.1/image.mean"] == images * info["vision.block.1/image.mean"].width * 4
    )
    assert stored["llm.block.3/last"] == 40 * info["llm.block.3/last"].width * 4
    assert farthest(run, plain) < ROUNDING


def test_batches_by_length_change_no_number(tmp_path: Path, plain: Run) -> None:
    assert farthest(extract(tmp_path / "run", share_prefix=False), plain) < ROUNDING


def test_tails_at_wrong_places_would_be_seen(
    tmp_path: Path, plain: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmlens.hf import TransformersAdapter

    monkeypatch.setattr(
        TransformersAdapter, "tail_positions", lambda self, places, beginning: places + 1
    )
    assert farthest(extract(tmp_path / "run"), plain) > 1e-3


def test_tails_that_see_each_other_would_be_seen(
    tmp_path: Path, plain: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmlens.hf.shared_prefix import Beginnings

    right = Beginnings.packed_tails

    def wrong(self: Beginnings, fill: int) -> Any:
        ids, places, sees = right(self, fill)
        return ids, places, torch.ones_like(sees).tril(sees.shape[-1] - sees.shape[-2])

    monkeypatch.setattr(Beginnings, "packed_tails", wrong)
    assert farthest(extract(tmp_path / "run"), plain) > 1e-3


# ---------------------------------------------------------------------- stopping early


@pytest.fixture(scope="module")
def vlm() -> ModelAdapter:
    return vlmlens.load("demo", dtype="float32")


def scenes(count: int) -> Any:
    spec = make_spec({"limit": count})
    return compose(spec, Registry.default(), analyse=False).samples


def calls_of(vlm: ModelAdapter, path: str, run: Any) -> int:
    seen: list[int] = []
    handle = vlm.module.get_submodule(path).register_forward_pre_hook(lambda *args: seen.append(1))
    run()
    handle.remove()
    return len(seen)


@pytest.mark.parametrize(
    ("sites", "runs", "rests"),
    [
        (["llm.block.2/last"], "llm.block.2", "llm.block.3"),
        (["vision.block.1/image.mean"], "vision.block.1", "llm.block.0"),
        (["projector/all", "vision.block.0/all"], "projector", "llm.block.0"),
    ],
)
def test_the_pass_ends_at_the_deepest_wanted_site(
    vlm: ModelAdapter, sites: list[str], runs: str, rests: str
) -> None:
    extractor = ActivationExtractor(vlm, sites, ActivationExtractor.Options())
    batch = vlm.encode(scenes(2))
    whole = extractor.extract(batch)
    for site, times in ((runs, 1), (rests, 0)):
        path = vlm.sites.canonical[site].path
        assert calls_of(vlm, path, lambda: extractor.extract(batch)) == times
    stopped = extractor.extract(batch)
    assert all(np.array_equal(whole[name].array, stopped[name].array) for name in whole)
    logits = vlm.forward(batch, logits="last").logits
    assert logits is not None
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("sites", "deepest", "times"),
    [
        (["llm.block.*/last"], "llm.block.5", 1),
        (["llm.block.*.mlp/text[-3:].mean", "llm.block.5.attn/last"], "llm.block.5", 1),
        (["llm.block.1/last", "llm.block.3/last"], "llm.block.3", 1),
        (["llm.block.*/last", "llm.block.5/image.mean"], "llm.block.5", 2),
        (["llm.block.5/mean"], "llm.block.5", 2),
        (["llm.block.2/last", "llm.norm/last"], "llm.block.5", 2),
    ],
)
def test_a_beginning_is_run_only_as_far_as_it_is_needed(
    vlm: ModelAdapter, sites: list[str], deepest: str, times: int
) -> None:
    extractor = ActivationExtractor(vlm, sites, ActivationExtractor.Options())
    samples = scenes(10)
    groups = [samples[:5], samples[5:]]
    whole = extractor.extract(vlm.encode_shared(groups))  # type: ignore[arg-type]
    mlp = f"{vlm.sites.canonical[deepest].path}.mlp"
    found: dict[str, Any] = {}

    def again() -> None:
        found.update(extractor.extract(vlm.encode_shared(groups)))  # type: ignore[arg-type]

    assert calls_of(vlm, mlp, again) == times
    assert list(found) == extractor.columns()
    assert all(np.array_equal(whole[name].array, found[name].array) for name in whole)


def test_the_first_pass_is_whole_and_finds_modules_that_run_twice(vlm: ModelAdapter) -> None:
    site = vlm.sites.canonical["llm.block.1"].path
    block = vlm.module.get_submodule(site)
    after = vlm.module.get_submodule(vlm.sites.canonical["llm.block.4"].path)
    again = after.register_forward_hook(lambda m, args, out: block(args[0], **KEPT))
    before = block.register_forward_pre_hook(keep, with_kwargs=True)
    extractor = ActivationExtractor(vlm, ["llm.block.1/last"], ActivationExtractor.Options())
    try:
        with pytest.raises(SiteSilent, match="ran 2 times"):
            extractor.extract(vlm.encode(scenes(2)))
    finally:
        again.remove()
        before.remove()


KEPT: dict[str, Any] = {}


def keep(module: Any, args: Any, kwargs: Any) -> None:
    KEPT.update(kwargs)


# ---------------------------------------------------------------------- generated steps


def test_steps_are_what_writing_gave(tmp_path: Path, vlm: ModelAdapter) -> None:
    sites = ["llm.block.3/steps", "llm.block.3/answer", "llm.block.3/steps[0]", "llm.block.3/last"]
    run = extract(tmp_path / "run", limit=6, sites=sites, generate=3)
    path = vlm.sites.canonical["llm.block.3"].path
    texts = GeneratedTexts(run.path).read()
    for sample, steps in zip(run.samples, run.activations["llm.block.3/steps"], strict=True):
        rows: list[Any] = []

        def last_row(module: Any, args: Any, out: Any, rows: list[Any] = rows) -> None:
            rows.append((out[0] if isinstance(out, tuple) else out)[0, -1])

        handle = vlm.module.get_submodule(path).register_forward_hook(last_row)
        batch = vlm.encode([sample])
        (made,) = vlm.generate(batch, max_new_tokens=3)
        handle.remove()
        assert list(made.token_ids) == texts[sample.id]["token_ids"]
        assert run.generated[sample.id] == made.text
        close(steps, torch.stack(rows[: len(steps)]))
        assert len(steps) == len(made.token_ids)
    assert np.array_equal(run.activations[sites[2]], run.activations[sites[3]])


def test_writing_changes_no_other_column(tmp_path: Path, plain: Run) -> None:
    run = extract(tmp_path / "run", generate=2, batch_size=4)
    assert farthest(run, plain) < ROUNDING


def test_a_resumed_run_writes_nothing_twice(tmp_path: Path) -> None:
    run = extract(tmp_path / "run", limit=8, generate=2)
    lines = (run.path / "generated.jsonl").read_text().splitlines()
    (run.path / "generated.jsonl").write_text("\n".join([*lines, '{"id": "torn']))
    assert len(run.generated) == len(lines) == 8
    assert json.loads(lines[0])["token_ids"]


def test_steps_without_writing_are_refused_early() -> None:
    for site in ("llm.block.1/steps.mean", "llm.block.1/answer"):
        with pytest.raises(CompositionError, match="the model writes nothing"):
            compose(make_spec({"sites": [site]}), Registry.default(), analyse=False)


def test_steps_parse() -> None:
    assert str(Selector.parse("steps")) == "steps"
    assert str(Selector.parse("steps[-1]")) == "steps[-1]"
    assert Selector.parse("steps").ragged
    assert not Selector.parse("steps.mean").ragged


# ---------------------------------------------------------------------- memory


class Narrow(ActivationExtractor):
    """Runs out of memory above so many samples, as a device does."""

    most = 3

    def extract(self, batch: Any) -> Any:
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().extract(batch)


def narrow(
    vlm: ModelAdapter, tmp_path: Path, batch_size: Any, warned: list[str], *, share: bool
) -> Any:
    extractor = Narrow(vlm, ["llm.block.1/last"], Narrow.Options())
    samples = scenes(24)
    work = Extraction(vlm, extractor, samples, batch_size, share, warned.append)
    store = MemoryStore.open(str(tmp_path), mode="a", options=MemoryStore.Options())
    work.run(store, [("llm.block.1/last",)] * len(samples), lambda done: None)
    return store, [sample.id for sample in samples]


@pytest.mark.parametrize("share", [True, False])
def test_batches_are_halved_until_they_fit(vlm: ModelAdapter, tmp_path: Path, share: bool) -> None:
    warned: list[str] = []
    store, ids = narrow(vlm, tmp_path, "auto", warned, share=share)
    assert sorted(store.ids("llm.block.1/last")) == sorted(ids)
    assert "halved" in warned[0]
    right = ActivationExtractor(vlm, ["llm.block.1/last"], ActivationExtractor.Options())
    alone = right.extract(vlm.encode(scenes(1)))["llm.block.1/last"].array
    close(store.read("llm.block.1/last", ids[:1]).array, alone)


def test_a_sample_that_does_not_fit_alone(
    vlm: ModelAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Narrow, "most", 0)
    with pytest.raises(OutOfMemory, match="tokens of one sample"):
        narrow(vlm, tmp_path, "auto", [], share=False)


def test_a_size_of_the_users_own_is_not_halved(vlm: ModelAdapter, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match="8 samples at once") as caught:
        narrow(vlm, tmp_path, 8, [], share=False)
    assert "--batch-size auto" in caught.value.hint
