"""Training of SAEs: one module per kind, and one loop.

- `recipe.py`, `trained.py`: what goes in and what comes out;
- `loop.py`: several SAEs on each batch of a feed; `checkpoint.py`, `curve.py`;
- `learner.py`: one SAE with its optimiser; `scaling.py`, `folding.py`: rows brought to mean 0 and
  equal size, and that undone;
- `kinds.py`: what a kind has to say. A new kind is a module and a line in `learner.KINDS`:
  `topk.py`, `batchtopk.py`, `matryoshka.py`, `jumprelu.py`, `standard.py`, `gated.py`;
- `entries.py`: products with codes that touch only what fires;
- `dead.py`: features that fire no more.
"""

from vlmlens_plugins.sae.training.loop import device_of, train
from vlmlens_plugins.sae.training.recipe import Recipe
from vlmlens_plugins.sae.training.trained import Trained

__all__ = ["Recipe", "Trained", "device_of", "train"]
