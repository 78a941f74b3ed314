"""The conformance kit over the built-in engines, and over one with deliberate mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmlens.abc.engine import Work, Worker
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.testing import CheckFailed, EngineTests
from vlmlens.testing.engine import OneByOne
from vlmlens_plugins.engines import checks


@pytest.mark.slow
@pytest.mark.usefixtures("warm_workers")
class TestProcesses(checks.ProcessesChecks):
    pass


class TestEnvironment(checks.EnvironmentChecks):
    pass


class Forgets(OneByOne):
    """It leaves the last lease out."""

    def __init__(self, options: object) -> None:
        super().__init__(lambda names: names[:-1])


class Swallows(OneByOne):
    """It says nothing of an error."""

    def __init__(self, options: object) -> None:
        super().__init__()

    def run(self, work: Work) -> None:
        try:
            super().run(work)
        except Exception:  # the mistake
            return


class Repeats(OneByOne):
    """It runs all leases again, and writes over their receipts."""

    def __init__(self, options: object) -> None:
        super().__init__()

    def run(self, work: Work) -> None:
        for name in work.names():
            done = work._leases.folder / f"{name}.done"  # type: ignore[attr-defined]
            done.unlink(missing_ok=True)
        super().run(work)

    def run_one(self, work: Work, name: str, worker: Worker) -> None:
        super().run_one(work, name, worker)


@pytest.mark.parametrize(
    ("engine", "check"),
    [
        (Forgets, "gives_what_one_process_gives"),
        (Swallows, "an_error_of_a_worker_is_told"),
        (Repeats, "goes_on_with_what_is_open"),
    ],
)
def test_the_kit_sees_mistakes(tmp_path: Path, engine: type[OneByOne], check: str) -> None:
    class Wrong(EngineTests):
        manifest = Manifest(PluginKind.ENGINE, "wrong", f"{__name__}:{engine.__name__}", "Wrong.")

    with pytest.raises(CheckFailed):
        Wrong().do_check(check, tmp_path)
