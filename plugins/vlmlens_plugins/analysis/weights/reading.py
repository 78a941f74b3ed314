"""Reading the heads of several attention modules, with the arguments of one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from vlmlens.abc import ModelAdapter
from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens_plugins.analysis.weights.calling import Call, Unreadable, calls
from vlmlens_plugins.analysis.weights.factors import Factors
from vlmlens_plugins.analysis.weights.matrices import read_matrices

_ROWS = 256


class Reading:
    """The modules of one sample's pass; each is read when it is asked for, and not kept.

    Args:
        vlm: The model.
        sample: The sample.
        names: The modules.
        fold: See `read_matrices`.
    """

    def __init__(
        self, vlm: ModelAdapter, sample: Sample, names: Sequence[str], *, fold: bool
    ) -> None:
        self._vlm, self._sample, self._fold = vlm, sample, fold
        self._sites = {name: vlm.sites.resolve(name)[0] for name in names}

    def factors(self, name: str) -> Factors:
        """The heads of a module.

        Where it treats the rows of an image in another way, it is read as for text alone.

        Raises:
            Unreadable: They cannot be read.
        """
        try:
            return self._read(name, self._called)
        except Unreadable as why:
            try:
                return self._read(name, self._called_with_text)
            except Unreadable:
                raise why from None

    def _read(self, name: str, given: Mapping[str, Call]) -> Factors:
        if name not in given:
            raise Unreadable("it does not run in a pass of this sample")
        site = self._sites[name]
        return Factors(read_matrices(self._vlm, site, given[name], fold=self._fold))

    @cached_property
    def _called(self) -> Mapping[str, Call]:
        """How a pass of the sample calls the modules."""
        return self._calls(self._sample)

    @cached_property
    def _called_with_text(self) -> Mapping[str, Call]:
        """How a pass of its text alone calls them; empty if it has no images, or needs them."""
        if not self._sample.images:
            return {}
        try:
            return self._calls(replace(self._sample, images=(), attributes={}))
        except DataError:
            return {}

    def _calls(self, sample: Sample) -> Mapping[str, Call]:
        batch = self._vlm.encode([sample])
        if not sample.images and Axis.LLM in batch.layouts:  # more rows, so fewer calls
            times = max(1, _ROWS // batch.layouts[Axis.LLM].total)
            batch = self._vlm.encode([sample] * times)
        return calls(self._vlm, batch, self._sites.values())
