"""Sparse autoencoders: what they are, how they are trained, and the files that hold them.

The analysis `sae` and the interventions `sae.*` use this package; it uses neither. It is about one
SAE and rows of numbers; what a model does with it is theirs.

- `sae.py`, `activations.py`, `about.py`: the SAE as it is used;
- `baselines.py`: dictionaries that nobody trained, to hold it against;
- `rows.py`: rows by sample; a new source of rows is a class with the same three methods;
- `batches.py`: what training reads; a new feed is a class with these methods;
- `training/`: one module per kind of SAE, and the loop that they share;
- `feeding/`: rows from a store or from the model, shuffled in bounded memory;
- `files/`: one module per format; `belonging.py`: whether an SAE is used where it was trained;
- `__main__.py`: files on the command line.
"""

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import Activation, Gated, JumpRelu, Relu, TopK
from vlmlens_plugins.sae.batches import Batch, Feed, Statistics, TensorFeed
from vlmlens_plugins.sae.belonging import check_belongs
from vlmlens_plugins.sae.feeding import (
    JoinedRows,
    ModelRows,
    PassedRows,
    Passes,
    Shuffled,
    SomeRows,
    StoredRows,
    equal_scales,
    row_layouts,
)  # fmt: skip
from vlmlens_plugins.sae.files import not_in_sae_lens, open_kept, open_sae, save_sae, sparsity_of
from vlmlens_plugins.sae.rows import KeptRows, Rows, TensorRows, in_pieces
from vlmlens_plugins.sae.sae import Sae
from vlmlens_plugins.sae.training import Recipe, Trained, train

__all__ = [
    "About", "Activation", "Batch", "Feed", "Gated", "JoinedRows", "JumpRelu", "KeptRows",
    "ModelRows", "PassedRows", "Passes", "Recipe", "Relu", "Rows", "Sae", "Shuffled", "SomeRows",
    "Statistics", "StoredRows", "TensorFeed", "TensorRows", "TopK", "Trained", "check_belongs",
    "equal_scales", "in_pieces", "not_in_sae_lens", "open_kept", "open_sae", "row_layouts",
    "save_sae", "sparsity_of", "train",
]  # fmt: skip
