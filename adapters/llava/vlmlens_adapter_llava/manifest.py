"""What the LLaVA adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="llava",
    target="vlmlens_adapter_llava.adapter:LlavaAdapter",
    help="LLaVA 1.5 and BakLLaVA.",
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("llava-hf/llava-1.5-7b-hf", parameters=7, licence="Llama 2"),
        Checkpoint("llava-hf/llava-1.5-13b-hf", parameters=13, licence="Llama 2"),
        Checkpoint("llava-hf/bakLlava-v1-hf", parameters=7),
    ),
    model_types=("llava",),
    placeholders=("<image>",),
    checks="vlmlens_adapter_llava.checks:CHECKS",
)
