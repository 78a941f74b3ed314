"""What the LLaVA-NeXT adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="llavanext",
    target="vlmlens_adapter_llavanext.adapter:LlavaNextAdapter",
    help="LLaVA-NeXT (LLaVA 1.6).",
    aliases=("llava-next",),
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("llava-hf/llava-v1.6-mistral-7b-hf", parameters=7.6, licence="Apache 2.0"),
        Checkpoint("llava-hf/llava-v1.6-vicuna-7b-hf", parameters=7.1, licence="Llama 2"),
        Checkpoint("llava-hf/llava-v1.6-vicuna-13b-hf", parameters=13.4, licence="Llama 2"),
        Checkpoint("llava-hf/llama3-llava-next-8b-hf", parameters=8.4, licence="Llama 3"),
        Checkpoint("llava-hf/llava-v1.6-34b-hf", parameters=34.8),
        Checkpoint("llava-hf/llava-next-72b-hf", parameters=72),
        Checkpoint("llava-hf/llava-next-110b-hf", parameters=110),
    ),
    model_types=("llava_next",),
    placeholders=("<image>",),
    checks="vlmlens_adapter_llavanext.checks:CHECKS",
)
