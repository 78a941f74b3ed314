"""The interfaces that plugins implement, and the plain data that they pass. Stable.

May use passes and what is below. A new kind of plugin gets a module here, a group in
`vlmlens.manifest.PluginKind` and a kit in `vlmlens.testing`. Lifecycle hooks are in `hookspecs`.
Each name is imported when it is first asked for, and none imports torch or transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmlens._rooms import hand_out

if TYPE_CHECKING:
    from vlmlens.abc.adapter import Generation, LoadRequest, ModelAdapter, Readout
    from vlmlens.abc.analysis import Analysis, AnalysisContext
    from vlmlens.abc.dataset import Dataset
    from vlmlens.abc.engine import Engine, Part, Work
    from vlmlens.abc.extractor import Extractor
    from vlmlens.abc.intervention import Intervention
    from vlmlens.abc.model_work import ModelWork, WorkUnit
    from vlmlens.abc.options import Options
    from vlmlens.abc.storage import ChunkCheck, ColumnBlock, ColumnInfo, ColumnStore, Values
    from vlmlens.passes.batch import Batch, ForwardOutput, Logits, Pass
    from vlmlens.passes.edits import Edit, EditedRows, EditPlace, Need, Spread

__all__ = [
    "Analysis",
    "AnalysisContext",
    "Batch",
    "ChunkCheck",
    "ColumnBlock",
    "ColumnInfo",
    "ColumnStore",
    "Dataset",
    "Edit",
    "EditPlace",
    "EditedRows",
    "Engine",
    "Extractor",
    "ForwardOutput",
    "Generation",
    "Intervention",
    "LoadRequest",
    "Logits",
    "ModelAdapter",
    "ModelWork",
    "Need",
    "Options",
    "Part",
    "Pass",
    "Readout",
    "Spread",
    "Values",
    "Work",
    "WorkUnit",
]

__getattr__, __dir__ = hand_out(
    __name__,
    {
        "Analysis": "vlmlens.abc.analysis",
        "AnalysisContext": "vlmlens.abc.analysis",
        "Batch": "vlmlens.passes.batch",
        "ChunkCheck": "vlmlens.abc.storage",
        "ColumnBlock": "vlmlens.abc.storage",
        "ColumnInfo": "vlmlens.abc.storage",
        "ColumnStore": "vlmlens.abc.storage",
        "Dataset": "vlmlens.abc.dataset",
        "Edit": "vlmlens.passes.edits",
        "EditPlace": "vlmlens.passes.edits",
        "EditedRows": "vlmlens.passes.edits",
        "Engine": "vlmlens.abc.engine",
        "Extractor": "vlmlens.abc.extractor",
        "ForwardOutput": "vlmlens.passes.batch",
        "Generation": "vlmlens.abc.adapter",
        "Intervention": "vlmlens.abc.intervention",
        "LoadRequest": "vlmlens.abc.adapter",
        "Logits": "vlmlens.passes.batch",
        "ModelAdapter": "vlmlens.abc.adapter",
        "ModelWork": "vlmlens.abc.model_work",
        "Need": "vlmlens.passes.edits",
        "Options": "vlmlens.abc.options",
        "Part": "vlmlens.abc.engine",
        "Pass": "vlmlens.passes.batch",
        "Readout": "vlmlens.abc.adapter",
        "Spread": "vlmlens.passes.edits",
        "Values": "vlmlens.abc.storage",
        "Work": "vlmlens.abc.engine",
        "WorkUnit": "vlmlens.abc.model_work",
    },
)
