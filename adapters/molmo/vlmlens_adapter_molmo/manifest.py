"""What the Molmo2 adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="molmo2",
    target="vlmlens_adapter_molmo.adapter:Molmo2Adapter",
    help="Molmo2, with a Qwen3 or an Olmo language model.",
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("allenai/Molmo2-4B", parameters=4),
        Checkpoint("allenai/Molmo2-8B", parameters=9),
        Checkpoint("allenai/Molmo2-O-7B", parameters=7),
    ),
    model_types=("molmo2",),
    placeholders=("<|image|>",),
    checks="vlmlens_adapter_molmo.checks:CHECKS",
)
