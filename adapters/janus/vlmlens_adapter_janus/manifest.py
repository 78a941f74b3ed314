"""What the Janus adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="janus",
    target="vlmlens_adapter_janus.adapter:JanusAdapter",
    help="Janus-Pro, as it understands images.",
    aliases=("janus-pro",),
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("deepseek-community/Janus-Pro-1B", parameters=2.1),
        Checkpoint("deepseek-community/Janus-Pro-7B", parameters=7),
    ),
    model_types=("janus",),
    placeholders=("<image_placeholder>", "<begin_of_image><image_placeholder><end_of_image>"),
    checks="vlmlens_adapter_janus.checks:CHECKS",
)
