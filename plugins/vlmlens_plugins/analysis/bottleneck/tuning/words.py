"""Numbers of tuning, in words."""

from __future__ import annotations

import numpy as np

from vlmlens_plugins.analysis._estimates import Estimate

KINDS = {"prompt": "virtual tokens", "lora": "LoRA", "weights": "all weights"}
AS_IS = "as it is"


def percent(value: float) -> str:
    """A share without decimals."""
    return f"{round(100 * value)} %" if np.isfinite(value) else "an unknown share"


def with_ends(found: Estimate) -> str:
    """A share with its interval: "97 % [93, 99]"."""
    if not np.isfinite(found.value) or not np.isfinite(found.low):
        return percent(found.value)
    return f"{percent(found.value)} [{round(100 * found.low)}, {round(100 * found.high)}]"
