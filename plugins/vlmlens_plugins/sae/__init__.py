"""Sparse autoencoders: what they are, how they are trained, and the files that hold them.

The analysis `sae` and the interventions `sae.*` use this package; it uses neither. It is about one
SAE and rows of numbers; what a model does with it is theirs.

- `sae.py`, `activations.py`, `about.py`: the SAE as it is used;
- `rows.py`: rows by sample; a new source of rows is a class with the same three methods;
- `training/`: one module per kind of SAE, and the loop that they share;
- `feeding/`: rows from a store or from the model, shuffled in bounded memory;
- `files/`: one module per format; `belonging.py`: whether an SAE is used where it was trained;
- `__main__.py`: files on the command line.
"""

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.activations import Activation, Gated, JumpRelu, Relu, TopK
from vlmlens_plugins.sae.belonging import check_belongs
from vlmlens_plugins.sae.files import open_sae, save_sae, sparsity_of
from vlmlens_plugins.sae.rows import Rows, TensorRows
from vlmlens_plugins.sae.sae import Sae

__all__ = [
    "About", "Activation", "Gated", "JumpRelu", "Relu", "Rows", "Sae", "TensorRows", "TopK",
    "check_belongs", "open_sae", "save_sae", "sparsity_of",
]  # fmt: skip
