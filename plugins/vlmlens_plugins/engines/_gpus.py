"""Which GPUs of a machine each of its workers has. None is shared unless the user says so.

Two models on one GPU need twice the memory, take turns, and are slower than one with batches of
twice the size.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from itertools import takewhile
from pathlib import Path

from vlmlens._locks import WriterLock
from vlmlens.errors import CompositionError, StoreLocked

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that says which GPUs a process sees."""

_NAME = re.compile(r"\d+|(GPU|MIG)-.+")

EACH_HELP = "GPUs of each worker; 0.5: two workers share one, which needs memory for two models"


def check_each(each: float | None) -> float | None:
    """GPUs of each worker, as the user gave them.

    Raises:
        ValueError: Neither a whole number nor below 1.
    """
    if each is not None and each > 1 and each != int(each):
        raise ValueError(f"{each} is no number of GPUs: write a whole one, or one below 1")
    return each


def visible() -> list[str]:
    """The GPUs that this process sees, as `CUDA_VISIBLE_DEVICES` names them.

    CUDA hides what stands behind a name that it does not know, as in `-1`.
    """
    named = os.environ.get(VISIBLE)
    if not named:
        return [str(number) for number in range(number_of())]
    return list(takewhile(_NAME.fullmatch, (name.strip() for name in named.split(","))))


def number_of() -> int:
    """How many GPUs this process sees. Nothing is set up there, so children may use them."""
    import torch

    return torch.cuda.device_count()


def check_enough(count: int, each: float, gpus: int, fewer: Callable[[int], str]) -> None:
    """Raise an error if workers would have to share GPUs that are not to be shared.

    Args:
        count: Number of workers.
        each: GPUs of each.
        gpus: How many there are.
        fewer: The flag for so many workers.

    Raises:
        CompositionError: They would.
    """
    needed = int(count * each) if each >= 1 else -(-count // _on_one(each)) if each else 0
    if needed > gpus:
        fit = gpus // int(each) if each >= 1 else gpus * _on_one(each)
        raise CompositionError(
            f"{count} workers with {each:g} GPUs each need {needed} GPUs, and this machine has "
            f"{gpus}.",
            subject="workers",
            hint=f"{fewer(max(1, fit))}; or --device cpu; or let workers share a GPU that has "
            "memory for all of their models: --gpus-per-worker 0.5.",
        )


def share(gpus: Sequence[str], number: int, each: float) -> list[str]:
    """The GPUs of worker `number`, each of which has `each` of them."""
    if each >= 1:
        return list(gpus[number * int(each) : (number + 1) * int(each)])
    return [gpus[number // _on_one(each)]] if each else []


@contextmanager
def alone(run: str, gpus: Sequence[str]) -> Iterator[None]:
    """Hold GPUs, so that no other process on this machine uses one for the same run.

    Args:
        run: What processes that work on one run have in common.
        gpus: What names each GPU on this machine, whoever sees it.

    Raises:
        CompositionError: Another process holds one.
    """
    with ExitStack() as held:
        for gpu in gpus:
            name = sha256(f"{run} {gpu}".encode()).hexdigest()[:24]
            file = Path(tempfile.gettempdir()) / f"vlmlens-{os.getuid()}-{name}.lock"
            try:
                lock = WriterLock(file, gpu, what="the GPU")
            except StoreLocked as error:
                raise CompositionError(
                    f"Another process on this machine computes the same run on this GPU ({gpu}).",
                    subject=gpu,
                    hint="Give each process a GPU of its own: srun --gpus-per-task=1, or "
                    f"{VISIBLE}=0, =1, ... Or let them share it: --set "
                    "options.engine.gpus_per_worker=0.5.",
                ) from error
            held.callback(lock.release)
        yield


def names_of(device: str) -> list[str]:
    """What names the GPUs that a model on a device of torch uses; empty for the CPU.

    Args:
        device: "auto" and "cuda" mean the first one that this process sees.
    """
    import torch

    if not (device == "auto" or device.startswith("cuda")) or not torch.cuda.is_available():
        return []
    found = torch.device("cuda" if device == "auto" else device)
    number = found.index or 0
    # The first versions of torch that vlmlens takes do not know it.
    uuid = getattr(torch.cuda.get_device_properties(number), "uuid", None)
    return [visible()[number] if uuid is None else str(uuid)]


def _on_one(each: float) -> int:
    """How many workers share a GPU of which each has a part."""
    return int(1 / each + 1e-9)
