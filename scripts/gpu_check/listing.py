"""The checks: number, name, what is expected, time limit, and what each needs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

_CHECKS = "scripts.gpu_check.checks"

REQUIRED = (
    "torch", "transformers", "tokenizers", "numpy", "scipy", "safetensors", "PIL", "pydantic",
    "pluggy", "yaml", "packaging", "regex",
)  # fmt: skip
"""Packages, by the names of their modules, without which nothing can be checked."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Args:
        number: Its number.
        name: Its name.
        target: `module:function`; the function is given a `Trial`.
        limit: Seconds after which it is killed.
        expected: What must hold for it to pass.
        alone: Whether it needs a process of its own on a GPU: it measures a process's memory, or
            changes settings of torch that cannot be taken back.
        cuda: Why it makes no sense on a CPU; "" if it does.
        needs: Packages without which it is skipped.
    """

    number: int
    name: str
    target: str
    limit: float
    expected: str
    alone: bool = False
    cuda: str = ""
    needs: tuple[str, ...] = ()

    def obstacle(self, device: str) -> str:
        """Why it cannot be run here; "" if it can."""
        if device == "cpu" and self.cuda:
            return f"not on a CPU: {self.cuda}"
        missing = absent(self.needs)
        return f"not installed: {', '.join(missing)}" if missing else ""


def absent(modules: tuple[str, ...] = REQUIRED) -> list[str]:
    """Which of these modules are not installed."""
    return [name for name in modules if find_spec(name) is None]


def _check(
    number: int,
    name: str,
    limit: float,
    expected: str,
    *,
    alone: bool = False,
    cuda: str = "",
    needs: tuple[str, ...] = (),
    target: str = "",
) -> Check:
    target = f"{_CHECKS}.{target or name.replace('-', '_') + ':check'}"
    return Check(number, name, target, limit, expected, alone, cuda, needs)


CHECKS: tuple[Check, ...] = (
    _check(0, "machine", 30, "matrix products are right; versions, settings and rates are told"),
    _check(
        1, "loading", 120,
        "weights as in the file; on CUDA in less than 60 s, with a peak below 1.2 x the weights",
        alone=True,
    ),
    _check(
        2, "float32", 120,
        "float32 without TF32 within 1e-4 of the CPU's (on a CPU: of float64), at every site",
    ),
    _check(
        3, "bfloat16", 40,
        "finite at every site; rows of the last block within 3e-2 of float32 on average",
    ),
    _check(
        4, "batches", 100,
        "batches of 1, 8, 32 and each sdpa backend: float32 within 1e-4; bfloat16 within 2 x "
        "its own distance from float32; finite",
    ),
    _check(5, "sharing", 60, "shared beginnings and images: as for batches"),
    _check(
        6, "throughput", 150,
        "rows are those of single passes; at 7b on CUDA pooled columns at 0.9 of the bare forward "
        "or more, and 30 samples/s or more",
        needs=("lmdb",),
    ),
    _check(
        7, "copies", 20,
        "all ways of copying give equal bits, vlmlens' own also of rows that are computed last; "
        "GB/s of each are told",
        cuda="nothing is copied there",
    ),
    _check(
        8, "out-of-memory", 60, "the rows of batches that fit; on CUDA the memory is given back",
        alone=True,
    ),
    _check(
        9, "compiling", 120,
        "blocks that are compiled give the rows of those that are not, and go on giving them; each "
        "hook is called",
        alone=True, cuda="compiling takes longer there than everything else",
    ),
    _check(
        10, "device-map", 60, "a model on GPU and CPU gives the rows of one on the GPU",
        alone=True, cuda="there is one device only", needs=("accelerate",),
    ),
    _check(
        11, "killing", 120, "after kill -9 and --resume, the bits of an unbroken run",
        needs=("lmdb",),
    ),
    _check(
        12, "workers", 90,
        "two workers on one GPU are refused; a worker beside a process that uses the GPU is right",
        cuda="the tests of engines start workers there", needs=("lmdb",),
    ),
    _check(
        13, "sweep", 60,
        "patching by replay gives the logits of whole passes; at 7b on CUDA in at most 0.6 of "
        "their time",
    ),
    _check(
        14, "sae", 90,
        "the losses of a dense loop; at 7b on CUDA in no more time and memory",
    ),
    _check(
        15, "quantization", 120,
        "4 and 8 bit: finite; how far rows are from bfloat16, and from themselves in other "
        "batches, is told",
        alone=True, cuda="bitsandbytes is checked on GPUs", needs=("bitsandbytes", "accelerate"),
    ),
    _check(
        16, "ray", 120, "a worker of Ray gives the bits of one process",
        cuda="the tests of engines start workers there", needs=("ray", "lmdb"),
        target="workers:ray",
    ),
)  # fmt: skip


def chosen(numbers: str | None) -> tuple[Check, ...]:
    """The checks with these numbers or names.

    Args:
        numbers: Separated by commas, as "2,5" or "2,sharing"; None: all.

    Raises:
        ValueError: There is no such check.
    """
    if numbers is None:
        return CHECKS
    found = []
    for word in filter(None, (word.strip() for word in numbers.split(","))):
        named = [each for each in CHECKS if word in (str(each.number), each.name)]
        if not named:
            known = ", ".join(f"{each.number} {each.name}" for each in CHECKS)
            raise ValueError(f"There is no check {word!r}. There are: {known}.")
        found += named
    if not found:
        raise ValueError(f"{numbers!r} names no check.")
    return tuple(each for each in CHECKS if each in found)
