"""BLINK: what people see at a glance; 14 tasks with options, on up to four images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import ClassVar

from vlmlens._display import count
from vlmlens.errors import SpecError
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.benchmark import Benchmark, Found
from vlmlens_plugins.benchmarks.blink.card import CARD
from vlmlens_plugins.benchmarks.blink.forms import FORMS, TITLE, form_of, parted, samples_of
from vlmlens_plugins.benchmarks.blink.tasks import TASKS
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.configurations import parts_in
from vlmlens_plugins.benchmarks.sources import ImageRoot, default_root

__all__ = ["Blink"]


class Blink(Benchmark):
    """Questions with lettered options; their images stand before the prompt, in order.

    Rows have the columns of the hub (a configuration per task, or all in one) or those of
    VLMEvalKit's table. A source may name a task: `ORG/NAME:Relative_Depth:val`.
    """

    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`.

        Raises:
            SpecError: The source and the option `subset` name different tasks.
        """
        options = self.options
        place, task = parted(self.source)
        if task and options.subset not in (None, task):
            raise SpecError(
                f"The source is of the task {task!r}, but subset={options.subset}.",
                subject="subset",
                hint="Name the task once.",
            )
        subset = task or options.subset
        given = parts_in(TITLE, TASKS, FORMS, place, subset, options.revision)
        first = next(given)
        form = form_of(first.rows)
        root = ImageRoot(options.images, default_root(place), allow_outside=options.allow_outside)
        samples = SampleTable(samples_of(chain([first], given), root))
        said = tuple(f"{TITLE}: {note}." for note in _notes(samples))
        return Found(samples, form, _edition(samples), first.rows.digest, said)


def _notes(samples: Sequence[Sample]) -> Iterator[str]:
    unknown = sum(sample.label is None for sample in samples)
    blind = sum(not sample.images for sample in samples)
    several = sum(len(sample.images) > 1 for sample in samples)
    strange = sorted({str(sample.task) for sample in samples} - set(TASKS))
    if unknown:
        yield f"{count(unknown, 'question')} whose answer is hidden (the test split): not scored"
    if several:
        yield f"{count(several, 'question')} with several images, which stand before the prompt"
    if blind:
        yield f"{count(blind, 'question')} without an image: a run needs --set text_only=true"
    if strange:
        yield f"no task of BLINK, so not in macro: {', '.join(strange)}"


def _edition(samples: Sequence[Sample]) -> str:
    splits = Counter(str(sample.attributes.get("split") or "") for sample in samples)
    tasks = len({sample.task for sample in samples})
    named = ", ".join(f"{split} {number:,}" for split, number in splits.items() if split)
    counts = f"{count(len(samples), 'question')} of {count(tasks, 'task')}"
    return f"{named}: {counts}" if named else counts
