"""The cards of the datasets `images`, `table`, `hf` and `questions`."""

from __future__ import annotations

from vlmlens.manifest import Manifest, PluginKind

IMAGES = Manifest(
    kind=PluginKind.DATASET,
    name="images",
    target="vlmlens_plugins.data.images:ImageFolder",
    help="A folder of image files; labels from metadata.csv or sub-folders.",
    aliases=("folder",),
    checks="vlmlens_plugins.data.checks:IMAGES_CHECKS",
)

TABLE = Manifest(
    kind=PluginKind.DATASET,
    name="table",
    target="vlmlens_plugins.data.table:Table",
    help="A JSON, CSV, TSV, Parquet or Excel table of images, prompts and labels.",
    aliases=("json", "jsonl", "csv", "tsv", "parquet", "xlsx"),
    checks="vlmlens_plugins.data.checks:TABLE_CHECKS",
)

HF = Manifest(
    kind=PluginKind.DATASET,
    name="hf",
    target="vlmlens_plugins.data.hf:HubDataset",
    help="ORG/NAME[:SPLIT] of the Hugging Face hub, or on disk (pip install vlmlens[hf-data]).",
    aliases=("huggingface", "datasets"),
    requires=("datasets",),
    checks="vlmlens_plugins.data.hf_checks:HF_CHECKS",
)

QUESTIONS = Manifest(
    kind=PluginKind.DATASET,
    name="questions",
    target="vlmlens_plugins.data.questions:Questions",
    help="Question sets over pictures of CLEVR or COCO (questions:clevr, questions:coco).",
    checks="vlmlens_plugins.data.checks:QUESTIONS_CHECKS",
)
