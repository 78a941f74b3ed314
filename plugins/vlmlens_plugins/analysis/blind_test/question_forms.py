"""Several forms of one question, over which the preference for a letter or for yes cancels.

In each form, replies stand for choices: letters in some order, or yes and no. Suppose that the
log-probability of a reply is what speaks for the choice it stands for, plus what speaks for the
reply as such. Where each reply stands for each choice equally often over a question's forms, the
latter is the same for all choices in the mean of the logarithms, and normalizing removes it.

Every cyclic order of the options: Y. Liu et al., "MMBench", arXiv 2307.06281 (2023). That models
favour letters and positions: C. Zheng et al., "Large language models are not robust multiple
choice selectors", arXiv 2309.03882 (2023).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmlens.errors import MissingAnnotation
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.blind_test.options import BlindOptions

Floats = npt.NDArray[np.float64]
_LETTERS = string.ascii_uppercase
_INSTRUCTION = "Answer with the letter of the right option."
_NEGATED = "negated"


@dataclass(frozen=True, slots=True)
class Form:
    """One way to put a question.

    Args:
        prompt: What is asked.
        replies: What can be replied.
        stands: Per reply, the number of the sample's choice that it stands for.
    """

    prompt: str
    replies: tuple[str, ...]
    stands: tuple[int, ...]


def forms_of(sample: Sample, options: BlindOptions) -> tuple[Form, ...]:
    """The forms in which a sample's question is put; at least one."""
    identity = tuple(range(len(sample.choices)))
    if options.polarity and is_yes_no(sample):
        other = sample.attributes.get(_NEGATED) or options.negation.format(prompt=sample.prompt)
        return (
            Form(sample.prompt, sample.choices, identity),
            Form(str(other), sample.choices, identity[::-1]),
        )
    if options.form == "plain":
        return (Form(sample.prompt, sample.choices, identity),)
    starts = identity if options.form == "rotated" else identity[:1]
    return tuple(_lettered(sample, start) for start in starts)


def is_yes_no(sample: Sample) -> bool:
    """Whether its choices are yes and no."""
    return sorted(choice.strip().lower() for choice in sample.choices) == ["no", "yes"]


def combined(forms: Sequence[Form], logs: Sequence[Floats]) -> Floats:
    """float64 `[choices]`: log-probabilities of the choices, from those of each form's replies.

    The mean over forms, each normalized over its replies, normalized again.

    >>> forms = [Form("?", ("A", "B"), (0, 1)), Form("?", ("A", "B"), (1, 0))]
    >>> np.exp(combined(forms, [np.log([0.9, 0.1]), np.log([0.9, 0.1])])).round(3).tolist()
    [0.5, 0.5]
    """
    total = np.zeros(len(forms[0].stands))
    for form, values in zip(forms, logs, strict=True):
        total[list(form.stands)] += normalized(values)
    return normalized(total / len(forms))


def normalized(logs: Floats) -> Floats:
    """Logarithms less that of their exponentials' sum."""
    highest = logs.max()
    result: Floats = logs - (highest + np.log(np.exp(logs - highest).sum()))
    return result


def check_letters(samples: Sequence[Sample]) -> None:
    """Raise where letters cannot stand for a sample's choices.

    Raises:
        MissingAnnotation: It has more choices than there are letters, or its choices are letters
            themselves, whose options stand in the prompt.
    """
    for sample in samples:
        if len(sample.choices) > len(_LETTERS):
            raise MissingAnnotation(
                f"Sample {sample.id!r} has {len(sample.choices)} choices, more than there are "
                "letters.",
                subject=sample.id,
                hint="Use form=plain.",
            )
        if sample.choices and all(choice.strip() in _LETTERS for choice in sample.choices):
            raise MissingAnnotation(
                f"The choices of sample {sample.id!r} are letters. Their options are in the prompt "
                "and cannot be reordered.",
                subject=sample.id,
                hint="Give the options as choices and leave them out of the prompt, or use "
                "form=plain.",
            )


def _lettered(sample: Sample, start: int) -> Form:
    count = len(sample.choices)
    stands = tuple((start + i) % count for i in range(count))
    letters = tuple(_LETTERS[:count])
    listed = [f"{letter}. {sample.choices[c]}" for letter, c in zip(letters, stands, strict=True)]
    return Form("\n".join([sample.prompt, *listed, _INSTRUCTION]), letters, stands)
