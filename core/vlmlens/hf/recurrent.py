"""Models that carry a state along the sequence: linear attention, gated delta rules, Mamba.

Convolutions along the sequence are of their kind: no mask of attention holds for them. Most work
in chunks of positions, counted from the first position of a row, padding included. Where in its
chunk a sample begins decides in what order its sums are taken, and so how they are rounded.

Rows of such a model are therefore filled up on the right: every sample begins at the first
position, in every batch and with any answer after it, as it does alone. Only where the model writes
on must rows end together; there their common length is a multiple of the chunk, so that how many
positions stand before a sample in its chunk does not depend on the others.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch

_CONFIGURED = ("chunk_size", "mamba_chunk_size", "block_size")
"""What the configurations of text models call the chunk, where they name one."""


_UNMASKED = {"conv", "linear_attention", "hybrid", "hybrid_sliding"}
"""transformers' names for layers that mix positions otherwise than by masked attention."""


def carries_state(module: Any) -> bool:
    """Whether a part of a model carries a state along the sequence, as transformers says of it.

    Args:
        module: A transformers model.
    """
    layers = getattr(module.config.get_text_config(), "layer_types", None) or ()
    stateful = any(getattr(part, "_is_stateful", False) for part in module.modules())
    return stateful or not _UNMASKED.isdisjoint(layers)


def chunk_size(module: Any) -> int:
    """How many positions make a chunk; where layers differ, a common multiple; 1 where none says.

    The configuration names it, or it is the default of transformers' function for that kind of
    layer (such as `torch_chunk_gated_delta_rule`), which stands in the layer's own file.

    Args:
        module: A transformers model.
    """
    text = module.config.get_text_config()
    named = [getattr(text, name, None) for name in _CONFIGURED]
    sizes = [size for home in _homes(module) for size in _defaults(home)]
    return math.lcm(*sizes, *(size for size in named if isinstance(size, int)))


def masks_one(module: torch.nn.Module) -> bool:
    """Whether padding before a sample is masked where the sample is the only one of its batch.

    Some releases of transformers hide padding from the state only in batches of several samples.
    """
    masks = [vars(home).get("apply_mask_to_padding_states") for home in _homes(module)]
    row, mask = torch.ones(1, 2, 1), torch.tensor([[0, 1]])
    return not any(bool(each(row, mask)[0, 0].any()) for each in masks if each is not None)


def _homes(module: torch.nn.Module) -> list[Any]:
    """The Python modules that define the parts of a model."""
    return [sys.modules[name] for name in {type(part).__module__ for part in module.modules()}]


def _defaults(home: Any) -> Iterator[int]:
    """The chunk sizes that the functions of a Python module take where they are given none."""
    for name, found in vars(home).items():
        if "chunk" in name and inspect.isfunction(found):
            size = inspect.signature(found).parameters.get("chunk_size")
            if size is not None and isinstance(size.default, int):
                yield size.default
