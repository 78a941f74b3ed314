"""Options of the probe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vlmlens.abc import Options


class ProbeOptions(Options):
    """Options of the probe."""

    targets: list[str] = Field(
        default_factory=lambda: ["label"],
        min_length=1,
        description="What to probe for: label (per task), an attribute NAME, or NAME@TASK.",
    )
    columns: list[str] | None = Field(
        None, description="Columns or site patterns; default: every column with one row per sample."
    )
    model: Literal["logistic", "mlp"] = Field("logistic", description="Kind of probe.")
    folds: int = Field(5, ge=2, description="Folds of the grouped stratified cross-validation.")
    control_seeds: int = Field(20, ge=20, description="Shuffled-label control probes.")
    C: float = Field(0.1, gt=0, description="Inverse L2 strength, as scikit-learn's C.")
    hidden: int = Field(64, ge=1, description="Hidden units of the MLP.")
    epochs: int = Field(300, ge=1, description="Most epochs of the MLP (it stops early).")
    patience: int = Field(20, ge=1, description="Epochs without progress before the MLP stops.")
    learning_rate: float = Field(0.01, gt=0, description="The MLP's learning rate (Adam).")
    min_per_class: int = Field(10, ge=2, description="Classes with fewer samples are left out.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Level of the corrected p-values.")
    min_gap: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Least gap over the baselines that counts, as a fraction of 1 - majority.",
    )
    draws: int = Field(10_000, ge=1000, description="Permutations behind each p-value.")
    resamples: int = Field(2000, ge=200, description="Bootstrap resamples behind each interval.")
    device: str = Field("auto", description="Where probes are trained: cpu, cuda or auto.")
