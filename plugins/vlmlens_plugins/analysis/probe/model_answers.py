"""The model's own answers, read from what the run has stored or asked for again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vlmlens.abc import AnalysisContext, ModelAdapter, WorkUnit
from vlmlens.errors import VlmlensError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._answer_work import ChoiceScores
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.probe.chosen_samples import ChosenSamples


def model_answers(context: AnalysisContext, mode: str) -> tuple[dict[str, str], str]:
    """The chosen answer by sample id, and a sentence on where the answers come from.

    Where every choice of a sample is one token, the answer is read from the stored output of the
    last block at the last position, with the model's own final norm and unembedding: the same
    logits as in the run, without a forward pass. With `mode` "ask" the model is run on the others.

    Args:
        context: The analysis's.
        mode: "auto" (nothing is loaded for it), "ask", or "off".
    """
    closed = [bool(each.choices) and each.label is not None for each in context.samples]
    samples = ChosenSamples((context.samples, np.flatnonzero(closed)))
    if mode == "off" or not samples or (mode == "auto" and not context.model_loaded):
        return {}, _WHY_NOT if mode == "auto" and samples else ""
    try:
        vlm = context.model()
        scorer = AnswerScorer(vlm)
        stored = _stored(context, vlm, scorer, samples)
        found = dict(stored)
        rest = [sample for sample in samples if sample.id not in found]
        if mode == "ask":
            found.update(_asked(context, rest))
    except VlmlensError as error:
        if mode == "ask":
            raise
        return {}, f"The model's own answers could not be read: {error.message}"
    source = "read from the last block's column" if stored else "asked of the model"
    return found, f"The model's own answers (the most probable choices) were {source}."


_WHY_NOT = (
    "The model's own answers are left out because the model was not loaded. To load it: "
    "--set analysis.probe.answers=ask."
)


def _stored(
    context: AnalysisContext, vlm: ModelAdapter, scorer: AnswerScorer, samples: Sequence[Sample]
) -> dict[str, str]:
    readout = vlm.readout()
    if readout is None:
        return {}
    column = f"{readout.site}/last"
    if column not in [info.name for info in context.columns()]:
        return {}
    fit = [sample for sample in samples if _single(scorer, sample.choices)]
    present = set(context.store.ids(column))
    fit = [sample for sample in fit if sample.id in present]
    found: dict[str, str] = {}
    for start in range(0, len(fit), _ROWS):
        part = fit[start : start + _ROWS]
        hidden = context.store.read(column, [sample.id for sample in part]).numpy()
        with torch.inference_mode():
            rows = torch.from_numpy(np.ascontiguousarray(hidden, np.float32))
            logits = readout.unembed(readout.norm(rows)).float().cpu()
        for row, sample in zip(logits, part, strict=True):
            ids = [scorer.answer_ids(choice)[0] for choice in sample.choices]
            found[sample.id] = sample.choices[int(row[ids].argmax())]
    return found


_ROWS = 512


def _asked(context: AnalysisContext, samples: Sequence[Sample]) -> dict[str, str]:
    units = [WorkUnit(sample, {"choices": list(sample.choices)}) for sample in samples]
    results = context.run_units(ChoiceScores(), units, progress=lambda done, total: None)
    return {
        sample.id: sample.choices[int(np.argmax(logs))]
        for sample, logs in zip(samples, results, strict=True)
    }


def _single(scorer: AnswerScorer, choices: Sequence[str]) -> bool:
    ids = [scorer.answer_ids(choice) for choice in choices]
    return all(len(tokens) == 1 for tokens in ids) and len({t[0] for t in ids}) == len(ids)
