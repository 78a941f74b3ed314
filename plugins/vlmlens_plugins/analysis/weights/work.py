"""Model work of the analysis: one unit is the heads of one attention module, or the projector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field

from vlmlens.abc import ModelAdapter, ModelWork, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens_plugins.analysis.weights.calling import Call, Unreadable, calls
from vlmlens_plugins.analysis.weights.factors import (
    KINDS,
    Composed,
    Factors,
    compose,
    participation,
    strongest,
    traces,
)
from vlmlens_plugins.analysis.weights.matrices import HeadMatrices, read_matrices
from vlmlens_plugins.analysis.weights.projector import last_linear, read_directions
from vlmlens_plugins.analysis.weights.vocabulary import Words

LISTED = 48
"""Of a stack of no more heads, all pairs are listed, and drawn head by head."""
_SPECTRUM = 3
_ROWS = 256


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
        self._read: dict[str, Factors | str] = {}
        self._of: ModelAdapter | None = None
        self._words: Words | None = None

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, JSON]]:
        """See `ModelWork.run`."""
        if self._of is not vlm:
            self._read, self._of = {}, vlm
            self._words = Words.of(vlm, fold=self.options.fold)
        found = []
        for unit in units:
            given = unit.arguments
            if "projector" in given:
                found.append(self._projector(vlm, given["projector"]))
                continue
            names = [*given["earlier"], given["site"]]
            self._read_all(vlm, unit.sample, [name for name in names if name not in self._read])
            found.append(self._module(given))
        return found

    def _read_all(self, vlm: ModelAdapter, sample: Sample, names: Sequence[str]) -> None:
        """Read modules that are not known yet, with the arguments of one pass.

        Where a module treats the rows of an image in another way, it is read as for text alone.
        """
        sites = [vlm.sites.resolve(name)[0] for name in names]
        if not sites:
            return
        waiting = self._read_with(vlm, sample, sites)
        if waiting and sample.images:
            with suppress(DataError):
                self._read_with(vlm, replace(sample, images=(), attributes={}), waiting)

    def _read_with(self, vlm: ModelAdapter, sample: Sample, sites: Sequence[Site]) -> list[Site]:
        """Read modules; those that refuse are given back."""
        batch = vlm.encode([sample])
        if not sample.images and Axis.LLM in batch.layouts:  # more rows, so fewer calls
            batch = vlm.encode([sample] * max(1, _ROWS // batch.layouts[Axis.LLM].total))
        given = calls(vlm, batch, sites)
        refused = []
        for site in sites:
            try:
                self._read[site.name] = self._factors(vlm, site, given)
            except Unreadable as why:
                self._read.setdefault(site.name, str(why))
                refused.append(site)
        return refused

    def _factors(self, vlm: ModelAdapter, site: Site, given: Mapping[str, Call]) -> Factors:
        if site.name not in given:
            raise Unreadable("it does not run in a pass of this sample")
        return Factors(read_matrices(vlm, site, given[site.name], fold=self.options.fold))

    def _module(self, given: Mapping[str, JSON]) -> dict[str, JSON]:
        own = self._read[given["site"]]
        if isinstance(own, str):
            return {"refused": own}
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
        found: dict[str, list[list[JSON]]] = {
            kind: [[] for _ in own.matrices.value] for kind in KINDS
        }
        peaks: dict[str, dict[str, float | None]] = {kind: {} for kind in KINDS}
        sums = {kind: [0.0, 0] for kind in KINDS}
        writers = {
            name: one
            for name, one in ((name, self._read[name]) for name in given["earlier"])
            if isinstance(one, Factors) and one.matrices.value.shape[-1] == width
        }
        heads = sum(len(one.matrices.value) for one in (own, *writers.values()))
        most = heads if heads <= LISTED else self.options.strongest
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
