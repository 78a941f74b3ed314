"""What the BLIP-2 adapter offers."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

MANIFEST = Manifest(
    kind=PluginKind.ADAPTER,
    name="blip2",
    aliases=("blip_2",),
    target="vlmlens_adapter_blip2.adapter:Blip2Adapter",
    help="BLIP-2 with OPT or Flan-T5; one image per sample.",
    offers=frozenset({"generate", "readout"}),
    checkpoints=(
        Checkpoint("Salesforce/blip2-opt-2.7b", parameters=3.7, licence="MIT"),
        Checkpoint("Salesforce/blip2-opt-2.7b-coco", parameters=3.7, licence="MIT"),
        Checkpoint("Salesforce/blip2-opt-6.7b", parameters=7.7, licence="MIT"),
        Checkpoint("Salesforce/blip2-opt-6.7b-coco", parameters=7.7, licence="MIT"),
        Checkpoint("Salesforce/blip2-flan-t5-xl", parameters=3.9, licence="MIT"),
        Checkpoint("Salesforce/blip2-flan-t5-xxl", parameters=12, licence="MIT"),
    ),
    model_types=("blip-2",),
    placeholders=("<image>",),
    limits=(
        "Blocks of the Q-Former have no attn_out and no mlp_out: they norm the sum of their parts.",
        "Behind the vision tower, image.region(...) and the like are refused: the queries of the "
        "Q-Former have no place in the image.",
        "What the decoder of Flan-T5 reads from its encoder (cross-attention) cannot be cut.",
    ),
    checks="vlmlens_adapter_blip2.checks:CHECKS",
)
