"""The interfaces that plugins implement. Stable; see docs/plugins.md.

May use passes, samples, tokens and what is below. Importing this package imports neither torch nor
transformers. A new kind of plugin needs an interface here, a kind in `vlmlens.manifest`, and a kit
in `vlmlens.testing`; a new lifecycle hook goes into `hookspecs`.
"""

from vlmlens.abc.adapter import Generation, LoadRequest, ModelAdapter, Readout
from vlmlens.abc.analysis import Analysis, AnalysisContext
from vlmlens.abc.dataset import Dataset
from vlmlens.abc.extractor import Extractor
from vlmlens.abc.options import Options
from vlmlens.abc.storage import ChunkCheck, ColumnBlock, ColumnInfo, ColumnStore, Values
from vlmlens.passes.batch import Batch, ForwardOutput, Logits, Pass

__all__ = [
    "Analysis",
    "AnalysisContext",
    "Batch",
    "ChunkCheck",
    "ColumnBlock",
    "ColumnInfo",
    "ColumnStore",
    "Dataset",
    "Extractor",
    "ForwardOutput",
    "Generation",
    "LoadRequest",
    "Logits",
    "ModelAdapter",
    "Options",
    "Pass",
    "Readout",
    "Values",
]
