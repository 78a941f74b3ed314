"""SAEs judged beside what nobody trained: one module per measure.

- `judge.py`: the entry point; `judged.py`: what it gives; `conclusion.py`: the verdict;
- `material.py`: rows in blocks; `seen.py`: the pass over them that all measures share;
- `peers.py`: baselines, for SAEs of equal size and like L0;
- `variance.py`, `coherence.py`, `monosemanticity.py`, `stability.py`: of rows and features;
- `concepts.py`, `single.py`, `probing.py`, `areas.py`: what features tell of samples;
- `loss.py`: what the model's answers lose when rows are replaced;
- `comparing.py`: differences to the baselines, with intervals and tests;
- `tables.py`, `figures.py`: as parts of a result.
"""

from vlmlens_plugins.analysis.sae.judging.concepts import Concept
from vlmlens_plugins.analysis.sae.judging.conclusion import Conclusion, Overall, conclude
from vlmlens_plugins.analysis.sae.judging.figures import figures
from vlmlens_plugins.analysis.sae.judging.judge import judge
from vlmlens_plugins.analysis.sae.judging.judged import (
    EXPLAINED,
    Basis,
    Compared,
    Judged,
    Kind,
    Peers,
    Recovered,
    Role,
    Stability,
    Word,
)
from vlmlens_plugins.analysis.sae.judging.loss import ReplacedLoss, with_loss
from vlmlens_plugins.analysis.sae.judging.material import MODALITIES, Material
from vlmlens_plugins.analysis.sae.judging.resampling import Interval
from vlmlens_plugins.analysis.sae.judging.tables import tables

__all__ = [
    "EXPLAINED",
    "MODALITIES",
    "Basis",
    "Compared",
    "Concept",
    "Conclusion",
    "Interval",
    "Judged",
    "Kind",
    "Material",
    "Overall",
    "Peers",
    "Recovered",
    "ReplacedLoss",
    "Role",
    "Stability",
    "Word",
    "conclude",
    "figures",
    "judge",
    "tables",
    "with_loss",
]  # fmt: skip
