"""`vlmlens plugins check`: installed plugins, plugins in files, named checkpoints, mistakes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests._program import python, vlmlens

GOOD_STORE = '''
from vlmlens.manifest import Manifest, PluginKind
from vlmlens_plugins.storage.lmdb import LmdbStore


class Store(LmdbStore):
    """LMDB under another name."""

    manifest = Manifest(
        PluginKind.STORAGE, "mine", "x:Store", "LMDB.", offers=frozenset({"ragged", "durable"})
    )
'''
FORGETFUL_STORE = '''
from vlmlens_plugins.storage.memory import MemoryStore


class Store(MemoryStore):
    """Forgets the order of the samples."""

    def ids(self, column):
        return sorted(super().ids(column))
'''
ADAPTER = '''
import shutil
from dataclasses import replace

from vlmlens.manifest import Manifest, PluginKind
from vlmlens.testing import AdapterTests
from vlmlens.hf import LLAVA_RENAMES
from vlmlens_plugins.demo.adapter import CHECKPOINT, DemoAdapter
from vlmlens_plugins.demo.manifests import ADAPTER


class Vlm(DemoAdapter):
    """The demo model, by another name, with a past."""

    manifest = replace(ADAPTER, name="mine", checks=None, help="Mine.")
    renames = LLAVA_RENAMES


class Blind(Vlm):
    """Shows the model the same grey picture every time."""

    def encode(self, samples, **settings):
        batch = super().encode(samples, **settings)
        grey = batch.inputs["pixel_values"] * 0
        return replace(batch, inputs={**batch.inputs, "pixel_values": grey})


class VlmChecks(AdapterTests):
    """Two checks are enough here."""

    def build(self, folder):
        shutil.copytree(CHECKPOINT, folder, dirs_exist_ok=True)

    @classmethod
    def checks(cls):
        return ["lens_identity", "the_image_matters"]
'''


ROWS = '''
from pathlib import Path

from vlmlens.abc import Dataset
from vlmlens.errors import DataNotFound
from vlmlens.samples import Sample, with_prompts


class Rows(Dataset):
    """A question per line."""

    @classmethod
    def reads(cls, path):
        return path.endswith(".rows")

    def samples(self, prompts):
        path = Path(self.source)
        if not path.is_file():
            raise DataNotFound("There is no such file.", subject=self.source, hint="Name another.")
        lines = path.read_text().split("\\n")
        return with_prompts([Sample(str(i), line) for i, line in enumerate(lines)], prompts)


class Careless(Rows):
    """Every question has the same id."""

    def samples(self, prompts):
        return [Sample("x", one.prompt, task=one.task) for one in super().samples(prompts)]
'''
MINE = '''
from vlmlens.results import Finding, Result
from vlmlens.abc import Analysis
from vlmlens_plugins.extract.activations import ActivationExtractor


class Says(Analysis):
    """How many samples there are."""

    def run(self, context):
        return Result("says", "Says", [Finding(f"There are {len(context.samples)} samples.")])


class Mumbles(Says):
    """The same in no sentence."""

    def run(self, context):
        return Result("says", "Says", [Finding(f"{len(context.samples)} samples")])


class Reads(ActivationExtractor):
    """Activations, by another name."""


class Reversed(ActivationExtractor):
    """Gives the rows of the last sample first."""

    def extract(self, batch):
        from vlmlens.abc import Values

        found = super().extract(batch)
        return {name: Values(v.array[::-1].copy(), v.dtype) for name, v in found.items()}
'''
KINDS = [
    ("memory", "storage", 20),
    ("demo", "dataset", 10),
    ("activations", "extractor", 20),
    ("probe", "analysis", 10),
    ("demo", "adapter", 20),
]
"""A built-in plugin of each kind, and how many of its checks pass at least."""

NO_PYTEST = """
import sys
assert not {"pytest", "_pytest"} & set(sys.modules)
sys.modules["pytest"] = sys.modules["_pytest"] = None
sys.argv[0] = "vlmlens"
from vlmlens.cli import main
main()
"""


def suites(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """The suites of a JSON document."""
    found: list[dict[str, Any]] = json.loads(done.stdout)["suites"]
    return found


def outcomes(suite: dict[str, Any]) -> dict[str, str]:
    """Outcome per check."""
    return {check["name"]: check["outcome"] for check in suite["checks"]}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with plugins in files."""
    sources = {
        "good": GOOD_STORE, "bad": FORGETFUL_STORE, "vlm": ADAPTER, "rows": ROWS, "mine": MINE,
    }  # fmt: skip
    for name, text in sources.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def test_a_built_in_plugin_passes(tmp_path: Path) -> None:
    done = vlmlens("plugins", "check", "memory", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (suite,) = suites(done)
    assert (suite["kind"], suite["plugin"], suite["suite"]) == ("storage", "memory", "MemoryChecks")
    assert suite["failed"] == 0
    assert suite["passed"] >= 15
    assert len(suite["checks"]) == suite["passed"] + suite["skipped"]
    assert all(check["promise"].endswith((".", ")")) for check in suite["checks"])
    text = vlmlens("plugins", "check", "memory", cwd=tmp_path)
    assert "round_trip" in text.stdout
    assert f"{suite['passed']} passed, {suite['skipped']} skipped, 0 failed" in text.stdout


def test_a_store_in_a_file_passes_with_its_processes(files: Path) -> None:
    done = vlmlens("plugins", "check", "good.py:Store", "--json", cwd=files)
    assert done.returncode == 0, done.stdout
    (suite,) = suites(done)
    assert outcomes(suite)["killed_writer"] == "passed"


def test_a_broken_store_in_a_file_fails(files: Path) -> None:
    done = vlmlens("plugins", "check", "bad.py:Store", "--json", cwd=files)
    assert done.returncode == 1, done.stderr
    (suite,) = suites(done)
    found = outcomes(suite)
    assert found["order"] == "failed"
    assert found["bad_blocks"] == "passed"
    (order,) = [check for check in suite["checks"] if check["name"] == "order"]
    assert "ids" in order["detail"]
    text = vlmlens("plugins", "check", "bad.py:Store", cwd=files)
    assert text.returncode == 1
    assert "FAILED" in text.stdout
    assert "`ids` and `iterate` keep the written order" in " ".join(text.stdout.split())


@pytest.mark.parametrize(("name", "image", "code"), [("Vlm", "passed", 0), ("Blind", "failed", 1)])
def test_an_adapter_with_checks_in_its_file(files: Path, name: str, image: str, code: int) -> None:
    done = vlmlens("plugins", "check", f"vlm.py:{name}", "--json", cwd=files)
    assert done.returncode == code, done.stderr
    (suite,) = suites(done)
    assert suite["on"] == "tiny checkpoint"
    assert outcomes(suite) == {"lens_identity": "passed", "the_image_matters": image}


def test_a_named_checkpoint_is_checked_instead(tmp_path: Path, files: Path) -> None:
    from vlmlens_plugins.demo.adapter import CHECKPOINT

    done = vlmlens("plugins", "check", "vlm.py:Vlm", "--model", str(CHECKPOINT), cwd=files)
    assert done.returncode == 0, done.stderr
    assert f"on {CHECKPOINT}" in done.stdout.replace("\n", "")
    assert "LlavaForConditionalGeneration" in done.stdout
    assert "2 passed, 0 skipped, 0 failed" in done.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("no-such-plugin",), "no plugin"),
        (("rows.py:Rows",), "no conformance checks"),
        (("memory", "--data", "x"), "is not a dataset"),
        (("memory", "--model", "x"), "is not an adapter"),
        (("demo", "--model", "./nowhere"), "does not exist"),
        (("nowhere.py:Store",), "There is no file"),
        (("good.py:Nothing",), "names no class"),
    ],
)
def test_what_cannot_be_checked_is_a_usage_error(
    files: Path, args: tuple[str, ...], says: str
) -> None:
    done = vlmlens("plugins", "check", *args, "--json", cwd=files)
    assert done.returncode == 2, done.stderr
    assert says in json.loads(done.stdout)["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "least"), KINDS)
def test_every_kind_is_checked_without_pytest(
    name: str, kind: str, least: int, tmp_path: Path
) -> None:
    args = ("plugins", "check", name, "--kind", kind, "--json")
    done = python(NO_PYTEST, *args, cwd=tmp_path, strict=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    found = suites(done)
    assert {suite["kind"] for suite in found} == {kind}
    assert sum(suite["passed"] for suite in found) >= least
    assert sum(suite["failed"] for suite in found) == 0


@pytest.mark.parametrize(
    ("plugin", "more", "fails"),
    [
        ("rows.py:Rows", ("--data", "some.rows"), None),
        ("rows.py:Careless", ("--data", "some.rows"), "ids_are_unique"),
        ("mine.py:Says", (), None),
        ("mine.py:Mumbles", (), "result_is_complete"),
        ("mine.py:Reads", (), None),
        ("mine.py:Reversed", (), "batch_equals_single"),
    ],
)
def test_plugins_of_other_kinds_in_files(
    plugin: str, more: tuple[str, ...], fails: str | None, files: Path
) -> None:
    (files / "some.rows").write_text("Why?\nHow many?")
    done = vlmlens("plugins", "check", plugin, *more, "--json", cwd=files)
    (suite,) = suites(done)
    found = outcomes(suite)
    if fails is None:
        assert done.returncode == 0, suite
    else:
        assert done.returncode == 1
        assert found[fails] == "failed"
        assert found["options"] == "passed"


def test_sites_of_old_paths_say_what_they_became(files: Path) -> None:
    old = "language_model.model.layers.1.mlp"
    new = "model.language_model.layers.1.mlp"
    arguments = ("sites", old, "llm.block.0", "--adapter", "vlm.py:Vlm")
    rows = json.loads(vlmlens(*arguments, "--json", cwd=files).stdout)["sites"]
    assert [(row["given"], row["became"], row["site"], row["path"]) for row in rows] == [
        (old, new, "llm.block.1.mlp", new),
        ("llm.block.0", None, "llm.block.0", "model.language_model.layers.0"),
    ]
    text = vlmlens(*arguments, cwd=files).stdout
    assert text.splitlines()[0].split()[:2] == ["given", "became"]
    plain = vlmlens("sites", "llm.block.0", "--adapter", "vlm.py:Vlm", cwd=files).stdout
    assert "became" not in plain
