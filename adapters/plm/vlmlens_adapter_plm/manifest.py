"""What the PerceptionLM adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

_LICENCE = "FAIR Noncommercial Research License"

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="plm",
    target="vlmlens_adapter_plm.adapter:PlmAdapter",
    help="PerceptionLM. Its checkpoints need timm and torchvision.",
    aliases=("perception_lm",),
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("facebook/Perception-LM-1B", parameters=1.6, gated=True, licence=_LICENCE),
        Checkpoint("facebook/Perception-LM-3B", parameters=3.7, gated=True, licence=_LICENCE),
        Checkpoint("facebook/Perception-LM-8B", parameters=9.6, gated=True, licence=_LICENCE),
    ),
    model_types=("perception_lm",),
    placeholders=("<|image|>",),
    checks="vlmlens_adapter_plm.checks:CHECKS",
)
