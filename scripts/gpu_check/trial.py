"""What a check is given: the setting, and how it says what it found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from scripts.gpu_check.setting import Setting


class CheckFailed(Exception):
    """What was expected does not hold."""


class CheckSkipped(Exception):
    """Something is not there that the check needs."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One check while it runs.

    Args:
        setting: The device, the model, the samples.
        say: Gets numbers by name as they are measured, so that a killed check still tells them.
    """

    setting: Setting
    say: Callable[[dict[str, Any]], None]

    def note(self, **numbers: Any) -> None:
        """Tell what was measured."""
        self.say(numbers)

    def expect(self, true: bool, why: str) -> None:
        """Fail if something does not hold.

        Raises:
            CheckFailed: It does not.
        """
        if not true:
            raise CheckFailed(why)

    def at_most(self, name: str, value: float, limit: float) -> None:
        """Tell a number, and fail if it is above a limit or not finite.

        Raises:
            CheckFailed: It is.
        """
        self.note(**{name: value})
        self.expect(
            math.isfinite(value) and value <= limit, f"{name} is {value:.3g}, at most {limit:.3g}"
        )

    def at_least(self, name: str, value: float, limit: float) -> None:
        """Tell a number, and fail if it is below a limit or not finite.

        Raises:
            CheckFailed: It is.
        """
        self.note(**{name: value})
        self.expect(
            math.isfinite(value) and value >= limit, f"{name} is {value:.3g}, at least {limit:.3g}"
        )

    def skip(self, why: str) -> NoReturn:
        """End the check: something is not there.

        Raises:
            CheckSkipped: Always.
        """
        raise CheckSkipped(why)
