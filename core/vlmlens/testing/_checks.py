"""Checks: a conformance kit's checks, run by pytest or without it."""

from __future__ import annotations

import tempfile
import unittest
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from vlmlens.errors import did_you_mean

Outcome = Literal["passed", "skipped", "failed"]


class CheckFailed(AssertionError):
    """A plugin does not do what its contract promises."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check went.

    Args:
        name: The check's name, without `check_`.
        outcome: How it went.
        detail: What failed, or why it was skipped.
    """

    name: str
    outcome: Outcome
    detail: str = ""


class Checks:
    """Base of the conformance kits.

    Every method `check_NAME(folder)` gets an empty folder of its own. A subclass named `Test...`
    gets a method `test_NAME` for each, which pytest collects; `run_checks` needs no pytest.

    `expected_failures` names checks that are known to fail, each with the reason: such a check is
    reported as skipped while it fails, and fails once it passes, so that no excuse outlives its
    cause. A name that is no check is refused when the class is made.
    """

    expected_failures: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in cls.expected_failures:
            if not hasattr(cls, f"check_{name}"):
                raise TypeError(
                    f"{cls.__name__}.expected_failures names {name!r}, which is no check. "
                    f"{did_you_mean(name, cls.checks())}"
                )
        for name in cls.checks():
            if f"test_{name}" not in dir(cls):
                setattr(cls, f"test_{name}", _as_test(name))

    @classmethod
    def checks(cls) -> list[str]:
        """The names of the checks, in a fixed order."""
        return [name.removeprefix("check_") for name in dir(cls) if name.startswith("check_")]

    @classmethod
    def promise(cls, name: str) -> str:
        """What a check asks, in one line."""
        said = getattr(cls, f"check_{name}").__doc__ or ""
        return " ".join(said.strip().partition("\n\n")[0].split())

    def run_checks(self) -> list[CheckResult]:
        """Run every check in a folder of its own; no check stops another."""
        return [self.run_check(name) for name in self.checks()]

    def run_check(self, name: str) -> CheckResult:
        """Run one check in a fresh temporary folder."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                self.do_check(name, Path(folder))
            except unittest.SkipTest as reason:
                return CheckResult(name, "skipped", str(reason))
            except Exception as error:  # noqa: BLE001  a check reports whatever a plugin raises
                return CheckResult(name, "failed", f"{type(error).__name__}: {error}")
        return CheckResult(name, "passed")

    def do_check(self, name: str, folder: Path) -> None:
        """Run one check in a given folder.

        Raises:
            SkipTest: It is skipped, or fails as expected.
            CheckFailed: It fails, or passes although it is expected to fail.
        """
        reason = self.expected_failures.get(name)
        if reason is None:
            getattr(self, f"check_{name}")(folder)
            return
        try:
            getattr(self, f"check_{name}")(folder)
        except unittest.SkipTest:
            raise
        except Exception as error:
            raise skip(f"expected to fail: {reason} ({error})") from error
        raise CheckFailed(f"{name} is declared to fail ({reason}), and passes")


def expect(condition: bool, message: str) -> None:
    """Raise `CheckFailed` where a promise does not hold."""
    if not condition:
        raise CheckFailed(message)


def expect_error(kind: type[Exception], action: Callable[[], object], what: str) -> Exception:
    """Run an action that has to raise an error of some kind, and give the error back.

    Raises:
        CheckFailed: It raises nothing, or something else.
    """
    try:
        action()
    except kind as error:
        return error
    except Exception as error:
        raise CheckFailed(
            f"{what} must raise {kind.__name__}, not {type(error).__name__}: {error}"
        ) from error
    raise CheckFailed(f"{what} must raise {kind.__name__}.")


def skip(reason: str) -> unittest.SkipTest:
    """The exception that skips a check, understood by pytest and `run_checks`."""
    return unittest.SkipTest(reason)


def _as_test(name: str) -> Callable[[Any, Path], None]:
    def test(self: Any, tmp_path: Path) -> None:
        self.do_check(name, tmp_path)

    test.__name__ = f"test_{name}"
    return test
