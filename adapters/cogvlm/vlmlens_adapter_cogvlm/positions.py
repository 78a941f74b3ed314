"""Token types decide which expert a position takes, and its position id.

The two do not agree on the rows around an image: its last row (`eoi`) takes the language expert,
and both its first (`boi`) and its last count as text for positions.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

LANGUAGE, VISION = 0, 1


def takes_vision_expert(types: torch.Tensor) -> torch.Tensor:
    """Which positions take the vision expert, bool `[samples, positions]`.

    Image positions that are followed by an image position; never the last of the sequence.

    Args:
        types: int64 `[samples, positions]`, 1 for the rows of an image.
    """
    image = types == VISION
    return image & pad(image[:, 1:], (0, 1), value=False)


def rotary_positions(types: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Position ids, int64 `[samples, positions]`: all patches of an image share one.

    Padding does not count; the first token after it has position 1, as in upstream's code. (Only
    differences of positions matter in rotary attention.)

    Args:
        types: int64 `[samples, positions]`, 1 for the rows of an image.
        attention_mask: `[samples, positions]`, 0 at padding; None: there is none.
    """
    real = torch.ones_like(types) if attention_mask is None else attention_mask
    language = (types == LANGUAGE) & real.bool()
    patch = (types == VISION) & real.bool()
    before = pad(language[:, :-1], (1, 0), value=True)
    after = pad(language[:, 1:], (0, 1), value=True)
    ends = patch & (before | after)
    language, patch = language | ends, patch & ~ends
    step = language | (patch & pad(language[:, :-1], (1, 0), value=False))
    step[:, 0] = False
    return step.long().cumsum(1)
