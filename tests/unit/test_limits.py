"""Run files, --set and expressions that would take for ever, or that are no numbers."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from vlmlens.errors import SiteSyntaxError, SpecError
from vlmlens.sites.regex import paths_matching
from vlmlens.spec.model import assign, make_spec, read_yaml

PATHS = [f"model.language_model.layers.{i}.mlp.down_proj" for i in range(100)]
SLOW = [r"(\w|\w\w|\.)*(?<!j)", r"(?:\w|\w{2}|\W)+(?<!j)", r"(?:[a-z]|[^.]{2}|.)*(?<![j])"]


@pytest.mark.parametrize("expression", SLOW)
def test_a_slow_expression_ends(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmlens.sites.regex._SECONDS", 0.2)
    start = time.process_time()
    with pytest.raises(SiteSyntaxError, match="takes more than"):
        paths_matching(f"re:{expression}", PATHS, [])
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "expression",
    [
        "(?:(?:x{1000}){1000}){1000}",
        "(?:.{0,999}){99 }x",
        "(?:a{ 9000,}){2}",
        "(" * 900 + ")" * 900,
        "x" * 3000,
        "[",
    ],
    ids=lambda text: text[:20],
)
def test_an_expression_that_is_too_much_is_refused(expression: str) -> None:
    with pytest.raises(SiteSyntaxError):
        paths_matching(f"re:{expression}", PATHS, [])


def test_usual_expressions_find_what_they_found() -> None:
    for expression in (r".*\.layers\.(?:1|2)\..*", r".*\.[3-5]\.mlp(?=\.).*", ".*"):
        plain = [path for path in PATHS if re.fullmatch(expression, path)]
        assert paths_matching(f"re:{expression}", PATHS, []) == plain != []


DEEP = {
    "lists": "[" * 5_000,
    "closed lists": "[" * 400 + "]" * 400,
    "a little too deep": "[" * 60 + "]" * 60,
    "mappings": "{a: " * 300 + "1" + "}" * 300,
    "block": "".join(f"{' ' * i}a:\n" for i in range(200)),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_values_are_refused(kind: str) -> None:
    values: dict[str, Any] = {}
    with pytest.raises(SpecError):
        assign(values, f"analysis.probe.x={DEEP[kind]}")


def test_a_deep_run_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"options:\n  storage:\n    x: {'[' * 5_000}")
    with pytest.raises(SpecError, match="nested"):
        read_yaml(tmp_path / "run.yaml")


def test_an_endless_run_file_is_refused() -> None:
    with pytest.raises(SpecError, match="more than"):
        read_yaml("/dev/zero")


def test_values_that_repeat_or_hold_themselves_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    for text in ("\n".join(lines), "options: &o {storage: {x: *o}}"):
        (tmp_path / "run.yaml").write_text(text)
        with pytest.raises(SpecError, match=r"nested|no YAML"):
            read_yaml(tmp_path / "run.yaml")
    endless: dict[str, Any] = {}
    endless["options"] = endless
    with pytest.raises(SpecError, match="nested"):
        make_spec(endless)


def assigned(assignment: str) -> None:
    values: dict[str, Any] = {}
    assign(values, assignment)
    make_spec(values)


@pytest.mark.parametrize(
    "text", ["!!timestamp x", "!!int x", "2020-13-45", "*x", "{[1]: 2}", "\x00"]
)
def test_values_that_are_no_yaml_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"seed: {text}")
    with pytest.raises(SpecError):
        make_spec(read_yaml(tmp_path / "run.yaml"))
    with pytest.raises(SpecError):
        assigned(f"seed={text}")


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 12345678901234567890123},
        {"seed": 2**32},
        {"seed": True},
        {"batch_size": True},
        {"batch_size": False},
        {"limit": True},
        {"generate": True},
        {"max_pixels": True},
    ],
    ids=str,
)
def test_numbers_are_numbers_of_a_sensible_size(values: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=next(iter(values))):
        make_spec(values)


def test_options_of_plugins_take_no_switch_for_a_number() -> None:
    from vlmlens.abc.options import Options

    class Some(Options):
        folds: int = 3
        share: float | None = None
        either: int | bool = 1

    from vlmlens.spec.model import validated

    for wrong in ({"folds": True}, {"share": False}):
        with pytest.raises(SpecError, match="true or false"):
            validated(Some, wrong, where="Some")
    assert validated(Some, {"either": True, "folds": 2}, where="Some").either is True
