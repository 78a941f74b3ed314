"""Plain data: sites, their axes, and how canonical names map to module paths."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Axis(StrEnum):
    """What the rows of a site's activation stand for.

    - `vision`: tokens of the vision tower.
    - `projector`: tokens that the projector passes to the language model.
    - `llm`: positions of the language model's sequence. In an encoder-decoder these are the
      decoder's positions, in a two-tower family (CLIP) those of the text tower.
    - `encoder`: positions of an encoder-decoder's encoder.
    - `sample`: one row per sample (pooled outputs).
    """

    VISION = "vision"
    PROJECTOR = "projector"
    LLM = "llm"
    ENCODER = "encoder"
    SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class Site:
    """One place in a model.

    Args:
        name: Canonical name; the module path if there is no canonical name.
        path: Module path in the loaded model's tree.
        axis: What the rows of its activation stand for.
        index: Number of the block that it belongs to, if any.
        call: Which call of the module is meant, if it runs several times per pass.
        side: Whether the activation is what the module gives ("out"), or what it is given ("in").
        columns: The columns of the activation that are meant, as (first, one after the last), such
            as those of one head; None: all.
        scale: Path of the number or vector by which the model multiplies the activation before it
            uses it; "" if by none. Reads and edits see the product.
    """

    name: str
    path: str
    axis: Axis
    index: int | None = None
    call: int | None = None
    side: Literal["out", "in"] = "out"
    columns: tuple[int, int] | None = None
    scale: str = ""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class SiteTemplate:
    """How one canonical name maps to module paths.

    Args:
        name: Canonical name. `{i}` stands for the block's number: `llm.block.{i}`.
        paths: Possible module paths, with the same `{i}`. The first one that exists is used.
        axis: What the rows stand for.
        call: Which call is meant, if the module runs more than once per pass.
    """

    name: str
    paths: tuple[str, ...]
    axis: Axis
    call: int | None = None


@dataclass(frozen=True, slots=True)
class Rename:
    """An older module path: what `pattern` (a regular expression) finds is now `replacement`."""

    pattern: str
    replacement: str
