"""What the GLaMM adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="glamm",
    target="vlmlens_adapter_glamm.adapter:GlammAdapter",
    help="GLaMM, with masks for what it names and regions given as boxes; without remote code.",
    offers=frozenset({"generate", "readout", "patch-grid", "text-only"}),
    requires=("sentencepiece",),
    checkpoints=(
        Checkpoint("MBZUAI/GLaMM-FullScope", parameters=8),
        Checkpoint("MBZUAI/GLaMM-GranD-Pretrained", parameters=8),
        Checkpoint("MBZUAI/GLaMM-GCG", parameters=8),
        Checkpoint("MBZUAI/GLaMM-RefSeg", parameters=8),
        Checkpoint("MBZUAI/GLaMM-RegCap-RefCOCOg", parameters=8),
        Checkpoint("MBZUAI/GLaMM-RegCap-VG", parameters=8),
    ),
    model_types=("GLaMMForCausalLM",),
    placeholders=("<image>", "<im_start><image><im_end>"),
    limits=(
        "Blocks of SAM with windows (most of grounding.block.N) have no attn.heads, attn_out and "
        "mlp_out: their attention has its rows in another order.",
    ),
    checks="vlmlens_adapter_glamm.checks:CHECKS",
)
