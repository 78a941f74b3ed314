"""What the analysis of hallucination found: sentences, notes, cells of the overview."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vlmlens.results import Cell, Finding, Glance, Result, Verdict
from vlmlens_plugins.analysis.hallucination.measured import Measured, Scored, adds
from vlmlens_plugins.analysis.hallucination.options import ABSENT, HallucinationOptions
from vlmlens_plugins.analysis.hallucination.places import Placed
from vlmlens_plugins.analysis.hallucination.signals import (
    OBJECT,
    PROBE_IMAGE,
    PROBE_LAST,
    middle_of,
)
from vlmlens_plugins.analysis.hallucination.tables import figures, tables

_NAMED = 3


def report(
    found: Sequence[Measured],
    places: Sequence[Placed],
    options: HallucinationOptions,
    warnings: Sequence[str],
) -> Result:
    """The result.

    Args:
        found: By task.
        places: Where confidence is highest.
        options: The analysis's options.
        warnings: What was said on the way.
    """
    findings = [_headline(one, options) for one in found]
    findings += [each for one in found for each in _probes(one, options)]
    findings += [each for one in found for each in _objects(one, options)]
    findings += [_of_place(one) for one in places]
    findings += [_control(one) for one in found if one.scored and one.shuffled == one.shuffled]
    return Result(
        analysis="hallucination",
        title="Hallucination from inside: what tells a wrong answer"
        if options.target != ABSENT
        else "Hallucination from inside: what tells an absent object",
        findings=findings,
        tables=tables(found, places),
        figures=figures(found),
        options=options.model_dump(mode="json"),
        notes=list(_notes(found, options)),
        warnings=warnings,
        overview=[_glance(one, options) for one in found],
    )


def _headline(one: Measured, options: HallucinationOptions) -> Finding:
    """What adds to the answer's own probability."""
    total, wrong = len(one.cases), int(one.bad.sum())
    if one.why_not:
        reason = one.why_not.rstrip(".")
        text = f"{one.task}: nothing can be said, since {reason}."
        return Finding(text, Verdict.INCONCLUSIVE, one.task, {"samples": total, "bad": wrong})
    first = one.scored[0]
    are = "objects are absent" if options.target == ABSENT else "answers are wrong"
    opening = f"{one.task}: {wrong} of {total} {are}; the answer's probability tells them with "
    opening += f"AUROC {_range(first.auroc, first.low, first.high)}"
    adding = one.adding(options.min_gain)
    best = adding[0] if adding else _nearest(one)
    values: dict[str, Cell] = {
        "samples": total,
        "bad": wrong,
        "auroc_answer": first.auroc,
        "signal": best.signal.name if best else None,
        "auroc": best.auroc if best else None,
        "gain": best.gain.value if best and best.gain else None,
        "p": best.p if best else None,
    }
    if adding:
        listed = ", ".join(_gained(each) for each in adding[:_NAMED])
        more = f" and {len(adding) - _NAMED} more" if len(adding) > _NAMED else ""
        add = "adds" if len(adding) == 1 else "add"
        text = f"{opening}; {listed}{more} {add} to it."
        return Finding(text, Verdict.DIFFERS, one.task, values)
    nearest = f"; most is added by {_gained(best)}" if best else ""
    text = f"{opening}; no internal signal is shown to add to it{nearest}."
    return Finding(text, _unsure(one, options), one.task, values)


def _unsure(one: Measured, options: HallucinationOptions) -> Verdict:
    """No signal adds: it is excluded that one adds much, or too little is known."""
    inside = [each for each in one.scored if each.signal.inside and each.gain is not None]
    open_ends = [each.gain.high >= 2 * options.min_gain for each in inside if each.gain]
    return Verdict.INCONCLUSIVE if any(open_ends) else Verdict.NO_DIFFERENCE


def _probes(one: Measured, options: HallucinationOptions) -> list[Finding]:
    """Whether probes beat what needs no look inside."""
    made = []
    words = next((each for each in one.scored if each.signal.name == OBJECT), None)
    for each in one.scored:
        if each.signal.name not in (PROBE_IMAGE, PROBE_LAST) or adds(each, options.min_gain):
            continue
        row = "the last image row" if each.signal.name == PROBE_IMAGE else "the last row"
        beside = f"the answer's probability ({one.scored[0].auroc:.2f})"
        beside += "" if words is None else f" and the object's words ({words.auroc:.2f})"
        text = (
            f"{one.task}: the probe on hidden states of {row} has AUROC "
            f"{_range(each.auroc, each.low, each.high)} alone and is not shown to add to {beside}: "
            "it found no hallucination signal."
        )
        made.append(Finding(text, Verdict.INFO, one.task, {"auroc": each.auroc, "p": each.p}))
    return made


def _objects(one: Measured, options: HallucinationOptions) -> list[Finding]:
    """A warning where the object's words alone tell bad samples."""
    words = next((each for each in one.scored if each.signal.name == OBJECT), None)
    if words is None or words.low <= 0.5:
        return []
    told = "absent objects" if options.target == ABSENT else "wrong answers"
    shared = "" if options.hold_out == "object" else " (objects are in training and test)"
    text = (
        f"{one.task}: the object's words alone tell {told} with AUROC "
        f"{_range(words.auroc, words.low, words.high)}{shared}."
    )
    return [Finding(text, Verdict.INFO, one.task, {"auroc": words.auroc})]


def _of_place(one: Placed) -> Finding:
    how = "with" if one.normed else "without"
    text = (
        f"{one.task}: the patch of the highest internal confidence in the {one.word} ({how} the "
        f"final norm) lies in its region in {_range(one.share, one.low, one.high)} of "
        f"{one.samples} samples; chance {one.chance:.2f}."
    )
    verdict = Verdict.DIFFERS if one.found else Verdict.NO_DIFFERENCE
    return Finding(text, verdict, one.task, {"share": one.share, "chance": one.chance, "p": one.p})


def _control(one: Measured) -> Finding:
    text = f"{one.task}: the probe has AUROC {one.shuffled:.2f} on shuffled targets (chance 0.50)."
    return Finding(text, Verdict.INFO, one.task, {"auroc": one.shuffled})


def _glance(one: Measured, options: HallucinationOptions) -> Glance:
    question = "absence told by" if options.target == ABSENT else "wrong answers told by"
    if one.why_not:
        count = int(one.bad.sum())
        return Glance(one.task, question, f"too few ({count})", Verdict.INCONCLUSIVE)
    first, adding = one.scored[0], one.adding(options.min_gain)
    beside = f"answer's probability {first.auroc:.2f}"
    if not adding or adding[0].gain is None:
        verdict = _unsure(one, options)
        return Glance(one.task, question, "answer only", verdict, first.auroc)
    best = adding[0].gain
    return Glance(
        one.task, question, f"+ {adding[0].signal.name}", Verdict.DIFFERS, best.auroc, beside
    )


def _nearest(one: Measured) -> Scored | None:
    inside = [each for each in one.scored if each.signal.inside and each.gain is not None]
    return max(inside, key=lambda each: each.gain.value if each.gain else 0.0, default=None)


def _gained(one: Scored) -> str:
    """A signal with what it adds: `svar (+0.05, 95 % interval +0.01 to +0.09, p = 0.01)`."""
    if one.gain is None:
        return one.signal.name
    gain = one.gain
    return (
        f"{one.signal.name} ({_signed(gain.value)}, 95 % interval {_signed(gain.low)} to "
        f"{_signed(gain.high)}, p = {one.p:.2g})"
    )


def _signed(value: float) -> str:
    """With a sign, and never as -0.00."""
    return f"{round(value, 2) + 0:+.2f}"


def _range(value: float, low: float, high: float) -> str:
    return f"{value:.2f} (95 % interval {low:.2f} to {high:.2f})"


def _notes(found: Sequence[Measured], options: HallucinationOptions) -> Iterator[str]:
    """How the numbers were made."""
    if options.target == ABSENT:
        listed = ", ".join(options.absent)
        yield (
            f"What has to be told: the object is absent (the label is one of {listed}). The "
            "answer's probability is the log-odds of an answer that says so."
        )
    else:
        yield (
            "What has to be told: the answer is not the label. A wrong answer is compared with "
            "right ones of the same label only, so the label itself tells nothing; auroc_pooled "
            "compares all. With choices, the answer is the most probable one."
        )
    held = {
        "object": "neither its group (image) nor its object",
        "group": "not its group (image); its object may be",
        "nothing": "anything: images and objects leak, and nothing should be concluded",
    }
    yield (
        f"A sample is scored by models that learned from {held[options.hold_out]}. Layer and "
        "regularization of probes are chosen, and scores that go on into the model with the "
        "answer are made, inside the training samples in the same way."
    )
    yield (
        "Gain: AUROC of a logistic regression on the answer (its probability, and which of the "
        "frequent answers it is) and the signal, less that without the signal. "
        "gain_beside_object: the same with the object's words on both sides. p is the larger one "
        "of the two, from resamples of groups"
        + (
            " and, apart from them, of objects: the less sure one counts; it is"
            if options.hold_out == "object"
            else ""
        )
        + " corrected for all signals by Holm (1979)."
    )
    layers = [len(one.layers) for one in found if one.layers is not None]
    if layers:
        middle = middle_of(layers[0])
        yield (
            "svar sums the last row's attention on image rows (mean over heads) over blocks "
            f"{middle.start} to {middle.stop - 1} of {layers[0]}: the same share of depth as 5 to "
            "18 of 32 (arXiv 2411.16724)."
        )
    yield (
        "Confidence is the maximum over blocks and image rows of the lens's probability (arXiv "
        "2410.02762), without and with the final norm; of several words the least one counts. "
        "Higher scores stand for less confidence, less attention, less probability."
    )
    if options.target != ABSENT:
        yield (
            "Attention and confidence also depend on where a word stands and whether it is "
            "repeated (arXiv 2604.06165); here each question has one answer at one place."
        )
