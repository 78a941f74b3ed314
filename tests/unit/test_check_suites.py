"""Which suites `vlmlens plugins check` takes for a plugin and a checkpoint."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from vlmlens.abc.observer import SilentObserver
from vlmlens.errors import BrokenPlugin
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Registry, Status
from vlmlens.testing.run import TINY, find_suites, run_suites
from vlmlens_plugins.demo.adapter import CHECKPOINT
from vlmlens_plugins.hf import checks


@pytest.fixture
def registry() -> Registry:
    target = "vlmlens_plugins.hf.manifests:HF"
    return Registry([EntryPoint("hf", target, PluginKind.ADAPTER.group)])


def test_without_a_checkpoint_every_suite_runs_on_its_own(registry: Registry) -> None:
    suites = find_suites(registry, "hf")
    assert [suite.checks.__name__ for suite in suites] == [c.__name__ for c in checks.CHECKS]
    assert {suite.subject for suite in suites} == {TINY}


@pytest.mark.parametrize("kit", checks.CHECKS)
def test_a_checkpoint_is_given_to_the_suite_of_its_class(registry: Registry, kit: Any) -> None:
    model = str(kit().checkpoint)
    (suite,) = find_suites(registry, "hf", model=model)
    assert suite.checks.__name__ == kit.__name__
    made: Any = suite.checks()
    assert str(made.checkpoint) == suite.subject == model
    assert made.vlm.request.model == model


def test_of_two_suites_of_one_class_the_one_with_the_same_parts_is_taken() -> None:
    from vlmlens_adapter_blip2 import checks as blip2

    target = "vlmlens_adapter_blip2.manifest:MANIFEST"
    registry = Registry([EntryPoint("blip2", target, PluginKind.ADAPTER.group)])
    for kit in blip2.CHECKS:
        (suite,) = find_suites(registry, "blip2", model=str(kit().checkpoint))
        assert suite.checks.__name__ == kit.__name__


def test_another_checkpoint_is_given_to_what_the_suites_share(registry: Registry) -> None:
    suites = find_suites(registry, "hf", model=str(CHECKPOINT), device="cpu")
    assert [suite.checks.__name__ for suite in suites] == ["GenericChecks"]
    (report,) = run_suites(suites, SilentObserver())
    assert report.counts["failed"] == 0, report.results
    assert report.counts["passed"] >= 15
    assert report.description["class"] == "LlavaForConditionalGeneration"


class Fake:
    """A registry of one adapter."""

    def __init__(self, checks: str) -> None:
        self.manifest = Manifest(PluginKind.ADAPTER, "x", "x:Y", "", checks=checks)

    def kinds_of(self, name: str, kind: PluginKind | None) -> list[PluginKind]:
        return [PluginKind.ADAPTER]

    def find(self, kind: PluginKind, name: str) -> Manifest:
        return self.manifest

    def load(self, manifest: Manifest) -> type[Any]:
        return object


@pytest.mark.parametrize(
    "named", ["no_such_module:CHECKS", "vlmlens.manifest:NOTHING", "vlmlens.manifest:API_VERSION"]
)
def test_checks_that_are_none_are_a_broken_plugin(named: str) -> None:
    registry: Any = Fake(named)
    with pytest.raises(BrokenPlugin):
        find_suites(registry, "x")


def test_every_built_in_plugin_has_checks() -> None:
    registry = Registry.default()
    own = [e for e in registry.entries() if e.kind and e.distribution == "vlmlens"]
    assert {entry.kind for entry in own} == set(PluginKind)
    for entry in own:
        if entry.status is Status.MISSING_DEPENDENCY:
            continue
        suites = find_suites(registry, f"vlmlens:{entry.name}", entry.kind)
        assert suites, entry.name
        assert all(suite.manifest.kind is entry.kind for suite in suites)
