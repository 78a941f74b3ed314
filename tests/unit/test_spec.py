"""The run spec: every mistake is one clear error, and a spec survives YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from vlmlens.errors import SpecError
from vlmlens.spec.model import RunSpec, assign, make_spec, merged, read_yaml, validated


def failing(values: dict[str, Any]) -> SpecError:
    with pytest.raises(SpecError) as caught:
        make_spec(values)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_empty_spec_is_the_demo_run() -> None:
    spec = make_spec({})
    assert (spec.adapter, spec.storage, spec.extractor) == ("auto", "lmdb", "activations")
    assert spec.analysis == {}


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"adaptor": "x"}, "The run spec has no 'adaptor'.", "Did you mean adapter"),
        ({"zzz": 1}, "The run spec has no 'zzz'.", "Known: adapter, model,"),
        ({"options": {"adaptor": {}}}, "has no 'options.adaptor'.", "Did you mean adapter"),
        (
            {"options": {"zzz": {}}},
            "has no 'options.zzz'.",
            "Known: adapter, dataset, extractor, storage, engine, plugins.",
        ),
        ({"batch_size": 0}, "batch_size = 0: input should be greater than or equal to 1.", ""),
        ({"batch_size": "many"}, "batch_size = 'many': input should be a valid integer", ""),
        ({"dtype": "int8"}, "dtype = 'int8': input should be 'auto', 'float32'", ""),
        ({"limit": 1.5}, "limit = 1.5: input should be a valid integer", ""),
        ({"seed": -1}, "seed = -1:", ""),
        ({"prompt": 3}, "prompt = 3: input should be a valid list.", ""),
        ({"prompt": ["a", 3]}, "prompt.1 = 3: input should be a valid string.", ""),
        ({"sites": {"a": 1}}, "sites = {'a': 1}: input should be a valid list.", ""),
        ({"revision": 12}, "revision = 12: input should be a valid string.", ""),
        ({"options": 3}, "options = 3:", ""),
        ({"options": {"storage": 3}}, "options.storage = 3: input should be a valid dict", ""),
        ({"analysis": {"probe": 5}}, "analysis.probe = 5: input should be a valid dict", ""),
        ({"analysis": {"probe": False}}, "analysis.probe = False:", ""),
        ({"analysis": ["probe", 3]}, "3 is no name of an analysis.", ""),
        ({"analysis": 3}, "analysis = 3:", ""),
    ],
)
def test_each_mistake_is_one_sentence(values: dict[str, Any], message: str, hint: str) -> None:
    error = failing(values)
    assert message in error.message
    assert error.hint.startswith(hint)
    assert "pydantic" not in str(error)


def test_the_subject_is_the_key() -> None:
    assert failing({"options": {"adaptor": {}}}).subject == "options.adaptor"
    assert failing({"batch_size": 0}).subject == "batch_size"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int
    way: int | Literal["auto"] = "auto"


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner
    size: int | str | None = Field(None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "The probe lacks 'inner', which has no default."),
        ({"inner": {}}, "The probe lacks 'inner.depth', which has no default."),
        ({"inner": {"depth": 1, "dept": 2}}, "The probe has no 'inner.dept'."),
        ({"inner": {"depth": 1, "way": "up"}}, "The probe: inner.way = 'up': "),
        ({"inner": {"depth": 1}, "size": []}, "The probe: size = []: "),
    ],
)
def test_nested_options_and_unions(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        validated(Outer, values, where="The probe")
    assert caught.value.message.startswith(message)


def test_the_nearest_name_is_one_of_the_same_level() -> None:
    with pytest.raises(SpecError) as caught:
        validated(Outer, {"inner": {"depth": 1, "dept": 2}}, where="The probe")
    assert caught.value.hint == "Did you mean depth?"


@pytest.mark.parametrize(
    ("given_as", "read_as"),
    [
        ("probe", {"probe": {}}),
        (["probe", "logit-lens"], {"probe": {}, "logit-lens": {}}),
        ({"probe": None}, {"probe": {}}),
        ({"probe": {"folds": 3}}, {"probe": {"folds": 3}}),
        ([{"probe": {"folds": 3}}, "logit-lens"], {"probe": {"folds": 3}, "logit-lens": {}}),
        ([{"probe": None}], {"probe": {}}),
    ],
)
def test_ways_to_name_analyses(given_as: Any, read_as: dict[str, Any]) -> None:
    assert make_spec({"analysis": given_as}).analysis == read_as


def test_one_prompt_is_a_list() -> None:
    assert make_spec({"prompt": "Color:"}).prompt == ["Color:"]


# ---------------------------------------------------------------------- files


def test_a_spec_survives_yaml(tmp_path: Path) -> None:
    spec = make_spec({"prompt": ["Farbe: ä", "no"], "analysis": ["probe"], "limit": 3})
    (tmp_path / "run.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    assert make_spec(read_yaml(tmp_path / "run.yaml")) == spec


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)  # a busy machine is no mistake of the spec
@given(
    prompt=st.lists(_TEXT, max_size=3),
    options=st.dictionaries(_TEXT, _JSON, max_size=3),
    limit=st.none() | st.integers(1, 10**6),
)
def test_any_spec_survives_yaml(
    prompt: list[str], options: dict[str, Any], limit: int | None
) -> None:
    import yaml

    spec = make_spec({"prompt": prompt, "limit": limit, "analysis": {"probe": options}})
    assert make_spec(yaml.safe_load(spec.to_yaml())) == spec
    changed = yaml.safe_load(spec.to_yaml(changed=True))
    assert make_spec(changed) == spec
    assert "storage" not in changed


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[1, 2]", "holds a list, not a mapping"),
        (b"text", "holds a str, not a mapping"),
        (b"a: [1", "is no YAML"),
        (b"\xff\xfe\xfa", "is no YAML"),
        (b"prompt: a\nseed: 1\nprompt: b\n", "the key 'prompt' occurs twice"),
        (b"analysis:\n  probe: {folds: 1, folds: 2}\n", "the key 'folds' occurs twice"),
        (b"a: !!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_a_wrong_run_file(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=r"run\.yaml") as caught:
        read_yaml(path)
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_no_run_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        read_yaml(tmp_path)


def test_an_empty_run_file_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "run.yaml") == {}


# ---------------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("before", "assignment", "after"),
    [
        ({}, "limit=3", {"limit": 3}),
        ({}, " limit = 3", {"limit": 3}),
        ({"limit": 3}, "limit=", {"limit": None}),
        ({}, "analysis.probe.folds=10", {"analysis": {"probe": {"folds": 10}}}),
        (
            {"analysis": ["probe", "lens"]},
            "analysis.probe.folds=2",
            {"analysis": {"probe": {"folds": 2}, "lens": {}}},
        ),
        ({"analysis": "probe"}, "analysis.probe.a=1", {"analysis": {"probe": {"a": 1}}}),
        ({}, "prompt=[a, b]", {"prompt": ["a", "b"]}),
        ({}, "prompt=Color of the main object:", {"prompt": "Color of the main object:"}),
        ({}, "prompt=Is a: b?", {"prompt": "Is a: b?"}),
        ({}, "options.adapter={a: 1}", {"options": {"adapter": {"a": 1}}}),
        ({}, "model=a=b", {"model": "a=b"}),
        ({}, "sites=llm.block.3#1/[3:9]", {"sites": "llm.block.3#1/[3:9]"}),
    ],
)
def test_assign(before: dict[str, Any], assignment: str, after: dict[str, Any]) -> None:
    assign(before, assignment)
    assert before == after


@pytest.mark.parametrize(
    ("before", "assignment", "says"),
    [
        ({}, "limit", "is no assignment"),
        ({}, "=3", "is no assignment"),
        ({}, "a..b=3", "is no assignment"),
        ({}, "a.=3", "is no assignment"),
        ({"limit": 3}, "limit.a=3", "'limit' holds 3"),
        ({"prompt": ["a"]}, "prompt.0=b", "'prompt' holds ['a']"),
        ({}, "prompt=[a", "is no YAML"),
    ],
)
def test_wrong_assignments(before: dict[str, Any], assignment: str, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        assign(before, assignment)
    assert says in caught.value.message
    assert assignment in caught.value.message


def test_merged() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": [1], "c": 3}
    over = {"a": {"y": 3}, "b": [2], "d": 4}
    assert merged(base, over) == {"a": {"x": 1, "y": 3}, "b": [2], "c": 3, "d": 4}
    assert base["a"] == {"x": 1, "y": 2}
    assert merged({"a": {"x": 1}}, {"a": 2}) == {"a": 2}


def test_every_field_is_described() -> None:
    assert all(field.description for field in RunSpec.model_fields.values())
