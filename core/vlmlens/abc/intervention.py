"""Intervention: what an edit does to the rows of a site during a pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from vlmlens.abc import options as base
from vlmlens.passes.edits import Edit, EditedRows, EditPlace, Need
from vlmlens.tokens import Selector

if TYPE_CHECKING:
    import torch

    from vlmlens.samples import Sample


class Intervention(ABC):
    """Changes the selected rows of one sample at one site. The part of an edit after the `=`.

    Args:
        options: The intervention's own options: the arguments in parentheses. Arguments without a
            name are given to the options in the order in which they are declared.
    """

    Options: ClassVar[type[base.Options]] = base.Options
    needs: Need = "nothing"
    """What `change` is given besides the rows; see `vlmlens.passes.edits.Need`. `__init__` may set
    it, if it depends on the options."""

    def __init__(self, options: base.Options) -> None:
        self.options = options

    @property
    def width(self) -> int | None:
        """How wide the rows must be that it changes; None: any width will do."""
        return None

    def check_place(self, place: EditPlace) -> None:
        """Raise an error if it must not be used at a place; called before weights are loaded.

        What was learnt from one model, or at one site, says here that it belongs there. It is
        called once for each site of an edit, also when a loaded model is edited.

        Args:
            place: The site, the rows, and what tells the model from others.

        Raises:
            EditError: It belongs to another place.
        """
        del place

    @abstractmethod
    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """The rows that replace `rows`.

        It must depend on nothing but its arguments and the options: not on the batch, and not on
        earlier calls. It must not write into `rows`.

        Args:
            rows: `[k, width]`, the selected rows of one sample, in the type of the model.
            about: Whose rows they are, and where.

        Returns:
            `[k, width]`.
        """

    def donor(self, sample: Sample, others: Sequence[Sample]) -> Sample | None:
        """The sample whose rows `about.donor` holds, if the intervention needs a donor.

        Args:
            sample: The sample that is edited.
            others: The samples to which edits compare: those of the run.

        Returns:
            A sample; None: the one that the user gave for this sample.
        """
        del sample, others
        return None

    def describe(self) -> Mapping[str, Any]:
        """Everything that determines what it does, as JSON-ready data; part of fingerprints.

        An intervention that reads a file adds a digest of its content.
        """
        return {"options": self.options.model_dump(mode="json")}

    def at(self, site: str, selector: str, *, text: str = "", strict: bool = True) -> Edit:
        """An edit with this intervention.

        Args:
            site: A site or a pattern of sites.
            selector: Which rows of each sample.
            text: How the edit is written; by default, with the name of the class.
            strict: Whether it is an error if the edit changes no value of a sample.

        Raises:
            SelectorError: The selector does not parse.
        """
        shown = text or f"{site}/{selector} = {type(self).__name__}"
        return Edit(site, Selector.parse(selector), self, shown, strict)
