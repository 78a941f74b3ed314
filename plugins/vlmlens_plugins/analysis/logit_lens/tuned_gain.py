"""Training a tuned lens for each column, and its gain on held-out samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlmlens._files import expanded
from vlmlens.abc import AnalysisContext, ColumnStore
from vlmlens.errors import CompositionError
from vlmlens.results import Cell, Figure, Finding, Series, Table
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._results import slug
from vlmlens_plugins.analysis._statistics import generator
from vlmlens_plugins.analysis.logit_lens import tuned_lens
from vlmlens_plugins.analysis.logit_lens.positions import Group
from vlmlens_plugins.analysis.logit_lens.readings import Reader
from vlmlens_plugins.analysis.logit_lens.vocabulary import Hidden, Ints

FILE = "logit-lens.tuned.safetensors"
_ROWS = 8192
"""Positions to train on at most; a fourth of it to stop by and to test on."""


@dataclass(frozen=True, slots=True)
class LayerGain:
    """One layer's learned lens beside the plain one, on held-out positions.

    Args:
        column: The layer's column.
        plain: Mean KL to the final layer, nats; `tuned` likewise.
        gain: Their difference, with a 95 % interval from `low` to `high`.
        agreement: Share of positions whose top token is the final layer's: plain, tuned.
    """

    column: str
    plain: float
    tuned: float
    gain: float
    low: float
    high: float
    agreement: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Learned:
    """The learned lens of a group.

    Args:
        group: What it reads.
        layers: Per layer but the final one.
        counts: Positions trained on, stopped by, tested on.
        translators: By column.
        held_out: Groups of samples that it was tested on.
    """

    group: Group
    layers: tuple[LayerGain, ...]
    counts: tuple[int, int, int]
    translators: Mapping[str, tuned_lens.Translator]
    held_out: tuple[str, ...]


def check_groups(samples: Sequence[Sample]) -> None:
    """Raise where a tuned lens could not be tested on samples that it never saw.

    Raises:
        CompositionError: There are too few groups to hold some back.
    """
    found = len({sample.split_group for sample in samples})
    if found < tuned_lens.LEAST_GROUPS:
        raise CompositionError(
            f"A tuned lens needs at least {tuned_lens.LEAST_GROUPS} groups of samples, to train, "
            f"stop and test on different ones; the {len(samples)} samples are in {found}.",
            subject="tuned",
            hint="Leave `tuned` out, or add samples. Samples with the same image, or the same "
            "value in the column `group`, are one group.",
        )


def learn(context: AnalysisContext, reader: Reader, group: Group) -> Learned:
    """Train and test a translator per layer.

    Raises:
        CompositionError: There are too few samples to hold some back.
    """
    site = reader.vocabulary.readout.site
    columns = [name for name in group.columns if name != group.final(site)]
    owners = [sample.split_group for sample in context.samples]
    check_groups(context.samples)
    parts = tuned_lens.split(owners, generator(context.seed, "tuned lens", "split"))
    chosen = [
        _places(context, group.final(site), numbers, most)
        for numbers, most in (
            (parts.train, _ROWS),
            (parts.valid, _ROWS // 4),
            (parts.test, _ROWS // 4),
        )
    ]
    final = [_rows(context.store, group.final(site), each) for each in chosen]
    tested = [owners[number] for number, rows in _by_number(context, chosen[2]) for _ in rows]
    layers, translators = [], {}
    for i, column in enumerate(columns):
        rows = [_rows(context.store, column, each) for each in chosen]
        rng = generator(context.seed, "tuned lens", column)
        made = tuned_lens.train(
            reader.vocabulary, (rows[0], rows[1]), (final[0], final[1]), norm=reader.norm, rng=rng
        )
        translators[column] = made
        layers.append(_gain(reader, column, made, rows[2], final[2], tested, rng))
        context.progress(i + 1, len(columns))
    counts = (len(final[0]), len(final[1]), len(final[2]))
    held_out = tuple(sorted({owners[i] for i in parts.test}))
    return Learned(group, tuple(layers), counts, translators, held_out)


def keep(
    context: AnalysisContext, reader: Reader, made: Sequence[Learned], file: str | None
) -> None:
    """Write the translators of all groups to one file: the user's, else one beside the results."""
    path = expanded(file) if file else context.folder and context.folder / FILE
    if path is None:
        context.warn("The tuned lens was not saved: there is no run folder and no tuned_file.")
        return
    about = {
        "readout": reader.vocabulary.readout.site,
        "norm": reader.norm,
        "seed": context.seed,
        "held_out_groups": {each.group.name: each.held_out for each in made},
    }
    tuned_lens.save(path, {k: v for each in made for k, v in each.translators.items()}, about)


def _gain(
    reader: Reader,
    column: str,
    made: tuned_lens.Translator,
    rows: Hidden,
    final: Hidden,
    owners: Sequence[str],
    rng: np.random.Generator,
) -> LayerGain:
    plain = Reader(reader.vocabulary, 1, reader.norm, (), reader.megabytes)
    moved = Reader(
        reader.vocabulary, 1, reader.norm, (), reader.megabytes, translate=lambda _, x: made(x)
    )
    before, after = plain.read([rows], final), moved.read([rows], final)
    change, low, high = tuned_lens.gain(before.divergence[0], after.divergence[0], owners, rng)
    agreement = tuple(float((each.top[0, :, 0] == each.answers).mean()) for each in (before, after))
    return LayerGain(
        column,
        float(before.divergence.mean()),
        float(after.divergence.mean()),
        change,
        low,
        high,
        (agreement[0], agreement[1]),
    )


Places = dict[str, Ints]
"""Numbers of the rows to use, by sample id."""


def _places(context: AnalysisContext, column: str, numbers: Ints, most: int) -> Places:
    """At most so many rows of some samples, spread evenly over samples and their positions."""
    ragged = {each.name: each.ragged for each in context.store.columns()}[column]
    each = max(1, most // max(1, len(numbers)))
    found: Places = {}
    some = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int)
    for number in numbers[some]:
        name = context.samples[number].id
        count = context.store.read(column, [name]).array.shape[0] if ragged else 1
        found[name] = np.unique(np.linspace(0, count - 1, min(each, count)).round().astype(int))
    return found


def _rows(store: ColumnStore, column: str, places: Places) -> Hidden:
    """The rows of one column, `[n, width]`; read a sample at a time where there are several."""
    if all(len(rows) == 1 and rows[0] == 0 for rows in places.values()):
        found = store.read(column, list(places))
        if not found.ragged:
            return found.numpy()
    return np.concatenate(
        [store.read(column, [name]).numpy()[rows] for name, rows in places.items()]
    )


def _by_number(context: AnalysisContext, places: Places) -> list[tuple[int, Ints]]:
    numbers = {sample.id: i for i, sample in enumerate(context.samples)}
    return [(numbers[name], rows) for name, rows in places.items()]


def finding(learned: Learned) -> Finding:
    """What the learned lens gains, in one sentence."""
    better = [layer for layer in learned.layers if layer.low > 0]
    total = len(learned.layers)
    most = max(learned.layers, key=lambda layer: layer.gain)
    text = (
        f"A tuned lens ({learned.group.name}) comes nearer to the final layer than the plain one "
        f"at {len(better)} of {total} layers; most at {short_names([most.column])[0]}, where the "
        f"divergence falls from {most.plain:.2f} to {most.tuned:.2f} nats."
    )
    values: dict[str, Cell] = {
        "layers_better": len(better),
        "layers": total,
        "gain": most.gain,
        "gain_low": most.low,
        "gain_high": most.high,
    }
    return Finding(text, subject="tuned lens", values=values)


def table(learned: Learned) -> Table:
    """Plain and tuned lens by layer."""
    rows = learned.layers
    return Table(
        f"lens-{slug(learned.group.name)}-tuned",
        "Tuned and plain lens on held-out positions",
        {
            "column": [row.column for row in rows],
            "trained": [learned.counts[0]] * len(rows),
            "tested": [learned.counts[2]] * len(rows),
            "divergence_plain": [row.plain for row in rows],
            "divergence_tuned": [row.tuned for row in rows],
            "gain": [row.gain for row in rows],
            "gain_low": [row.low for row in rows],
            "gain_high": [row.high for row in rows],
            "agreement_plain": [row.agreement[0] for row in rows],
            "agreement_tuned": [row.agreement[1] for row in rows],
        },
    )


def figure(learned: Learned) -> Figure:
    """KL to the final layer over depth."""
    rows = learned.layers
    return Figure(
        name=f"lens-{slug(learned.group.name)}-tuned",
        title="How far each layer's reading is from the final one, on held-out positions",
        kind="line",
        x=short_names([row.column for row in rows]),
        x_label="layer",
        y_label="KL (nats)",
        series=[
            Series("plain lens", [row.plain for row in rows]),
            Series("tuned lens", [row.tuned for row in rows]),
        ],
    )
