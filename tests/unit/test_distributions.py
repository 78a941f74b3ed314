"""What the distributions carry and need: licences, notes on test data, versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ADAPTERS = sorted(path.parent for path in ROOT.glob("adapters/*/pyproject.toml"))


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {normal(name): version for name, version in pairs}


def test_there_are_adapters() -> None:
    assert len(ADAPTERS) >= 16


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: path.name)
def test_each_adapter_carries_its_licence_and_says_where_its_test_data_come_from(
    adapter: Path,
) -> None:
    assert (adapter / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert project(adapter)["license-files"] == ["LICENSE"]
    data = adapter / "tests" / "data"
    if data.is_dir():
        note = (data / "README.md").read_text()
        assert "random" in note
        there = {path.relative_to(data).parts[0] for path in data.rglob("*")} - {"README.md"}
        assert [name for name in there if f"`{name}" not in note] == []


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda path: path.name)
def test_each_adapter_is_built_with_the_tools_of_core(adapter: Path) -> None:
    """The gate builds core in an environment of its own, and adapters with what core asks for."""
    own, core = (
        tomllib.loads((folder / "pyproject.toml").read_text())["build-system"]
        for folder in (adapter, ROOT)
    )
    assert own == core


def test_core_needs_nothing_for_writing_plugins() -> None:
    core = project(ROOT)
    needed = {normal(Requirement(each).name) for each in core["dependencies"]}
    assert "copier" not in needed
    assert [Requirement(each).name for each in core["optional-dependencies"]["new"]] == ["copier"]


def test_users_and_developers_have_their_own_versions() -> None:
    users, developers = pins("constraints.txt"), pins("constraints-dev.txt")
    assert users.keys() & developers.keys() == set()
    assert "-c constraints.txt" in (ROOT / "constraints-dev.txt").read_text().splitlines()
    core = project(ROOT)
    for each in core["dependencies"]:
        asked = Requirement(each)
        assert asked.specifier.contains(users[normal(asked.name)]), each
    tools = (ROOT / "requirements-dev.txt").read_text().splitlines()
    for each in tools:
        if each and each[0] not in "#-":
            assert normal(Requirement(each).name) in developers | users, each
    assert {"pytest", "mypy", "ruff"} <= developers.keys()


def test_the_extras_that_the_tests_need_have_versions() -> None:
    tools = (ROOT / "requirements-dev.txt").read_text()
    (own,) = re.findall(r"^-e \.\[(.*)\]$", tools, re.MULTILINE)
    extras, users = project(ROOT)["optional-dependencies"], pins("constraints.txt")
    assert {"ray", "zarr"} <= set(own.split(","))
    for extra in own.split(","):
        for each in map(Requirement, extras[extra]):
            assert each.specifier.contains(users[normal(each.name)]), each
