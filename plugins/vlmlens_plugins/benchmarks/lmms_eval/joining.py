"""Which question of a benchmark's own data an answer of a log is to: by id, never by line."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from vlmlens.errors import DataError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.lmms_eval.log import Logged

_CLOSED = frozenset({"yes", "no"})
_TAG = re.compile(r"<[^<>]*>")
_SUFFIX = re.compile(r"please answer yes or no\.?\s*$", re.IGNORECASE)

Find = Callable[[Logged], list[Sample]]


def joined(
    answers: Sequence[Logged], samples: Sequence[Sample], part: str, *, partial: bool
) -> list[tuple[Sample, Logged]]:
    """Each answer with its question, in the order of the questions.

    An answer's question is the one with its id, where the log says it; else the one with the number
    `doc_id`, if the data has the rows of the split that lmms-eval read. In both cases the question
    must be in the prompt that was logged, and a yes or no that is right must be the same.

    Args:
        answers: Of one task.
        samples: The benchmark's, with the bare question as prompt.
        part: Of the benchmark; "" for all.
        partial: Accept questions without an answer.

    Raises:
        DataError: An answer has no question or several, or a question has no answer.
    """
    own = [
        each for each in samples if not part or part in (each.attributes.get("split"), each.task)
    ]
    if not own:
        raise DataError(
            f"The benchmark's data has no part {part!r}, which {answers[0].task} is about.",
            subject=part,
            hint="Name the data that has it in options.dataset.benchmark.",
        )
    tried = [_tried(answers, find) for find in (_by_id(own), _by_number(own))]
    found = max(tried, key=len)
    if len(found) < len(answers):
        raise _no_question(answers, own, *map(len, tried))
    if len(found) < len(own) and not partial:
        missing = [sample.id for sample in own if sample.id not in found]
        raise DataError(
            f"{len(missing)} of {len(own)} questions have no answer in the log, for example "
            f"{missing[0]}.",
            subject=missing[0],
            hint="A log of a run with --limit answers some only: accept it with "
            "--set options.dataset.partial=true.",
        )
    return [(sample, found[sample.id]) for sample in own if sample.id in found]


def _tried(answers: Sequence[Logged], find: Find) -> dict[str, Logged]:
    """The answers by the id of their question, where there is exactly one of them."""
    found: dict[str, Logged] = {}
    twice = set()
    for answer in answers:
        fitting = _of_category([one for one in find(answer) if fits(one, answer)], answer)
        if len(fitting) == 1:
            name = fitting[0].id
            if name in found:
                twice.add(name)
            found[name] = answer
    return {name: answer for name, answer in found.items() if name not in twice}


def _of_category(samples: Sequence[Sample], answer: Logged) -> Sequence[Sample]:
    """Of several questions, those of the category that the log's row has."""
    named = answer.doc.get("category") or answer.doc.get("split")
    own = [one for one in samples if named in (one.attributes.get("split"), one.task)]
    return own if len(samples) > 1 and named and own else samples


def _by_id(samples: Sequence[Sample]) -> Find:
    named: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        for name in {sample.id, sample.id.rpartition("/")[2]}:
            named[name].append(sample)

    def find(answer: Logged) -> list[Sample]:
        return next((named[name] for name in answer.ids if name in named), [])

    return find


def _by_number(samples: Sequence[Sample]) -> Find:
    def find(answer: Logged) -> list[Sample]:
        known = 0 <= answer.number < len(samples) and bool(answer.asked)
        return [samples[answer.number]] if known else []

    return find


def fits(sample: Sample, answer: Logged) -> bool:
    """Whether an answer can be one to a question, by what the log says of it."""
    target, label = answer.target.strip().lower(), str(sample.label).lower()
    if {target, label} <= _CLOSED and target != label:
        return False
    return not answer.asked or not _words(sample.prompt) - _words(answer.asked)


def _words(text: str) -> Counter[str]:
    """The words of a question, without tags of images, POPE's misprint, and the usual suffix."""
    plain = _TAG.sub(" ", _SUFFIX.sub("", text)).lower().replace("imange", "image")
    return Counter(re.findall(r"\w+", plain))


def _no_question(
    answers: Sequence[Logged], samples: Sequence[Sample], by_id: int, by_number: int
) -> DataError:
    first = answers[0]
    return DataError(
        f"Only {max(by_id, by_number)} of {len(answers)} answers of {first.task} have their "
        f"question among the {len(samples)} of the benchmark ({by_id} by id, {by_number} by the "
        "number doc_id).",
        subject=first.task,
        hint="Name the edition and the split that were asked, in options.dataset.benchmark. Where "
        "the log has no ids, only the rows of the hub are in the order of doc_id.",
    )
