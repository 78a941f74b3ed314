"""What to do when a batch does not fit in memory: recognise it, free what is held, say it."""

from __future__ import annotations

import gc

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch says that memory is full, on the device or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def free_memory() -> None:
    """Give back what a failed pass held. Call it after the `except` block, which holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def halved(samples: int) -> str:
    """The warning that batches are halved from now on.

    Args:
        samples: How many were in the batch that did not fit.
    """
    return f"{samples} samples at once did not fit in memory: batches are halved."
