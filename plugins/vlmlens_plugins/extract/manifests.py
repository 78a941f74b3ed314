"""Extractors that ship with vlmlens."""

from vlmlens.manifest import Manifest, PluginKind

ACTIVATIONS = Manifest(
    kind=PluginKind.EXTRACTOR,
    name="activations",
    target="vlmlens_plugins.extract.activations:ActivationExtractor",
    help="Outputs of modules; the selector keeps or pools rows.",
    offers=frozenset({"activations"}),
    checks="vlmlens_plugins.extract.checks:ACTIVATION_CHECKS",
)

ATTENTION = Manifest(
    kind=PluginKind.EXTRACTOR,
    name="attention",
    target="vlmlens_plugins.extract.attention:AttentionExtractor",
    help="Attention weights of query positions, by region or per patch; needs --attention eager.",
    offers=frozenset({"attention"}),
    suggests={"analysis": {"attention": {}}},
    checks="vlmlens_plugins.extract.checks:ATTENTION_CHECKS",
)
