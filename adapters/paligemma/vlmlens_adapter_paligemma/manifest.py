"""What the PaliGemma adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

_VARIANTS = (
    *((f"paligemma-3b-mix-{size}", 3) for size in (224, 448)),
    *((f"paligemma-3b-pt-{size}", 3) for size in (224, 448, 896)),
    *((f"paligemma2-{b}b-mix-{size}", b) for b in (3, 10, 28) for size in (224, 448)),
    *((f"paligemma2-{b}b-pt-{size}", b) for b in (3, 10, 28) for size in (224, 448, 896)),
)

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="paligemma",
    target="vlmlens_adapter_paligemma.adapter:PaliGemmaAdapter",
    help="PaliGemma and PaliGemma 2.",
    aliases=("paligemma2", "pali_gemma"),
    offers=frozenset({"generate", "readout", "patch-grid", "several-images"}),
    checkpoints=tuple(
        Checkpoint(f"google/{name}", parameters=billions, gated=True, licence="Gemma")
        for name, billions in _VARIANTS
    ),
    model_types=("paligemma",),
    placeholders=("<image>",),
    checks="vlmlens_adapter_paligemma.checks:CHECKS",
)
