"""The conformance kit over the extractors that ship with vlmlens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import ExtractorTests
from vlmlens_plugins.extract.manifests import ACTIVATIONS, ATTENTION


class ActivationChecks(ExtractorTests):
    """What it takes by itself."""

    manifest: ClassVar[Manifest] = ACTIVATIONS


class RaggedActivationChecks(ExtractorTests):
    """Whole sequences, parts of them, sub-modules and logits."""

    manifest: ClassVar[Manifest] = ACTIVATIONS
    sites: ClassVar[Sequence[str]] = (
        "llm.block.*/all",
        "vision.block.0/image",
        "llm.block.1.mlp/text[-3:].mean",
        "llm.head/last",
    )


class AttentionChecks(ExtractorTests):
    """Weights summed over regions."""

    manifest: ClassVar[Manifest] = ATTENTION
    attention: ClassVar[str | None] = "eager"


class AttentionPatchChecks(ExtractorTests):
    """The weights of two heads on each patch, from several positions."""

    manifest: ClassVar[Manifest] = ATTENTION
    attention: ClassVar[str | None] = "eager"
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({"heads": [2, 0], "regions": "patches"})
    sites: ClassVar[Sequence[str]] = ("llm.block.*.attn/text", "llm.block.0.attn/last")


ACTIVATION_CHECKS = (ActivationChecks, RaggedActivationChecks)
ATTENTION_CHECKS = (AttentionChecks, AttentionPatchChecks)
