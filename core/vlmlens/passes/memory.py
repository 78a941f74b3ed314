"""What to do when a batch does not fit in memory: recognise it, free what is held, say it."""

from __future__ import annotations

import gc
import traceback

import torch

_WORTH_TELLING = 2**28
_TOLD = 3
_SAID = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED")
"""Torch on the CPU; MPS, and CUDA for pinned memory; cuBLAS and cuDNN for their own memory."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch says that memory is full, on the device or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _SAID)


def let_go(error: BaseException) -> None:
    """Drop what the passes that led to an error still hold: its traceback keeps their variables.

    Where it came from stays as a note, in words. Frames that still run keep their variables: the
    caller drops its own. What a caller is handling already stays as it is.
    """
    seen: BaseException | None = error
    known: set[int] = set()
    while seen is not None and id(seen) not in known:  # causes and contexts can form a ring
        if seen is not error and _caught_by_a_caller(seen):
            return
        known.add(id(seen))
        if seen.__traceback__ is not None:
            seen.add_note("".join(traceback.format_tb(seen.__traceback__)[-_TOLD:]))
            traceback.clear_frames(seen.__traceback__)
            seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__


def _caught_by_a_caller(error: BaseException) -> bool:
    """Whether the function that caught an error still runs."""
    if error.__traceback__ is None:
        return False
    try:
        error.__traceback__.tb_frame.clear()
    except RuntimeError:
        return True
    return False


def free_memory() -> None:
    """Give back what a failed pass held. Call it after the `except` block, which holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def halved(samples: int, times: int = 1) -> str:
    """The warning that batches are halved from now on.

    Args:
        samples: How many were in the batch that did not fit.
        times: How often batches were halved. From the second time on, it also says how much memory
            of GPUs lies in pieces; call it after `free_memory`.
    """
    said = f"{samples} samples at once did not fit in memory: batches are halved."
    return f"{said} {in_pieces(*_reserved())}".strip() if times > 1 else said


def in_pieces(reserved: int, allocated: int) -> str:
    """What to say of memory that torch has reserved, and that holds nothing; empty if it is little.

    Args:
        reserved: Bytes.
        allocated: Bytes that tensors use.
    """
    unused = reserved - allocated
    if unused < _WORTH_TELLING:
        return ""
    return (
        f"Of {reserved / 2**30:.1f} GiB that are reserved on GPUs, {unused / 2**30:.1f} GiB lie in "
        "pieces between tensors; PYTORCH_ALLOC_CONF=expandable_segments:True makes them usable."
    )


def _reserved() -> tuple[int, int]:
    """Bytes that torch has reserved on all GPUs, and those that tensors use."""
    if not torch.cuda.is_initialized():
        return 0, 0
    gpus = range(torch.cuda.device_count())
    reserved = sum(torch.cuda.memory_reserved(number) for number in gpus)
    return reserved, sum(torch.cuda.memory_allocated(number) for number in gpus)
