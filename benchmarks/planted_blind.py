"""How often the blind test is wrong, and how often it finds what was planted.

Each dataset goes through the analysis itself: small pictures, a made-up model that compares
choices by a rule that is known, and the verdict. Where the model makes nothing of the picture, the
test must not say that it uses it; where it sees the right answer in a known share of the pictures,
the gain must be found as often as the exact power of the test predicts.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from vlmlens.abc import AnalysisContext, Options
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import mcnemar
from vlmlens_plugins.analysis.blind_test import BlindOptions, BlindTest
from vlmlens_plugins.storage.memory import MemoryStore

CHOICES = ("circle", "square", "star", "cross")
ALPHA = 0.05


@dataclass(frozen=True)
class Plan:
    """What is planted.

    Args:
        name: For people.
        seen: Share of pictures in which the model sees the right answer.
        guesses: Whether it answers at random, by the picture, where it does not see it.
        strange: Whether blank pictures get an answer of their own.
        per_image: Questions about each picture, answered alike.
        samples: Questions in all.
        prior: Share of questions whose answer is the first choice, which is also answered blind.
    """

    name: str
    seen: float = 0.0
    guesses: bool = False
    strange: bool = False
    per_image: int = 1
    samples: int = 120
    prior: float = 0.4


NULLS = (
    Plan("answers by the question alone"),
    Plan("answers by the question alone, 40 samples", samples=40),
    Plan("blanks get a strange answer", strange=True),
    Plan("answers follow the picture at random", guesses=True, prior=0.25),
    Plan("the same, 4 questions per picture", guesses=True, per_image=4, prior=0.25),
)
PLANTED = tuple(
    Plan(f"sees {seen:.0%}, {samples} samples", seen=seen, samples=samples)
    for samples in (60, 120)
    for seen in (0.15, 0.25, 0.4)
)


class PlantedModel:
    """Answers by the question's prior, or by what a picture's first pixel says.

    Args:
        strange: Whether a gray picture gets the last choice.
    """

    active_edits: ClassVar[list[Any]] = []

    def __init__(self, strange: bool) -> None:
        self._strange = strange

    def choice_scores(self, samples: Sequence[Sample]) -> list[list[float]]:
        """Log-probabilities; 0.7 for the answer that is given."""
        return [self._scores(sample) for sample in samples]

    def _scores(self, sample: Sample) -> list[float]:
        seen, green, blue = np.asarray(sample.open_images()[0])[0, 0].tolist()
        gray = seen == green == blue
        answer = 0 if gray or seen >= len(CHOICES) else seen
        answer = len(CHOICES) - 1 if gray and self._strange else answer
        return [math.log(0.7 if i == answer else 0.1) for i in range(len(CHOICES))]


def dataset(plan: Plan, rng: np.random.Generator) -> list[Sample]:
    """Questions whose answer is the first choice in a share of the cases, else any other."""
    samples = []
    chances = shares(plan)
    for i in range(plan.samples // plan.per_image):
        truth = int(rng.choice(len(CHOICES), p=chances))
        shown = truth if rng.random() < plan.seen else len(CHOICES)
        if plan.guesses:
            shown = int(rng.choice(len(CHOICES), p=chances))
        image = Image.new("RGB", (2, 2), (shown, 100, 200))
        samples += [
            Sample(f"{i}-{k}", "Which shape?", (image,), CHOICES[truth], CHOICES, group=f"{i}")
            for k in range(plan.per_image)
        ]
    return samples


def shares(plan: Plan) -> list[float]:
    """How often each choice is the right one."""
    others = (1 - plan.prior) / (len(CHOICES) - 1)
    return [plan.prior] + [others] * (len(CHOICES) - 1)


def judged(plan: Plan, seed: int, draws: int) -> dict[str, Any]:
    """The verdict on one dataset, with what lies behind it."""
    samples = dataset(plan, np.random.default_rng([seed, *plan.name.encode()]))
    analysis = BlindTest(BlindOptions(draws=draws, resamples=500))
    model: Any = PlantedModel(plan.strange)
    with MemoryStore.open("planted", mode="a", options=Options()) as store:
        context = AnalysisContext(samples, store, lambda: model, batch_size=64, seed=seed)
        (finding,) = analysis.run(context).findings
    return dict(finding.values)


def predicted_power(plan: Plan, trials: int = 2000) -> float:
    """The chance that the gain and the exchange are both significant, from counts alone.

    What is not seen is answered as blind, by the first choice. So the answers that are right only
    with the picture are those seen whose answer is another one, and none is right only blind: an
    exact binomial test (McNemar). The exchange is a permutation test of labels against answers.
    """
    rng = np.random.default_rng(0)
    chances = np.array(shares(plan))
    cells = np.append(plan.seen * chances, (1 - plan.seen) * chances)
    found = 0
    for counts in rng.multinomial(plan.samples, cells, trials):
        kinds = np.repeat(np.arange(len(cells)), counts)
        labels = kinds % len(CHOICES)
        answers = np.where(kinds < len(CHOICES), labels, 0)
        gain = mcnemar(int(counts[1 : len(CHOICES)].sum()), 0) / 2
        permuted = rng.permuted(np.tile(labels, (500, 1)), axis=1)
        right = (permuted == answers).sum(1) >= (labels == answers).sum()
        found += max(gain, (1 + right.sum()) / 501) <= ALPHA
    return found / trials


def rows(plans: Sequence[Plan], datasets: int, draws: int) -> Iterator[str]:
    """A row per plan: shares of verdicts, of significant tests, and the power predicted."""
    for plan in plans:
        found = [judged(plan, seed, draws) for seed in range(datasets)]
        verdicts = Counter(each["verdict"] for each in found)
        verdict_shares = [
            verdicts[name] / datasets
            for name in (
                "uses the image", "partly uses the image", "ignores the image", "inconclusive"
            )
        ]  # fmt: skip
        ours = np.mean([each["p_corrected"] <= ALPHA for each in found])
        naive = np.mean([each["mcnemar_p"] <= ALPHA for each in found])
        power = f"{predicted_power(plan):.1%}" if plan.seen else ""
        cells = [plan.name, *(f"{share:.1%}" for share in (*verdict_shares, ours, naive)), power]
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the tables of docs/analyses.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=200)
    parser.add_argument("--draws", type=int, default=2000)
    chosen = parser.parse_args()
    print("| model | uses | partly | ignores | inconclusive | significant | McNemar | predicted |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows((*NULLS, *PLANTED), chosen.datasets, chosen.draws):
        print(row, flush=True)


if __name__ == "__main__":
    main()
