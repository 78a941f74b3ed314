"""The analysis: which heads have which role, without an image and with one in front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options, WorkUnit
from vlmlens.abc.model_work import JSON
from vlmlens.errors import CompositionError, DataError, EditError, SelectorError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import TokenKind
from vlmlens_plugins.analysis._sweeps.effects import too_few
from vlmlens_plugins.analysis._sweeps.sweeping import Onward, check_writes
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis.heads.measured import (
    IMAGE,
    LOOKS,
    TEXT,
    Head,
    Measured,
    needed,
    of_images,
    of_sequences,
)
from vlmlens_plugins.analysis.heads.options import HeadsOptions
from vlmlens_plugins.analysis.heads.report import Seen, Shown, report
from vlmlens_plugins.analysis.heads.sequences import (
    ORDERS,
    drawn,
    length_for,
    ordinary_tokens,
)
from vlmlens_plugins.analysis.heads.work import (
    ImageOptions,
    ImageShares,
    SequenceScores,
    attentions,
)

_MOST_IMAGES = 64


class Heads(Analysis):
    """Which heads read the previous token, an earlier equal one, the one behind it, the image."""

    Options: ClassVar[type[Options]] = HeadsOptions
    options: HeadsOptions

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: there are heads, and the model can read the sequences."""
        del columns
        check_writes(skeleton, "heads")
        _heads(skeleton)
        self._prompts(skeleton, samples)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        warnings: list[str] = []
        tell = context.warn

        def warn(message: str) -> None:
            warnings.append(message)
            tell(message)

        context = replace(context, warn=warn, progress=Onward(context.progress))
        check_writes(context.model(), "heads")
        heads = _heads(context.model())
        prompts, left_out = self._prompts(context.model(), context.samples, run=True)
        for message in [*left_out, *_without_heads(context.model(), heads)]:
            warn(message)
        shown = self._shown(context, prompts, heads)
        seen = self._seen(context, heads)
        measured = [role for each in shown for role in each.roles]
        measured += [] if seen is None else [seen.role]
        for message in dict.fromkeys(map(_too_few, measured)):
            if message:
                warn(message)
        return report(shown, seen, self.options, context.seed, warnings)

    def _prompts(
        self, vlm: ModelAdapter, samples: Sequence[Sample], *, run: bool = False
    ) -> tuple[dict[str, list[Sample]], list[str]]:
        """By condition, what stands in front of the random tokens; and why a condition lacks.

        Args:
            vlm: The model, or its skeleton.
            samples: The samples of the run.
            run: Whether to run the model, too, since edits may need rows that are not there.

        Raises:
            DataError: The model can read the sequences in no condition.
        """
        images = [self._prompt(sample) for sample in _first_of_groups(samples)]
        wanted = {TEXT: [self._prompt(None)], IMAGE: images}
        found, left_out, problems = {}, [], []
        for condition, prompts in wanted.items():
            if not prompts:
                left_out.append("Nothing is said of images: no sample has one.")
                continue
            try:
                self._try(vlm, prompts[0], run=run)
            except (DataError, EditError, SelectorError) as error:
                problems.append(error)
                how = "without an image" if condition == TEXT else "with an image in front"
                left_out.append(f"Nothing is said of heads {how}: {error.message}")
                continue
            found[condition] = prompts
        if not found:
            size = self.options.length * self.options.copies
            raise DataError(
                f"{size} random tokens cannot be shown to the model. {problems[0].message}",
                subject="length",
                hint="Set analysis.heads.length or copies lower if these are too many, or "
                "analysis.heads.prompt if the model needs text in front; if it needs an image, "
                "give the data images.",
            )
        return found, left_out

    def _prompt(self, sample: Sample | None) -> Sample:
        if sample is None:
            return Sample("random tokens", self.options.prompt)
        return replace(sample, prompt=self.options.prompt, label=None, choices=())

    def _try(self, vlm: ModelAdapter, prompt: Sample, *, run: bool) -> None:
        """Encode as many tokens as a sequence has, and run the model on them."""
        size = self.options.length * self.options.copies
        first = vlm.answer_ids("a")[:1]
        batch = vlm.encode([prompt], answers=[first * size])
        if run:
            vlm.forward(batch, logits="none")

    def _shown(
        self,
        context: AnalysisContext,
        prompts: dict[str, list[Sample]],
        heads: Sequence[Head],
    ) -> list[Shown]:
        """What random sequences say, by condition."""
        some = next(iter(prompts.values()))[0]
        known = ordinary_tokens(context.model(), some, context.seed)
        options = self.options
        length = length_for(len(known), options.length, options.copies)
        if length < options.length:
            context.warn(
                f"Sequences have {length} tokens instead of {options.length}: the model has only "
                f"{len(known)} ordinary tokens."
            )
        numbers = range(options.sequences or needed(len(heads)))
        units = [
            WorkUnit(
                prompts[condition][number % len(prompts[condition])],
                {
                    "tokens": drawn(number, order, known, length, options.copies, context.seed),
                    "length": length,
                    "copying": order == "repeated",
                },
                condition,
            )
            for condition in prompts
            for order in ORDERS
            for number in numbers
        ]
        found = iter(context.run_units(SequenceScores(), units))
        shown = []
        for condition in prompts:
            results: dict[str, list[JSON]] = {
                order: [next(found) for _ in numbers] for order in ORDERS
            }
            roles = of_sequences(condition, results, heads, options, context.seed)
            shown.append(Shown(condition, results, roles, length))
        return shown

    def _seen(self, context: AnalysisContext, heads: Sequence[Head]) -> Seen | None:
        """What the last row of the run's own questions reads of the image."""
        having = [sample for sample in context.samples if sample.images]
        rows = rows_by_task(having).values()
        chosen = [having[i] for numbers in rows for i in numbers[: self.options.samples]]
        if not chosen:
            return None
        layout = context.model().encode(chosen[:1]).layout(0, Axis.LLM)
        if not len(layout.positions(TokenKind.IMAGE)):
            context.warn(
                "Nothing is said of attention to the image: its rows are not among those that the "
                "language model's self-attention reads."
            )
            return None
        work = ImageShares(ImageOptions(sink=self.options.sink))
        results = context.run_units(work, [WorkUnit(sample) for sample in chosen])
        groups = [sample.split_group for sample in chosen]
        role = of_images(results, heads, groups, self.options, context.seed)
        return Seen(results, role)


def _heads(vlm: ModelAdapter) -> list[Head]:
    """All heads, block by block.

    Raises:
        CompositionError: There are none.
    """
    sites = attentions(vlm)
    if not sites:
        raise CompositionError(
            "The analysis heads reads attention in the blocks of a language model, and no heads "
            "are known there.",
            subject="heads",
            hint="Leave the analysis out, or choose another model.",
        )
    found: list[Head] = []
    for site in sites:
        heads = vlm.sites.heads(site)
        count = 0 if heads is None else heads.count
        found += [(site.name.removesuffix(".attn"), number) for number in range(count)]
    return found


def _without_heads(vlm: ModelAdapter, heads: Sequence[Head]) -> list[str]:
    """A warning of blocks whose attention has no heads, as linear attention."""
    blocks = [name for name in vlm.sites.canonical if name.startswith("llm.block.")]
    known = {block for block, _ in heads}
    others = [name for name in blocks if name not in known]
    if not others:
        return []
    return [
        f"Nothing is said of {len(others)} of {len(blocks)} blocks (for example {others[0]}): they "
        "have no attention with heads."
    ]


def _first_of_groups(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample with an image of each of the first groups."""
    found: dict[str, Sample] = {}
    for sample in samples:
        if len(found) == _MOST_IMAGES:
            break
        if sample.images:
            found.setdefault(sample.split_group, sample)
    return list(found.values())


def _too_few(one: Measured) -> str:
    """A warning that no head can have a role; "" if one can."""
    count = len(one.heads)
    if one.role == LOOKS or not too_few("", one.groups, count):
        return too_few("heads that look at the image", one.groups, count)
    are = "sequence is" if one.groups == 1 else "sequences are"
    return (
        f"{one.groups} {are} too few for any of {count} heads to have a role: {needed(count)} are "
        "shown by default."
    )
