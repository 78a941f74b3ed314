"""What the logit lens found at one position per sample, in sentences, and how."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Cell, Finding, Glance
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis.logit_lens.options import LensOptions
from vlmlens_plugins.analysis.logit_lens.single_position import Lens
from vlmlens_plugins.analysis.logit_lens.vocabulary import Floats, Ints


def findings(lens: Lens) -> list[Finding]:
    """One finding per task."""
    return [_finding(lens, task, rows) for task, rows in lens.tasks.items()]


def overview(lens: Lens) -> list[Glance]:
    """Per task, the layer at which the answer settles, and its probability over depth."""
    return [
        Glance(
            task,
            "answer settles",
            lens.layer_name(lens.median_settling(rows)) or "does not settle",
            curve=[_median(layer) for layer in lens.readings.answer_probability[:, rows]],
        )
        for task, rows in lens.tasks.items()
    ]


def notes(options: LensOptions, error: float, words: Sequence[Ints]) -> list[str]:
    """How the numbers were made.

    Args:
        options: Of the lens.
        error: Of the check against the model's own logits.
        words: The tokens of each followed word.
    """
    normed = "The model's final norm and unembedding are"
    if not options.norm:
        normed = "The model's unembedding, WITHOUT the final norm, is"
    found = [
        f"Logit lens (nostalgebraist 2020). {normed} applied to the output of each language block "
        "at the stored positions. Probabilities are a softmax over the whole vocabulary.",
        "Checked first: at the last block the lens equals the model's own logits within "
        f"{error:.1e} of the largest logit.",
        "The answer is the model's own most probable next token. A label stands for the first "
        "token that the model would write for it, and is left out where another label or choice "
        "of the task begins with the same token. The answer settles at the first layer from "
        "which it stays the most probable token. Entropy and divergence, KL(final layer || layer), "
        "are in nats. Bands are quartiles.",
        "Early blocks do not write in the unembedding's basis. A token that is not the most "
        "probable there may still be encoded.",
    ]
    if words:
        pairs = zip(options.words, words, strict=True)
        each = ", ".join(f"{word} ({len(tokens)})" for word, tokens in pairs)
        found.append(f"Followed words, with the number of single-token spellings: {each}.")
    if options.tuned:
        found.append(
            "Tuned lens (Belrose et al. 2023): one affine map per layer. Three fifths of the "
            "groups train it, one fifth stops the training, one fifth tests it: at most 8,192 "
            "positions to train on, 2,048 for each other part, spread evenly. Intervals resample "
            "whole groups. All other numbers are of the plain lens."
        )
    return found


def _finding(lens: Lens, task: str, rows: Ints) -> Finding:
    names, total = short_names(lens.columns), len(lens.columns)
    layer, found = lens.median_settling(rows), lens.readings
    start, end = (_median(found.answer_probability[i, rows]) for i in (0, -1))
    label = lens.labelled(rows)
    agree = float((found.label_rank[-1, label] == 1).mean()) if len(label) else None
    shared = int(lens.labels.shared[rows].sum())
    right = _right(
        agree, longer=bool(lens.labels.longer[label].any()), shared=shared, total=len(rows)
    )
    text = (
        f"{task}: the answer settles at {names[layer]}, layer {layer + 1} of {total}{right}."
        if layer < total
        else f"{task}: the answer does not settle in the {total} layers read{right}."
    )
    values: dict[str, Cell] = {
        "settling_layer": lens.layer_name(layer),
        "settling_index": layer,
        "layers": total,
        "answer_probability_first": start,
        "answer_probability_last": end,
        "label_top1_last": agree,
        "labels_not_told": shared,
    }
    subject = task if lens.stem == "lens" else f"{task} ({lens.group.name})"
    return Finding(text, subject=subject, values=values)


def _right(agree: float | None, *, longer: bool, shared: int, total: int) -> str:
    """How often the answer is the label, as far as one token tells."""
    untold = (
        f"cannot be told in {shared} of {total}, whose label begins with the same token as another "
        "answer"
    )
    if agree is None:
        return f"; whether it is right {untold}" if shared else ""
    said = f"; it {'begins like the label' if longer else 'is right'} in {agree:.0%}"
    return f"{said} ({untold})" if shared else said


def _median(values: Floats) -> float:
    return float(np.median(values))
