"""A trained SAE as one of the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vlmlens_plugins.sae.about import About
from vlmlens_plugins.sae.sae import Sae
from vlmlens_plugins.sae.training.learner import Learner


def folded(learner: Learner, about: Mapping[str, Any]) -> Sae:
    """The SAE with mean and scale folded in; its decoder rows keep their unit norm.

    With rows `(x - m) s` and targets `(y - n) t`, codes become z / t: the encoder is multiplied by
    s / t, biases and thresholds by 1 / t, and `b_dec` becomes `n + b_dec / t`. An autoencoder takes
    `b_dec` from its input, which takes m away too; of a transcoder the encoder's bias does that.
    """
    p = {name: part.detach().cpu().double() for name, part in learner.p.items()}
    into, out = learner.input, learner.output
    if not learner.subtract:
        shift = -into.scale * (into.mean @ p["encoder"].T)
        learner.sparsity.offset(p, shift)
    activation = learner.sparsity.activation(p, 1 / out.scale)
    bias = p.get("b_enc", torch.zeros(learner.recipe.features))
    return Sae(
        W_enc=(p["encoder"].T * (into.scale / out.scale)).float().contiguous(),
        b_enc=(bias / out.scale).float(),
        W_dec=p["decoder"].float().contiguous(),
        b_dec=(out.mean.cpu() + p["b_dec"] / out.scale).float(),
        activation=activation,
        subtract=learner.subtract,
        about=About(trained=dict(about)),
    )
