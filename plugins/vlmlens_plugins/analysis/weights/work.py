"""Model work of the analysis: one unit is the heads of one attention module, or the projector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import torch
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.weights.calling import Unreadable
from vlmlens_plugins.analysis.weights.factors import (
    KINDS,
    Composed,
    Factors,
    Writer,
    compose,
    participation,
    strongest,
    traces,
)
from vlmlens_plugins.analysis.weights.matrices import HeadMatrices
from vlmlens_plugins.analysis.weights.projector import last_linear, read_directions
from vlmlens_plugins.analysis.weights.reading import Reading
from vlmlens_plugins.analysis.weights.vocabulary import Words

LISTED = 48
"""Of a stack of no more heads, all pairs are listed, and drawn head by head."""
_SPECTRUM = 3


class HeadOptions(Options):
    """Options of `HeadWork`."""

    fold: bool = Field(True, description="See `WeightsOptions.fold`.")
    tokens: tuple[int, ...] = Field((), description="Tokens of copying scores; none: no scores.")
    words: tuple[int, ...] = Field((), description="Tokens that are followed through each head.")
    strongest: int = Field(8, description="See `WeightsOptions.strongest`.")
    seed: int = Field(0, description="Of shuffles.")


class HeadWork(ModelWork):
    """What the weights of the heads of one attention module say.

    Arguments: "site", the module; "earlier", those of earlier blocks of the stack; "language",
    whether the stack is the one that the unembedding reads. Or "projector", its site.

    Result: "refused", why nothing is known; or "heads", a mapping for each head; "said", what was
    folded in and what is missing; "compositions", by kind and head, the strongest earlier heads;
    "peaks", by kind and earlier module, the highest score; "sums", by kind, the sum of all scores
    and how many; "random", the score of random directions; "words", see `Words.written`. For
    the projector: "directions".
    """

    Options: ClassVar[type[Options]] = HeadOptions
    options: HeadOptions
    version: ClassVar[int | None] = 1

    def __init__(self, options: HeadOptions | None = None) -> None:
        super().__init__(options)
        self._writers: dict[str, Writer | None] = {}
        self._of: ModelAdapter | None = None
        self._words: Words | None = None

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`. What earlier blocks write is kept for the next units."""
        if self._of is not vlm:
            self._writers, self._of = {}, vlm
            self._words = Words.of(vlm, fold=self.options.fold)
        readings = self._readings(vlm, units)
        found = []
        for unit in units:
            if "projector" in unit.arguments:
                found.append(self._projector(vlm, unit.arguments["projector"]))
            else:
                found.append(self._unit(readings[unit.sample.fingerprint()], unit.arguments))
        return found

    def _readings(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> dict[str, Reading]:
        """By sample, so that units of one sample need one pass."""
        samples: dict[str, Sample] = {}
        names: dict[str, list[str]] = defaultdict(list)
        for unit in units:
            if "site" in unit.arguments:
                key = unit.sample.fingerprint()
                samples[key] = unit.sample
                earlier = (one for one in unit.arguments["earlier"] if one not in self._writers)
                names[key] += [*earlier, unit.arguments["site"]]
        return {
            key: Reading(vlm, sample, names[key], fold=self.options.fold)
            for key, sample in samples.items()
        }

    def _unit(self, reading: Reading, given: Mapping[str, JSON]) -> dict[str, JSON]:
        for name in given["earlier"]:
            if name not in self._writers:
                with suppress(Unreadable):
                    self._writers[name] = reading.factors(name).writer()
                self._writers.setdefault(name, None)
        try:
            own = reading.factors(given["site"])
        except Unreadable as why:
            return {"refused": str(why)}
        told = self._module(own, given)
        self._writers[given["site"]] = own.writer()
        return told

    def _module(self, own: Factors, given: Mapping[str, JSON]) -> dict[str, JSON]:
        matrices = own.matrices
        heads = _heads(own)
        told: dict[str, JSON] = {"said": [matrices.norm, matrices.why], "words": []}
        if given["language"] and self._words is not None:
            told["words"] = self._followed(self._words, matrices)
            if self.options.tokens:
                scores = self._words.copying(
                    matrices.value, matrices.output, self.options.tokens, self.options.seed
                )
                heads = [{**one, **more} for one, more in zip(heads, scores, strict=True)]
        return {"heads": heads, **told, **self._composed(own, given)}

    def _followed(self, words: Words, matrices: HeadMatrices) -> list[list[dict[str, Any]]]:
        tokens = self.options.words
        if not tokens:
            return []
        embedded = words.embed(tokens).to(matrices.value)
        inner = torch.einsum("hsw,tw->hts", matrices.value, embedded)
        return words.written(torch.einsum("hts,hsw->htw", inner, matrices.output), tokens)

    def _composed(self, own: Factors, given: Mapping[str, JSON]) -> dict[str, JSON]:
        """How the module's heads read what each earlier one writes."""
        width = own.matrices.value.shape[-1]
        writers = self._earlier(given["earlier"], width)
        heads = len(own.matrices.value) + sum(len(one.output) for one in writers.values())
        most = heads if heads <= LISTED else self.options.strongest
        found: dict[str, list[list[JSON]]] = {
            kind: [[] for _ in own.matrices.value] for kind in KINDS
        }
        peaks: dict[str, dict[str, float | None]] = {kind: {} for kind in KINDS}
        sums = {kind: [0.0, 0] for kind in KINDS}
        for name, writer in writers.items():
            for kind, composed in compose(own, writer).items():
                known = composed.score[~composed.score.isnan()]
                peaks[kind][name] = float(known.max()) if len(known) else None
                sums[kind] = [sums[kind][0] + float(known.sum()), sums[kind][1] + len(known)]
                for head, best in enumerate(strongest(composed, most)):
                    found[kind][head] += [_pair(composed, head, g, name) for g in best]
        for kind in KINDS:
            found[kind] = [
                sorted(rows, key=lambda row: -row["score"])[:most] for rows in found[kind]
            ]
        random = float(width**-0.5)
        return {"compositions": found, "peaks": peaks, "sums": sums, "random": random}

    def _earlier(self, names: Sequence[str], width: int) -> dict[str, Writer]:
        """What earlier modules write, of those that can be read and have this width."""
        known = {name: self._writers[name] for name in names}
        return {
            name: one
            for name, one in known.items()
            if one is not None and one.output.shape[-1] == width
        }

    def _projector(self, vlm: ModelAdapter, name: str) -> dict[str, JSON]:
        if self._words is None:
            return {"refused": "the model has no unembedding"}
        width = self._words.embed([0]).shape[-1]
        try:
            path = last_linear(vlm, vlm.sites.canonical[name].path, width)
            return {"directions": read_directions(vlm, path, width, self._words), "path": path}
        except Unreadable as why:
            return {"refused": str(why)}


def _heads(own: Factors) -> list[dict[str, Any]]:
    """The spectra of each head."""
    matrices = own.matrices
    found: list[dict[str, Any]] = [{} for _ in matrices.value]
    parts = {"ov": (own.ov, matrices.output, matrices.value)}
    if own.qk is not None and matrices.query is not None and matrices.key is not None:
        parts["qk"] = (own.qk, matrices.query, matrices.key)
    for name, (values, left, right) in parts.items():
        given_back, spread = traces(left, right, values), participation(values)
        for head, one in enumerate(found):
            one[name] = values[head, :_SPECTRUM].tolist()
            one[f"{name}_norm"] = float(values[head].square().sum().sqrt())
            one[f"{name}_directions"] = spread[head]
            one[f"{name}_trace"] = given_back[head]
    return found


def _pair(composed: Composed, head: int, earlier: int, name: str) -> dict[str, JSON]:
    score, p = (float(each[head, earlier]) for each in (composed.score, composed.p))
    return {"site": name, "head": earlier, "score": score, "p": p}
