"""Which edition of POPE a set of questions is, and what its order gives away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.pope.card import SPLITS
from vlmlens_plugins.benchmarks.pope.questions import Asked, same_question

_MISPRINT = "imange"
_WHOLE, _FIRST = 3000, 2910
_TELLING, _FEWEST = 0.9, 20


def edition_of(asked: Sequence[Asked]) -> str:
    """Each source with its edition and its counts.

    The first edition (May 2023) has 2,910 random questions and misprints in the other splits; the
    current one has 3,000 of each and no misprint.
    """
    sources = dict.fromkeys(each.source for each in asked)
    return "; ".join(_edition(source, asked) for source in sources)


def _edition(source: str, asked: Sequence[Asked]) -> str:
    own = [each for each in asked if each.source == source]
    counts = Counter(each.split for each in own)
    misprints = sum(_MISPRINT in each.question for each in own)
    order = [*(split for split in SPLITS if counts[split]), *sorted({*counts} - {*SPLITS})]
    listed = ", ".join(f"{counts[split]:,} {split or 'questions'}" for split in order)
    listed += f", {misprints} with {_MISPRINT!r}" if misprints else ""
    return f"{source or 'POPE'}, {_name(counts, misprints)} ({listed})"


def _name(counts: Counter[str], misprints: int) -> str:
    first = counts["random"] in (0, _FIRST) and bool(misprints or counts["random"])
    others = {counts[split] for split in SPLITS[1:]} <= {0, _WHOLE}
    if first and others and (misprints > 0 or not (counts["popular"] or counts["adversarial"])):
        return "first edition of May 2023"
    if {counts[split] for split in SPLITS} <= {0, _WHOLE} and not misprints and "" not in counts:
        return "current edition"
    return "of no known edition"


def shared(samples: Iterable[Sample]) -> int:
    """How many questions about the same image are in more than one split."""
    asked = {
        (
            sample.group,
            sample.attributes.get("source"),
            same_question(sample.prompt),
            sample.attributes.get("split"),
        )
        for sample in samples
    }
    times = Counter(each[:3] for each in asked)
    return sum(count > 1 for count in times.values())


def order_tells(samples: Sequence[Sample]) -> float | None:
    """The share of labels that are right if only odd and even numbers in ids are known.

    Returns:
        None with fewer than 20 numbered questions, or where the share is below 0.9.
    """
    counts: Counter[tuple[int, str | None]] = Counter()
    for sample in samples:
        number = sample.id.rpartition("/")[2]
        if number.isdecimal():
            counts[int(number) % 2, sample.label] += 1
    total = sum(counts.values())
    if total < _FEWEST:
        return None
    labels = {label for _, label in counts}
    right = sum(max(counts[parity, label] for label in labels) for parity in (0, 1))
    constant = max(sum(counts[parity, label] for parity in (0, 1)) for label in labels)
    telling = right / total >= _TELLING and right > constant
    return right / total if telling else None
