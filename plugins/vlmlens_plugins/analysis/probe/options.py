"""Options of the probe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from vlmlens.abc import Options


def _several(value: Any) -> Any:
    return sorted(value) if isinstance(value, list | tuple) else [value]


ShortcutName = Literal["words", "image"]


def _shortcuts() -> list[ShortcutName]:
    return ["words", "image"]


class ProbeOptions(Options):
    """Options of the probe."""

    targets: list[str] = Field(
        default_factory=lambda: ["label"],
        min_length=1,
        description="What to probe for: label (of each task), an attribute NAME, or NAME@TASK.",
    )
    columns: list[str] | None = Field(
        None, description="Columns or site patterns; default: every column with one row per sample."
    )
    model: Literal["logistic", "mlp", "centroid", "ridge"] = Field(
        "logistic", description="Kind of probe. ridge predicts numbers (R2), the others classes."
    )
    split: Literal["group", "random", "template", "value"] = Field(
        "group",
        description="What training and test never share: a group; nothing (random); a group and a "
        "prompt template; or a value of hold_out, each in turn.",
    )
    hold_out: str | None = Field(
        None, description="Attribute for split=value: NAME, or NAME+NAME for combinations."
    )
    test_on: str | None = Field(
        None, description="Folder of another run: train on this run, test on that one."
    )
    folds: int = Field(5, ge=2, description="Folds of the grouped, stratified cross-validation.")
    control_seeds: int = Field(20, ge=20, description="Control probes of each kind.")
    types: str | None = Field(
        None,
        description="Attribute that gives the types of the control task, or `group`. Default: the "
        "attribute `type`, if there is one.",
    )
    C: Annotated[list[Annotated[float, Field(gt=0)]], BeforeValidator(_several)] = Field(
        default_factory=lambda: [1e-4, 1e-3, 1e-2, 0.1],
        min_length=1,
        description="Inverse L2 strengths (scikit-learn's C; 1/alpha of ridge). Inner "
        "cross-validation chooses among several.",
    )
    hidden: int = Field(64, ge=1, description="Hidden units of the MLP.")
    epochs: int = Field(300, ge=1, description="Maximum epochs of the MLP (it stops early).")
    patience: int = Field(20, ge=1, description="Epochs without progress before the MLP stops.")
    learning_rate: float = Field(0.01, gt=0, description="The MLP's learning rate (Adam).")
    min_per_class: int = Field(10, ge=2, description="Classes with fewer samples are left out.")
    alpha: float = Field(
        0.05, gt=0, lt=1, description="Significance level of the corrected p-values."
    )
    min_gap: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Minimum gap above the baselines, as a fraction of 1 - majority.",
    )
    draws: int = Field(10_000, ge=1000, description="Permutations per p-value.")
    resamples: int = Field(2000, ge=200, description="Bootstrap resamples per interval.")
    shortcuts: list[ShortcutName] = Field(
        default_factory=_shortcuts,
        description="Baselines without activations: the words of the prompt; colours and a "
        "thumbnail of the image.",
    )
    answers: Literal["auto", "ask", "off"] = Field(
        "auto",
        description="The model's own answers. auto: read from the last block's column if the model "
        "is loaded; ask: load the model and run it if needed; off: leave them out.",
    )
    export: str | None = Field(
        None, description="Folder to write the probes' weights and features to."
    )
    export_format: Literal["safetensors", "npz"] = Field(
        "safetensors", description="Format of the exported files."
    )
    export_column: Literal["plateau", "best", "all"] = Field(
        "plateau",
        description="Which column to export: the earliest one as good as the best (plateau), the "
        "best, or all.",
    )
    learning_curve: bool = Field(
        False,
        description="Show the best column's accuracy with an eighth, a fourth and half of the "
        "samples; --samples always does.",
    )
    in_memory: int = Field(
        256,
        ge=0,
        description="Largest column, in MB as float32, that is probed in memory. A larger one is "
        "read in blocks.",
    )
    components: int | None = Field(
        None,
        ge=1,
        description="Principal components of a larger column that a logistic probe reads. "
        "Default: all features; 512 components take less time and room on the disk.",
    )
    device: str = Field("auto", description="Where probes are trained: cpu, cuda or auto.")
