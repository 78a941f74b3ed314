"""Compiling a model's blocks with torch.compile, so that every activation can still be had.

Each block's forward is compiled by itself: hooks on the block stay outside of the compiled code. A
site inside a block lies in it, where hooks cannot be relied upon: for as long as such a site is
wanted, its block runs as it was. `vlmlens.passes.tracing` sees to that, whoever asks.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from vlmlens.errors import CompositionError, MissingDependency

if TYPE_CHECKING:
    from vlmlens.passes.model import Model
    from vlmlens.spec.model import RunSpec

_PLAIN = "_vlmlens_plain_forward"
_COMPILED = "_vlmlens_blocks_compiled"
_VARIANTS = 8


def check_can_compile(spec: RunSpec) -> None:
    """Raise where compiling is asked for and cannot work, before anything heavy.

    Raises:
        CompositionError: Together with quantization, or with a device map.
        MissingDependency: There is no C++ compiler, or no Triton for CUDA.
    """
    for name in ("quantization", "device_map"):
        if getattr(spec, name) is not None:
            raise CompositionError(
                f"--compile does not go together with --{name.replace('_', '-')}.",
                subject=name,
                hint="Leave one of them out.",
            )
    cuda = spec.device.startswith("cuda") or (spec.device == "auto" and torch.cuda.is_available())
    if cuda and importlib.util.find_spec("triton") is None:
        raise MissingDependency(
            "torch.compile needs Triton on CUDA.", subject="triton", hint="pip install triton"
        )
    if not cuda and not any(map(shutil.which, (os.environ.get("CXX", ""), "g++", "clang++"))):
        raise MissingDependency(
            "torch.compile needs a C++ compiler, and neither CXX nor g++ nor clang++ is one.",
            subject="g++",
            hint="Install g++, or leave --compile out.",
        )


def compile_blocks(vlm: Model, *, backend: str = "inductor") -> list[str]:
    """Compile the blocks of a model, in place; each is compiled when it first runs.

    Args:
        vlm: Loaded. Its canonical sites say which modules are blocks.
        backend: Of torch.compile.

    Returns:
        The names of the blocks.

    Raises:
        CompositionError: It has no block.
    """
    blocks = _blocks(vlm)
    if not blocks:
        raise CompositionError(
            "The model has no blocks that could be compiled.", hint="Leave --compile out."
        )
    dynamo = importlib.import_module("torch._dynamo")
    # Blocks share their code, and each may need a few variants of it: of shapes, of its number.
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, _VARIANTS * len(blocks))
    for name, path in blocks.items():
        module = vlm.module.get_submodule(path)
        if _PLAIN not in module.__dict__:
            module.__dict__[_PLAIN] = module.forward
            module.__dict__["forward"] = _compiled(module.forward, name, backend)
    vlm.module.__dict__[_COMPILED] = True
    return list(blocks)


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether a model's blocks were compiled."""
    return _COMPILED in module.__dict__


def blocks_around(vlm: Model, paths: Iterable[str]) -> list[str]:
    """The names of the compiled blocks that run as they were where these modules are read."""
    inside = list(paths)
    return [name for name, path in _blocks(vlm).items() if any(_within(p, path) for p in inside)]


@contextmanager
def uncompiled(module: torch.nn.Module, paths: Iterable[str]) -> Iterator[None]:
    """Let the compiled blocks around some modules run as they were.

    Args:
        module: The model.
        paths: Of the modules that hooks are put on.
    """
    changed: dict[torch.nn.Module, Any] = {}
    if is_compiled(module):
        for path in paths:
            for around in _ancestors(module, path):
                if _PLAIN in around.__dict__ and around not in changed:
                    changed[around] = around.__dict__["forward"]
                    around.__dict__["forward"] = around.__dict__[_PLAIN]
    try:
        yield
    finally:
        for around, forward in changed.items():
            around.__dict__["forward"] = forward


def _compiled(forward: Callable[..., Any], name: str, backend: str) -> Callable[..., Any]:
    compiled = torch.compile(forward, dynamic=True, backend=backend)
    failures = importlib.import_module("torch._dynamo.exc").TorchDynamoException

    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return compiled(*args, **kwargs)
        except failures as error:
            raise CompositionError(
                f"{name} cannot be compiled: {str(error).strip().splitlines()[0]}",
                subject=name,
                hint="Leave --compile out.",
            ) from error

    return run


def _blocks(vlm: Model) -> dict[str, str]:
    """Module paths of the blocks by canonical name."""
    return {
        name: site.path
        for name, site in vlm.sites.canonical.items()
        if site.index is not None and name.endswith(f".block.{site.index}")
    }


def _within(path: str, block: str) -> bool:
    return path.startswith(f"{block}.")


def _ancestors(module: torch.nn.Module, path: str) -> Iterator[torch.nn.Module]:
    """The modules around a module, without itself."""
    parts = path.split(".")
    for end in range(1, len(parts)):
        yield module.get_submodule(".".join(parts[:end]))
