"""The lifecycle plugin of docs/plugins.md has hooks that exist, and does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pluggy
import pytest

from vlmlens.abc import hookspecs

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
HOOKS = {name for name in vars(hookspecs) if name.startswith("vlmlens_")}


@pytest.fixture
def stopwatch() -> Any:
    (code,) = re.findall(r"```python\n(# stopwatch\.py\n.*?)```", PAGE, re.DOTALL)
    module = ModuleType("stopwatch")
    exec(code, vars(module))
    return module


def test_its_hooks_are_registered_and_keep_what_they_say(stopwatch: Any, tmp_path: Path) -> None:
    manager = pluggy.PluginManager("vlmlens")
    manager.add_hookspecs(hookspecs)
    manager.register(stopwatch)
    manager.check_pending()
    run = SimpleNamespace(path=tmp_path, plugins_path=tmp_path / "plugins")
    assert manager.hook.vlmlens_facts(run=run) == [{}]
    manager.hook.vlmlens_run_started(run=run)
    manager.hook.vlmlens_run_finished(run=run, summary={})
    ((facts,),) = [found.values() for found in manager.hook.vlmlens_facts(run=run)]
    assert 0 <= facts["minutes"] < 1
    assert list(manager.hook.vlmlens_commands()[0]) == ["clock"]


def test_the_table_of_hooks_is_complete() -> None:
    assert set(re.findall(r"^\| `(vlmlens_\w+)\(", PAGE, re.MULTILINE)) == HOOKS
