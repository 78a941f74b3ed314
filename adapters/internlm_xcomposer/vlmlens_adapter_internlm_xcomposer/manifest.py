"""What the InternLM-XComposer adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="internlm_xcomposer",
    target="vlmlens_adapter_internlm_xcomposer.adapter:XComposerAdapter",
    help="InternLM-XComposer 2.5, without its remote code.",
    aliases=("internlm", "xcomposer"),
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    requires=("sentencepiece",),
    checkpoints=(Checkpoint("internlm/internlm-xcomposer2d5-7b", parameters=11),),
    model_types=("InternLMXComposer2ForCausalLM",),
    placeholders=("<ImageHere>",),
    checks="vlmlens_adapter_internlm_xcomposer.checks:CHECKS",
)
