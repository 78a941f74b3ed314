"""Whether a model still computes with numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vlmlens.errors import EditError


def check_finite(probabilities: Iterable[float]) -> None:
    """Check that the probabilities of an answer are numbers.

    Args:
        probabilities: Of an answer; log-probabilities may be minus infinity.

    Raises:
        EditError: One is not a number, or infinite: an edit made values too large to compute with.
    """
    if any(math.isnan(each) or each == math.inf for each in probabilities):
        raise EditError(
            "The model's answer has no probabilities: what it computed is not a number.",
            subject="answer",
            hint="If the model is edited, choose a smaller strength; if not, another --dtype.",
        )
