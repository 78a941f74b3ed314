"""What the Qwen-VL adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

_APACHE = "Apache 2.0"
_QWEN = "Qwen"

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="qwen2vl",
    target="vlmlens_adapter_qwen2vl.adapter:QwenVLAdapter",
    help="Qwen2-VL, Qwen2.5-VL and Qwen3-VL, dense and mixture of experts.",
    aliases=(
        "qwen",
        "qwen2_vl",
        "qwen2_5_vl",
        "qwen2_5vl",
        "qwen2.5_vl",
        "qwen2.5vl",
        "qwen3_vl",
        "qwen3vl",
        "qwen3_vl_moe",
    ),
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
    checkpoints=(
        Checkpoint("Qwen/Qwen2-VL-2B-Instruct", parameters=2, licence=_APACHE),
        Checkpoint("Qwen/Qwen2-VL-7B-Instruct", parameters=7, licence=_APACHE),
        Checkpoint("Qwen/Qwen2-VL-72B-Instruct", parameters=72, licence=_QWEN),
        Checkpoint("Qwen/Qwen2.5-VL-3B-Instruct", parameters=3, licence="Qwen Research"),
        Checkpoint("Qwen/Qwen2.5-VL-7B-Instruct", parameters=7, licence=_APACHE),
        Checkpoint("Qwen/Qwen2.5-VL-32B-Instruct", parameters=32, licence=_APACHE),
        Checkpoint("Qwen/Qwen2.5-VL-72B-Instruct", parameters=72, licence=_QWEN),
        Checkpoint("Qwen/Qwen3-VL-2B-Instruct", parameters=2, licence=_APACHE),
        Checkpoint("Qwen/Qwen3-VL-4B-Instruct", parameters=4, licence=_APACHE),
        Checkpoint("Qwen/Qwen3-VL-8B-Instruct", parameters=8, licence=_APACHE),
        Checkpoint("Qwen/Qwen3-VL-32B-Instruct", parameters=32, licence=_APACHE),
        Checkpoint("Qwen/Qwen3-VL-30B-A3B-Instruct", parameters=30, licence=_APACHE),
        Checkpoint("Qwen/Qwen3-VL-235B-A22B-Instruct", parameters=235, licence=_APACHE),
    ),
    model_types=("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"),
    placeholders=("<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>"),
    checks="vlmlens_adapter_qwen2vl.checks:CHECKS",
)
