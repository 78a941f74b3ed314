"""Compiling a model's blocks with torch.compile, without losing any activation.

Each block's forward is compiled by itself, so hooks on the block stay outside the compiled code.
Hooks on modules inside a compiled block are not reliable. So while a site inside a block is read
or edited, that block runs uncompiled; `vlmlens.passes.tracing` takes care of this.

CUDA graphs are never used, whatever torch's own settings say: they give their outputs in memory
that the next pass overwrites.
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
_INDUCTOR = "inductor"
_GRAPHS = "triton.cudagraphs"


def check_can_compile(spec: RunSpec) -> None:
    """Raise an error if `--compile` cannot work here, before anything heavy is loaded.

    Raises:
        CompositionError: The run also asks for quantization or a device map.
        MissingDependency: There is no C++ compiler, or no Triton for CUDA.
    """
    for name in ("quantization", "device_map"):
        if getattr(spec, name) is not None:
            raise CompositionError(
                f"--compile cannot be combined with --{name.replace('_', '-')}.",
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
            "torch.compile needs a C++ compiler: CXX is not set to one, and neither g++ nor "
            "clang++ is installed.",
            subject="g++",
            hint="Install g++, or leave --compile out.",
        )


def compile_blocks(vlm: Model, *, backend: str = _INDUCTOR) -> list[str]:
    """Compile the blocks of a model in place. Each one is compiled when it first runs.

    Args:
        vlm: The loaded model. Its canonical sites say which modules are blocks.
        backend: The backend of torch.compile.

    Returns:
        The names of the blocks.

    Raises:
        CompositionError: The model has no blocks.
    """
    blocks = block_paths(vlm)
    if not blocks:
        raise CompositionError(
            "The model has no blocks that could be compiled.", hint="Leave --compile out."
        )
    dynamo = importlib.import_module("torch._dynamo")
    # Blocks share their code. Each may need a few variants of it, for shapes and its own number.
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
    """The names of the compiled blocks that run uncompiled when these modules are read."""
    inside = list(paths)
    return [
        name for name, path in block_paths(vlm).items() if any(_within(p, path) for p in inside)
    ]


@contextmanager
def uncompiled(module: torch.nn.Module, paths: Iterable[str]) -> Iterator[None]:
    """Run the compiled blocks around some modules uncompiled.

    Args:
        module: The model.
        paths: Paths of the modules that get hooks.
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
    options: dict[str, Any] | None = {_GRAPHS: False} if backend == _INDUCTOR else None
    compiled = torch.compile(forward, dynamic=True, backend=backend, options=options)
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


def block_paths(vlm: Model) -> dict[str, str]:
    """The module paths of the blocks, by canonical name."""
    return {
        name: site.path
        for name, site in vlm.sites.canonical.items()
        if site.index is not None and name.endswith(f".block.{site.index}")
    }


def _within(path: str, block: str) -> bool:
    return path.startswith(f"{block}.")


def _ancestors(module: torch.nn.Module, path: str) -> Iterator[torch.nn.Module]:
    """The modules around a module, without the module itself."""
    parts = path.split(".")
    for end in range(1, len(parts)):
        yield module.get_submodule(".".join(parts[:end]))
