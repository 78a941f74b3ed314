"""Site, its axis, and how canonical names map to module paths: plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Axis(StrEnum):
    """What the rows of a site's activation stand for.

    `vision`: the vision tower's tokens; `projector`: the tokens that the connector hands to the
    language model; `llm`: positions of the language model's sequence (in an encoder-decoder, the
    decoder's; in a family of two towers, the text tower's); `encoder`: positions of an
    encoder-decoder's encoder; `sample`: one row per sample (pooled outputs).
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
        name: Canonical name, or the raw module path where there is none.
        path: Module path in the loaded model's tree.
        axis: What the rows of its activation stand for.
        index: Number of the block it belongs to, if any.
        call: Which call of the module in a pass is meant, where it runs several times.
    """

    name: str
    path: str
    axis: Axis
    index: int | None = None
    call: int | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class SiteTemplate:
    """How one canonical name maps to module paths.

    Args:
        name: Canonical name; `{i}` stands for the block's number: `llm.block.{i}`.
        paths: Candidate module paths, tried in order, with the same `{i}`.
        axis: What the rows stand for.
        call: Which call is meant, for a module that runs more than once per pass.
    """

    name: str
    paths: tuple[str, ...]
    axis: Axis
    call: int | None = None


@dataclass(frozen=True, slots=True)
class Rename:
    """A legacy module path: `pattern` (a regular expression) was once what `replacement` is now."""

    pattern: str
    replacement: str
