"""What features do to the answers: some are ablated or clamped, beside controls of equal size.

- `aims.py`: which features, and what they may stand for; `drawn.py`: features drawn as controls;
- `trial.py`: the cells and their sweeps; `measured.py`: numbers, tests, verdicts;
- `report.py`: findings, tables and figures.
"""

from vlmlens_plugins.analysis.sae.effects.aims import Aim, aims
from vlmlens_plugins.analysis.sae.effects.measured import Effect, Effects
from vlmlens_plugins.analysis.sae.effects.report import figures, findings, notes, tables
from vlmlens_plugins.analysis.sae.effects.trial import Trial, effects, why_not

__all__ = [
    "Aim", "Effect", "Effects", "Trial", "aims", "effects", "figures", "findings", "notes",
    "tables", "why_not",
]  # fmt: skip
