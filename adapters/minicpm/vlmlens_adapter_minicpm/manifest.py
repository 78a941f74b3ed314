"""What the MiniCPM-V adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="minicpm",
    target="vlmlens_adapter_minicpm.adapter:MiniCpmAdapter",
    help="MiniCPM-V 2, 2.6, 4.6 and 4.7, MiniCPM-o 2.6.",
    aliases=("minicpm_v", "minicpm_o", "minicpmv"),
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("openbmb/MiniCPM-V-2", parameters=3.4),
        Checkpoint("openbmb/MiniCPM-V-2_6", parameters=8.1),
        Checkpoint("openbmb/MiniCPM-o-2_6", parameters=8.7),
        Checkpoint("openbmb/MiniCPM-V-4.6", parameters=1.3),
        Checkpoint("openbmb/MiniCPM-V-4.7-1B"),
        Checkpoint("openbmb/MiniCPM-V-4.7-35B-A3B", parameters=35),
    ),
    model_types=("minicpmv", "minicpmo", "minicpmv4_6", "minicpmv4_7"),
    placeholders=("<|image_pad|>", "(<image>./</image>)", "<image>./</image>"),
    limits=(
        "Blocks with linear attention (most of 4.6 and 4.7) have no attn.heads and no edges to "
        "cut: the image passes there.",
        "In 2, 2.6 and o 2.6, image.region(...) and the like are refused behind the vision tower: "
        "the queries of the resampler have no place in the image.",
    ),
    checks="vlmlens_adapter_minicpm.checks:CHECKS",
)
