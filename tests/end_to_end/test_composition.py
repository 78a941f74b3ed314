"""Impossible combinations, through the command line: refused before weights are touched.

The checkpoints here have a config, a tokenizer and a processor, and no weights: a command that
touched them would fail for that, which `test_a_fitting_combination_gets_as_far_as_the_weights`
shows.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from vlmlens.cli import main
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.testing.tiny import picture
from vlmlens_plugins.demo.adapter import CHECKPOINT

FLAT = """
from vlmlens.manifest import Manifest, PluginKind
from vlmlens_plugins.storage.memory import MemoryStore

class Flat(MemoryStore):
    manifest = Manifest(PluginKind.STORAGE, "flat", "", "One row per sample.")
"""

Command = Callable[..., tuple[int, str]]


def without_weights(checkpoint: Path, to: Path) -> Path:
    shutil.copytree(checkpoint, to, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    return to


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints without weights, data, and a store in a file."""
    place = tmp_path_factory.mktemp("parts")
    without_weights(CHECKPOINT, place / "demo")
    manifest = Registry.default().find(PluginKind.ADAPTER, "clip")
    module, _, name = (manifest.checks or "").partition(":")
    suite = getattr(import_module(module), name)[0]()
    without_weights(suite.checkpoint, place / "clip")
    (place / "flat.py").write_text(FLAT)
    for i in range(8):
        (place / "photos" / "red").mkdir(parents=True, exist_ok=True)
        picture(48, 48, seed=i).save(place / "photos" / "red" / f"{i}.png")
    write(place / "words.jsonl", [{"id": str(i), "prompt": "Hello?"} for i in range(8)])
    images = ["photos/red/0.png", "photos/red/1.png"]
    write(place / "pairs.jsonl", [{"id": "two", "prompt": "Which?", "images": images}])
    return place


def write(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def vlmlens(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the program in this process; its exit code, and what it said on stderr, as one line."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["vlmlens", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return code, " ".join(capsys.readouterr().err.split())

    return run


DEMO = ("--adapter", "demo", "--model", "demo", "--device", "cpu", "--limit", "8")
ASKED = ("--prompt", "Which colour?")
CLIP = ("--adapter", "clip", "--model", "clip", "--device", "cpu", *ASKED, "--data", "photos")
BARE = ("--adapter", "clip", "--model", "clip", "--device", "cpu", "--data")
COMBINATIONS = {
    "logit lens on CLIP": (
        ("run", *CLIP, "--analysis", "logit-lens"),
        ("'logit-lens' needs 'readout'", "'clip' does not offer", "choose another adapter"),
    ),
    "attention under sdpa": (
        ("extract", *DEMO, "--extractor", "attention"),
        ("attention extractor", "'sdpa' attention", "--attention eager"),
    ),
    "a probe without labels": (
        ("run", *DEMO, "--data", "words.jsonl", "--sites", "llm.block.*", "--analysis", "probe"),
        ("'probe' needs labels", "no sample has any", "Add them to the data"),
    ),
    "ragged rows in a store of single rows": (
        ("extract", *DEMO, "--sites", "llm.block.1/all", "--storage", "flat.py:Flat"),
        ("'llm.block.1/all' has several rows", "'flat' keeps only one", "or use --storage lmdb"),
    ),
    "several processes and a store in memory": (
        ("run", *DEMO, "--workers", "2", "--storage", "memory"),
        ("Several processes need", "'memory' keeps them in one", "Use --storage lmdb"),
    ),
    "a shard and a store in memory": (
        ("extract", *DEMO, "--shard", "0/2", "--out", "shards", "--storage", "memory"),
        ("Several processes need", "'memory' keeps them in one", "extract in one process"),
    ),
    "no image at all on CLIP": (
        ("run", *CLIP, "--analysis", "blind-test", "--set", "analysis.blind-test.blank=[none]"),
        ("the analysis 'blind-test' needs 'text-only'", "'clip'", "Choose other options"),
    ),
    "one label for a model that compares": (
        ("run", *CLIP, "--analysis", "blind-test", "--sites", "vision.block.1"),
        ("model only compares choices", "neither choices nor", "at least two different labels"),
    ),
    "a tuned lens without groups": (
        ("run", *DEMO, "--analysis", "logit-lens", "--set", "analysis.logit-lens.tuned=true"),
        ("needs at least 5 groups", "the 8 samples are in 2", "Leave `tuned` out, or add"),
    ),
    "a lens without the last block": (
        ("run", *DEMO, "--sites", "llm.block.1-3", "--analysis", "logit-lens"),
        ("logit lens needs the column 'llm.block.5/last'", "Add llm.block.5/last to --sites"),
    ),
    "a word that is no token": (
        ("run", *DEMO, "--analysis", "logit-lens", "--set", "analysis.logit-lens.words=[floccus]"),
        ("No single token of the model spells", "'floccus'", "Choose a more common word"),
    ),
    "a lens over attention": (
        ("run", *DEMO, "--extractor", "attention", "--attention", "eager",
         "--analysis", "logit-lens"),
        ("'logit-lens' reads activations", "'attention' does not give", "--extractor activations"),
    ),
    "a probe of ragged columns": (
        ("run", *DEMO, "--limit", "200", "--sites", "llm.block.1/all", "--analysis", "probe"),
        ("probe needs a column with one row", "'llm.block.1/all' has several", "Pool it"),
    ),
    "text of a model that writes none": (
        ("extract", *CLIP, "--generate", "4"),
        ("the adapter 'clip' generates none", "--generate asks for text", "Leave --generate out"),
    ),
    "steps where nothing is written": (
        ("extract", *DEMO, "--sites", "llm.block.1/steps"),
        ("'llm.block.1/steps' is about generated text", "the model writes nothing",
         "--generate N"),
    ),
    "image columns of words": (
        ("extract", *DEMO, "--data", "words.jsonl", "--sites", "projector"),
        ("'projector/image.mean' needs images", "8 of 8 samples have none",
         "language-side columns"),
    ),
    "two images for a family of one": (
        ("extract", *BARE, "pairs.jsonl", "--sites", "vision.block.1"),
        ("'two' has 2 images", "CLIPModel takes exactly 1", "choose another adapter"),
    ),
    "words for a family of one image": (
        ("extract", *BARE, "words.jsonl", "--sites", "text.block.1/all"),
        ("has 0 images", "CLIPModel takes exactly 1", "choose another adapter"),
    ),
    "an attention that there is not": (
        ("extract", *DEMO, "--attention", "eagre"),
        ("no attention 'eagre'", "Did you mean eager?", "sdpa"),
    ),
    "half precision on a CPU": (
        ("extract", *DEMO, "--dtype", "float16"),
        ("float16 is not computed on a CPU", "--dtype float32 or bfloat16"),
    ),
    "half precision products on a CPU": (
        ("extract", *DEMO, "--autocast", "float16"),
        ("float16 is not computed on a CPU", "--autocast bfloat16"),
    ),
    "a logger that there is not": (
        ("extract", *DEMO, "--set", "options.plugins.run-log.to=tensorboard"),
        ("plugin run-log", "to = 'tensorboard'", "'trackio' or 'wandb'"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), COMBINATIONS.values(), ids=list(COMBINATIONS))
def test_refused_before_weights_with_both_sides_and_a_way_out(
    vlmlens: Command, place: Path, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    code, told = vlmlens(*arguments)
    assert code == 2
    assert [words for words in said if words not in told] == [], told
    assert not (place / "runs").exists()
    assert not (place / "shards").exists()


@pytest.mark.parametrize("model", [DEMO, (*CLIP, "--sites", "vision.block.1")])
def test_a_fitting_combination_gets_as_far_as_the_weights(
    vlmlens: Command, place: Path, model: tuple[str, ...]
) -> None:
    code, told = vlmlens("extract", *model, "--out", "fits")
    assert code == 2
    assert "no file named model.safetensors" in told
    assert (place / "fits" / "run.json").is_file()
    shutil.rmtree(place / "fits")


def test_an_analysis_of_what_is_stored_is_checked_first_too(vlmlens: Command, place: Path) -> None:
    weights = place / "demo" / "model.safetensors"
    shutil.copy(CHECKPOINT / weights.name, weights)
    code, told = vlmlens("extract", *DEMO, "--sites", "llm.block.1-3", "--out", "some")
    weights.unlink()
    assert code == 0, told
    code, told = vlmlens("analyze", "some", "--analysis", "logit-lens")
    shutil.rmtree(place / "some")
    assert code == 2
    assert "logit lens needs the column 'llm.block.5/last'" in told
