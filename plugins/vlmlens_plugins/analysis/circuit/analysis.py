"""The analysis: which components, at which rows, suffice for a behaviour."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.errors import CompositionError, MissingAnnotation, SpecError
from vlmlens.pairs import pairs_of
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens_plugins.analysis._attribution import node_scores
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis._sweeps import Item, check_cost
from vlmlens_plugins.analysis._sweeps.sweeping import answer_tokens, check_writes, heard
from vlmlens_plugins.analysis.circuit import figures, report
from vlmlens_plugins.analysis.circuit.bench import Bench, Floats
from vlmlens_plugins.analysis.circuit.edges import measured_edges
from vlmlens_plugins.analysis.circuit.files import SavedCircuit, open_circuit, save_circuits
from vlmlens_plugins.analysis.circuit.measured import Measured, worth_of
from vlmlens_plugins.analysis.circuit.nodes import Nodes, all_nodes, groups_like, groups_of
from vlmlens_plugins.analysis.circuit.options import CircuitOptions
from vlmlens_plugins.analysis.circuit.search import by_size, search
from vlmlens_plugins.analysis.patching.grid import layouts_of
from vlmlens_plugins.analysis.patching.runs import NOISE, items_of, usable_pairs
from vlmlens_plugins.analysis.steering.aims import mark_of

_IN_FILE = ("parts", "rows", "keep")


class Circuit(Analysis):
    """Searches a circuit on half of the pairs, and measures it on the other half."""

    Options: ClassVar[type[Options]] = CircuitOptions
    options: CircuitOptions

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: there are pairs, and a given circuit can be read."""
        del columns
        self._given()
        pairs, dropped = pairs_of(samples)
        if not pairs:
            raise MissingAnnotation(
                f"None of {len(dropped)} pairs can be used, for example {dropped[0].pair!r}: "
                f"{dropped[0].reason}.",
                subject=dropped[0].pair,
                hint="The two samples of a pair must differ, each with an answer of its own.",
            )

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: there are such components, and the model writes answers."""
        del columns
        check_writes(skeleton, "circuit")
        pairs, _ = pairs_of(samples)
        given = self._given()
        nodes = self._nodes(skeleton, items_of(pairs[:1], NOISE), 1, given)
        _numbers(nodes, given)
        check_cost(len(nodes.components) + self.options.controls, 1, self.options)

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        told, warnings = heard(context)
        given = self._given()
        by_task: dict[str, list[Item]] = {}
        for item in items_of(usable_pairs(told, self.options), NOISE):
            by_task.setdefault(item.task, []).append(item)
        circuits = [self._circuit(told, task, own, given) for task, own in by_task.items()]
        for one in circuits:
            for message in report.doubts(one, self.options):
                told.warn(message)
        saved = [] if given else self._save(told, circuits)
        return Result(
            analysis="circuit",
            title="Which components suffice",
            findings=report.findings(circuits),
            tables=report.tables(circuits),
            figures=figures.figures(circuits),
            options=self.options.model_dump(mode="json"),
            notes=report.notes(circuits, self.options, saved),
            warnings=warnings,
            overview=report.overview(circuits),
        )

    def _circuit(
        self,
        context: AnalysisContext,
        task: str,
        items: Sequence[Item],
        given: SavedCircuit | None,
    ) -> Measured:
        vlm = context.model()
        nodes = self._nodes(vlm, items, context.batch_size, given)
        if given is not None:
            new = [item for item in items if mark_of(item.group) not in given.searched]
            if 0 < len(new) < len(items):
                left = len(items) - len(new)
                context.warn(f"{task}: {left} pairs are left out: the circuit was found on them.")
            bench = _bench(context, self.options, nodes, new or items)
            kept = _numbers(nodes, given)
            scores = np.full(len(nodes.components), np.nan)
            return Measured(
                task, nodes, kept, scores, None, (), bool(new),
                worth_of(bench, kept, task), measured_edges(bench, bench, kept, scores),
            )  # fmt: skip
        parts = halves(items, context.seed)
        learn, *others = (_bench(context, self.options, nodes, part) for part in parts)
        test = others[0] if others else learn
        scores = self._scores(learn)
        found = search(learn, by_size(scores))
        return Measured(
            task,
            nodes,
            found.kept,
            scores,
            found,
            learn.groups,
            bool(others),
            worth_of(test, found.kept, task),
            measured_edges(learn, test, found.kept, scores),
        )

    def _scores(self, bench: Bench) -> Floats:
        """Per component, the share of the effect that it carries, estimated or measured."""
        nodes = bench.nodes
        if self.options.rank == "patching":
            return 1 - bench.share(bench.exchanging([[i] for i in range(len(nodes.components))]))
        singly = list(nodes.singly())
        values = node_scores(bench.context, bench.items, bench.tokens, [each for _, each in singly])
        scores = np.zeros(len(nodes.components))
        for (number, _), own in zip(singly, values.values, strict=True):
            scores[number] -= own.mean()
        found: Floats = scores / bench.whole.mean()
        return found

    def _nodes(
        self, vlm: ModelAdapter, items: Sequence[Item], size: int, given: SavedCircuit | None
    ) -> Nodes:
        layouts = layouts_of(vlm, items, size)[Axis.LLM]
        if given is None:
            return all_nodes(vlm, self.options, groups_of(layouts, self.options.rows))
        options = self.options.model_copy(update={"parts": tuple(given.parts)})
        return all_nodes(vlm, options, groups_like(given.rows, layouts))

    def _given(self) -> SavedCircuit | None:
        """The circuit that the options name, if they do."""
        chosen = self.options
        if chosen.circuit is None:
            return None
        for name in _IN_FILE:
            if getattr(chosen, name) != getattr(type(chosen)(), name):
                raise SpecError(
                    f"{name} is given together with a circuit, which was found already.",
                    subject=name,
                    hint=f"Leave {name} out, or leave `circuit` out to search a new one.",
                )
        return open_circuit(chosen.circuit)

    def _save(self, context: AnalysisContext, circuits: Sequence[Measured]) -> list[str]:
        """The names of the files, one per circuit."""
        if context.folder is None:
            context.warn("The circuits were not saved: there is no run folder.")
            return []
        about = context.model().describe()
        origin = {
            "model": json.loads(json.dumps(about, default=str)),
            "options": self.options.model_dump(mode="json"),
            "seed": context.seed,
        }
        files = [report.saved(one, self.options, origin) for one in circuits]
        return save_circuits(context.folder, files)


def halves(items: Sequence[Item], seed: int) -> list[list[Item]]:
    """The items by groups: half of the groups to search on, the others to measure on.

    A single group cannot be divided: then there is one part.
    """
    groups = list(dict.fromkeys(item.group for item in items))
    if len(groups) < 2:
        return [list(items)]
    order = generator(seed, "circuit-halves").permutation(len(groups))
    first = {groups[i] for i in order[: (len(groups) + 1) // 2]}
    parts = ([i for i in items if i.group in first], [i for i in items if i.group not in first])
    return list(parts)


def _bench(
    context: AnalysisContext, options: CircuitOptions, nodes: Nodes, items: Sequence[Item]
) -> Bench:
    kept, prefixes, tokens, _ = answer_tokens(context.model(), items)
    return Bench(context, options, nodes, kept, (prefixes, tokens))


def _numbers(nodes: Nodes, given: SavedCircuit | None) -> list[int]:
    """The numbers of a saved circuit's nodes.

    Raises:
        CompositionError: The model lacks one.
    """
    places: dict[Any, int] = {node: i for i, node in enumerate(nodes.components)}
    wanted = [] if given is None else given.nodes
    missing = [node for node in wanted if node not in places]
    if missing:
        raise CompositionError(
            f"The model has no node {str(missing[0])!r}, which is in the circuit.",
            subject=str(missing[0]),
            hint="Measure a circuit on the model that it was found in, or on one built alike.",
        )
    return sorted(places[node] for node in wanted)
