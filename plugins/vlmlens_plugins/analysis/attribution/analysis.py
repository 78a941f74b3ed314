"""The analysis: what each component does to the answer, estimated and held against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options, WorkUnit
from vlmlens.errors import MissingAnnotation, SelectorError, SpecError
from vlmlens.pairs import pairs_of
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._attribution import edge_scores, node_scores, nodes_of
from vlmlens_plugins.analysis._attribution.node_work import branches_of
from vlmlens_plugins.analysis._attribution.patches import patch_site
from vlmlens_plugins.analysis._sweeps import Item
from vlmlens_plugins.analysis._sweeps.followed import candidates, check_labels, followed
from vlmlens_plugins.analysis._sweeps.sweeping import (
    answer_tokens,
    check_cost,
    check_writes,
    heard,
)
from vlmlens_plugins.analysis.attribution import (
    direct_report,
    edge_report,
    node_report,
    patch_report,
)
from vlmlens_plugins.analysis.attribution.checked import checked
from vlmlens_plugins.analysis.attribution.direct import Asked, direct_of
from vlmlens_plugins.analysis.attribution.options import OF_PAIRS, AttributionOptions, Method
from vlmlens_plugins.analysis.attribution.section import Section
from vlmlens_plugins.analysis.patching import grid
from vlmlens_plugins.analysis.patching.runs import items_of, usable_pairs

_ALL: tuple[Method, ...] = ("nodes", "edges", "direct", "patches")
_PARTITION = ("image", "text", "special", "answer")


class Attribution(Analysis):
    """Components of the language model by what they do to the answer, from gradients."""

    Options: ClassVar[type[Options]] = AttributionOptions
    options: AttributionOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: there are labels, and pairs where they are needed."""
        del columns
        for rows in self.options.rows or ():
            Selector.parse(rows)
        asked = self.options.methods
        if asked is not None and set(asked) & set(OF_PAIRS):
            pairs, dropped = pairs_of(samples)
            if not pairs:
                raise MissingAnnotation(
                    f"None of {len(dropped)} pairs can be used, for example {dropped[0].pair!r}: "
                    f"{dropped[0].reason}.",
                    subject=dropped[0].pair,
                    hint="The two samples of a pair must differ, each with an answer of its own; "
                    "or leave nodes and edges out: methods=[direct,patches].",
                )
        if "patches" in (asked or ()) and not any(sample.images for sample in samples):
            raise MissingAnnotation(
                "The methods name patches, and no sample has an image.",
                subject="patches",
                hint="Leave patches out: --set analysis.attribution.methods=[direct].",
            )
        if asked is not None and set(asked) == {"patches"} and not self.options.patches:
            raise SpecError(
                "methods=[patches] with patches=0 asks for nothing.",
                subject="patches",
                hint="Set analysis.attribution.patches to 1 or more.",
            )
        check_labels(samples, "attribution")

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: it writes, and has such components."""
        del columns
        check_writes(skeleton, "attribution")
        if "nodes" in self._methods(samples):
            nodes = nodes_of(skeleton, self._wanted(samples), self.options.kinds)
            if self.options.grad_drop:
                branches_of(skeleton)
            check_cost(min(2 * self.options.check, len(nodes)), 1, self.options)
        if "patches" in self._methods(samples):
            patch_site(skeleton)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        told, warnings = heard(context)
        methods = self._methods(context.samples)
        sections: list[Section] = []
        if set(methods) & set(OF_PAIRS):
            try:
                sections += self._of_pairs(told, methods)
            except MissingAnnotation as error:
                if self.options.methods is not None:
                    raise
                told.warn(f"Nodes and edges are left out. {error.message}")
        if set(methods) - set(OF_PAIRS):
            sections += self._of_samples(told, methods)
        return Result(
            analysis="attribution",
            title="What each component does to the answer",
            findings=[each for section in sections for each in section.findings],
            tables=[each for section in sections for each in section.tables],
            figures=[each for section in sections for each in section.figures],
            options=self.options.model_dump(mode="json"),
            notes=[
                *_left_out(self.options.methods, methods),
                *(each for section in sections for each in section.notes),
            ],
            warnings=warnings,
            overview=[each for section in sections for each in section.overview],
        )

    def _methods(self, samples: Sequence[Sample]) -> tuple[Method, ...]:
        if self.options.methods is not None:
            return tuple(self.options.methods)
        paired = any(sample.attributes.get("pair") for sample in samples) and pairs_of(samples)[0]
        found = [name for name in _ALL if paired or name not in OF_PAIRS]
        if not any(sample.images for sample in samples):
            found.remove("patches")
        return tuple(found)

    def _wanted(self, samples: Sequence[Sample]) -> list[str]:
        """The rows of nodes; by default, none of images that no sample has."""
        if self.options.rows is not None:
            return list(dict.fromkeys(self.options.rows))
        rows = grid.default_rows(samples)
        if any(sample.images for sample in samples):
            return rows
        return [name for name in rows if not name.startswith("image")]

    def _of_pairs(self, context: AnalysisContext, methods: Sequence[Method]) -> list[Section]:
        """Nodes and edges, with one run of a pair in place of the other."""
        vlm = context.model()
        pairs = usable_pairs(context, self.options)
        items, *tokens, _ = answer_tokens(vlm, items_of(pairs, self.options.direction))
        layouts = grid.layouts_of(vlm, items, context.batch_size)
        found = []
        if "nodes" in methods:
            rows = self._rows(context, items, layouts)
            nodes = nodes_of(vlm, rows, self.options.kinds)
            scores = node_scores(
                context,
                items,
                (tokens[0], tokens[1]),
                nodes,
                grad_drop=self.options.grad_drop,
                patterns=self.options.patterns,
            )
            held = checked(context, items, nodes, scores, self.options)
            for message in filter(None, map(node_report.few, held)):
                context.warn(message)
            found.append(node_report.section(held, self.options))
        if "edges" in methods:
            scored = edge_scores(
                context, items, (tokens[0], tokens[1]), _PARTITION, self.options.edge_steps
            )
            found.append(edge_report.section(scored, items, self.options))
        return found

    def _rows(
        self, context: AnalysisContext, items: Sequence[Item], layouts: grid.Layouts
    ) -> list[str]:
        """The rows of nodes that all samples have.

        Raises:
            SelectorError: There are none.
        """
        samples = [one for item in items for one in (item.target, item.donor) if one is not None]
        wanted = self._wanted(samples)
        rows, missing = grid.applicable(wanted, Axis.LLM, layouts)
        for name, why in missing.items():
            context.warn(f"The rows {name!r} are left out: {why}")
        if not rows:
            raise SelectorError(
                f"None of the rows {', '.join(wanted)} exists in all samples.",
                subject="rows",
                hint="Name rows that all samples have: --set analysis.attribution.rows=[last].",
            )
        return rows

    def _of_samples(self, context: AnalysisContext, methods: Sequence[Method]) -> list[Section]:
        """Direct contributions and patches, of single samples."""
        asked, warnings = candidates(context.samples, self.options.samples)
        chosen = followed(context, self.options, asked)
        for message in (*warnings, *chosen.warnings):
            context.warn(message)
        questions = _comparable(context, _questions(context.model(), chosen.items, chosen.rivals))
        found = []
        direct = direct_of(context, questions) if "direct" in methods else None
        if direct is not None:
            found.append(
                direct_report.section(direct, questions, chosen.notes, context, self.options)
            )
        if "patches" in methods and self.options.patches:
            found += patch_report.sections(context, questions, direct, self.options)
        return found


def _left_out(asked: Sequence[Method] | None, methods: Sequence[Method]) -> list[str]:
    """A note of the methods that the data do not allow."""
    if asked is not None:
        return []
    lacking = {
        "nodes": "nodes and edges, which need pairs",
        "patches": "patches: there is no image",
    }
    named = [what for name, what in lacking.items() if name not in methods]
    return [f"Left out: {'; '.join(named)}."] if named else []


def _comparable(context: AnalysisContext, questions: Sequence[Asked]) -> list[Asked]:
    """In a task with logit differences, only the samples that have one."""
    paired = {one.task for one in questions if len(one.unit.arguments["tokens"]) > 1}
    kept = [q for q in questions if q.task not in paired or len(q.unit.arguments["tokens"]) > 1]
    if len(kept) < len(questions):
        context.warn(
            f"{len(questions) - len(kept)} of {len(questions)} samples are left out of direct "
            "contributions and patches: others of their task have a second answer to compare the "
            "right one with, and they have none."
        )
    return kept


def _questions(vlm: ModelAdapter, items: Sequence[Item], rivals: Sequence[int]) -> list[Asked]:
    """The samples with the tokens that are compared."""
    kept, prefixes, tokens, _ = answer_tokens(vlm, items)
    found = []
    for item, prefix, own, rival in zip(kept, prefixes, tokens, rivals, strict=True):
        compared = [own[0], own[rival]] if rival else [own[0]]
        unit = WorkUnit(item.target, {"prefix": prefix, "tokens": compared})
        found.append(Asked(unit, item.task, item.group))
    return found
