"""What the CLIP adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="clip",
    target="vlmlens_adapter_clip.adapter:ClipAdapter",
    help="CLIP, SigLIP and SigLIP 2: an image tower beside a text tower, no language model.",
    aliases=("siglip", "siglip2"),
    offers=frozenset({"choice-scores"}),
    checkpoints=(
        Checkpoint("openai/clip-vit-base-patch32", parameters=0.15),
        Checkpoint("openai/clip-vit-base-patch16", parameters=0.15),
        Checkpoint("openai/clip-vit-large-patch14", parameters=0.43),
        Checkpoint("openai/clip-vit-large-patch14-336", parameters=0.43),
        Checkpoint("google/siglip-base-patch16-224", parameters=0.2, licence="Apache-2.0"),
        Checkpoint("google/siglip-so400m-patch14-384", parameters=0.88, licence="Apache-2.0"),
        Checkpoint("google/siglip2-base-patch16-224", parameters=0.38, licence="Apache-2.0"),
        Checkpoint("google/siglip2-base-patch16-naflex", parameters=0.38, licence="Apache-2.0"),
    ),
    suggests={"prompt": ["a photo"]},
    model_types=("clip", "siglip", "siglip2"),
    limits=(
        "It writes no text: generate is refused, and so are analyses that follow the next token "
        "(patching, knockout, ablation, steering, attribution, circuit, heads, logit-lens).",
        "It has no logits: gradients are taken of activations only (at=), and contributions to "
        "logits are refused.",
        "Under edits, analyses that compare choices are refused (blind-test): edits cannot "
        "reach the passes that compare them.",
        "The text towers of SigLIP and SigLIP 2 get no attention mask, so edges are cut there with "
        "renormalise=false only.",
    ),
    checks="vlmlens_adapter_clip.checks:CHECKS",
)
