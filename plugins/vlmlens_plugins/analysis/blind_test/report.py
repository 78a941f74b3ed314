"""What the blind test found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from vlmlens.results import Finding, Glance
from vlmlens_plugins.analysis.blind_test.options import BlindOptions
from vlmlens_plugins.analysis.blind_test.scores import Accuracy, Comparison, TaskScore
from vlmlens_plugins.analysis.blind_test.tables import row
from vlmlens_plugins.analysis.blind_test.verdict import Use

_PHRASES = {
    Use.USES: "the model uses the image",
    Use.PARTLY: "the model uses the image in part",
    Use.IGNORES: "the model ignores the image",
    Use.INCONCLUSIVE: "it is inconclusive whether the model uses the image",
}
_SHORT = {
    Use.USES: "yes",
    Use.PARTLY: "partly",
    Use.IGNORES: "no",
    Use.INCONCLUSIVE: "unclear",
}
_BLANKS = {
    "gray": "a gray one",
    "black": "a black one",
    "white": "a white one",
    "mean": "its mean color",
    "noise": "noise",
    "blur": "the image blurred",
    "shuffle": "its patches shuffled",
    "other": "another sample's",
    "none": "no image at all",
}
_WRITTEN = (
    "Choices are compared by the log-probability of their tokens after the prompt, {score}, and "
    "normalized over the choices; without choices, the distribution of the first token counts."
)
_COMPARED = (
    "The model writes nothing: each choice, after the prompt, is a text, and the similarities of "
    "these texts to the image, at the model's own temperature, are normalized over the choices. "
    "The blank image is compared with the same texts."
)
_FORMS = {
    "plain": "",
    "letters": "Choices were lettered in the prompt, in one order, and letters were compared.",
    "rotated": "Choices were lettered in the prompt, in every cyclic order, and letters compared; "
    "the mean of the log-probabilities over these orders is free of what favours a position.",
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
        f"Every question is asked with its image, and with this in its place: {blanks}.",
        *([_COMPARED] if by_choice else _asked(options)),
        "Distances between the two answers to a question: total variation and Jensen-Shannon "
        "distance (base 2), averaged over samples. A flip is another most probable answer. "
        "Intervals are 95 % percentile bootstraps over groups, exact where a share is 0 or 1.",
        "Permutation tests: under the null, the answers with the image and with the blank are "
        f"exchangeable, so they are swapped at random group by group ({options.draws} draws). "
        "Shift: distance between the two mean answer distributions. Gain: accuracy with the image "
        "minus accuracy blind, one-sided. Exchange: where a question is asked of several images, "
        "accuracy against that of answers exchanged between these images. Corrected over tasks "
        "(Holm 1979); of several blanks and the exchange, the largest p-value counts, for shift "
        "and gain alone could come from a blank's strangeness. McNemar's p-value, beside them, "
        "takes all samples as independent.",
        "Use: the gain as a share of what is answered wrong blind. Information: bits that an "
        "answer tells about which image was shown, over questions asked of several images.",
        _rule(options),
    ]


def _asked(options: BlindOptions) -> list[str]:
    how = "summed" if options.score == "sum" else "their mean"
    said = [_WRITTEN.format(score=how)]
    if options.open == "generate":
        said[0] = said[0].replace(
            "the distribution of the first token counts",
            f"what the model writes counts (greedy, {options.max_new_tokens} tokens at most), "
            "normalized: case, punctuation, articles and number words, and the one right answer of "
            "the task that it names",
        )
    if _FORMS[options.form]:
        said.append(_FORMS[options.form])
    if options.polarity:
        said.append("Yes/no questions were asked both ways round, likewise free of a bias to yes.")
    if options.calibrate:
        said.append(
            "From each choice's log-probability, that after an empty prompt and a gray image is "
            "taken away."
        )
    return said


def _rule(options: BlindOptions) -> str:
    return (
        f"Uses the image: the gain is significant at {options.alpha:g}, and use lies above "
        f"{options.min_use:g}. In part: the gain is significant, but not surely that large; or "
        "answers change and follow the image, without a significant gain. Without labels, this is "
        "use. Answers change: the interval of the flip rate lies above "
        f"{options.min_flips:g} or that of the mean total variation above "
        f"{options.min_distance:g}. They follow the image: they tell over "
        f"{options.min_information:g} bits about it. Ignores the image: both intervals end below "
        "their thresholds, with a blank that leaves nothing of the image. Inconclusive: anything "
        "else."
    )


def _finding(score: TaskScore, options: BlindOptions) -> Finding:
    told = _least(score, options)
    several = len(score.comparisons) > 1
    text = _sentence(score, told, _phrase(score, options.alpha), several=several)
    values = {**row(score, told), "verdict": score.use.value, "p_corrected": score.corrected}
    notable = score.use is Use.IGNORES
    return Finding(text, score.use.verdict, score.task, values, notable=notable)


def _glance(score: TaskScore, told: Comparison) -> Glance:
    value, beside = None, f"{told.flips.value:.0%} change"
    if told.accuracy is not None:
        found = told.accuracy
        value, beside = found.image.value, f"blind {found.blind.value:.2f}"
        if found.chance is not None and found.image.low <= found.chance:
            beside += f", chance {found.chance:.2f}"
    text = _SHORT[score.use]
    return Glance(score.task, "uses the image", text, score.use.verdict, value, beside)


def _least(score: TaskScore, options: BlindOptions) -> Comparison:
    """The decisive comparison with the least gain, or distance."""
    decisive = [each for each in score.comparisons if each.blank in options.decisive]
    return min(
        decisive,
        key=lambda each: each.tv.value if each.accuracy is None else each.accuracy.gain.value,
    )


def _sentence(score: TaskScore, told: Comparison, phrase: str, *, several: bool) -> str:
    with_what = f" (with {_BLANKS[told.blank]} in its place)" if several else ""
    numbers = (
        f"{told.flips.value:.0%} of the answers flip without it{with_what}, mean total variation "
        f"{told.tv.value:.2f}{_bits(score)}"
    )
    accuracy = told.accuracy
    if accuracy is None:
        return (
            f"{score.task}: {phrase} ({numbers}; shift of the mean answers "
            f"{told.shift.tv.value:.2f}, corrected p = {told.shift.corrected:.2g})."
        )
    chance = "" if accuracy.chance is None else f"chance {accuracy.chance:.2f}, "
    gain = accuracy.gain
    return (
        f"{score.task}: {phrase} (accuracy {accuracy.image.value:.2f} with it, "
        f"{accuracy.blind.value:.2f} blind, {chance}majority {accuracy.majority:.2f}; gain "
        f"{gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}], corrected "
        f"p = {score.corrected:.2g}; {numbers}{_prior(accuracy)})."
    )


def _phrase(score: TaskScore, alpha: float) -> str:
    """In part has two reasons; which one it is, is told."""
    if score.use is Use.PARTLY and score.corrected > alpha:
        return f"{_PHRASES[score.use]}: its answers follow it, but need not be better"
    return _PHRASES[score.use]


def _bits(score: TaskScore) -> str:
    found = score.information
    if found is None:
        return ""
    return f", {found.bits.value:.2f} of {found.most:.2f} bits in the answer are about the image"


def _prior(accuracy: Accuracy) -> str:
    """How large the language prior is."""
    parts = []
    if accuracy.leak is not None:
        leak = accuracy.leak
        parts.append(f"{leak.value:+.2f} [{leak.low:+.2f}, {leak.high:+.2f}] over chance")
    if accuracy.shared is not None:
        parts.append(f"{accuracy.shared:.0%} of the right answers are right blind, too")
    return f"; language prior: {', '.join(parts)}" if parts else ""
