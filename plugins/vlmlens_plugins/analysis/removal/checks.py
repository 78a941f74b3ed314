"""The conformance kit for removal, and a model in which it is known what removal does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from vlmlens.abc import ModelAdapter
from vlmlens.manifest import Manifest
from vlmlens.samples import Sample
from vlmlens.testing import AnalysisTests, Planted, Signal
from vlmlens.testing.model import TinyLlava, request
from vlmlens.testing.planting import columns_of, in_model
from vlmlens_plugins.analysis.manifests import REMOVAL

OBJECTS = ("k", "m")
"""What questions ask for. Each has a dimension of its own, by which its word is embedded."""

_DIMENSIONS = {"k": 0, "m": 1}
_SEEN, _ALWAYS = 2, 3
_FIRST_FREE = 4


@cache
def planted_model(signal: Signal) -> ModelAdapter:
    """A tiny model that says yes where image rows point along the words of objects.

    The first block does nothing, so the state of a word is its embedding. The second one averages
    over all rows what they have of any object. Where that is enough, yes is likelier than no, and
    of the two objects the model writes "k", else "m".

    Args:
        signal: present: every picture has something of "k". absent: pictures have nothing of any
            object, and the model always says yes. confounded: every picture has both objects.
    """
    import torch

    vlm = TinyLlava.load(request())
    weights = dict(vlm.module.named_parameters())
    seen = {"present": ["k"], "absent": [], "confounded": ["k", "m"]}[signal]
    text, head = "model.language_model", weights["lm_head.weight"]
    embedded = weights[f"{text}.embed_tokens.weight"]
    projector = "model.multi_modal_projector.linear_2"
    yes, no = (vlm.answer_ids(answer) for answer in ("yes", "no"))
    with torch.no_grad():
        for block in (0, 1):
            for name in ("self_attn.o_proj", "mlp.down_proj", "self_attn.q_proj"):
                weights[f"{text}.layers.{block}.{name}.weight"].zero_()
        value = weights[f"{text}.layers.1.self_attn.v_proj.weight"].zero_()
        value[0, list(_DIMENSIONS.values())] = 1
        weights[f"{text}.layers.1.self_attn.o_proj.weight"][_SEEN, 0] = 1
        embedded[:, :_FIRST_FREE] = 0
        for name, dimension in _DIMENSIONS.items():
            embedded[vlm.answer_ids(name)[-1]] = torch.eye(embedded.shape[1])[dimension]
        for token in (yes[0], vlm.answer_ids(":")[-1]):
            embedded[token] = torch.eye(embedded.shape[1])[_ALWAYS]
        weights[f"{projector}.weight"][:_FIRST_FREE] = 0
        bias = weights[f"{projector}.bias"].zero_()
        bias[[_DIMENSIONS[name] for name in seen]] = 10
        head.zero_()
        for chosen, other in ((yes[1], no[1]), [vlm.answer_ids(name)[-1] for name in OBJECTS]):
            head[chosen, _SEEN] = 1
            head[other, _ALWAYS] = {"present": 0.9, "absent": -1.0, "confounded": 2.2}[signal]
    return vlm


class RemovalChecks(AnalysisTests):
    """Whether removing an object's word from image rows takes hallucinated objects away.

    - present: pictures have something of "k", which is not there; "m" is there.
    - absent: pictures have nothing of the objects, and the answer is always yes.
    - confounded: pictures have something of both, and which of them are there is random. The
      edit takes away true and hallucinated ones alike.
    """

    manifest: ClassVar[Manifest] = REMOVAL
    options: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"strengths": [1.0], "text_sites": ["llm.block.0"], "samples": 8, "draws": 200}
    )

    def planted(self, signal: Signal) -> Planted:
        """See `AnalysisTests.planted`."""
        vlm = planted_model(signal)
        samples = asked(signal)
        return Planted(samples, columns_of(vlm, samples), lambda: vlm)


def asked(signal: Signal) -> list[Sample]:
    """Questions about pictures, every other one about "k"."""
    rng = np.random.default_rng(0)
    found = []
    for i, sample in enumerate(in_model("present").samples):
        name = OBJECTS[i % 2]
        there = bool(rng.random() < 0.5) if signal == "confounded" else name == "m"
        found.append(
            replace(
                sample,
                prompt=f"Is there a {name}?",
                label="yes" if there else "no",
                choices=("yes", "no"),
                attributes={"object": name},
            )
        )
    return found


REMOVAL_CHECKS = (RemovalChecks,)
