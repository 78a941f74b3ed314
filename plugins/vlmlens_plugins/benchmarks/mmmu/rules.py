"""The rules by which answers to MMMU are read and credited."""

from __future__ import annotations

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.card import Read, Rule, exact
from vlmlens_plugins.benchmarks.kit_options import kit_option
from vlmlens_plugins.benchmarks.lettered import options_of
from vlmlens_plugins.benchmarks.mmmu.asked import answers_of
from vlmlens_plugins.benchmarks.mmmu.letters import AUTHORS, LMMS_EVAL, LetterRule
from vlmlens_plugins.benchmarks.mmmu.open_answers import open_credit
from vlmlens_plugins.benchmarks.reading import first_letter

_OTHER = "Other Answers"


def _by(rule: LetterRule) -> Read:
    def read(text: str, sample: Sample) -> str | None:
        if not sample.choices:
            return text.strip() or None
        return rule.letter(text, options_of(sample), sample.choices)

    return read


def _strict(text: str, sample: Sample) -> str | None:
    return first_letter(text, sample) if sample.choices else text.strip().rstrip(".") or None


def _strict_credit(said: str | None, sample: Sample) -> float:
    if sample.choices or said is None:
        return exact(said, sample)
    return float(any(_same(said, right) for right in answers_of(sample)))


def _same(said: str, right: str) -> bool:
    try:
        return float(said.replace(",", "")) == float(right.replace(",", ""))
    except ValueError:
        return said.strip().casefold() == right.strip().rstrip(".").casefold()


def _official_credit(said: str | None, sample: Sample) -> float:
    if sample.choices or said is None:
        return exact(said, sample)
    return open_credit(said, answers_of(sample))


def _lmms_eval_credit(said: str | None, sample: Sample) -> float:
    return exact(said, sample) if sample.choices else 0.0


def _kit_read(text: str, sample: Sample) -> str | None:
    if sample.choices:
        return kit_option(text, options_of(sample))
    chosen = kit_option(text, {"A": _as_option(sample), "B": _OTHER})
    return {"A": _as_option(sample), "B": _OTHER}.get(chosen or "")


def _kit_credit(said: str | None, sample: Sample) -> float:
    if sample.choices or said is None:
        return exact(said, sample)
    right = _as_option(sample)
    wanted = right if len(right) == 1 and "A" <= right <= "Z" else "A"
    return float(wanted == ("B" if said == _OTHER else "A"))


def _as_option(sample: Sample) -> str:
    """The right answer of an open question, as the text of its option A."""
    right = answers_of(sample)
    return right[0] if len(right) == 1 else str(list(right))


RULES = {
    "strict": Rule(
        _strict,
        _strict_credit,
        about="a letter at the start (B, (B), B.); open answers equal to the right one, as a "
        "number or in whatever case",
    ),
    "official": Rule(
        _by(AUTHORS),
        _official_credit,
        about="eval_utils.py of the authors. Where it finds no letter it draws one at random "
        "(seed 42, once per process), so that its score depends on the order; here such an answer "
        "is unparsed. Open answers are right if they contain a right text, or a number equal to "
        "two decimals",
    ),
    "lmms-eval": Rule(
        _by(LMMS_EVAL),
        _lmms_eval_credit,
        about="takes the end of a word for a letter (DNA is: A), and scores every open question "
        "wrong, since it compares the letters of the answer; its random letter is unparsed here",
    ),
    "vlmevalkit": Rule(
        _kit_read,
        _kit_credit,
        about="without a judge (unparsed is wrong). Open questions become a choice between A, the "
        "right answer, and B, other answers; one whose right answer is the letter B is right where "
        "the text does not hold it",
    ),
}
