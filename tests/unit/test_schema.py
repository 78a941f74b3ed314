"""The run file's JSON schema: it takes what vlmlens takes, and catches what vlmlens refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from vlmlens.compose.labels import analysis_named
from vlmlens.compose.schema import run_schema
from vlmlens.errors import VlmlensError
from vlmlens.manifest import PluginKind
from vlmlens.registry import Registry
from vlmlens.spec.model import AUTO_ADAPTER, RunSpec, make_spec, validated

Check = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.default()


@pytest.fixture(scope="module")
def schema(registry: Registry) -> dict[str, Any]:
    made, notes = run_schema(registry)
    assert notes == []
    return made


@pytest.fixture(scope="module")
def complaints(schema: dict[str, Any]) -> Check:
    validator = Draft202012Validator(schema)

    def complaints_of(text: str) -> list[str]:
        return [error.message for error in validator.iter_errors(yaml.safe_load(text))]

    return complaints_of


def chosen_adapter(spec: RunSpec) -> str:
    """The adapter of a run without a checkpoint."""
    return "demo" if spec.adapter == AUTO_ADAPTER else spec.adapter


def refused(registry: Registry, text: str) -> bool:
    """Whether vlmlens itself refuses a run file, or the options in it."""
    try:
        spec = make_spec(yaml.safe_load(text))
        for name, options in spec.analysis.items():
            registry.options(analysis_named(registry, name)[0], options)
        dataset = registry.dataset_for(spec.data or "demo:scenes")[0]
        chosen = (
            (registry.find(PluginKind.ADAPTER, chosen_adapter(spec)), spec.options.adapter),
            (registry.find(PluginKind.EXTRACTOR, spec.extractor), spec.options.extractor),
            (registry.find(PluginKind.STORAGE, spec.storage), spec.options.storage),
            (dataset, spec.options.dataset),
        )
        lifecycle = {entry.name: entry for entry in registry.entries() if entry.kind is None}
        for name, given in spec.options.plugins.items():
            if name in lifecycle and (model := registry.hook_options(lifecycle[name])):
                validated(model, given, where=name)
        for manifest, given in chosen:
            registry.options(manifest, given)
    except VlmlensError:
        return True
    return False


GOOD = (
    "{}",
    "adapter: qwen2vl\nmodel: Qwen/Qwen2-VL-2B-Instruct\noptions: {adapter: {max_pixels: 100}}",
    "adapter: Qwen2-VL",
    "adapter: vlmlens-adapter-llava:llava",
    "adapter: AYA-Vision",
    "analysis: probe",
    "analysis: [probe, logit-lens]",
    "analysis: [probe: {folds: 10}, Logit_Lens]",
    "analysis: {probe: {folds: 10, targets: [label]}, blind_test: null}",
    "analysis: {blind-test: {blank: gray}}",
    "analysis: {blind-test: {blank: [gray, noise]}}",
    "analysis: {vlmlens:probe: {folds: 3}}",
    "analysis: {probe: null, probe:mlp: {model: mlp}, vlmlens:probe:b: {folds: 3}}",
    "analysis: [logit-lens, logit-lens:patches]",
    "storage: sqlite:///x.db\noptions: {storage: {repeated: first}}",
    "storage: zarr+s3://bucket/x\noptions: {storage: {remote: {anon: true}}}",
    "options: {storage: {sync: false, map_size: 1000000}}",
    "extractor: attention\noptions: {extractor: {regions: patches, heads: [0, 3]}}",
    "extractor: attention\noptions: {extractor: {regions: [image, text]}}",
    "data: demo:scenes\noptions: {dataset: {scenes: 4}}",
    "options: {dataset: {scenes: 4}}",
    "data: '.'\noptions: {dataset: {recursive: false}}",
    "batch_size: auto",
    "options: {plugins: {run-log: {to: trackio, project: x}, other: {a: 1}}}",
    "batch_size: 4\nlimit: 3\nseed: 1\nprompt: 'Color:'\nsites: llm.block.*/last",
    "prompt: [a, b]\nsites: [llm.norm]\nout: null\ndtype: bfloat16\nautocast: null",
)
BAD = (
    "batchsize: 4",
    "batch_size: 0",
    "batch_size: all",
    "dtype: int8",
    "limit: x",
    "adapter: qwen3000",
    "adapter: 3",
    "storage: lmbd",
    "storage: lmbd:///x",
    "extractor: activation",
    "analysis: porbe",
    "analysis: [porbe]",
    "analysis: {porbe: {}}",
    "analysis: {probe: {fold: 10}}",
    "analysis: [probe: {folds: 1}]",
    "analysis: {Probe: {folds: 1}}",
    "analysis: {vlmlens:probe: {fold: 3}}",
    "analysis: {probe:mlp: {fold: 3}}",
    "analysis: {blind-test: {blank: grey}}",
    "options: {storge: {}}",
    "options: {storage: {synch: true}}",
    "storage: sqlite\noptions: {storage: {map_size: 1000000}}",
    "storage: sqlite:///x.db\noptions: {storage: {map_size: 1000000}}",
    "adapter: llava\noptions: {adapter: {max_pixels: 100}}",
    "adapter: Qwen2-VL\noptions: {adapter: {max_pixel: 100}}",
    "extractor: attention\noptions: {extractor: {regions: nowhere}}",
    "options: {dataset: {scene: 4}}",
    "data: demo:scenes\noptions: {dataset: {recursive: true}}",
    "data: '.'\noptions: {dataset: {recursiv: true}}",
    "prompt: 3",
    "options: {plugins: {run-log: {too: trackio}}}",
    "options: {plugins: {run-log: {to: nowhere}}}",
    "sites: {a: b}",
)


def test_it_is_a_schema(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    json.dumps(schema, allow_nan=False)


@pytest.mark.parametrize("text", GOOD)
def test_good_run_files(registry: Registry, complaints: Check, text: str) -> None:
    assert not refused(registry, text)
    assert complaints(text) == []


@pytest.mark.parametrize("text", BAD)
def test_mistakes_are_caught(registry: Registry, complaints: Check, text: str) -> None:
    assert refused(registry, text)
    assert complaints(text) != []


@pytest.mark.parametrize(
    "text",
    [
        "adapter: ./mine.py:Mine\noptions: {adapter: {anything: 1}}",
        "storage: mine.py:Store\noptions: {storage: {anything: 1}}",
        "data: ./mine.py:Reader:x\noptions: {dataset: {anything: 1}}",
        "analysis: {./mine.py:Mine: {anything: 1}}",
        "analysis: {other-package:mine: {anything: 1}}",
        "analysis: [./mine.py:Mine]",
    ],
)
def test_what_no_schema_can_know_is_open(complaints: Check, text: str) -> None:
    assert complaints(text) == []


def test_what_a_run_writes_down_is_valid(complaints: Check) -> None:
    spec = make_spec({"analysis": {"probe": {"folds": 4}}, "options": {"storage": {"sync": True}}})
    assert complaints(spec.to_yaml()) == []
    assert complaints(RunSpec().to_yaml()) == []


def test_names_are_offered_with_their_help(schema: dict[str, Any]) -> None:
    offered = {
        choice["const"]: choice["description"]
        for choice in schema["properties"]["adapter"]["anyOf"]
        if "const" in choice
    }
    assert {"demo", "llava", "qwen2vl", "qwen"} <= set(offered)
    assert all(offered.values())
    assert "probe" in schema["properties"]["analysis"]["anyOf"][0]["properties"]


def test_every_option_of_every_plugin_is_in_it(registry: Registry, schema: dict[str, Any]) -> None:
    for entry in registry.entries():
        if entry.kind is None or entry.manifest is None:
            continue
        if entry.kind == PluginKind.INTERVENTION:  # its options stand in the text of an edit
            continue
        owner = "" if entry.distribution == "vlmlens" else f"{entry.distribution}."
        definition = schema["$defs"][f"{entry.kind.value}.{owner}{entry.manifest.name}"]
        fields = registry.load(entry.manifest).Options.model_fields
        assert set(definition.get("properties", {})) == set(fields)
