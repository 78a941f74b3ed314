"""The last linear map of the projector: its strongest directions, towards the unembedding."""

from __future__ import annotations

from typing import Any

import torch

from vlmlens.abc import ModelAdapter
from vlmlens_plugins.analysis.weights.calling import Unreadable, in_float32
from vlmlens_plugins.analysis.weights.norms import near
from vlmlens_plugins.analysis.weights.vocabulary import Words

_DIRECTIONS = 8
_FAILURES = (RuntimeError, TypeError, ValueError, IndexError)
_TOP = 3


def last_linear(vlm: ModelAdapter, path: str, width: int) -> str:
    """The path of the last module inside the projector that is one matrix onto the given width.

    Raises:
        Unreadable: There is none.
    """
    inside = [each for each in vlm.sites.modules if f"{each}.".startswith(f"{path}.")]
    around = {each.rpartition(".")[0] for each in inside}
    for each in reversed(inside):
        if each not in around and _gives(vlm.module.get_submodule(each), width):
            return each
    raise Unreadable(f"no linear layer in it gives rows of width {width}")


def read_directions(vlm: ModelAdapter, path: str, width: int, words: Words) -> list[dict[str, Any]]:
    """The strongest directions that it writes, each with the tokens that it raises and lowers.

    Returns:
        Per direction: "value", its singular value; "share" of the sum of squares; "raises" and
        "lowers", tokens; "reach", the largest logit in standard deviations over the vocabulary, and
        "random", the same of a random direction.

    Raises:
        Unreadable: It is not linear.
    """
    matrix = _matrix(vlm, path, width).double().cpu()
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    order = values.argsort(descending=True)[: min(_DIRECTIONS, *matrix.shape)]
    directions = vectors.T[order].float()
    random = torch.randn(directions.shape, generator=torch.Generator().manual_seed(0))
    device = words.embed([0]).device
    logits = [words.logits(rows.to(device))[:, : words.size] for rows in (directions, random)]
    reach = [
        ((each - each.mean(1, keepdim=True)).abs().amax(1) / each.std(1)).tolist()
        for each in logits
    ]
    top = min(_TOP, words.size)
    return [
        {
            "value": float(values[k].clamp(min=0).sqrt()),
            "share": float(values[k] / values.sum()),
            "raises": logits[0][number].topk(top).indices.tolist(),
            "lowers": logits[0][number].topk(top, largest=False).indices.tolist(),
            "reach": reach[0][number],
            "random": reach[1][number],
        }
        for number, k in enumerate(order.tolist())
    ]


def _matrix(vlm: ModelAdapter, path: str, width: int) -> torch.Tensor:
    """`[inputs, width]`, checked on random rows."""
    part = vlm.module.get_submodule(path)
    inputs = _inputs(part, width)
    device = next(part.parameters()).device
    random = torch.randn(4, inputs, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        with torch.no_grad(), in_float32([part]):
            zero = part(torch.zeros(1, inputs, device=device))
            matrix: torch.Tensor = part(torch.eye(inputs, device=device)) - zero
            fits = near(part(random) - zero, random @ matrix)
    except _FAILURES as error:
        raise Unreadable(f"its last layer {path} cannot be run alone ({error})") from error
    if not fits:
        raise Unreadable(f"its last layer {path} is not linear")
    return matrix


def _gives(part: torch.nn.Module, width: int) -> bool:
    """Whether a module is a matrix, and gives rows of a width."""
    inputs = _inputs(part, width)
    if not inputs:
        return False
    weight = next(part.parameters())
    try:
        with torch.no_grad():
            given = part(torch.zeros(1, inputs, device=weight.device, dtype=weight.dtype))
    except _FAILURES:
        return False
    return isinstance(given, torch.Tensor) and given.shape == (1, width)


def _inputs(part: torch.nn.Module, width: int) -> int:
    """The other width of a matrix that has this width; 0 if a module holds no such matrix.

    What is around a layer, as LoRA is, hands out the layer's weight.
    """
    for weight in (*part.parameters(recurse=False), getattr(part, "weight", None)):
        if isinstance(weight, torch.Tensor) and weight.ndim == 2 and width in weight.shape:
            return weight.numel() // width
    return 0
