"""The numbers of VLM-Lens' scripts for the columns of a run, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from vlmlens.abc import AnalysisContext, ColumnInfo, ColumnStore
from vlmlens.errors import SpecError
from vlmlens.registry import Registry
from vlmlens.results import Cell, Finding, Table
from vlmlens.samples import Sample
from vlmlens.transfer import origin_of
from vlmlens_plugins.analysis._results import joined
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.concepts import vlm_lens
from vlmlens_plugins.analysis.concepts.options import ConceptsOptions
from vlmlens_plugins.analysis.concepts.rows import MOST, NotFinite, Rows, placed, read
from vlmlens_plugins.analysis.concepts.sets import named_samples, stored_images

Columns = Mapping[str, Sequence[Cell]]
_MOST_CELLS = 1_000_000
_MOST_BYTES = MOST // 2
"""Of prototypes."""


@dataclass(frozen=True, slots=True)
class Bank:
    """Where prototypes come from.

    Args:
        store: Their columns.
        samples: By set, the samples with their concepts.
        own: Whether they are the targets themselves.
    """

    store: ColumnStore
    samples: Mapping[str, Sequence[tuple[Sample, str]]]
    own: bool


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison of one set at one column."""

    name: str
    column: str
    targets: Sequence[Sample]
    truth: Sequence[str | None]
    prototypes: vlm_lens.Prototypes
    similarities: vlm_lens.Similarities
    votes: vlm_lens.Votes


@contextmanager
def opened_bank(context: AnalysisContext, options: ConceptsOptions) -> Iterator[Bank]:
    """The prototypes that the options name, while in use.

    Raises:
        RunNotFound, StoreError: There is no such run or database.
        MissingAnnotation: It has no sample of a concept.
    """
    if options.prototypes is None:
        images = stored_images(context.store)
        yield Bank(context.store, named_samples(options.by, context.samples, images), own=True)
        return
    with origin_of(Registry.default(), options.prototypes) as origin:
        images = stored_images(origin.store)
        samples = list(origin.store.samples() if origin.run is None else origin.run.samples)
        yield Bank(origin.store, named_samples(options.by, samples, images), own=False)


def check_size(bank: Bank, targets: int, columns: int) -> None:
    """Raise an error if the table would be too long.

    Raises:
        SpecError: It would be.
    """
    concepts = sum(len({name for _, name in own}) for own in bank.samples.values())
    cells = concepts * columns * targets
    if cells > _MOST_CELLS:
        raise SpecError(
            f"The numbers of VLM-Lens would be {cells:,} rows of a table: {concepts} concepts x "
            f"{targets:,} samples x {columns} columns.",
            subject="vlm_lens",
            hint=f"Choose columns (--set analysis.concepts.columns=...), at most {_MOST_CELLS:,} "
            "rows are written.",
        )


def compared(
    context: AnalysisContext, bank: Bank, infos: Sequence[ColumnInfo], options: ConceptsOptions
) -> Iterator[Compared | None]:
    """Each set at each column; None where they cannot be compared, with a warning.

    Raises:
        SpecError: There are more components than prototypes or features.
    """
    own = named_samples(options.by, context.samples, stored_images(context.store))
    theirs = {info.name: info for info in bank.store.columns()}
    for name, known in bank.samples.items():
        truth = {sample.id: concept for sample, concept in own.get(name, ())}
        for info in infos:
            there = theirs.get(info.name)
            if there is None or there.width != info.width:
                context.warn(f"{info.name} was not compared: the prototypes lack such a column.")
                yield None
                continue
            try:
                yield _one(context, (info, there), (name, known), bank, truth, options)
            except NotFinite:
                context.warn(f"{info.name} was not compared: it holds values that are not finite.")
                yield None


def tables(found: Sequence[Compared]) -> list[Table]:
    """All numbers of VLM-Lens' scripts."""
    made = [
        ("vlm-lens", "As VLM-Lens: cosines of samples with the prototypes of concepts", _cosines,
         ("set", "column", "sample", "concept")),
        ("vlm-lens-nearest", "As VLM-Lens: the nearest prototypes", _votes,
         ("set", "column", "sample")),
        ("vlm-lens-separation", "As VLM-Lens: prototypes in their first two components", _apart,
         ("set", "column", "concept", "other")),
    ]  # fmt: skip
    every = [
        joined(f"concepts-{name}", title, [of(each) for each in found], keys)
        for name, title, of, keys in made
    ]
    return [table for table in every if len(table)]


def findings(found: Sequence[Compared], bank: Bank, k: int) -> list[Finding]:
    """How often the nearest prototypes are of a sample's own concept, at the best column."""
    made = []
    for name in dict.fromkeys(each.name for each in found):
        shares = [(_share(each), each.column) for each in found if each.name == name]
        known = [(share, column) for share, column in shares if share is not None]
        if known and not bank.own:
            share, column = max(known)
            text = (
                f"{name}: as VLM-Lens counts, the {k} nearest prototypes vote for a sample's own "
                f"concept in {share:.2f} of samples at best ({column}), with no control."
            )
            made.append(Finding(text, subject=name, values={"share": share, "column": column}))
    return made


def _one(
    context: AnalysisContext,
    infos: tuple[ColumnInfo, ColumnInfo],
    known: tuple[str, Sequence[tuple[Sample, str]]],
    bank: Bank,
    truth: Mapping[str, str],
    options: ConceptsOptions,
) -> Compared | None:
    info, (name, pairs) = infos[0], known
    kept = set(bank.store.ids(info.name))
    pairs = [(sample, concept) for sample, concept in pairs if sample.id in kept]
    there = set(context.store.ids(info.name))
    wanted = set(truth) if bank.own else there
    targets = [s for s in context.samples if s.id in there and s.id in wanted]
    if not pairs or not targets:
        context.warn(f"{info.name} was not compared: no sample of a concept has it.")
        return None
    prototypes = _prototypes(context, bank, infos[1], pairs)
    similarities, votes = _in_blocks(context, info, targets, prototypes, options)
    own = [truth.get(sample.id) for sample in targets]
    return Compared(name, info.name, targets, own, prototypes, similarities, votes)


def _prototypes(
    context: AnalysisContext, bank: Bank, info: ColumnInfo, pairs: Sequence[tuple[Sample, str]]
) -> vlm_lens.Prototypes:
    """The prototypes that memory holds, drawn by the seed where there are more."""
    most = max(1, _MOST_BYTES // (4 * max(1, info.width)))
    if len(pairs) > most:
        rng = generator(context.seed, "concepts", "prototypes")
        context.warn(
            f"VLM-Lens' numbers at {info.name} are of {most:,} of {len(pairs):,} prototypes, drawn "
            "by the seed: all of them would take too much memory."
        )
        pairs = [pairs[i] for i in np.sort(rng.permutation(len(pairs))[:most])]
    concepts, y = vlm_lens.in_order([concept for _, concept in pairs])
    rows = read(bank.store, info, [sample.id for sample, _ in pairs])
    return vlm_lens.Prototypes(rows, concepts, y)


def _in_blocks(
    context: AnalysisContext,
    info: ColumnInfo,
    targets: Sequence[Sample],
    prototypes: vlm_lens.Prototypes,
    options: ConceptsOptions,
) -> tuple[vlm_lens.Similarities, vlm_lens.Votes]:
    """Targets compared with prototypes, as their rows are read."""
    near = prototypes
    moved: Callable[[Rows], Rows] = _same
    if options.components is not None:
        _check_components(options.components, prototypes.rows.shape)
        moved = prototypes.components(options.components)
        near = replace(prototypes, rows=moved(prototypes.rows))
    places, found = [], []
    for some, rows in placed(context.store, info, [sample.id for sample in targets]):
        places.append(some)
        found.append(vlm_lens.compare(moved(rows), near, options.k))
    order = np.argsort(np.concatenate(places))
    similarities, votes = zip(*found, strict=True)
    return vlm_lens.joined(similarities, order), vlm_lens.joined(votes, order)


def _same(rows: Rows) -> Rows:
    return rows


def _check_components(count: int, shape: tuple[int, ...]) -> None:
    if count > min(shape):
        raise SpecError(
            f"components is {count}, and there are {shape[0]} prototypes of {shape[1]} features.",
            subject="components",
            hint=f"Set it to at most {min(shape)}.",
        )


def _share(each: Compared) -> float | None:
    names = each.prototypes.concepts
    right = [
        int(number) >= 0 and names[number] == truth
        for number, truth in zip(each.votes.voted, each.truth, strict=True)
        if truth is not None
    ]
    return float(np.mean(right)) if right else None


def _cosines(each: Compared) -> Columns:
    """A row for each target and concept."""
    found, names = each.similarities, each.prototypes.concepts
    numbers = {
        "min_similarity": found.least,
        "max_similarity": found.most,
        "mean_similarity": found.mean,
        "min_distance": 1 - found.most,
        "mean_distance": 1 - found.mean,
        "centroid_similarity": found.centroid,
        "centroid_angle": found.angle,
    }
    return {
        "set": [each.name] * found.mean.size,
        "column": [each.column] * found.mean.size,
        "sample": [sample.id for sample in each.targets for _ in names],
        "concept": list(names) * len(each.targets),
        **{name: values.ravel().tolist() for name, values in numbers.items()},
        "prototypes": np.bincount(each.prototypes.y).tolist() * len(each.targets),
    }


def _votes(each: Compared) -> Columns:
    names, votes, count = each.prototypes.concepts, each.votes, len(each.targets)
    known = votes.nearest >= 0
    return {
        "set": [each.name] * count,
        "column": [each.column] * count,
        "sample": [sample.id for sample in each.targets],
        "concept": each.truth,
        "nearest": [names[i] if i >= 0 else None for i in votes.nearest],
        "similarity": [
            float(s) if there else None for s, there in zip(votes.similarity, known, strict=True)
        ],
        "voted": [names[i] if i >= 0 else None for i in votes.voted],
    }


def _apart(each: Compared) -> Columns:
    names = each.prototypes.concepts
    pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    if min(each.prototypes.rows.shape) < len("xy"):
        pairs = []
    far, spread = vlm_lens.separation(each.prototypes) if pairs else (np.empty((0, 0)),) * 2
    return {
        "set": [each.name] * len(pairs),
        "column": [each.column] * len(pairs),
        "concept": [names[i] for i, _ in pairs],
        "other": [names[j] for _, j in pairs],
        "distance": [float(far[place]) for place in pairs],
        "deviation_1": [float(spread[i, 0]) for i, _ in pairs],
        "deviation_2": [float(spread[i, 1]) for i, _ in pairs],
    }
