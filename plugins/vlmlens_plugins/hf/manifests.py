"""The card of the generic adapter."""

from __future__ import annotations

from vlmlens.manifest import Manifest, PluginKind

HF = Manifest(
    kind=PluginKind.ADAPTER,
    name="hf",
    target="vlmlens_plugins.hf.adapter:GenericAdapter",
    help="Generic: any AutoModelForImageTextToText checkpoint; finds sites in its module tree.",
    aliases=("generic", "transformers"),
    offers=frozenset({"generate", "readout"}),
    requires=("torch", "transformers"),
    placeholders=(
        "<image>",
        "<image_soft_token>",
        "<start_of_image>",
        "<|image|>",
        "<|image_pad|>",
        "[IMG]",
        "<image_placeholder>",
        "<IMG_CONTEXT>",
        "<ImageHere>",
        "<|image_1|>",
        "<image 1>",
        "<fake_token_around_image>",
        "<|begin_of_image|>",
        "<|vision_start|>",
    ),
    checks="vlmlens_plugins.hf.checks:CHECKS",
)
