"""What came of a check: one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, TypeAlias

Word: TypeAlias = Literal["passed", "failed", "skipped", "timeout"]

WORDS: tuple[Word, ...] = ("passed", "failed", "skipped", "timeout")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check.

    Args:
        number: The check's number.
        name: Its name.
        outcome: "passed", "failed", "skipped" (something that it needs is not there) or "timeout".
        seconds: How long it took, without starting the process and importing packages.
        expected: What must hold for it to pass.
        device: "cuda" or "cpu".
        shape: The name of the model's shape.
        numbers: What was measured, up to the end or until it was killed.
        why: Why it failed, was skipped or was killed; "" if it passed.
    """

    number: int
    name: str
    outcome: Word
    seconds: float
    expected: str
    device: str
    shape: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    @property
    def bad(self) -> bool:
        """Whether the whole run counts as failed."""
        return self.outcome in ("failed", "timeout")

    def line(self) -> str:
        """It as one line of JSON. Numbers that are not finite become text: JSON has none."""
        return json.dumps(_plain(asdict(self)), ensure_ascii=False, allow_nan=False)

    @classmethod
    def read(cls, line: str) -> Self:
        """The inverse of `line`.

        Raises:
            ValueError: The line is none of an outcome.
        """
        data = json.loads(line)
        if not isinstance(data, dict) or data.get("outcome") not in WORDS:
            raise ValueError(f"{line[:80]!r} is no outcome of a check.")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(f"{line[:80]!r} is no outcome of a check.") from error


def _plain(value: Any) -> Any:
    """A value with numbers rounded to five digits."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        rounded = float(f"{value:.5g}")
        return rounded if abs(rounded) < float("inf") else str(value)
    return value
