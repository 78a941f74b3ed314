"""The public names of the contract, read from the source: nothing of vlmlens is imported."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core"
RECORDED = ROOT / "tests" / "unit" / "public_names.json"
PROVISIONAL = ("vlmlens.hf", "vlmlens.statistics", "vlmlens.cka")
"""Documented, too, and marked as what they are: see docs/contract.md."""
NOT_MEANT = {"TYPE_CHECKING"}
"""The record has it, since it names what modules hold."""


def modules() -> tuple[str, ...]:
    """`vlmlens`, the modules of the plugin API in the order of the contract, and others."""
    return ("vlmlens", *(name for name in _recorded() if name != "vlmlens"), *PROVISIONAL)


def names(module: str) -> list[str]:
    """What a module offers: its `__all__`, or what it defines; and what the contract recorded."""
    tree = _tree(module)
    own = _listed(tree) or [name for name in _defined(tree) if not name.startswith("_")]
    return sorted({*own, *_recorded().get(module, ())} - NOT_MEANT, key=str.lower)


def home(module: str, name: str) -> str:
    """The module from which `module` has a name: often itself."""
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return node.module or module
    return module


def docstring(module: str) -> str:
    """What a module says of itself."""
    return ast.get_docstring(_tree(module)) or ""


@cache
def _recorded() -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


@cache
def _tree(module: str) -> ast.Module:
    path = CORE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def _listed(tree: ast.Module) -> list[str]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
    return []
