"""What a look found, for Python and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vlmlens._display import AsHtml, brief
from vlmlens.results import Finding, Result
from vlmlens.runs.run import Run


@dataclass(frozen=True)
class Look(AsHtml):
    """One look: a run of the analysis `look`, of one question or a few.

    Args:
        run: The run, with the results, the samples and the page.
    """

    run: Run

    @cached_property
    def result(self) -> Result:
        """Findings, tables and figures."""
        return self.run.results["look"]

    @property
    def findings(self) -> Sequence[Finding]:
        """Per question the answer, and then the rest by how much it changes the answer."""
        return self.result.findings

    @property
    def answers(self) -> dict[str, str]:
        """The answer to each question, by the id of its sample."""
        return {
            finding.subject: str(finding.values["answer"])
            for finding in self.findings
            if "answer" in finding.values
        }

    @property
    def answer(self) -> str:
        """The answer to the first question."""
        return next(iter(self.answers.values()))

    @property
    def page(self) -> Path:
        """The page that shows everything, one HTML file."""
        return self.run.report_path

    def __repr__(self) -> str:
        return brief(self, self.answer, str(self.page))
