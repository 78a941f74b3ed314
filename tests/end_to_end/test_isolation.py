"""Bad plugins of every kind, installed at once, against every command: none may be hurt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests._program import vlmlens
from tests.end_to_end._bad_plugins import install, install_all

SMALL = (
    "--limit", "8", "--sites", "llm.block.*/last", "--sites", "vision.block.0/image.mean",
    "--analysis", "logit-lens",
)  # fmt: skip
LIMIT = "1"
"""Seconds that a plugin may take here: long for what works, short for what hangs."""


class Place:
    """A folder with a run, beside a path with bad plugins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.site.mkdir()
        self.states = install_all(self.site)
        self.environment = {
            "COLUMNS": "200",
            "PYTHONFAULTHANDLER": "1",
            "PYTHONPATH": str(self.site),
            "VLMLENS_PLUGIN_TIMEOUT": LIMIT,
        }

    def vlmlens(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the program where the bad plugins are installed."""
        if args[:2] == ("plugins", "list"):
            return self.begun(*args, **env)
        return vlmlens(*args, cwd=self.folder, **{**self.environment, **env})

    def begun(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run it in a process that nothing is imported in: what plugins import is told."""
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "vlmlens", *args],
            cwd=self.folder,
            env={**os.environ, **self.environment, **env},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def document(self, *args: str, **env: str) -> Any:
        """The JSON document that a command prints."""
        done = self.vlmlens(*args, "--json", **env)
        assert done.returncode == 0, done.stderr
        assert "NOISE" not in done.stdout
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Bad plugins, and beside them a run and what the commands need, all made in their company."""
    made = Place(tmp_path_factory.mktemp("isolation"))
    made.document("run", *SMALL, "--out", "small")
    for shard in ("0/2", "1/2"):
        made.document("extract", *SMALL[:-2], "--out", "parts", "--shard", shard)
    made.document("export", "small", "small.npz")
    return made


def test_each_is_listed_with_its_state_and_what_to_do(place: Place) -> None:
    rows = place.document("plugins", "list")["plugins"]
    listed = {row["distribution"]: row for row in rows if row["distribution"] in place.states}
    assert {name: row["state"] for name, row in listed.items()} == place.states
    for row in listed.values():
        assert bool(row["error"]) == bool(row["hint"]) == (row["state"] != "ok")
    own = {row["state"] for row in rows if row["distribution"].startswith("vlmlens")}
    assert own == {"ok"}
    assert listed["slow-card"]["heavy_imports"] == ["jax"]
    assert listed["slow-card"]["seconds"] > 0.1
    assert "VLMLENS_DISABLE_PLUGINS=hangs" in listed["hangs"]["hint"]
    assert "KeyboardInterrupt" in listed["bad-interrupt"]["error"]


def test_the_list_for_people(place: Place) -> None:
    done = place.vlmlens("plugins", "list")
    assert done.returncode == 0
    for word in ("BROKEN", "SLOW", "AMBIGUOUS", "WRONG-API-VERSION", "MISSING-DEPENDENCY"):
        assert word in done.stdout
    assert "Reading its manifest imports jax" in done.stdout
    assert "NOISE" not in done.stdout
    assert "NOISE of python" in done.stderr
    assert "NOISE of the system" in done.stderr


COMMANDS = [
    ["version", "doctor", "sites", "plugins list --kind analysis"],
    [
        "plugins show probe",
        "plugins show lmdb --kind storage",
        "plugins check memory",
        "estimate --limit 4",
    ],
    [
        "run --dry-run --limit 4",
        "run --dry-run --limit 4 --adapter vlmlens:demo --storage vlmlens:lmdb "
        "--data vlmlens:demo:scenes --extractor vlmlens:activations --analysis vlmlens:logit-lens",
        "extract --limit 4 --sites llm.block.0/last --out extracted",
        "new analysis mine mine --defaults",
    ],
    [
        "analyze small --analysis logit-lens",
        "import small.npz imported.zarr",
        "merge parts",
        "verify small/columns",
    ],
    ["show small", "show small/columns", "show small llm.block.0/last", "verify small"],
    [
        "report small",
        "compare small small@llm.block.0/last --to compared.html",
        "export small exported.db",
    ],
]
"""Those of a line run at once: most of the time, each waits for the plugins that hang."""


@pytest.mark.parametrize("commands", COMMANDS)
def test_no_command_is_hurt(place: Place, commands: Sequence[str]) -> None:
    with ThreadPoolExecutor() as pool:
        documents = list(pool.map(lambda command: place.document(*command.split()), commands))
    assert all(documents)


def test_data_that_is_a_path_is_read_though_readers_are_bad(place: Place, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    done = place.vlmlens(
        "run", "--dry-run", "--json", "--data", str(tmp_path), "--prompt", "Color:", *SMALL
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 1
    for reader in ("bad-reader", "late-reader"):
        assert reader in done.stderr


def test_help_is_shown(place: Place) -> None:
    done = place.vlmlens("--help")
    assert done.returncode == 0
    assert "  version" in done.stdout
    assert "NOISE" not in done.stdout
    for name in ("hook-hangs", "hook-fails", "hook-unknown", "hook-raises"):
        assert name in done.stderr


def test_the_schema_names_what_it_leaves_out(place: Place) -> None:
    classes_may_take_ten_times_as_long = {"VLMLENS_PLUGIN_TIMEOUT": "0.5"}
    done = place.vlmlens("schema", "--json", **classes_may_take_ten_times_as_long)
    assert done.returncode == 0, done.stderr
    assert "NOISE" not in done.stdout
    offered = json.loads(done.stdout)["properties"]["storage"]["anyOf"]
    names = [choice["const"] for choice in offered if "const" in choice]
    assert "lmdb" in names
    assert not {"new-api", "bad-store", "prints"} & set(names)
    for name in ("new-api", "bad-store", "prints", "bad-import", "late-reader"):
        assert f" {name} is left out: " in done.stderr


BAD = {
    "run --analysis bad-import": ("BrokenPlugin", "ZeroDivisionError"),
    "run --analysis bad-aliases": ("BrokenPlugin", "its aliases is 'probe'"),
    "run --analysis bad-name": ("BrokenPlugin", "its name is 7, not text"),
    "run --storage new-api": ("WrongApiVersion", "plugin API 99"),
    "run --adapter lacking": ("MissingDependency", "no_such_one"),
    "run --adapter hangs": ("SlowPlugin", "VLMLENS_PLUGIN_TIMEOUT=4"),
    "run --analysis twin": ("AmbiguousPlugin", "twin-a:twin, twin-b:twin"),
}


def test_who_asks_for_a_bad_one_is_told(place: Place) -> None:
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda command: place.vlmlens(*command.split(), "--json"), BAD))
    for done, (command, (kind, says)) in zip(told, BAD.items(), strict=True):
        assert done.returncode == 2, (command, done.stderr)
        error = json.loads(done.stdout)["error"]
        assert error["type"] == kind, command
        assert says in error["message"] + error["hint"]


def test_disabled_plugins_are_not_imported(place: Place) -> None:
    env = {"VLMLENS_DISABLE_PLUGINS": "hangs, hook-hangs,twin-a:twin,prints"}
    done = place.vlmlens("plugins", "list", "--json", **env)
    rows = {row["distribution"]: row for row in json.loads(done.stdout)["plugins"]}
    for name in ("hangs", "hook-hangs", "twin-a", "prints"):
        assert rows[name]["state"] == "disabled"
    assert "NOISE of" not in done.stderr
    refused = place.vlmlens("run", "--adapter", "hangs", "--json", **env)
    error = json.loads(refused.stdout)["error"]
    assert error["type"] == "DisabledPlugin"
    assert "VLMLENS_DISABLE_PLUGINS=hangs" in error["message"]


@pytest.mark.parametrize(
    ("env", "loaded"),
    [
        ({"VLMLENS_DISABLE_PLUGINS": "all"}, set()),
        ({"VLMLENS_LOAD_PLUGINS": ""}, set()),
        ({"VLMLENS_LOAD_PLUGINS": "prints,slow-card"}, {"prints", "slow-card"}),
        ({"VLMLENS_LOAD_PLUGINS": "prints,slow-card", "VLMLENS_DISABLE_PLUGINS": "prints"},
         {"slow-card"}),
    ],
)  # fmt: skip
def test_which_plugins_are_loaded(place: Place, env: dict[str, str], loaded: set[str]) -> None:
    rows = place.document("plugins", "list", **env)["plugins"]
    assert {r["distribution"] for r in rows if r["state"] != "disabled"} == {"vlmlens", *loaded}
    assert place.document("estimate", "--limit", "2", **env)


def test_a_trace_tells_what_each_import_took(place: Place) -> None:
    env = {"VLMLENS_TRACE_PLUGINS": "1", "VLMLENS_LOAD_PLUGINS": "slow-card"}
    said = place.vlmlens("plugins", "list", **env).stderr.splitlines()
    (line,) = [line for line in said if line.startswith("plugin analysis slow-card (slow-card): ")]
    assert line.endswith(" ms")
    assert float(line.split()[-2]) > 100
    assert any(line.startswith("plugin storage lmdb (vlmlens): ") for line in said)


def test_a_trace_ends_with_the_plugin_that_ends_the_program(tmp_path: Path) -> None:
    install(tmp_path, "fatal", "vlmlens.storage", "import os\nos._exit(7)\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "VLMLENS_TRACE_PLUGINS": "1"}
    command = [sys.executable, "-m", "vlmlens", "plugins", "list"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert done.stderr.splitlines()[-1] == "plugin storage fatal (fatal): "
    env["VLMLENS_DISABLE_PLUGINS"] = "fatal"
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "DISABLED" in done.stdout
