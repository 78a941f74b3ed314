"""What the generic adapters share: sites found in the module tree, and the readout on them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from vlmlens.abc.adapter import Readout
from vlmlens.hf import TransformersAdapter
from vlmlens.sites import SiteMap, SiteTemplate, read_anatomy
from vlmlens.sites.anatomy import Anatomy
from vlmlens_plugins.hf._tree import find_templates


class FoundSites(TransformersAdapter):
    """An adapter without a list of sites: they are found by looking at the module tree."""

    def found(self) -> Sequence[SiteTemplate]:
        """The canonical sites."""
        return find_templates(self.module)

    def anatomy(self) -> Anatomy:
        """The heads and the branches of blocks."""
        return read_anatomy(self.module)

    @cached_property
    def sites(self) -> SiteMap:
        """See `ModelAdapter.sites`."""
        paths = [name for name, _ in self.module.named_modules()]
        return SiteMap(self.found(), paths, self.renames, self.anatomy())

    def readout(self) -> Readout | None:
        """See `ModelAdapter.readout`; None where the final norm or the head was not found."""
        found = {"llm.block.0", "llm.norm", "llm.head"} <= set(self.sites.canonical)
        return super().readout() if found else None

    def scale_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """The scaling and the soft cap that the text configuration names."""
        config = self.config.get_text_config()
        logits = logits * (getattr(config, "logit_scale", None) or 1)
        logits = logits / (getattr(config, "logits_scaling", None) or 1)
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap
