"""The contract: what is public stays, what goes away warns once, and the page says what is true."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from vlmlens import deprecation
from vlmlens.abc import hookspecs
from vlmlens.deprecation import VlmlensDeprecationWarning, deprecated
from vlmlens.manifest import API_VERSION

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).with_name("public_names.json")
PAGE = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def stable_modules() -> list[str]:
    """Those that the page lists."""
    table = PAGE.split("## What is stable")[1].split("For users, these are stable")[0]
    return re.findall(r"`(vlmlens[\w.]*)`", table)


def public(module: str) -> dict[str, list[str]]:
    """Public names of a module, each with what it has: parameters, methods and fields."""
    found = import_module(module)
    own = getattr(found, "__all__", None) or [
        name for name, value in vars(found).items() if is_own(value, name, module)
    ]
    return {name: parts(getattr(found, name)) for name in sorted(own)}


def is_own(value: Any, name: str, module: str) -> bool:
    here = getattr(value, "__module__", module) == module
    hidden = name.startswith("_") or name == "annotations" or inspect.ismodule(value)
    return here and not hidden


def parts(value: Any) -> list[str]:
    if inspect.isclass(value):
        names = {name for cls in value.__mro__ if "vlmlens" in cls.__module__ for name in vars(cls)}
        names |= set(getattr(value, "__dataclass_fields__", ()))
        return sorted(name for name in names if not name.startswith("_"))
    if inspect.isfunction(value):
        return list(inspect.signature(value).parameters)
    return []


def lost(before: dict[str, dict[str, list[str]]]) -> list[str]:
    """What is recorded and is not there any more."""
    gone = []
    for module, names in before.items():
        now = public(module)
        for name, had in names.items():
            if name not in now:
                gone.append(f"{module}.{name}")
            else:
                gone += [f"{module}.{name}: {part}" for part in had if part not in now[name]]
    return gone


def test_nothing_public_is_lost() -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert list(recorded) == [*stable_modules(), "vlmlens"]
    assert lost(recorded) == []


def test_a_loss_would_be_seen() -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    recorded["vlmlens.abc.hookspecs"]["vlmlens_batch_done"].append("samples")
    recorded["vlmlens.abc"]["Prism"] = []
    recorded["vlmlens.abc"]["Analysis"].append("prove")
    assert lost(recorded) == [
        "vlmlens.abc.Analysis: prove",
        "vlmlens.abc.Prism",
        "vlmlens.abc.hookspecs.vlmlens_batch_done: samples",
    ]


def test_hooks_are_documented() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    hooks = [name for name in vars(hookspecs) if name.startswith("vlmlens_")]
    assert len(hooks) >= 9
    for name in hooks:
        arguments = ", ".join(inspect.signature(getattr(hookspecs, name)).parameters)
        assert f"`{name}({arguments})`" in text


def test_the_page_says_the_versions_of_the_project() -> None:
    assert f"version **{API_VERSION}**" in PAGE
    classifiers = [c.rpartition(" :: ")[2] for c in PROJECT["classifiers"] if "Python :: 3." in c]
    assert f"| Python | {', '.join(classifiers)} |" in PAGE
    assert PROJECT["requires-python"] == f">={classifiers[0]}"
    ranges = "\n".join(PROJECT["dependencies"])
    needs = dict(re.findall(r"(?m)^([a-z]+)>=([\d.]+)", ranges))
    assert f"| torch | from {needs['torch']} |" in PAGE
    assert f"| transformers | from {needs['transformers']}, before 6 |" in PAGE
    assert f"transformers>={needs['transformers']},<6" in PROJECT["dependencies"]


def old_way() -> None:
    deprecated("`old_way`", since="0.2", until="0.3", instead="use `new_way`.")


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecation, "_told", set())


def test_a_deprecated_use_warns_once_and_names_the_line() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        old_way()
        old_way()
    (warning,) = caught
    assert warning.category is VlmlensDeprecationWarning
    assert str(warning.message) == (
        "`old_way` is deprecated since vlmlens 0.2 and goes away in 0.3: use `new_way`."
    )
    assert warning.filename == __file__
    lines = Path(warning.filename).read_text(encoding="utf-8").splitlines()
    assert lines[warning.lineno - 1] == "        old_way()"


def test_a_deprecated_use_can_be_made_an_error_each_time() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", VlmlensDeprecationWarning)
        for _ in range(2):
            with pytest.raises(VlmlensDeprecationWarning, match=r"goes away in 0\.3"):
                old_way()


def test_users_see_it_by_default() -> None:
    assert issubclass(VlmlensDeprecationWarning, FutureWarning)
    assert not issubclass(VlmlensDeprecationWarning, DeprecationWarning)


def record() -> None:
    """Write the record anew, a line per name: `python -m tests.unit.test_contract`."""
    modules = []
    for module in [*stable_modules(), "vlmlens"]:
        names = [f"  {json.dumps(name)}: {json.dumps(had)}" for name, had in public(module).items()]
        modules.append(f" {json.dumps(module)}: {{\n" + ",\n".join(names) + "\n }")
    RECORDED.write_text("{\n" + ",\n".join(modules) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    record()
