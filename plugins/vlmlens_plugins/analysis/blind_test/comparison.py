"""A task's answers with the image beside those without it, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from vlmlens.results import Verdict
from vlmlens_plugins.analysis.blind_test.exchange_test import Exchanged
from vlmlens_plugins.analysis.blind_test.mutual_information import Information
from vlmlens_plugins.analysis.blind_test.options import Blank
from vlmlens_plugins.analysis.blind_test.resampling import Estimate


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracies of one task with one kind of blank, over its labelled samples.

    Args:
        samples: Number of labelled samples.
        image: With the image; `blind` without it.
        chance: Mean of 1 / choices; None for open questions.
        majority: Share of the most frequent label.
        gain: `image - blind`.
        use: The gain as a share of what is answered wrong blind, `gain / (1 - blind)` (R. Hake,
            Am. J. Phys. 66 (1998), of lessons); 0 where nothing is.
        leak: `blind - chance`, what is right from the question alone (L. Chen et al., arXiv
            2403.20330 (2024)); None without chance.
        shared: Share of the answers right with the image that are right blind, too.
        only_image: Samples right only with the image; `only_blind` only without it.
        mcnemar: Two-sided p-value of these two counts, samples taken as independent.
        p: One-sided p-value of the gain under swaps by group, `corrected` by Holm over tasks.
    """

    samples: int
    image: Estimate
    blind: Estimate
    chance: float | None
    majority: float
    gain: Estimate
    use: Estimate
    leak: Estimate | None
    shared: float | None
    only_image: int
    only_blind: int
    mcnemar: float
    p: float
    corrected: float = 1.0


@dataclass(frozen=True, slots=True)
class Shift:
    """How far apart the two mean answer distributions of a task are.

    Args:
        tv: Total variation; `js`: Jensen-Shannon distance, base 2. Resampling adds to distances,
            so that intervals lie high where the distance is small.
        p: p-value of `tv` under swaps by group, `corrected` by Holm over tasks; `p_js` likewise
            of `js`, uncorrected.
    """

    tv: Estimate
    js: Estimate
    p: float
    p_js: float
    corrected: float = 1.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One task's answers with one kind of blank beside those with the image.

    Args:
        flips: Share of samples whose answer differs.
        tv: Mean total variation between the two answers to a question; `js` likewise.
        shift: Of the mean answers.
        accuracy: None without labels.
        certainty: 1 - mean entropy of the blind answers over that of an even choice: how sure the
            language prior is; None for open questions.
        verdict: As if this were the only kind of blank.
    """

    blank: Blank
    flips: Estimate
    tv: Estimate
    js: Estimate
    shift: Shift
    accuracy: Accuracy | None
    certainty: float | None
    verdict: Verdict = Verdict.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One task's numbers; intervals are 95 %, over groups.

    Args:
        comparisons: With each kind of blank.
        information: Between image and answer; None where no question is asked of two images.
        follows: Whether answers follow the image.
        exchanged: Accuracy beside that after exchanging answers between images, where labels and
            repeated questions allow.
        corrected: The largest p-value of the gains over all decisive blanks and of `exchanged`,
            corrected by Holm over tasks; 1 without labels.
        verdict: Whether the model uses the image.
    """

    task: str
    samples: int
    comparisons: tuple[Comparison, ...]
    information: Information | None
    follows: bool
    exchanged: Exchanged | None
    corrected: float
    verdict: Verdict
