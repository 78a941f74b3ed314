"""The analysis: what the weights of heads and of the projector say, without any data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options, WorkUnit
from vlmlens.errors import SiteNotFound, SiteSilent, SpecError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.sites import Site
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.logit_lens.words import token_text
from vlmlens_plugins.analysis.weights import report
from vlmlens_plugins.analysis.weights.found import Found, Module
from vlmlens_plugins.analysis.weights.options import WeightsOptions
from vlmlens_plugins.analysis.weights.vocabulary import Words, has_words
from vlmlens_plugins.analysis.weights.work import HeadOptions, HeadWork

_STACK = re.compile(r"(?P<stack>.+)\.block\.\d+")
_READ = "llm"
"""The stack that the unembedding reads."""
_WORDS = 8
_NAMED = 4


class Weights(Analysis):
    """What each head copies, writes and hands to later heads, read from the weights."""

    Options: ClassVar[type[Options]] = WeightsOptions
    options: WeightsOptions

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: attention has heads, and words have tokens."""
        del samples, columns
        stacks(skeleton, self.options.sites)
        if self.options.words and not has_words(skeleton):
            raise SpecError(
                "The model has no embedding and unembedding, so no words can be followed.",
                subject="words",
                hint="Leave the option words out.",
            )

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        vlm = context.model()
        warnings: list[str] = []

        def warn(message: str) -> None:
            warnings.append(message)
            context.warn(message)

        if vlm.active_edits:
            warn("Edits change activations, not weights: this is what weights say without them.")
        found = self._found(context, vlm)
        for message in _missing(found):
            warn(message)
        return Result(
            analysis="weights",
            title="What the weights of heads say",
            findings=report.findings(found),
            tables=report.tables(found),
            figures=report.figures(found),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(self.options, found),
            warnings=warnings,
        )

    def _found(self, context: AnalysisContext, vlm: ModelAdapter) -> Found:
        """What the model work says, for every module.

        Raises:
            SiteSilent: No module can be read.
        """
        words = Words.of(vlm, fold=self.options.fold)
        followed = {} if words is None else self._followed(vlm, words, context.samples)
        drawn = () if words is None else self._tokens(vlm, words, context.seed)
        sample = next((one for one in context.samples if one.images), context.samples[0])
        named, units = [], []
        for stack, sites in stacks(vlm, self.options.sites).items():
            for number, site in enumerate(sites):
                earlier = [each.name for each in sites[:number]] if stack else []
                asked = {"site": site.name, "earlier": earlier, "language": stack == _READ}
                named.append((stack, site))
                units.append(WorkUnit(sample, asked))
        projects = "projector" in vlm.sites.canonical and words is not None
        if projects and self.options.sites is None:
            units.append(WorkUnit(sample, {"projector": "projector"}))
        chosen = HeadOptions(
            fold=self.options.fold, tokens=drawn, words=tuple(followed.values()),
            strongest=self.options.strongest, seed=context.seed,
        )  # fmt: skip
        told = context.run_units(HeadWork(chosen), units)
        modules = [
            Module(site.name, stack, one)
            for (stack, site), one in zip(named, told[: len(named)], strict=True)
        ]
        if all(one.refused for one in modules):
            raise SiteSilent(
                f"The weights of no attention module can be read; {modules[0].site}: "
                f"{modules[0].refused}.",
                subject=modules[0].site,
                hint="Use --attention sdpa or eager and no quantization, or name other modules: "
                "--set analysis.weights.sites=...",
            )
        projector = told[len(named)] if len(told) > len(named) else {}
        return Found(modules, projector, followed, len(drawn), lambda token: _text(vlm, token))

    def _followed(
        self, vlm: ModelAdapter, words: Words, samples: Sequence[Sample]
    ) -> dict[str, int]:
        """The first token of each followed word; of words with one token, the first."""
        wanted = self.options.words
        if wanted is None:
            said = (text for one in samples for text in (one.label, *one.choices) if text)
            wanted = tuple(dict.fromkeys(said))
        found: dict[str, int] = {}
        for word in wanted:
            ids = vlm.answer_ids(word)
            known = bool(word.strip() and ids) and ids[0] < words.size
            if self.options.words is not None and not known:
                raise SpecError(
                    f"The model writes no token for the word {word!r}.",
                    subject="words",
                    hint="Name other words: --set analysis.weights.words=[red, blue].",
                )
            if known and ids[0] not in found.values():
                found[word] = ids[0]
        most = _WORDS if self.options.words is None else len(found)
        return dict(list(found.items())[:most])

    def _tokens(self, vlm: ModelAdapter, words: Words, seed: int) -> tuple[int, ...]:
        """The tokens of copying scores: drawn from those that spell something."""
        most = self.options.tokens or words.size
        order = generator(seed, "weights", "tokens").permutation(words.size)
        spelled = (int(token) for token in order if _spells(vlm, int(token)))
        return tuple(sorted(int(token) for token in np.fromiter(spelled, np.int64)[:most]))


def stacks(vlm: ModelAdapter, patterns: Sequence[str] | None) -> dict[str, list[Site]]:
    """Attention modules whose heads are known, by stack, in order of depth; "": in none.

    Args:
        vlm: The model, or its skeleton.
        patterns: Site patterns; None: the self-attention of all blocks.

    Raises:
        SiteNotFound: There is none.
        SpecError: A named module is no attention whose heads are known.
    """
    found: dict[str, list[Site]] = {}
    for site in _sites(vlm, patterns):
        if vlm.sites.heads(site) is None:
            if patterns is not None:
                raise SpecError(
                    f"The heads of {site.name!r} ({site.path}) are not known.",
                    subject=site.name,
                    hint="Name attention modules: --set analysis.weights.sites='llm.block.*.attn'.",
                )
            continue
        named = _STACK.match(site.name)
        found.setdefault(named["stack"] if named else "", []).append(site)
    if not found:
        raise SiteNotFound(
            "The model has no attention whose heads are known.",
            subject="attn",
            hint="`vlmlens sites` shows the whole tree.",
        )
    return {name: sorted(sites, key=lambda site: site.index or 0) for name, sites in found.items()}


def _sites(vlm: ModelAdapter, patterns: Sequence[str] | None) -> Iterator[Site]:
    if patterns is not None:
        yield from vlm.sites.resolve_all(patterns)
        return
    named = (_STACK.fullmatch(name) for name in vlm.sites.canonical)
    for stack in dict.fromkeys(match["stack"] for match in named if match):
        yield from vlm.sites.matching(f"{stack}.block.*.attn")


def _text(vlm: ModelAdapter, token: int) -> str:
    """A token's text on one line."""
    text = token_text(vlm, token)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _spells(vlm: ModelAdapter, token: int) -> bool:
    text = token_text(vlm, token)
    return text != f"<{token}>" and bool(text.strip("\u2423"))


def _missing(found: Found) -> Iterator[str]:
    """What could not be read, and why; modules with the same reason together."""
    reasons: dict[str, list[str]] = {}
    for module in found.modules:
        if module.refused:
            reasons.setdefault(f"left out: {module.refused}", []).append(module.site)
            continue
        norm, why = module.told["said"]
        if why:
            reasons.setdefault(f"read without queries and keys: {why}", []).append(module.site)
        if "not known" in norm:
            reasons.setdefault(f"read as they are: {norm}", []).append(module.site)
    for reason, sites in reasons.items():
        more = f" and {len(sites) - _NAMED} more" if len(sites) > _NAMED else ""
        verb = "is" if len(sites) == 1 else "are"
        yield f"{', '.join(sites[:_NAMED])}{more} {verb} {reason}."
    if found.projector.get("refused"):
        yield f"The projector is left out: {found.projector['refused']}."
