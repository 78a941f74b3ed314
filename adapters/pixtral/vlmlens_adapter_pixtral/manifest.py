"""What the Pixtral adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="pixtral",
    target="vlmlens_adapter_pixtral.adapter:PixtralAdapter",
    help="Pixtral 12B, in transformers' layout and in Mistral's own.",
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("mistral-community/pixtral-12b", parameters=12.7, licence="Apache 2.0"),
        Checkpoint("unsloth/Pixtral-12B-2409", parameters=12.7, licence="Apache 2.0"),
        Checkpoint("unsloth/Pixtral-12B-Base-2409", parameters=12.7, licence="Apache 2.0"),
        Checkpoint("mistralai/Pixtral-12B-2409", parameters=12.7, licence="Apache 2.0"),
        Checkpoint("mistralai/Pixtral-12B-Base-2409", parameters=12.7, licence="Apache 2.0"),
    ),
    model_types=("llava+pixtral",),
    placeholders=("[IMG]",),
    checks="vlmlens_adapter_pixtral.checks:CHECKS",
)
