"""The cards of the generic adapters: of models that read images, of text-only ones, of encoders."""

from __future__ import annotations

from vlmlens.manifest import IMAGES_ONLY, Checkpoint, Manifest, PluginKind

HF = Manifest(
    kind=PluginKind.ADAPTER,
    name="hf",
    target="vlmlens_plugins.hf.adapter:GenericAdapter",
    help="Generic: any AutoModelForImageTextToText checkpoint; finds sites in its module tree.",
    aliases=("generic", "transformers"),
    offers=frozenset({"generate", "readout"}),
    requires=("torch", "transformers"),
    placeholders=(
        "<image>",
        "<image_soft_token>",
        "<start_of_image>",
        "<|image|>",
        "<|image_pad|>",
        "[IMG]",
        "<image_placeholder>",
        "<IMG_CONTEXT>",
        "<ImageHere>",
        "<|image_1|>",
        "<image 1>",
        "<fake_token_around_image>",
        "<|begin_of_image|>",
        "<|vision_start|>",
    ),
    limits=(
        "image.region(...) and the like are refused: where image rows lie in the image is not "
        "known. The adapter of a family knows it.",
        "Blocks with linear attention (Qwen3.5) have no attn.heads and no edges to cut: the image "
        "passes there.",
        "Sites are found by name in the module tree: where names or the form of attention are not "
        "known, attn.heads, attn_out, mlp_out or edges are lacking.",
    ),
    checks="vlmlens_plugins.hf.checks:CHECKS",
)

LM = Manifest(
    kind=PluginKind.ADAPTER,
    name="lm",
    target="vlmlens_plugins.hf.lm:TextAdapter",
    help="Generic, text only: any AutoModelForCausalLM checkpoint (GPT-2, Pythia, Llama, Qwen).",
    aliases=("text",),
    offers=frozenset({"generate", "readout", "text-only"}),
    requires=("torch", "transformers"),
    model_types=("*ForCausalLM", "*LMHeadModel"),
    limits=(
        "Samples with images are refused.",
        "Sites are found by name in the module tree: where names or the form of attention are not "
        "known, attn.heads, attn_out, mlp_out or edges are lacking.",
    ),
    checks="vlmlens_plugins.hf.lm_checks:CHECKS",
)

VIT = Manifest(
    kind=PluginKind.ADAPTER,
    name="vit",
    target="vlmlens_plugins.hf.vit:VisionAdapter",
    help="Generic, images only: vision backbones (DINOv2, DINOv3, ViT, MAE, towers of CLIP).",
    aliases=("vision", "dinov2", "dinov3", "mae"),
    offers=frozenset({IMAGES_ONLY, "several-images"}),
    requires=("torch", "transformers"),
    model_types=(
        "dinov2",
        "dinov2_with_registers",
        "dinov3_vit",
        "vit",
        "vit_mae",
        "vit_msn",
        "beit",
        "deit",
        "data2vec-vision",
        "ijepa",
        "aimv2_vision_model",
        "clip_vision_model",
        "siglip_vision_model",
        "siglip2_vision_model",
        "*VisionModel",
        "*ViTModel",
    ),
    checkpoints=(
        Checkpoint("facebook/dinov2-base", parameters=0.09, licence="Apache-2.0"),
        Checkpoint("facebook/dinov2-large", parameters=0.3, licence="Apache-2.0"),
        Checkpoint("facebook/dinov2-with-registers-base", parameters=0.09, licence="Apache-2.0"),
        Checkpoint(
            "facebook/dinov3-vitb16-pretrain-lvd1689m",
            parameters=0.09,
            gated=True,
            licence="DINOv3 License",
        ),
        Checkpoint("google/vit-base-patch16-224", parameters=0.09, licence="Apache-2.0"),
        Checkpoint("facebook/vit-mae-base", parameters=0.09, licence="Apache-2.0"),
        Checkpoint("microsoft/beit-base-patch16-224", parameters=0.09, licence="Apache-2.0"),
    ),
    also_reads=("clip", "siglip", "siglip2"),
    limits=(
        "It reads no text: prompts are not used, and nothing is answered: generate is refused, and "
        "analyses that need logits or answers are left out.",
        "It has no logits: gradients are taken of activations only (at=), and contributions to "
        "logits are refused.",
        "Backbones with stages of several resolutions (ConvNeXt, Swin) are refused: their rows are "
        "not those of one grid.",
        "Blocks whose form is not known (Data2Vec) have no attn_out and no mlp_out.",
    ),
    checks="vlmlens_plugins.hf.vit_checks:CHECKS",
)
