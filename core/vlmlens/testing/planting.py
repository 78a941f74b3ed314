"""Data with a known truth (a planted signal), for the kit of analyses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vlmlens.abc.storage import Values
from vlmlens.samples import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmlens.abc.adapter import ModelAdapter

Signal = Literal["present", "absent", "confounded"]
"""What is planted; `in_columns` and `in_model` describe it."""

CHOICES = ("a", "b", "c")
COLUMN = "llm.block.1/last"
"""The column in which `in_columns` plants the signal."""

_WIDTH = 16


@dataclass(frozen=True)
class Planted:
    """The data of one check.

    Args:
        samples: Samples with prompts, pictures, labels, choices and groups.
        columns: Their stored columns.
        model: The model for the analysis; None: it must not ask for one.
    """

    samples: Sequence[Sample]
    columns: Mapping[str, Values]
    model: Callable[[], ModelAdapter] | None = None


def in_columns(signal: Signal, *, samples: int = 240) -> Planted:
    """Labels that can be read from one column, or from none; there is no model.

    - present: the column `llm.block.1/last` contains the label of every sample.
    - absent: all columns are noise.
    - confounded: that column contains the group of every sample, and all samples of a group have
      one label. An analysis that splits a group finds the label; for a new group it is not there.

    There are three more columns of noise, one of them ragged.
    """
    rng = np.random.default_rng(["present", "absent", "confounded"].index(signal))
    groups = np.arange(samples)
    if signal == "confounded":
        groups = np.repeat(np.arange(samples // 6), 6)
    of_group = rng.permutation(np.arange(groups[-1] + 1) % 2)
    labels = of_group[groups]
    told = rng.normal(size=(samples, _WIDTH))
    if signal == "present":
        told += 4 * np.eye(_WIDTH)[labels]
    if signal == "confounded":
        told = rng.normal(size=(groups[-1] + 1, _WIDTH))[groups] + 0.05 * told
    lengths = tuple(1 + i % 3 for i in range(samples))
    columns = {
        "vision.block.0/image.mean": _values(rng.normal(size=(samples, _WIDTH))),
        "llm.block.0/last": _values(rng.normal(size=(samples, _WIDTH))),
        COLUMN: _values(told),
        "llm.block.0/text": _values(rng.normal(size=(sum(lengths), _WIDTH)), lengths),
    }
    asked = [
        Sample(
            f"s{i}", "Which one?", (_picture(int(group)),), CHOICES[label], CHOICES[:2],
            group=f"g{group}", task="planted",
        )
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]  # fmt: skip
    return Planted(asked, columns)


@cache
def in_model(signal: Signal, *, samples: int = 48) -> Planted:
    """Questions to a tiny model, with its own answers as labels, or random labels.

    - present: the model sees the pictures, and its answers are the labels.
    - absent: the model always sees a gray picture, and the labels are random.
    - confounded: the model always sees a gray picture, and its answers are the labels. So it is
      always right, but never uses the image.

    The columns are the model's own: at the last token, and pooled in the vision tower.
    """
    from vlmlens.testing.model import tiny_model

    vlm = tiny_model(blind=signal != "present")
    several = 1 if signal == "present" else 8
    asked = [
        Sample(
            f"s{i}", f"Which letter is {'it ' * (i % several)}that?", (_picture(i),),
            choices=tuple(ascii_lowercase), group=f"g{i}", task="planted",
        )
        for i in range(samples)
    ]  # fmt: skip
    often = Counter(answered(vlm, asked)).most_common(len(CHOICES))
    choices = tuple(sorted(letter for letter, _ in often))
    asked = [replace(sample, choices=choices) for sample in asked]
    labels = np.random.default_rng(0).choice(choices, samples).tolist()
    if signal != "absent":
        labels = answered(vlm, asked)
    labelled = [replace(s, label=label) for s, label in zip(asked, labels, strict=True)]
    return Planted(labelled, columns_of(vlm, labelled), lambda: vlm)


def columns_of(vlm: ModelAdapter, samples: Sequence[Sample]) -> dict[str, Values]:
    """The model's columns for samples: language blocks at the last token, vision blocks pooled."""
    trace = vlm.trace(vlm.encode(samples), ["vision.block.*", "llm.block.*"])
    pooled = {"vision": "image.mean", "llm": "last"}
    names = [f"{site}/{pooled[site.partition('.')[0]]}" for site in trace]
    return {name: _values(trace.select(name).float().numpy()) for name in names}  # type: ignore[union-attr]


def answered(vlm: ModelAdapter, samples: Sequence[Sample]) -> list[str]:
    """The most probable choice for each sample.

    Args:
        vlm: A tiny model. The tokens of its one-letter answers differ only in the last one.
        samples: Samples that all have the same choices.
    """
    choices = samples[0].choices
    written = [vlm.answer_ids(choice) for choice in choices]
    batch = vlm.encode(samples, answers=[written[0][:-1]] * len(samples))
    logits = vlm.forward(batch, logits="last").logits
    assert logits is not None
    best = logits[:, [ids[-1] for ids in written]].argmax(1).tolist()
    return [choices[k] for k in best]


def _values(array: Any, lengths: tuple[int, ...] | None = None) -> Values:
    return Values(np.ascontiguousarray(array, "<f4"), "float32", lengths)


@cache
def _picture(number: int) -> Image:
    """A picture of blocks in random colours."""
    from PIL import Image

    colours = np.random.default_rng(number).integers(0, 256, (2, 2, 3), np.uint8)
    return Image.fromarray(colours).resize((32, 32), Image.Resampling.NEAREST)
