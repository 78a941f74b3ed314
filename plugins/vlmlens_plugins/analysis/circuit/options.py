"""Options of the circuit analysis."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from vlmlens_plugins.analysis._attribution.nodes import KINDS, Kind
from vlmlens_plugins.analysis._sweeps.sweeping import PairOptions, Texts, listed


def _apart(parts: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """Components that do not contain each other."""
    if ("block" in parts and len(set(parts)) > 1) or {"heads", "attn"} <= set(parts):
        raise ValueError("a part contains another: take heads or attn, with mlp, or block alone")
    return tuple(dict.fromkeys(parts))


class CircuitOptions(PairOptions):
    """What a circuit is made of, how much it must keep, and what it is held against."""

    keep: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="The share of the effect that the circuit must keep, on the pairs that it is "
        "searched on, while all other components are exchanged. On other pairs it keeps a little "
        "less. More than 2 - keep is as wrong as less.",
    )
    parts: Annotated[
        tuple[Kind, ...],
        BeforeValidator(listed, json_schema_input_type=Kind | tuple[Kind, ...]),
        AfterValidator(_apart),
    ] = Field(KINDS, min_length=1, description="The components: heads, mlp, attn, block.")
    rows: Texts = Field(
        None,
        description="Groups of rows, as selectors, several joined by +. A component at each group "
        "is a node of its own. Together they must be all rows, each once. Default: image rows, and "
        "all others (text).",
    )
    rank: Literal["attribution", "patching"] = Field(
        "attribution",
        description="How nodes are ranked before the search: by attribution patching (a gradient), "
        "or by exchanging each alone, which needs no gradient and a pass for each.",
    )
    edges: int = Field(
        80,
        ge=0,
        description="Measure so many edges of the circuit by path patching, those with the highest "
        "edge attribution; 0: none.",
    )
    controls: int = Field(
        20, ge=0, description="Random circuits with as many components of each kind."
    )
    circuit: str | None = Field(
        None,
        description="A circuit that this analysis has saved (.json), to be measured instead of "
        "searching one.",
    )
