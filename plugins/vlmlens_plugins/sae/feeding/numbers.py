"""Values of a store or a pass as the rows that an SAE is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from vlmlens.abc.storage import Values
from vlmlens.errors import DataError


def rows_of(values: Values, column: str, name: Callable[[int], str]) -> list[torch.Tensor]:
    """The rows of each sample.

    Args:
        values: Values of one column, one entry per sample.
        column: Its name.
        name: Gives the id of a sample by its place among the values.

    Returns:
        float32 `[k, width]` for each sample. They share memory.

    Raises:
        DataError: A row holds NaN or infinity, or a number that float32 cannot hold.
    """
    rows = _float32(values)
    lengths = [1] * len(rows) if values.lengths is None else list(values.lengths)
    parts = list(rows.split(lengths)) if lengths else []
    _check_finite(rows, parts, column, name)
    return parts


def _float32(values: Values) -> torch.Tensor:
    array = values.array if values.array.flags.writeable else values.array.copy()
    if values.dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).float()
    return torch.from_numpy(array).float()


def _check_finite(
    rows: torch.Tensor, parts: Sequence[torch.Tensor], column: str, name: Callable[[int], str]
) -> None:
    """Sums of rows are cheap to look at, and not finite where a row is not."""
    if bool(rows.sum(1).isfinite().all()):
        return
    bad = [~part.isfinite().all(1) for part in parts]
    found = [(i, where) for i, where in enumerate(bad) if bool(where.any())]
    if not found:
        return
    first, where = found[0]
    more = f" So it is with {len(found) - 1} more of these samples." if len(found) > 1 else ""
    raise DataError(
        f"{int(where.sum())} of {len(where)} rows of the sample {name(first)!r} in {column!r} hold "
        f"NaN or infinity, the first is row {int(where.nonzero()[0])}.{more}",
        subject=column,
        hint="float16 overflows at 65504: extract in bfloat16 or float32, or leave these out.",
    )
