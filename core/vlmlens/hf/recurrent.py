"""Models that carry a state along the sequence: linear attention, gated delta rules, Mamba.

So do convolutions along the sequence: attention masks do not apply to them. Most such layers work
in chunks of positions, counted from the first position of a row, padding included. The place of a
sample in its chunk decides the order of its sums, and so their rounding.

Rows of such a model are therefore padded on the right: every sample begins at the first position,
in every batch and with any answer after it, as it does alone. Only for generation must rows end
together. Then their common length is a multiple of the chunk, so that the number of positions
before a sample in its chunk does not depend on the other samples.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch

_CONFIGURED = ("chunk_size", "mamba_chunk_size", "block_size")
"""Names of the chunk size in the configs of text models."""


_UNMASKED = {"conv", "linear_attention", "hybrid", "hybrid_sliding"}
"""transformers' names for layers that mix positions without masked attention."""


def carries_state(module: Any) -> bool:
    """Whether a part of a model carries a state along the sequence, according to transformers.

    Args:
        module: A transformers model.
    """
    layers = getattr(module.config.get_text_config(), "layer_types", None) or ()
    stateful = any(getattr(part, "_is_stateful", False) for part in module.modules())
    return stateful or not _UNMASKED.isdisjoint(layers)


def chunk_size(module: Any) -> int:
    """How many positions make a chunk; a common multiple if layers differ; 1 if it is not known.

    The config names it, or it is the default of transformers' function for that kind of layer
    (such as `torch_chunk_gated_delta_rule`), in the same file as the layer.

    Args:
        module: A transformers model.
    """
    text = module.config.get_text_config()
    named = [getattr(text, name, None) for name in _CONFIGURED]
    sizes = [size for home in _homes(module) for size in _defaults(home)]
    return math.lcm(*sizes, *(size for size in named if isinstance(size, int)))


def masks_one(module: torch.nn.Module) -> bool:
    """Whether padding before a sample is masked if the sample is the only one of its batch.

    Some releases of transformers hide padding from the state only in batches of several samples.
    """
    masks = [vars(home).get("apply_mask_to_padding_states") for home in _homes(module)]
    row, mask = torch.ones(1, 2, 1), torch.tensor([[0, 1]])
    return not any(bool(each(row, mask)[0, 0].any()) for each in masks if each is not None)


def _homes(module: torch.nn.Module) -> list[Any]:
    """The Python modules that define the parts of a model."""
    return [sys.modules[name] for name in {type(part).__module__ for part in module.modules()}]


def _defaults(home: Any) -> Iterator[int]:
    """The default chunk sizes of the functions in a Python module."""
    for name, found in vars(home).items():
        if "chunk" in name and inspect.isfunction(found):
            size = inspect.signature(found).parameters.get("chunk_size")
            if size is not None and isinstance(size.default, int):
                yield size.default
