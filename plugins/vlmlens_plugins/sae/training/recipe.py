"""What is trained."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from vlmlens.errors import SpecError

Kind: TypeAlias = Literal["batchtopk", "topk", "matryoshka", "jumprelu", "standard", "gated"]

_WHOLE = 2**14
_PREFIXES = (16, 8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One SAE to be trained.

    Args:
        features: How many features it gets.
        kind: What keeps codes sparse.
        k: Features per row: what topk (a whole number), batchtopk and matryoshka keep, and what
            the others aim at.
        seed: Of the start.
        coefficient: Of standard, gated and jumprelu: the weight of sparsity. None: k features
            fire on average, as exactly as the kind allows.
        lr: Learning rate of Adam; None: `2e-4 / sqrt(features / 2**14)`, as in
            dictionary_learning and in Gao et al. 2024.
        centre: Take the mean row away.
        normalise: Bring rows to a root mean square norm of sqrt(width).
        dtype: Of the product of rows and encoder, "float32" or "bfloat16"; all else is float32.
        prefixes: Of matryoshka: how many first features must do without the others, rising.
            None: 1/16, 1/8, 1/4, 1/2 and all of them.

    Raises:
        SpecError: A value that no SAE can have.
    """

    features: int
    kind: Kind = "batchtopk"
    k: float = 32.0
    seed: int = 0
    coefficient: float | None = None
    lr: float | None = None
    centre: bool = True
    normalise: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    prefixes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        known = Kind.__args__  # type: ignore[attr-defined]
        _expect(self.kind in known, "kind", self.kind, "one of " + ", ".join(known))
        _expect(self.features >= 1, "features", self.features, "1 or more")
        _expect(0 < self.k <= self.features, "k", self.k, f"above 0, at most {self.features}")
        if self.kind == "topk":
            _expect(self.k == int(self.k), "k", self.k, "a whole number, for topk")
        for name in ("coefficient", "lr"):
            value = getattr(self, name)
            _expect(value is None or 0 < value < math.inf, name, value, "a number above 0")
        _expect(self.dtype in ("float32", "bfloat16"), "dtype", self.dtype, "float32 or bfloat16")
        edges = (0, *(self.prefixes or (self.features,)))
        rising = all(one < other for one, other in itertools.pairwise(edges))
        wanted = f"rising numbers that end with {self.features}"
        _expect(rising and edges[-1] == self.features, "prefixes", self.prefixes, wanted)

    @property
    def rate(self) -> float:
        """The learning rate."""
        return 2e-4 / math.sqrt(self.features / _WHOLE) if self.lr is None else self.lr

    @property
    def levels(self) -> tuple[int, ...]:
        """Of matryoshka: how many features each level has.

        >>> Recipe(64, "matryoshka", 4).levels
        (4, 8, 16, 32, 64)
        """
        found = self.prefixes or {max(1, self.features // part) for part in _PREFIXES}
        return tuple(sorted(found))

    def record(self) -> dict[str, Any]:
        """It as JSON-ready data."""
        found = asdict(self)
        return found | {"prefixes": list(self.levels) if self.kind == "matryoshka" else None}


def _expect(true: bool, name: str, value: object, wanted: str) -> None:
    if not true:
        raise SpecError(
            f"An SAE cannot be trained with {name} = {value}.",
            subject=name,
            hint=f"Expected: {wanted}.",
        )
