"""What a module tree says about attention heads, and about what blocks add to the residual stream.

A head is a slice of the input of an attention's output projection; a slice of its output mixes all
heads. The number of heads and their size come from the attention module, never from the model's
width, which need not be their product.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_PROJECTIONS = (
    "o_proj", "out_proj", "proj", "projection_layer", "projection", "dense", "wo", "o", "c_proj",
    "joined_heads",
)  # fmt: skip
"""What families call an attention's output projection, or the module before it."""
_NESTED_PROJECTION = ("output", "dense")
_COUNTS = ("num_attention_heads", "num_heads", "n_heads")
_KV_COUNTS = ("num_key_value_heads", "num_kv_heads")
_SIZES = ("head_dim", "head_size", "attention_head_size", "key_value_proj_dim")
_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention", "linear_attn")
_MLPS = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
_T5 = "DenseReluDense"
_SCALES = {
    "attn_out": ("lambda_1", "gamma_1", "residual_multiplier"),
    "mlp_out": ("lambda_2", "gamma_2", "residual_multiplier"),
}
_AFTER = {"attn_out": "input_layernorm", "mlp_out": "post_attention_layernorm"}
"""The norms behind attention and MLP in a block whose `norm_after` is true."""
_NORMED = (
    {"attn_out": "post_attention_layernorm", "mlp_out": "post_feedforward_layernorm"},
    {"attn_out": "post_self_attn_layernorm", "mlp_out": "post_mlp_layernorm"},
    {"attn_out": "post_attention_layernorm", "mlp_out": "post_mlp_layernorm"},
)
"""The same where a block has norms of these names, before them too (Gemma 2) or not (OLMo 2)."""
_SCALED = (
    {"attn_out": "ls1", "mlp_out": "ls2"},
    {"attn_out": "layer_scale1", "mlp_out": "layer_scale2"},
)
"""The modules that scale what attention and MLP give, in timm and in DINOv2."""
_RESIDUAL = "residual"
"""What a part of a block calls the residual stream, if it is given that and adds to it (Bloom)."""
_NORM_FIRST = "do_layer_norm_before"
"""False where a block norms the sums (small OPT models)."""
_LATE_BIAS = "dense_bias"
"""What an attention calls a bias that its block adds (Japanese GPT-NeoX)."""
_FACTORS = re.compile("residual|multiplier|factor|alpha|beta")
"""In names of numbers by which blocks weigh what they add, or the residual stream itself."""

OUTPUTS = ("attn_out", "mlp_out")
"""What a block adds to the residual stream: the names of these sites, after the block's."""


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one attention module: side by side in the input of its output projection.

    Args:
        projection: Path of the output projection.
        count: Number of query heads.
        kv_count: Number of key-value heads; `count // kv_count` query heads share one.
        size: Width of a head.
    """

    projection: str
    count: int
    kv_count: int
    size: int

    def columns(self, head: int) -> tuple[int, int]:
        """The columns of a head: the first, and the one after the last."""
        return head * self.size, (head + 1) * self.size


@dataclass(frozen=True, slots=True)
class Branch:
    """A module whose output joins the residual stream.

    Args:
        path: Its path.
        scale: Path of the number or the vector by which the block multiplies it; "" if by none.
    """

    path: str
    scale: str = ""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The heads and the branches of a model.

    Args:
        heads: By path of the attention module.
        branches: By path of the block, then by name: "attn_out", "mlp_out".
        windowed: Paths of attention modules that see windows of the image, one after the other
            (SAM): their rows are not in the order of the block's.
    """

    heads: Mapping[str, Heads] = field(default_factory=dict)
    branches: Mapping[str, Mapping[str, Branch]] = field(default_factory=dict)
    windowed: frozenset[str] = frozenset()


def read_anatomy(model: Any) -> Anatomy:
    """Read a module tree (`torch.nn.Module`), with or without weights."""
    heads: dict[str, Heads] = {}
    branches: dict[str, Mapping[str, Branch]] = {}
    windowed: set[str] = set()
    for path, module in model.named_modules():
        found = _heads(path, module)
        if found is not None and path not in windowed:
            heads[path] = found
        added = dict(_branches(path, module))
        if added and _first(module, ("window_size",)):
            windowed.add(added["attn_out"].path)
        elif added:
            branches[path] = added
    return Anatomy(heads, branches, frozenset(windowed))


def _heads(path: str, module: Any) -> Heads | None:
    """The heads of an attention module; None if it is none, or does not say how many it has."""
    children = dict(module.named_children())
    known = module if _says(module) else children.get("attention")
    if known is None or not _says(known):
        return None
    projection = _projection(children)
    if projection is None and known is not module:
        return _heads(f"{path}.attention", known)  # GPT-Neo wraps its attention
    width = None if projection is None else _width_in(children, projection)
    count, size = _first(known, _COUNTS), _first(known, _SIZES)
    if width is None and count and size:
        width = count * size
    if projection is None or width is None:
        return None
    count = count or width // (size or width)
    if width % count or (size is not None and count * size != width):
        return None
    groups = getattr(known, "num_key_value_groups", 1)
    kv_count = _first(known, _KV_COUNTS) or count // groups
    return Heads(f"{path}.{projection}", count, kv_count, width // count)


def _says(module: Any) -> bool:
    return any(_first(module, names) is not None for names in (_COUNTS, _SIZES))


def _first(module: Any, names: tuple[str, ...]) -> int | None:
    values = (getattr(module, name, None) for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)


def _projection(children: Mapping[str, Any]) -> str | None:
    """The path of the one output projection inside an attention module."""
    found = [name for name in _PROJECTIONS if name in children]
    if len(found) == 1:
        return found[0]
    outer, inner = _NESTED_PROJECTION
    nested = dict(children[outer].named_children()) if outer in children else {}
    return f"{outer}.{inner}" if not found and inner in nested else None


def _width_in(children: Mapping[str, Any], projection: str) -> int | None:
    """The width of a projection's input; None for a module that only passes it on."""
    outer, _, inner = projection.partition(".")
    module = children[outer]
    module = getattr(module, inner) if inner else module
    module = getattr(module, "base", module)
    width = getattr(module, "in_features", None)
    return width if isinstance(width, int) else None


def _branches(path: str, block: Any) -> Iterator[tuple[str, Branch]]:
    """What a block adds to the residual stream, by name."""
    children = dict(block.named_children())
    ends = _ends(block, children)
    for name, inside in ends.items():
        scales = (each for each in _SCALES[name] if _multiplies(getattr(block, each, None)))
        scale = next(scales, None)
        yield name, Branch(f"{path}.{inside}", f"{path}.{scale}" if scale else "")


def _ends(block: Any, children: Mapping[str, Any]) -> dict[str, str]:
    """The paths, inside a block, of the last modules of its two branches."""
    attention = next((name for name in _ATTENTIONS if name in children), None)
    mlp = next((name for name in _MLPS if name in children), None)
    if mlp is None and {"fc1", "fc2"} <= set(children):
        mlp = "fc2"
    if attention is None or mlp is None:
        return _ends_of_t5(children)
    if _does_more(block, children, {attention, mlp, "fc1"}):
        return {}
    if getattr(block, "norm_after", False):
        return dict(_AFTER)
    for ends in (*_NORMED, *_SCALED):
        if set(ends.values()) <= set(children):
            return dict(ends)
    found = {"attn_out": attention, "mlp_out": mlp}
    return {name: _before_sum(part, children[part]) for name, part in found.items()}


def _does_more(block: Any, children: Mapping[str, Any], parts: set[str]) -> bool:
    """Whether a block does more than to add what its two parts give, so that it is not known.

    It has other modules with weights than norms, weights or numbers of its own that are no scales
    of its parts, or it norms the sums. What has more norms than two is known by their names.
    """
    scales = {name for names in _SCALES.values() for name in names}
    norms = [name for name, child in children.items() if "norm" in type(child).__name__.lower()]
    others = (
        children.keys() - parts - set(norms) - {name for ends in _SCALED for name in ends.values()}
    )
    own = [*block.named_parameters(recurse=False), *block.named_buffers(recurse=False)]
    own += [
        (n, v) for n, v in vars(block).items() if _FACTORS.search(n) and type(v) in (int, float)
    ]
    named = any(set(ends.values()) <= set(norms) for ends in _NORMED)
    return (
        any(next(children[name].parameters(), None) is not None for name in others)
        or not {name for name, _ in own} <= scales
        or not getattr(block, _NORM_FIRST, True)
        or any(getattr(children.get(name), _LATE_BIAS, None) is not None for name in parts)
        or (len(norms) > 2 and not named)
    )


def _before_sum(name: str, part: Any) -> str:
    """A part of a block; if it adds to the residual stream itself, the last layer before that."""
    if _RESIDUAL not in inspect.signature(type(part).forward).parameters:
        return name
    layers = [inner for inner, child in part.named_children() if hasattr(child, "out_features")]
    return f"{name}.{layers[-1]}"


def _ends_of_t5(children: Mapping[str, Any]) -> dict[str, str]:
    """T5 keeps its layers, each with its own residual connection, in a list."""
    layers = [dict(layer.named_children()) for layer in children.get("layer", ())]
    if not layers or "SelfAttention" not in layers[0] or _T5 not in layers[-1]:
        return {}
    return {
        "attn_out": "layer.0.SelfAttention",
        "mlp_out": f"layer.{len(layers) - 1}.{_T5}",
    }


def _multiplies(value: Any) -> bool:
    return value is not None and not (isinstance(value, int | float) and value == 1)
