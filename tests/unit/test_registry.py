"""The registry over real distributions: metadata on disk, real entry points, real modules."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from vlmlens._known import KNOWN, KnownPlugin
from vlmlens.errors import (
    AmbiguousPlugin,
    BrokenPlugin,
    DataNotFound,
    MissingDependency,
    PluginError,
    SpecError,
    UnknownPlugin,
    WrongApiVersion,
)
from vlmlens.manifest import API_VERSION, Manifest, PluginKind
from vlmlens.registry import HOOK_GROUP, Registry, Status, _log, call_hook
from vlmlens.registry._guard import Guard
from vlmlens.registry._problems import missing_dependency

ANALYSIS = PluginKind.ANALYSIS
DATASET = PluginKind.DATASET

MANIFEST = """
from vlmlens.manifest import Manifest, PluginKind
CARD = Manifest(
    kind=PluginKind.ANALYSIS, name={name!r}, target={target!r}, help="Counts.", **{more}
)
"""
COUNTER = """
from typing import ClassVar
from pydantic import Field
from vlmlens.abc import Analysis, Options
from vlmlens.results import Result

class CounterOptions(Options):
    upto: int = Field(3, description="How far.")

class Counter(Analysis):
    "Counts samples.\\n\\nSlowly."
    Options: ClassVar[type[Options]] = CounterOptions
    def run(self, context):
        return Result("counter", "Counter")
"""
READER = """
from vlmlens.abc import Dataset
class Reader(Dataset):
    @classmethod
    def reads(cls, path):
        return {reads}
    def samples(self, prompts):
        return []
"""


@dataclass
class Site:
    """A folder that is like site-packages."""

    path: Path

    def module(self, name: str, source: str) -> None:
        (self.path / f"{name}.py").write_text(source)

    def distribution(
        self, name: str, points: Mapping[str, Mapping[str, str]], version: str = "1.0"
    ) -> None:
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in named.items())
            for group, named in points.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))

    def analysis(self, name: str, *, distribution: str, **more: object) -> None:
        """A distribution with one analysis that works unless `more` says otherwise."""
        stem = distribution.replace("-", "_")
        target = more.pop("target", f"{stem}_code:Counter")
        self.module(f"{stem}_card", MANIFEST.format(name=name, target=target, more=more))
        self.module(f"{stem}_code", COUNTER)
        self.distribution(distribution, {ANALYSIS.group: {name: f"{stem}_card:CARD"}})

    def dataset(self, name: str, *, reads: str) -> None:
        source = MANIFEST.format(name=name, target=f"{name}_code:Reader", more={})
        self.module(f"{name}_card", source.replace("ANALYSIS", "DATASET"))
        self.module(f"{name}_code", READER.format(reads=reads))
        self.distribution(f"pkg-{name}", {DATASET.group: {name: f"{name}_card:CARD"}})

    def registry(self) -> Registry:
        found = distributions(path=[str(self.path)])
        return Registry(entry_points=[p for each in found for p in each.entry_points])


@pytest.fixture(autouse=True)
def seen_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line takes the log for itself, at the latest with the first warning."""
    monkeypatch.setattr(_log, "prepare", [])
    monkeypatch.setattr(logging.getLogger("vlmlens"), "propagate", True)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    before = set(sys.modules)
    yield Site(path)
    for name in set(sys.modules) - before:
        where = getattr(sys.modules[name], "__file__", None) or ""
        if str(tmp_path) in where:
            del sys.modules[name]


def test_finds_and_loads_by_name_alias_and_spelling(site: Site) -> None:
    site.analysis("word_counter", distribution="pkg-a", aliases=("tally",))
    registry = site.registry()
    for spelling in ("word_counter", "Word-Counter", "TALLY", "pkg-a:tally", "PKG_A:word-counter"):
        assert registry.find(ANALYSIS, spelling).name == "word_counter"
    assert registry.load(registry.find(ANALYSIS, "tally")).__name__ == "Counter"


def test_listing_imports_no_target(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a")
    (entry,) = site.registry().entries(ANALYSIS)
    assert (entry.status, entry.distribution, entry.version) == (Status.OK, "pkg-a", "1.0")
    assert "pkg_a_card" in sys.modules
    assert "pkg_a_code" not in sys.modules


def test_entries_are_of_their_kind_only(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a")
    registry = site.registry()
    assert registry.entries(DATASET) == []
    assert [entry.name for entry in registry.entries()] == ["counter"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise RuntimeError('kaputt')", "RuntimeError: kaputt"),
        ("import sys; sys.exit(7)", "SystemExit: 7"),
        ("def (", "SyntaxError"),
        ("import not_there_at_all", "not_there_at_all"),
        ("OTHER = 1", "CARD"),
        ("CARD = 1", "is a int, not a vlmlens.manifest.Manifest"),
        (MANIFEST.format(name="other", target="a:B", more={}), "named 'other'"),
        (
            MANIFEST.format(name="bad", target="a:B", more={}).replace("ANALYSIS", "DATASET"),
            "of kind dataset",
        ),
        (MANIFEST.format(name="bad", target="a:B", more={"colour": "red"}), "colour"),
        (MANIFEST.format(name="bad", target=5, more={}), "its target is 5, not text"),
        (MANIFEST.format(name="bad", target="a.b", more={}), "not a class as package.module:Class"),
        (MANIFEST.format(name="bad", target="a:B", more={"aliases": "x"}), "its aliases is 'x'"),
        (MANIFEST.format(name="bad", target="a:B", more={"needs": (1,)}), "its needs is (1,)"),
        (MANIFEST.format(name="bad", target="a:B", more={"limits": "No."}), "its limits is 'No.'"),
        (MANIFEST.format(name="bad", target="a:B", more={"api_version": "1"}), "whole number"),
        (MANIFEST.format(name="bad", target="a:B", more={"checkpoints": ("x",)}), "Checkpoint"),
        (MANIFEST.format(name="bad", target="a:B", more={"suggests": 1}), "not a mapping"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("class Odd(BaseException): ...\nraise Odd('x')", "Odd: x"),
    ],
)
def test_one_broken_manifest_harms_no_other(site: Site, source: str, says: str) -> None:
    site.analysis("counter", distribution="pkg-a")
    site.module("bad_card", source)
    site.distribution("pkg-bad", {ANALYSIS.group: {"bad": "bad_card:CARD"}})
    registry = site.registry()
    states = {entry.name: entry.status for entry in registry.entries(ANALYSIS)}
    assert states == {"bad": Status.BROKEN, "counter": Status.OK}
    assert registry.load(registry.find(ANALYSIS, "counter"))
    with pytest.raises(BrokenPlugin, match=r"'bad'") as caught:
        registry.find(ANALYSIS, "bad")
    assert says in caught.value.message
    assert "affected" in caught.value.hint


def test_an_entry_point_without_its_module_is_broken(site: Site) -> None:
    site.distribution("pkg-gone", {ANALYSIS.group: {"gone": "gone_package.card:CARD"}})
    with pytest.raises(BrokenPlugin, match="gone_package") as caught:
        site.registry().find(ANALYSIS, "gone")
    assert "pkg-gone" in caught.value.hint


def test_missing_dependency_is_seen_without_importing(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a", requires=("json", "no_such_module.sub"))
    registry = site.registry()
    assert registry.entries(ANALYSIS)[0].status is Status.MISSING_DEPENDENCY
    with pytest.raises(MissingDependency, match=r"needs the module no_such_module\.sub") as caught:
        registry.find(ANALYSIS, "counter")
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize(("version", "advice"), [(API_VERSION + 1, "vlmlens"), (0, "pkg-a")])
def test_wrong_api_version(site: Site, version: int, advice: str) -> None:
    site.analysis("counter", distribution="pkg-a", api_version=version)
    registry = site.registry()
    assert registry.entries(ANALYSIS)[0].status is Status.WRONG_API_VERSION
    with pytest.raises(WrongApiVersion, match=f"plugin API {version}") as caught:
        registry.find(ANALYSIS, "counter")
    assert caught.value.hint == f"Upgrade {advice}."


def test_two_distributions_with_one_name(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a")
    site.analysis("counter", distribution="pkg-b")
    registry = site.registry()
    assert [entry.status for entry in registry.entries(ANALYSIS)] == [Status.AMBIGUOUS] * 2
    with pytest.raises(AmbiguousPlugin, match="pkg-a:counter, pkg-b:counter") as caught:
        registry.find(ANALYSIS, "counter")
    assert "pkg-a:counter" in caught.value.hint
    assert registry.find(ANALYSIS, "pkg-b:counter").target == "pkg_b_code:Counter"


@pytest.mark.parametrize("kind", list(PluginKind))
def test_every_kind_is_disambiguated_by_its_distribution(site: Site, kind: PluginKind) -> None:
    for distribution in ("pkg-a", "pkg-b"):
        stem = distribution.replace("-", "_")
        text = MANIFEST.format(name="same", target=f"{stem}:X", more={})
        site.module(f"{stem}_card", text.replace("ANALYSIS", kind.name))
        site.distribution(distribution, {kind.group: {"same": f"{stem}_card:CARD"}})
    registry = site.registry()
    with pytest.raises(AmbiguousPlugin):
        registry.find(kind, "same")
    assert registry.find(kind, "Pkg_B:same").target == "pkg_b:X"
    if kind is DATASET:
        assert registry.dataset_for("pkg-a:same:source")[0].target == "pkg_a:X"


def test_no_other_distribution_takes_over_a_built_in_name(site: Site) -> None:
    site.analysis("counter", distribution="vlmlens")
    site.analysis("counter", distribution="pkg-thief")
    site.analysis("other", distribution="pkg-alias", aliases=("Counter",))
    registry = site.registry()
    states = {entry.distribution: entry.status for entry in registry.entries(ANALYSIS)}
    assert states == {
        "vlmlens": Status.OK,
        "pkg-thief": Status.AMBIGUOUS,
        "pkg-alias": Status.AMBIGUOUS,
    }
    assert registry.find(ANALYSIS, "counter").target == "vlmlens_code:Counter"
    assert registry.find(ANALYSIS, "pkg-thief:counter").target == "pkg_thief_code:Counter"
    assert registry.find(ANALYSIS, "other").target == "pkg_alias_code:Counter"


def test_a_name_goes_before_an_alias(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a")
    site.analysis("other", distribution="pkg-b", aliases=("counter",))
    assert site.registry().find(ANALYSIS, "counter").target == "pkg_a_code:Counter"


def test_a_shared_alias_spoils_only_that_alias(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a", aliases=("tally",))
    site.analysis("scorer", distribution="pkg-b", aliases=("Tally",))
    registry = site.registry()
    assert registry.find(ANALYSIS, "scorer").name == "scorer"
    with pytest.raises(AmbiguousPlugin):
        registry.find(ANALYSIS, "tally")
    assert registry.find(ANALYSIS, "pkg-b:tally").name == "scorer"


def test_the_same_entry_point_twice_is_one(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a")
    points = [p for each in distributions(path=[str(site.path)]) for p in each.entry_points]
    registry = Registry(entry_points=points + points)
    assert [entry.status for entry in registry.entries(ANALYSIS)] == [Status.OK]


def test_unknown_names_the_nearest_and_the_installed(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a")
    with pytest.raises(UnknownPlugin, match="no analysis 'cuonter'") as caught:
        site.registry().find(ANALYSIS, "cuonter")
    assert caught.value.hint == "Did you mean counter? Installed: counter."
    with pytest.raises(UnknownPlugin) as caught:
        Registry().find(ANALYSIS, "probe")
    assert caught.value.hint == "Installed: none."


@pytest.mark.parametrize(
    "name",
    [
        "llava",
        "LLaVA",
        "llava-next",
        "llava_next",
        "qwen",
        "Qwen2-VL",
        "aya-vision",
        "internlm-xcomposer",
        "clip",
        "plm",
    ],
)
def test_known_but_not_installed(name: str) -> None:
    with pytest.raises(UnknownPlugin, match="is not installed") as caught:
        Registry().find(PluginKind.ADAPTER, name)
    hint = caught.value.hint
    assert "vlmlens-adapter-" in hint
    assert "pip install ./adapters/" in hint


def test_known_adapters_are_written_where_the_hint_says_so() -> None:
    root = Path(__file__).parents[2]
    if not (root / "adapters").is_dir():
        pytest.skip("the tests do not lie in a checkout")
    there = {path.parent.name for path in (root / "adapters").glob("*/pyproject.toml")}
    assert there == {known.name for known in KNOWN}


def test_known_adapters_are_those_of_vlm_lens_and_smolvlm_and_no_name_twice() -> None:
    families = (
        "aya_vision blip2 clip cogvlm glamm internlm_xcomposer internvl janus llava llavanext "
        "minicpm molmo paligemma pixtral plm qwen2vl smolvlm"
    )
    assert " ".join(sorted(known.name for known in KNOWN)) == families
    names = [name for known in KNOWN for name in (known.name, *known.aliases)]
    assert len(names) == len(set(names))
    assert KNOWN[0].distribution == "vlmlens-adapter-aya-vision"


def test_known_names_are_those_of_the_manifests() -> None:
    root = Path(__file__).parents[2] / "adapters"
    if not root.is_dir():
        pytest.skip("the tests do not lie in a checkout")
    installed: dict[str, set[str]] = {}
    for entry in Registry.default().entries(PluginKind.ADAPTER):
        if (root / entry.distribution.removeprefix("vlmlens-adapter-").replace("-", "_")).is_dir():
            installed.setdefault(entry.distribution, set()).update(entry.names)
    if len(installed) < len(KNOWN):
        pytest.skip("not all adapters are installed")
    assert installed == {known.distribution: {known.name, *known.aliases} for known in KNOWN}


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)
def test_every_name_of_a_known_adapter_says_how_to_install_it(known: KnownPlugin) -> None:
    for name in (known.name, *known.aliases, known.name.upper().replace("_", "-")):
        with pytest.raises(UnknownPlugin, match="is not installed") as caught:
            Registry().find(PluginKind.ADAPTER, name)
        assert f"pip install {known.distribution})" in caught.value.hint
    with pytest.raises(UnknownPlugin) as caught:
        Registry().find(PluginKind.ADAPTER, f"{known.name}x")
    assert known.name in caught.value.hint


@pytest.mark.parametrize(
    ("module", "distribution", "hint"),
    [
        ("zarr", "vlmlens", "pip install 'vlmlens[zarr]' (in a checkout: pip install '.[zarr]')"),
        ("datasets", "vlmlens", "pip install 'vlmlens[hf-data]'"),
        ("bitsandbytes", "vlmlens", "pip install 'vlmlens[quantization]'"),
        ("ray", "vlmlens", "pip install 'vlmlens[ray]'"),
        ("hypothesis", "vlmlens", "Install the package of hypothesis"),
        ("zarr", "no-such-distribution", "Install the package of zarr"),
        ("zarr", "", "Install the package of zarr"),
    ],
)
def test_a_missing_module_of_an_extra(module: str, distribution: str, hint: str) -> None:
    problem = missing_dependency("storage", "x", [module], distribution)
    assert hint in problem.hint


def test_modules_that_built_in_plugins_require_come_with_them_or_with_an_extra() -> None:
    from importlib.metadata import requires

    declared = " ".join(requires("vlmlens") or [])
    for entry in Registry.default().entries():
        if entry.distribution == "vlmlens" and entry.manifest:
            for module in entry.manifest.requires:
                name = {"PIL": "pillow", "sklearn": "scikit-learn"}.get(module, module)
                assert name in declared, entry.name


def test_an_installed_known_adapter_needs_no_hint(site: Site) -> None:
    card = MANIFEST.format(name="llava", target="x:Y", more={}).replace("ANALYSIS", "ADAPTER")
    site.module("llava_card", card)
    site.distribution("vlmlens-adapter-llava", {"vlmlens.adapters": {"llava": "llava_card:CARD"}})
    assert site.registry().find(PluginKind.ADAPTER, "llava").name == "llava"


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        ("import no_such_module_at_all", MissingDependency, "no_such_module_at_all"),
        ("raise ValueError('bad day')", BrokenPlugin, "ValueError: bad day"),
        ("import sys; sys.exit('bye')", BrokenPlugin, "bye"),
        ("class Other: ...", BrokenPlugin, "Counter"),
        ("class Counter: ...", BrokenPlugin, "cannot serve as analysis: it is Counter"),
        ("Counter = 3", BrokenPlugin, "it is int"),
        ("import pkg_a_code.sub", BrokenPlugin, "pkg_a_code"),
    ],
)
def test_load_says_what_is_wrong(
    site: Site, code: str, error: type[PluginError], says: str
) -> None:
    site.analysis("counter", distribution="pkg-a")
    site.module("pkg_a_code", code)
    registry = site.registry()
    with pytest.raises(error) as caught:
        registry.load(registry.find(ANALYSIS, "counter"))
    assert type(caught.value) is error
    assert says in caught.value.message


def test_a_keyboard_interrupt_is_not_a_broken_plugin(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a")
    site.module("pkg_a_code", "raise KeyboardInterrupt")
    registry = site.registry()
    with pytest.raises(KeyboardInterrupt):
        registry.load(registry.find(ANALYSIS, "counter"))


def test_a_class_from_a_file(tmp_path: Path, site: Site) -> None:
    file = tmp_path / "mine.py"
    file.write_text(COUNTER)
    registry = Registry()
    manifest = registry.find(ANALYSIS, f"{file}:Counter")
    assert (manifest.kind, manifest.help) == (ANALYSIS, "Counts samples.")
    cls = registry.load(manifest)
    assert cls is registry.load(registry.find(ANALYSIS, f"{file}:Counter"))
    assert cls(registry.options(manifest, {"upto": 5})).options.upto == 5


def test_a_relative_file(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(COUNTER)
    monkeypatch.chdir(tmp_path)
    for name in ("./mine.py:Counter", "mine.py:Counter"):
        assert Registry().find(ANALYSIS, name).help == "Counts samples."


def test_a_file_class_keeps_its_own_manifest(tmp_path: Path, site: Site) -> None:
    card = MANIFEST.format(name="own", target="x:y", more={"aliases": ("mine",)})
    file = tmp_path / "mine.py"
    file.write_text(f"{COUNTER}\n{card}\nCounter.manifest = CARD\n")
    registry = Registry()
    manifest = registry.find(ANALYSIS, f"{file}:Counter")
    assert (manifest.name, manifest.aliases) == ("own", ("mine",))
    assert registry.load(manifest).__name__ == "Counter"
    with pytest.raises(BrokenPlugin, match="cannot serve as dataset"):
        registry.find(DATASET, f"{file}:Counter")


def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, site: Site) -> None:
    card = MANIFEST.format(name="own", target="x:y", more={}).replace("ANALYSIS", "STORAGE")
    file = tmp_path / "mine.py"
    file.write_text(f"{COUNTER}\n{card}\nCounter.manifest = CARD\n")
    with pytest.raises(BrokenPlugin, match="its manifest says storage"):
        Registry().find(ANALYSIS, f"{file}:Counter")


def test_a_changed_file_is_read_again(tmp_path: Path, site: Site) -> None:
    import os

    file = tmp_path / "mine.py"
    file.write_text(COUNTER)
    assert Registry().find(ANALYSIS, f"{file}:Counter").help == "Counts samples."
    file.write_text(COUNTER.replace("Counts", "Weighs"))
    os.utime(file, ns=(1, 1))
    assert Registry().find(ANALYSIS, f"{file}:Counter").help == "Weighs samples."


@pytest.mark.parametrize(
    ("source", "name", "error", "says"),
    [
        (None, "Counter", UnknownPlugin, "There is no file"),
        (COUNTER, "Cuonter", UnknownPlugin, ":Counter."),
        (COUNTER, "", UnknownPlugin, ":Counter."),
        ("x = 1", "", UnknownPlugin, "defines no analysis"),
        ("raise OSError('no')", "Counter", BrokenPlugin, "OSError: no"),
        ("import no_such_module_x", "Counter", MissingDependency, "no_such_module_x"),
        ("class Counter: ...", "Counter", BrokenPlugin, "vlmlens.abc.Analysis"),
    ],
)
def test_a_wrong_file(
    tmp_path: Path, site: Site, source: str | None, name: str, error: type[Exception], says: str
) -> None:
    file = tmp_path / "mine.py"
    if source is not None:
        file.write_text(source)
    with pytest.raises(error) as caught:
        Registry().find(ANALYSIS, f"{file}:{name}" if name else str(file))
    assert type(caught.value) is error
    assert says in str(caught.value)


def test_options(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a")
    registry = site.registry()
    manifest = registry.find(ANALYSIS, "counter")
    assert registry.options(manifest, {}).model_dump() == {"upto": 3}
    assert registry.options(registry.load(manifest), {"upto": 1}).model_dump() == {"upto": 1}
    with pytest.raises(SpecError, match="The analysis counter has no 'upot'") as caught:
        registry.options(manifest, {"upot": 1})
    assert caught.value.hint == "Did you mean upto?"
    with pytest.raises(SpecError, match="upto = 'many'"):
        registry.options(manifest, {"upto": "many"})


# ---------------------------------------------------------------------- data


def test_data_by_name(site: Site) -> None:
    site.dataset("scenes", reads="False")
    registry = site.registry()
    manifest, source = registry.dataset_for("Scenes:a:b")
    assert (manifest.name, source) == ("scenes", "a:b")
    manifest, source = registry.dataset_for("pkg-scenes:scenes:held-out")
    assert (manifest.name, source) == ("scenes", "held-out")


def test_data_by_file_class(site: Site, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(READER.format(reads="False"))
    manifest, source = Registry().dataset_for(f"{tmp_path / 'mine.py'}:Reader:x/y")
    assert (manifest.kind, source) == (DATASET, "x/y")


def test_data_by_path_asks_every_dataset(site: Site, tmp_path: Path) -> None:
    site.dataset("folders", reads="__import__('os').path.isdir(path)")
    site.dataset("texts", reads="path.endswith('.txt')")
    site.dataset("tests", reads="path.endswith('t.txt')")
    registry = site.registry()
    (tmp_path / "a.txt").touch()
    (tmp_path / "t.txt").touch()
    (tmp_path / "b.bin").touch()
    assert registry.dataset_for(str(tmp_path))[0].name == "folders"
    manifest, source = registry.dataset_for(str(tmp_path / "a.txt"))
    assert (manifest.name, source) == ("texts", str(tmp_path / "a.txt"))
    with pytest.raises(AmbiguousPlugin, match="tests, texts") as ambiguous:
        registry.dataset_for(str(tmp_path / "t.txt"))
    assert "--data tests:" in ambiguous.value.hint
    with pytest.raises(DataNotFound, match="No installed dataset reads") as unread:
        registry.dataset_for(str(tmp_path / "b.bin"))
    assert "folders (Counts.)" in unread.value.hint


def test_a_broken_dataset_does_not_stop_the_others(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site.dataset("good", reads="True")
    site.dataset("bad", reads="1 / 0")
    site.dataset("gone", reads="True")
    site.module("gone_code", "raise RuntimeError('kaputt')")
    site.module("worse_card", "raise RuntimeError('kaputt')")
    site.distribution("pkg-worse", {DATASET.group: {"worse": "worse_card:CARD"}})
    with caplog.at_level(logging.WARNING, "vlmlens"):
        assert site.registry().dataset_for(str(tmp_path))[0].name == "good"
    assert "bad" in caplog.text
    assert "kaputt" in caplog.text


def test_data_that_is_nowhere(site: Site, tmp_path: Path) -> None:
    site.dataset("scenes", reads="True")
    registry = site.registry()
    (tmp_path / "photos").mkdir()

    def hint(data: str) -> str:
        with pytest.raises(DataNotFound, match="neither a path that exists nor") as caught:
            registry.dataset_for(data)
        return caught.value.hint

    assert hint(str(tmp_path / "phoots")) == f"Did you mean {tmp_path / 'photos'}?"
    assert hint("scnees:x") == "Did you mean scenes?"
    (tmp_path / "link").symlink_to("gone")
    assert hint(str(tmp_path / "link")) == "It is a link to 'gone', which is not there."
    assert "scenes:SOURCE" in hint("scenes")
    assert "does not exist either" in hint(str(tmp_path / "no" / "where"))
    assert hint(str(tmp_path / "zzzzzz")) == "Datasets by name: scenes:...."


# ---------------------------------------------------------------------- hooks

HOOKS = """
from vlmlens.abc.hookspecs import hookimpl
calls = []
@hookimpl
def vlmlens_batch_done(run, done):
    calls.append(done)
{more}
"""


def _hooks(site: Site, **sources: str) -> Registry:
    for name, source in sources.items():
        site.module(f"{name}_hooks", source)
        site.distribution(f"pkg-{name}", {HOOK_GROUP: {name: f"{name}_hooks"}})
    return site.registry()


def test_hooks_are_called(site: Site) -> None:
    manager = _hooks(site, a=HOOKS.format(more="")).hooks()
    call_hook(manager, "vlmlens_batch_done", run=None, done=3, total=9, seconds=0.1)
    assert sys.modules["a_hooks"].calls == [3]


def test_a_class_is_a_plugin_too(site: Site) -> None:
    site.module(
        "c_hooks",
        """
from vlmlens.abc.hookspecs import hookimpl
class Plugin:
    @hookimpl
    def vlmlens_commands(self):
        return {"x": 1}
""",
    )
    site.distribution("pkg-c", {HOOK_GROUP: {"c": "c_hooks:Plugin"}})
    assert call_hook(site.registry().hooks(), "vlmlens_commands") == [{"x": 1}]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("raise RuntimeError('kaputt')", "kaputt"),
        ("import sys; sys.exit()", "SystemExit"),
        (HOOKS.format(more="@hookimpl\ndef vlmlens_no_such(run): ..."), "vlmlens_no_such"),
        (HOOKS.format(more="@hookimpl\ndef vlmlens_run_started(nonsense): ..."), "nonsense"),
    ],
)
def test_a_broken_hook_plugin_is_shown_and_left_out(
    site: Site, caplog: pytest.LogCaptureFixture, source: str, says: str
) -> None:
    registry = _hooks(site, a=HOOKS.format(more=""), b=source)
    manager = registry.hooks()
    assert registry.hooks() is manager
    states = {entry.name: entry for entry in registry.entries()}
    assert {name: entry.status for name, entry in states.items()} == {
        "a": Status.OK,
        "b": Status.BROKEN,
    }
    assert says in str(states["b"].problem)
    assert len(caplog.records) == 1
    call_hook(manager, "vlmlens_batch_done", run=None, done=1, total=1, seconds=0.0)
    assert sys.modules["a_hooks"].calls == [1]


@pytest.mark.parametrize("mistake", ["raise ValueError('oops')", "raise SystemExit(3)"])
def test_a_failing_hook_is_reported_once_and_the_others_go_on(
    site: Site, caplog: pytest.LogCaptureFixture, mistake: str
) -> None:
    failing = HOOKS.format(more="").replace("calls.append(done)", mistake)
    manager = _hooks(site, a=HOOKS.format(more=""), b=failing, c=HOOKS.format(more="")).hooks()
    for done in (1, 2):
        call_hook(manager, "vlmlens_batch_done", run=None, done=done, total=2, seconds=0.0)
    assert sys.modules["a_hooks"].calls == sys.modules["c_hooks"].calls == [1, 2]
    assert len(caplog.records) == 1
    assert "pkg-b:b" in caplog.text


def test_a_hook_that_hangs_is_left_out_where_there_is_a_limit(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    source = """
from threading import Event
from vlmlens.abc.hookspecs import hookimpl
end = Event()
@hookimpl
def vlmlens_commands():
    end.wait()
"""
    before = set(threading.enumerate())
    registry = _hooks(site, a=source, b=source.replace("end.wait()", "return {'x': 1}"))
    manager = registry.hooks()
    assert set(threading.enumerate()) <= before
    assert call_hook(manager, "vlmlens_commands", Guard(0.5)) == [{"x": 1}]
    assert "pkg-a:a failed in vlmlens_commands" in caplog.text
    sys.modules["a_hooks"].end.set()


def test_options_of_a_lifecycle_plugin(site: Site) -> None:
    site.module("b_hooks_options", COUNTER)
    source = HOOKS.format(more='OPTIONS = "b_hooks_options:CounterOptions"')
    registry = _hooks(site, a=HOOKS.format(more=""), b=source)
    models = {entry.name: registry.hook_options(entry) for entry in registry.entries()}
    assert models["a"] is None
    assert list(models["b"].model_fields) == ["upto"]


def test_a_keyboard_interrupt_in_a_hook_goes_through(site: Site) -> None:
    source = HOOKS.format(more="").replace("calls.append(done)", "raise KeyboardInterrupt")
    manager = _hooks(site, a=source).hooks()
    with pytest.raises(KeyboardInterrupt):
        call_hook(manager, "vlmlens_batch_done", run=None, done=1, total=1, seconds=0.0)


# ---------------------------------------------------------------------- the rest


def test_kinds_of(site: Site) -> None:
    site.analysis("counter", distribution="pkg-a")
    site.dataset("counter", reads="True")
    registry = site.registry()
    assert registry.kinds_of("Counter") == [DATASET, ANALYSIS]
    assert registry.kinds_of("counter", ANALYSIS) == [ANALYSIS]
    with pytest.raises(UnknownPlugin, match="no plugin 'cuonter'") as caught:
        registry.kinds_of("cuonter")
    assert caught.value.hint == "Did you mean counter?"
    with pytest.raises(UnknownPlugin) as caught:
        registry.kinds_of("llava")
    assert "vlmlens-adapter-llava" in caught.value.hint


def test_an_entry_point_without_distribution() -> None:
    point = EntryPoint("counter", "no_such_module:CARD", ANALYSIS.group)
    (entry,) = Registry(entry_points=[point]).entries()
    assert (entry.distribution, entry.version, entry.status) == ("", "", Status.BROKEN)


def test_what_is_installed_here() -> None:
    registry = Registry.default()
    for kind, name in (
        (PluginKind.ADAPTER, "demo"),
        (PluginKind.STORAGE, "lmdb"),
        (DATASET, "demo"),
        (DATASET, "images"),
        (DATASET, "table"),
        (ANALYSIS, "probe"),
        (ANALYSIS, "logit_lens"),
        (ANALYSIS, "blind_test"),
    ):
        assert isinstance(registry.find(kind, name), Manifest)
    problems = [
        entry
        for entry in registry.entries()
        if entry.distribution == "vlmlens" and entry.status is not Status.OK
    ]
    assert problems == []
