"""What the Aya Vision adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="aya_vision",
    target="vlmlens_adapter_aya_vision.adapter:AyaVisionAdapter",
    help="Aya Vision.",
    aliases=("aya", "ayavision"),
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("CohereLabs/aya-vision-8b", parameters=8, gated=True, licence="CC-BY-NC"),
        Checkpoint("CohereLabs/aya-vision-32b", parameters=32, gated=True, licence="CC-BY-NC"),
    ),
    model_types=("aya_vision",),
    placeholders=("<image>",),
    checks="vlmlens_adapter_aya_vision.checks:CHECKS",
)
