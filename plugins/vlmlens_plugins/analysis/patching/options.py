"""Options of patching."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlmlens_plugins.analysis._sweeps.sweeping import ControlledOptions, PairOptions, Texts

Direction = Literal["denoise", "noise", "both"]


class PatchingOptions(PairOptions, ControlledOptions):
    """What is patched, and into which run."""

    direction: Direction = Field(
        "denoise",
        description="denoise: from the clean run into the corrupted one (is it enough?); noise: "
        "from the corrupted run into the clean one (is it needed?); both.",
    )
    mode: Literal["pairs", "trace"] = Field(
        "pairs",
        description="pairs: the two samples of each pair; trace: causal tracing, a sample with "
        "noise on `noise_at` and the same sample without.",
    )
    sites: Texts = Field(
        None,
        description="Sites, as patterns. Default: projector and llm.block.*, with an encoder "
        "for text llm.encoder.block.*, too.",
    )
    rows: Texts = Field(
        None,
        description="Which rows, as selectors; several at once with +: image+last. Default: image, "
        "question, last; and with regions the first one and the rest of the image.",
    )
    window: int = Field(
        1, ge=1, description="How many neighbouring blocks are patched together, for sites inside."
    )
    noise_at: str = Field(
        "projector/image", description="With mode=trace: which rows get noise, as SITE/SELECTOR."
    )
    sigma: float = Field(
        3.0, gt=0, description="The noise, in standard deviations of each dimension at that place."
    )
    noises: int = Field(3, ge=1, description="With mode=trace: draws of the noise per sample.")
    patches: int = Field(
        2, ge=0, description="For so many samples of each task, every image row is patched alone."
    )
    patches_at: Texts = Field(
        None, description="Sites for that. Default: the first of `sites` that has image rows."
    )
