"""Extractors that ship with vlmlens."""

from vlmlens.manifest import Manifest, PluginKind

ACTIVATIONS = Manifest(
    kind=PluginKind.EXTRACTOR,
    name="activations",
    target="vlmlens_plugins.extract.activations:ActivationExtractor",
    help="Module outputs, selected and pooled: the columns SITE/SELECTOR.",
)
