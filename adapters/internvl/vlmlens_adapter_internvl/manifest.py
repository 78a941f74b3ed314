"""What the InternVL adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="internvl",
    aliases=("intern_vl",),
    target="vlmlens_adapter_internvl.adapter:InternVLAdapter",
    help="InternVL 2.5 (its original layout too, without remote code), 3 and 3.5.",
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("OpenGVLab/InternVL2_5-1B", parameters=1),
        Checkpoint("OpenGVLab/InternVL2_5-2B", parameters=2),
        Checkpoint("OpenGVLab/InternVL2_5-4B", parameters=4),
        Checkpoint("OpenGVLab/InternVL2_5-8B", parameters=8),
        Checkpoint("OpenGVLab/InternVL3-1B-hf", parameters=1),
        Checkpoint("OpenGVLab/InternVL3-2B-hf", parameters=2),
        Checkpoint("OpenGVLab/InternVL3-8B-hf", parameters=8),
        Checkpoint("OpenGVLab/InternVL3-14B-hf", parameters=14),
        Checkpoint("OpenGVLab/InternVL3-38B-hf", parameters=38),
        Checkpoint("OpenGVLab/InternVL3-78B-hf", parameters=78),
        Checkpoint("OpenGVLab/InternVL3_5-30B-A3B-HF", parameters=30, licence="Apache 2.0"),
    ),
    model_types=("internvl", "internvl_chat"),
    placeholders=("<IMG_CONTEXT>", "<image>", "<img><IMG_CONTEXT></img>"),
    checks="vlmlens_adapter_internvl.checks:CHECKS",
)
