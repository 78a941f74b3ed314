"""What the demo offers: a model family of one checkpoint, and its scenes."""

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

ADAPTER = Manifest(
    kind=PluginKind.ADAPTER,
    name="demo",
    target="vlmlens_plugins.demo.adapter:DemoAdapter",
    help="The embedded LLaVA of a few million parameters, trained on drawn scenes.",
    offers=frozenset({"generate", "readout", "text-only", "several-images", "patch-grid"}),
    checkpoints=(Checkpoint("embedded", parameters=0.003, licence="Apache-2.0"),),
    model_types=("llava",),
    placeholders=("<image>",),
    checks="vlmlens_plugins.demo.checks:CHECKS",
)

DATASET = Manifest(
    kind=PluginKind.DATASET,
    name="demo",
    target="vlmlens_plugins.demo.dataset:DemoDataset",
    help="Drawn, known pictures: demo:scenes, :pairs, :pope, :captions, :charts, :depth, ...",
    checks="vlmlens_plugins.demo.checks:DATASET_CHECKS",
    suggests={
        "analysis": {
            "probe": {"targets": ["label", "photographer@color"]},
            "logit-lens": {"positions": ["image"], "samples": 8},
        }
    },
)
