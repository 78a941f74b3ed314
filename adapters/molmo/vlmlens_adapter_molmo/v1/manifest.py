"""What the Molmo adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="molmo",
    target="vlmlens_adapter_molmo.v1.adapter:MolmoAdapter",
    help="The first Molmo (7B-D, 7B-O, 72B, MolmoE), without remote code.",
    offers=frozenset({"generate", "readout", "patch-grid"}),
    checkpoints=(
        Checkpoint("allenai/MolmoE-1B-0924", parameters=7),
        Checkpoint("allenai/Molmo-7B-D-0924", parameters=8),
        Checkpoint("allenai/Molmo-7B-O-0924", parameters=8),
        Checkpoint("allenai/Molmo-72B-0924", parameters=73),
    ),
    model_types=("molmo",),
    checks="vlmlens_adapter_molmo.v1.checks:CHECKS",
)
