"""Ablation: which heads, MLPs and blocks the answer needs."""

from vlmlens_plugins.analysis.ablation.analysis import Ablation
from vlmlens_plugins.analysis.ablation.options import AblationOptions

__all__ = ["Ablation", "AblationOptions"]
