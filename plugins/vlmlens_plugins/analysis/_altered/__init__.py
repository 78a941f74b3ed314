"""Pictures with some pixels hidden, and how probable the model finds answers to them.

The engine of analyses that change the image itself: `evidence`, `occlusion`, `look`. It edits
samples, not activations. To add a fill, see `canvas.py`.
"""

from vlmlens_plugins.analysis._altered.alterations import FILLS, OTHER, Alteration, Area, Fill
from vlmlens_plugins.analysis._altered.asking import Question, ask
from vlmlens_plugins.analysis._altered.canvas import Canvas, altered
from vlmlens_plugins.analysis._altered.work import AlteredScores

__all__ = [
    "FILLS",
    "OTHER",
    "Alteration",
    "AlteredScores",
    "Area",
    "Canvas",
    "Fill",
    "Question",
    "altered",
    "ask",
]
