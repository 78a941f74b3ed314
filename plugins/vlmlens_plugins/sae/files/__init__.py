"""Files that hold SAEs: written as SAELens folders, read in the formats of several tools.

`place.py` and `tensors.py` read files safely; `opening.py` finds out the format; each format is a
module with two functions, one that recognises it and one that reads it.
"""

from vlmlens_plugins.sae.belonging import check_belongs
from vlmlens_plugins.sae.files.kept import open_kept
from vlmlens_plugins.sae.files.opening import open_sae
from vlmlens_plugins.sae.files.saelens import sparsity_of
from vlmlens_plugins.sae.files.saelens_write import not_in_sae_lens, save_sae

__all__ = ["check_belongs", "not_in_sae_lens", "open_kept", "open_sae", "save_sae", "sparsity_of"]
