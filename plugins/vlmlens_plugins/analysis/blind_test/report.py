"""What the blind test found, in sentences, and how it was found."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Finding, Glance, Verdict
from vlmlens_plugins.analysis.blind_test.comparison import Comparison, TaskScore
from vlmlens_plugins.analysis.blind_test.options import BlindOptions
from vlmlens_plugins.analysis.blind_test.tables import row

_PHRASES = {
    Verdict.USES_IMAGE: "the model uses the image",
    Verdict.PARTLY: "the model partly uses the image",
    Verdict.IGNORES_IMAGE: "the model ignores the image",
    Verdict.INCONCLUSIVE: "unclear whether the model uses the image",
}
_SHORT = {
    Verdict.USES_IMAGE: "yes",
    Verdict.PARTLY: "partly",
    Verdict.IGNORES_IMAGE: "no",
    Verdict.INCONCLUSIVE: "unclear",
}
_BLANKS = {
    "gray": "a gray image",
    "black": "a black image",
    "white": "a white image",
    "mean": "an image of its mean color",
    "noise": "an image of noise",
    "blur": "the image blurred",
    "shuffle": "its patches shuffled",
    "other": "another sample's image",
    "none": "no image at all",
}
_WRITTEN = (
    "Choices are compared by the log-probability of their tokens after the prompt, {score}, and "
    "normalized over the choices. {open}"
)
_COMPARED = (
    "The model writes nothing. Each choice, after the prompt, is a text. The similarities of these "
    "texts to the image, at the model's own temperature, are normalized over the choices. The "
    "blank image is compared with the same texts."
)
_FORMS = {
    "plain": "",
    "letters": "Choices were lettered in the prompt, in one order, and letters were compared.",
    "rotated": "Choices were lettered in the prompt, in every cyclic order, and letters compared. "
    "The mean of the log-probabilities over these orders has no position bias.",
}


def findings(scores: Sequence[TaskScore], options: BlindOptions) -> list[Finding]:
    """One finding per task; of several blanks, it tells the one that shows least use."""
    return [_finding(score, options) for score in scores]


def overview(scores: Sequence[TaskScore], options: BlindOptions) -> list[Glance]:
    """Per task, whether the model uses the image, and how often it is right with and without."""
    return [_glance(score, _least(score, options)) for score in scores]


def notes(options: BlindOptions, *, by_choice: bool = False) -> list[str]:
    """How the numbers were made.

    Args:
        options: Of the test.
        by_choice: Whether the model compared choices instead of writing.
    """
    blanks = ", ".join(_BLANKS[kind] for kind in options.blank)
    return [
        f"Every question is asked with its image, and with a replacement: {blanks}.",
        *([_COMPARED] if by_choice else _asked(options)),
        "Distances between the two answers to a question: total variation and Jensen-Shannon "
        "distance (base 2), averaged over samples. A flip is a change of the most probable answer. "
        "Intervals are 95 % percentile bootstraps over groups, exact where a share is 0 or 1.",
        "Permutation tests: if the image did not matter, the answers with the image and with the "
        "blank could be swapped. They are swapped at random, group by group "
        f"({options.draws} draws). Shift: distance between the two mean answer distributions. "
        "Gain: accuracy with the image minus accuracy blind, one-sided. Exchange: where one "
        "question is asked of several images, accuracy against that of answers exchanged between "
        "these images. The largest p-value of all blanks and the exchange counts, because a single "
        "gain could come from a strange blank. It is corrected over tasks (Holm 1979). McNemar's "
        "p-value is given too; it takes all samples as independent.",
        "Use: the gain as a share of what is answered wrong blind. Information: bits that an "
        "answer tells about which image was shown, over questions asked of several images.",
        "Uses the image: the gain is significant "
        f"(p <= {options.alpha:g}), and the interval of the use lies above {options.min_use:g}. "
        "Partly: the gain is significant but may be smaller; or answers change and follow the "
        "image without a significant gain (without labels, this counts as using it). "
        f"Answers change: the interval of the flip rate lies above {options.min_flips:g}, or that "
        f"of the mean total variation above {options.min_distance:g}. They follow the image: they "
        f"tell more than {options.min_information:g} bits about it. Ignores the image: both "
        "intervals end below their thresholds, with a blank that shows nothing of the image. "
        "Inconclusive: anything else.",
    ]


def _asked(options: BlindOptions) -> list[str]:
    how = "summed" if options.score == "sum" else "averaged"
    written = (
        "Without choices, the written answer counts (greedy, at most "
        f"{options.max_new_tokens} tokens). It is normalized: case, punctuation, articles, number "
        "words, and the one right answer of the task that it names."
        if options.open == "generate"
        else "Without choices, the distribution of the first token counts. An answer is right if "
        "it begins with the label's first token; labels that share it with another answer of the "
        "task are left out."
    )
    said = [_WRITTEN.format(score=how, open=written)]
    if _FORMS[options.form]:
        said.append(_FORMS[options.form])
    if options.polarity:
        said.append("Yes/no questions were asked both ways round, which removes a bias to yes.")
    if options.calibrate:
        said.append(
            "From each choice's log-probability, its log-probability after an empty prompt and a "
            "gray image is subtracted."
        )
    return said


def _finding(score: TaskScore, options: BlindOptions) -> Finding:
    told = _least(score, options)
    phrase = _PHRASES[score.verdict]
    if score.verdict is Verdict.PARTLY and score.corrected > options.alpha:
        phrase = "the model's answers follow the image, but are not clearly better with it"
    text = f"{score.task}: {phrase} ({_carries(told, several=len(score.comparisons) > 1)})."
    values = {**row(score, told), "verdict": score.verdict.value, "p_corrected": score.corrected}
    notable = score.verdict is Verdict.IGNORES_IMAGE
    return Finding(text, score.verdict, score.task, values, notable=notable)


def _carries(told: Comparison, *, several: bool) -> str:
    """The one or two numbers that carry a finding."""
    without = f"with {_BLANKS[told.blank]}" if several else "without"
    if told.accuracy is None:
        return f"{told.flips.value:.0%} of the answers change {without}" + " it" * (not several)
    image, blind = told.accuracy.image.value, told.accuracy.blind.value
    return f"right in {image:.0%} with it, {blind:.0%} {without}"


def _glance(score: TaskScore, told: Comparison) -> Glance:
    value, beside = None, f"{told.flips.value:.0%} change"
    if told.accuracy is not None:
        found = told.accuracy
        value, beside = found.image.value, f"blind {found.blind.value:.2f}"
        if found.chance is not None and found.image.low <= found.chance:
            beside += f", chance {found.chance:.2f}"
    text = _SHORT[score.verdict]
    return Glance(score.task, "uses the image", text, score.verdict, value, beside)


def _least(score: TaskScore, options: BlindOptions) -> Comparison:
    """The decisive comparison with the least gain, or distance."""
    decisive = [each for each in score.comparisons if each.blank in options.decisive]
    return min(
        decisive,
        key=lambda each: each.tv.value if each.accuracy is None else each.accuracy.gain.value,
    )
