"""The base of all conformance kits: checks that run with pytest or without it."""

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
    """A plugin does not keep its contract."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check.

    Args:
        name: The check's name, without `check_`.
        outcome: "passed", "failed" or "skipped".
        detail: What failed, or why it was skipped.
    """

    name: str
    outcome: Outcome
    detail: str = ""


class Checks:
    """Base class of the conformance kits.

    Every method `check_NAME(folder)` gets an empty folder of its own. A subclass named `Test...`
    gets a method `test_NAME` for each of them, which pytest collects. `run_checks` works without
    pytest.

    `expected_failures` names checks that are known to fail, each with the reason. Such a check is
    skipped while it fails. Once it passes, it counts as failed, so that the entry gets removed. A
    name that is no check is an error when the class is defined.
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
        """What a check requires, in one line."""
        said = getattr(cls, f"check_{name}").__doc__ or ""
        return " ".join(said.strip().partition("\n\n")[0].split())

    def run_checks(self) -> list[CheckResult]:
        """Run every check in a folder of its own. A failure does not stop the others."""
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
            SkipTest: It is skipped, or it fails as expected.
            CheckFailed: It fails, or it passes although a failure is expected.
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
        raise CheckFailed(f"it passes, but expected_failures names it ({reason}): remove the entry")


def expect(condition: bool, message: str) -> None:
    """Raise `CheckFailed` if the condition does not hold."""
    if not condition:
        raise CheckFailed(message)


def expect_error(kind: type[Exception], action: Callable[[], object], what: str) -> Exception:
    """Run an action that must raise an error of some kind, and return that error.

    Raises:
        CheckFailed: It raises nothing, or another error.
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
