"""Where the rows of an SAE come from, and how they are mixed.

- `stored.py`: rows from a store; `passes.py`: rows from passes of the model;
- `joined.py`: columns side by side, and random rows of each sample;
- `shuffled.py`: batches in random order; `blocks.py`: what of the rows is in memory meanwhile;
  `ahead.py`: the next of them, read in another thread;
- `layouts.py`: what each row of a column stands for.
"""

from vlmlens_plugins.sae.feeding.joined import JoinedRows, SomeRows, equal_scales
from vlmlens_plugins.sae.feeding.layouts import row_layouts
from vlmlens_plugins.sae.feeding.passes import ModelRows, PassedRows, Passes
from vlmlens_plugins.sae.feeding.shuffled import Shuffled
from vlmlens_plugins.sae.feeding.stored import StoredRows

__all__ = [
    "JoinedRows", "ModelRows", "PassedRows", "Passes", "Shuffled", "SomeRows", "StoredRows",
    "equal_scales", "row_layouts",
]  # fmt: skip
