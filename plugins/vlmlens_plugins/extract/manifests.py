"""Extractors that ship with vlmlens."""

from vlmlens.manifest import Manifest, PluginKind

ACTIVATIONS = Manifest(
    kind=PluginKind.EXTRACTOR,
    name="activations",
    target="vlmlens_plugins.extract.activations:ActivationExtractor",
    help="Module outputs, selected and pooled: the columns SITE/SELECTOR.",
    offers=frozenset({"activations"}),
)

ATTENTION = Manifest(
    kind=PluginKind.EXTRACTOR,
    name="attention",
    target="vlmlens_plugins.extract.attention:AttentionExtractor",
    help="Attention weights of query positions, by region or per patch; needs --attention eager.",
)
