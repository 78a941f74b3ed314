"""One open run: what pages read of it, kept while the run does not change."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from vlmlens.runs.run import Run

if TYPE_CHECKING:
    from vlmlens.results import Result
    from vlmlens.sample_table import SampleTable


class ShownRun:
    """A run as the app's pages read it.

    Args:
        run: The run.
        number: Its place on the command line, from 0; part of its addresses.
    """

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.number = number

    @property
    def name(self) -> str:
        """What the run is called: its folder's name."""
        return self.run.path.name

    @property
    def address(self) -> str:
        """The address of its overview."""
        return f"/runs/{self.number}"

    @cached_property
    def samples(self) -> SampleTable:
        """Its samples."""
        return self.run.samples

    @cached_property
    def results(self) -> Mapping[str, Result]:
        """Its results by analysis."""
        return self.run.results
