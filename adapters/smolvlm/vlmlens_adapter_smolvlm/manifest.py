"""What the SmolVLM adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

_APACHE = "Apache 2.0"

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="smolvlm",
    target="vlmlens_adapter_smolvlm.adapter:SmolVLMAdapter",
    help="SmolVLM, SmolVLM2 and Idefics3: from 256 million parameters on.",
    aliases=("idefics3", "smolvlm2"),
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("HuggingFaceTB/SmolVLM-256M-Instruct", parameters=0.26, licence=_APACHE),
        Checkpoint("HuggingFaceTB/SmolVLM-500M-Instruct", parameters=0.51, licence=_APACHE),
        Checkpoint("HuggingFaceTB/SmolVLM-Instruct", parameters=2.2, licence=_APACHE),
        Checkpoint("HuggingFaceTB/SmolVLM2-256M-Video-Instruct", parameters=0.26, licence=_APACHE),
        Checkpoint("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", parameters=0.51, licence=_APACHE),
        Checkpoint("HuggingFaceTB/SmolVLM2-2.2B-Instruct", parameters=2.2, licence=_APACHE),
        Checkpoint("HuggingFaceM4/Idefics3-8B-Llama3", parameters=8.5, licence=_APACHE),
    ),
    model_types=("idefics3", "smolvlm"),
    placeholders=("<image>",),
    checks="vlmlens_adapter_smolvlm.checks:CHECKS",
)
