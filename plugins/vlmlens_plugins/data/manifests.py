"""The cards of the datasets `images` and `table`."""

from __future__ import annotations

from vlmlens.manifest import Manifest, PluginKind

IMAGES = Manifest(
    kind=PluginKind.DATASET,
    name="images",
    target="vlmlens_plugins.data.images:ImageFolder",
    help="A folder of image files; sub-folders are labels.",
    aliases=("folder",),
)

TABLE = Manifest(
    kind=PluginKind.DATASET,
    name="table",
    target="vlmlens_plugins.data.table:Table",
    help="A JSONL, CSV, TSV or Parquet table of images, prompts and labels.",
    aliases=("jsonl", "csv", "tsv", "parquet"),
)
