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
    checks="vlmlens_plugins.hf.checks:CHECKS",
)
