"""What the CogVLM adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="cogvlm",
    target="vlmlens_adapter_cogvlm.adapter:CogVLMAdapter",
    help="CogVLM (the first version), in its original layout and without remote code.",
    aliases=("cog_vlm",),
    offers=frozenset({"generate", "readout", "patch-grid", "text-only"}),
    checkpoints=(
        Checkpoint("THUDM/cogvlm-chat-hf", parameters=17.6),
        Checkpoint("THUDM/cogvlm-base-224-hf", parameters=17.6),
        Checkpoint("THUDM/cogvlm-base-490-hf", parameters=17.6),
        Checkpoint("THUDM/cogvlm-grounding-base-hf", parameters=17.6),
        Checkpoint("THUDM/cogvlm-grounding-generalist-hf", parameters=17.6),
    ),
    model_types=("CogVLMForCausalLM", "cogvlm"),
    checks="vlmlens_adapter_cogvlm.checks:CHECKS",
)
