"""Train one component of the model, and measure again.

- `options.py`: what is trained, and how;
- `analysis.py`: dividing samples, measuring before and after;
- `trainings.py`: one training after the other, with checkpoints; what is saved;
- `report.py`, `tables.py`: what is said of it.
"""

from vlmlens_plugins.analysis.tune.analysis import Tune

__all__ = ["Tune"]
