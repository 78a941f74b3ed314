"""The blind test's statistics: planted answers, verdicts, and tests against exact ones."""

from __future__ import annotations

import itertools
import math
import operator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from vlmlens.results import Verdict
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._statistics import entropy, exact_ends, generator, mcnemar
from vlmlens_plugins.analysis.blind_test import BlindOptions
from vlmlens_plugins.analysis.blind_test.answers import Blinded, Given, TaskAnswers
from vlmlens_plugins.analysis.blind_test.exchange_test import exchanged
from vlmlens_plugins.analysis.blind_test.mutual_information import information, repeated
from vlmlens_plugins.analysis.blind_test.resampling import Groups
from vlmlens_plugins.analysis.blind_test.scores import Shift, score_tasks, swap_test

OPTIONS = BlindOptions(draws=2000, resamples=500)


def planted(
    image: Any,
    blanks: Any,
    labels: Any,
    task: str = "t",
    groups: Any = None,
    prompts: Any = None,
) -> TaskAnswers:
    """Answers of a made-up model: probabilities of "yes"; `blanks` by kind, or of a gray one."""
    blanks = blanks if isinstance(blanks, dict) else {"gray": blanks}
    n = len(image)
    groups = range(n) if groups is None else groups
    prompts = ["?"] * n if prompts is None else prompts
    known = labels is not None
    samples = tuple(
        Sample(
            f"{i}",
            prompt,
            choices=("no", "yes"),
            group=str(group),
            label=("no", "yes")[int(labels[i])] if known else None,
        )
        for i, (group, prompt) in enumerate(zip(groups, prompts, strict=True))
    )
    truth = np.asarray(labels) if known else np.full(n, -1)

    def given(p: Any) -> Given:
        return Given.of(np.stack([1 - np.asarray(p), np.asarray(p)], 1), truth)

    seen = given(image)
    blinded = tuple(Blinded.of(kind, given(p), seen) for kind, p in blanks.items())
    return TaskAnswers(
        task, samples, ("no", "yes"), seen, blinded, np.full(n, known), truth, open=False
    )


def swapped(answers: TaskAnswers, draws: int) -> Shift:
    groups = Groups(answers.samples, 200, generator(0, "test"))
    return swap_test(answers.image.p, answers.blinded[0].given.p, groups, draws, 0)


RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 2, 200)
SEEING = np.where(TRUTH == 1, 0.95, 0.05)
RANDOM = RNG.choice([0.1, 0.9], 200)
DIM = np.where(RNG.random(200) < 0.3, SEEING, 0.6)
UNIQUE = [f"question {i}" for i in range(200)]


@pytest.mark.parametrize(
    ("image", "blank", "labels", "verdict"),
    [
        (SEEING, np.full(200, 0.6), TRUTH, Verdict.USES_IMAGE),
        (DIM, np.full(200, 0.6), TRUTH, Verdict.PARTLY),
        (RANDOM, np.full(200, 0.6), TRUTH, Verdict.PARTLY),
        (np.full(200, 0.79), np.full(200, 0.8), TRUTH, Verdict.IGNORES_IMAGE),
        (np.full(200, 0.7), np.full(200, 0.9), TRUTH, Verdict.INCONCLUSIVE),
        (np.full(200, 0.1), np.full(200, 0.9), TRUTH, Verdict.INCONCLUSIVE),
        (SEEING, np.full(200, 0.9), None, Verdict.USES_IMAGE),
        (np.full(200, 0.1), np.full(200, 0.9), None, Verdict.INCONCLUSIVE),
        (np.full(200, 0.79), np.full(200, 0.8), None, Verdict.IGNORES_IMAGE),
    ],
)
def test_verdicts_on_planted_answers(image: Any, blank: Any, labels: Any, verdict: Verdict) -> None:
    (score,) = score_tasks([planted(image, blank, labels)], OPTIONS, 0)
    assert score.verdict is verdict
    assert score.comparisons[0].verdict is verdict


def test_an_answer_that_no_other_image_was_asked_about_cannot_be_told_to_follow_it() -> None:
    answers = planted(SEEING, np.full(200, 0.9), None, prompts=UNIQUE)
    (score,) = score_tasks([answers], OPTIONS, 0)
    assert score.information is None
    assert score.verdict is Verdict.INCONCLUSIVE
    other = planted(SEEING, {"other": RNG.permutation(SEEING)}, None, prompts=UNIQUE)
    (score,) = score_tasks([other], BlindOptions(draws=1000, blank="other"), 0)
    assert score.verdict is Verdict.USES_IMAGE


def test_answers_that_follow_the_size_of_a_blank_do_not_follow_the_image() -> None:
    by_size = np.where(np.arange(200) % 2, 0.9, 0.1)
    answers = planted(by_size, np.where(np.arange(200) % 2, 0.1, 0.9), TRUTH)
    (score,) = score_tasks([answers], OPTIONS, 0)
    assert score.information is not None
    assert score.information.bits.value > 0.4
    assert not score.follows
    assert score.verdict is Verdict.INCONCLUSIVE


def test_of_several_blanks_the_one_that_shows_least_use_counts() -> None:
    """A black image that confuses the model is no reason to say that it uses images."""
    options = BlindOptions(draws=2000, resamples=500, blank=("black", "none"))
    steady = np.where(TRUTH == 1, 0.8, 0.2)
    confused = planted(steady, {"black": 1 - steady, "none": steady}, TRUTH)
    (score,) = score_tasks([confused], options, 0)
    assert score.comparisons[0].verdict is Verdict.USES_IMAGE
    assert score.comparisons[1].verdict is Verdict.IGNORES_IMAGE
    assert score.verdict is Verdict.INCONCLUSIVE
    assert score.corrected == 1


@pytest.mark.parametrize("kind", ["blur", "shuffle"])
def test_answers_that_survive_a_blur_do_not_show_that_the_image_is_ignored(kind: Any) -> None:
    options = BlindOptions(draws=1000, blank=kind)
    (score,) = score_tasks([planted(SEEING, {kind: SEEING}, TRUTH)], options, 0)
    assert score.verdict is Verdict.INCONCLUSIVE
    both = BlindOptions(draws=1000, blank=(kind, "gray"))
    answers = planted(SEEING, {kind: SEEING, "gray": np.full(200, 0.6)}, TRUTH)
    assert score_tasks([answers], both, 0)[0].verdict is Verdict.USES_IMAGE


def test_few_samples_show_neither_that_an_image_is_used_nor_that_it_is_ignored() -> None:
    answers = planted([0.9, 0.1, 0.9], [0.6, 0.6, 0.6], [1, 0, 1])
    assert score_tasks([answers], OPTIONS, 0)[0].verdict is Verdict.INCONCLUSIVE
    same = planted(np.full(20, 0.8), np.full(20, 0.8), np.ones(20))
    (score,) = score_tasks([same], OPTIONS, 0)
    assert score.comparisons[0].flips.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert score.verdict is Verdict.INCONCLUSIVE


def test_what_the_question_alone_gives_is_told() -> None:
    """The blind answer is always yes, which is right in 3 of 4; the image adds the rest."""
    truth = np.arange(200) % 4 > 0
    answers = planted(np.where(truth, 0.9, 0.1), np.full(200, 0.9), truth)
    (score,) = score_tasks([answers], OPTIONS, 0)
    found = score.comparisons[0].accuracy
    assert found is not None
    assert found.leak is not None
    assert (found.leak.value, found.majority, found.shared) == (0.25, 0.75, 0.75)
    assert found.leak.low < 0.25 < found.leak.high
    assert found.use.value == 1
    assert score.comparisons[0].certainty == pytest.approx(1 - stats.entropy([0.9, 0.1], base=2))


def test_the_gain_p_equals_the_exact_mcnemar_test() -> None:
    """9 samples gain, 2 lose: one-sided binomial tail."""
    truth = np.ones(50, int)
    blank, image = np.full(50, 0.9), np.full(50, 0.9)
    blank[:9], image[9:11] = 0.1, 0.1
    options = BlindOptions(draws=50_000)
    (score,) = score_tasks([planted(image, blank, truth)], options, 0)
    exact = sum(math.comb(11, k) for k in range(9, 12)) / 2**11
    accuracy = score.comparisons[0].accuracy
    assert accuracy is not None
    assert accuracy.p == pytest.approx(exact, abs=0.004)
    assert (accuracy.only_image, accuracy.only_blind) == (9, 2)
    assert accuracy.mcnemar == pytest.approx(2 * exact)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 5), (3, 12), (300, 250)])
def test_mcnemar_equals_the_binomial_test(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected)


@pytest.mark.parametrize("units", [1, 20, 500])
def test_exact_ends_are_those_of_clopper_and_pearson(units: int) -> None:
    for share in (0, 1):
        wanted = stats.binomtest(share * units, units).proportion_ci(method="exact")
        assert exact_ends(share, units) == pytest.approx((wanted.low, wanted.high))


def test_the_swap_test_holds_its_level_and_notices_a_shift() -> None:
    rng = np.random.default_rng(1)
    p = [swapped(planted(*rng.random((2, 40)), None, f"{i}"), 1000) for i in range(200)]
    for found in ([each.p for each in p], [each.p_js for each in p]):
        assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.1
    shifted = swapped(planted(rng.random(40) * 0.5 + 0.5, rng.random(40) * 0.5, None), 1000)
    assert max(shifted.p, shifted.p_js) < 0.01
    assert shifted.tv.low < shifted.tv.value < shifted.tv.high


def test_groups_are_swapped_as_one() -> None:
    """Forty copies of three independent pairs are three pairs, not 120."""
    image, blank = np.repeat([0.9, 0.8, 0.9], 40), np.repeat([0.2, 0.3, 0.2], 40)
    grouped = planted(image, blank, None, groups=np.repeat(range(3), 40))
    assert swapped(grouped, 1000).p > 0.2
    assert swapped(planted(image, blank, None), 1000).p < 0.01


def test_p_values_are_corrected_over_tasks() -> None:
    truth = np.ones(50, int)
    blank, image = np.full(50, 0.9), np.full(50, 0.9)
    blank[:9], image[9:11] = 0.1, 0.1
    tasks = [planted(image, blank, truth, f"t{i}") for i in range(4)]
    (alone,) = score_tasks(tasks[:1], OPTIONS, 0)
    several = score_tasks(tasks, OPTIONS, 0)
    assert several[0].corrected > 2 * alone.corrected
    accuracy = several[0].comparisons[0].accuracy
    assert accuracy is not None
    assert accuracy.corrected == several[0].corrected


def test_information_is_the_gap_of_entropies_per_question() -> None:
    """Two questions: one answered by the image, one always the same; a third is asked once."""
    image = np.array([0.9, 0.1, 0.9, 0.1, 0.7, 0.7, 0.2])
    prompts = ["a"] * 4 + ["b"] * 2 + ["c"]
    answers = planted(image, image, None, prompts=prompts)
    questions = repeated(answers.samples)
    assert questions == [[0, 1, 2, 3], [4, 5]]
    groups = Groups(answers.samples, 500, generator(0, "test"))
    found = information(answers.image.p, questions, groups)
    follows = 1 - float(entropy(np.array([0.9, 0.1])))
    assert found.bits.value == pytest.approx(4 / 6 * follows)
    assert found.most == pytest.approx((4 + 2 * stats.entropy([0.7, 0.3], base=2)) / 6)
    assert (found.samples, found.bits.low < found.bits.value) == (6, True)


def test_a_question_repeated_on_one_image_tells_nothing_about_images() -> None:
    assert repeated(planted([0.9, 0.1], [0.5, 0.5], None, groups=[0, 0]).samples) == []


def exchange(picks: Any, labels: Any, prompts: Any = None, groups: Any = None) -> Any:
    picks, labels = np.asarray(picks), np.asarray(labels)
    prompts = ["?"] * len(picks) if prompts is None else prompts
    groups = np.arange(len(picks)) if groups is None else np.asarray(groups)
    questions: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        questions.setdefault(prompt, []).append(i)
    rng = generator(0, "test")
    return exchanged(picks, labels, list(questions.values()), groups, 5000, rng)


def test_the_exchange_equals_all_permutations() -> None:
    picks, labels = [0, 0, 1, 1, 2, 0], [0, 0, 1, 2, 2, 1]
    right = [sum(map(operator.eq, p, labels)) for p in itertools.permutations(picks)]
    found = exchange(picks, labels)
    assert found.own == 4 / 6
    assert found.other == pytest.approx(np.mean(right) / 6)
    assert found.p == pytest.approx(np.mean(np.array(right) >= 4), abs=0.01)
    assert found.use == pytest.approx((4 / 6 - found.other) / (1 - found.other))


def test_answers_are_exchanged_within_a_question_only() -> None:
    """Each question has its own usual answer, which the model knows; of images it knows nothing."""
    prompts = ["a"] * 20 + ["b"] * 20
    labels = [0] * 19 + [1] + [1] * 19 + [0]
    found = exchange([0] * 20 + [1] * 20, labels, prompts)
    assert (found.own, found.other, found.p) == (0.95, 0.95, 1.0)
    assert exchange([0] * 20 + [1] * 20, labels).p < 0.01


def test_groups_asked_the_same_questions_are_exchanged_alike() -> None:
    """Three questions about each of eight images are eight independent things, not 24."""
    labels = np.tile([0, 1, 0, 1, 0, 1, 0, 1], 3)
    picks = np.tile([0, 1, 0, 1, 0, 1, 1, 0], 3)
    prompts = [f"q{i // 8}" for i in range(24)]
    alone = exchange(picks[:8], labels[:8])
    together = exchange(picks, labels, prompts, np.tile(np.arange(8), 3))
    apart = exchange(picks, labels, prompts, np.arange(24))
    assert together.p == pytest.approx(alone.p, abs=0.02)
    assert apart.p < alone.p / 3


@pytest.mark.parametrize(
    ("labels", "prompts"),
    [([0] * 8, None), ([0, 1] * 4, [f"{i}" for i in range(8)]), ([-1] * 8, None)],
)
def test_where_exchange_tells_nothing_it_is_left_out(labels: Any, prompts: Any) -> None:
    assert exchange([0, 1] * 4, labels, prompts) is None


def test_a_blank_that_breaks_the_model_does_not_make_it_see() -> None:
    """Right in 9 of 10 from the question alone; the gray image makes it refuse."""
    truth = np.arange(200) % 10 > 0
    answers = planted(np.full(200, 0.9), np.full(200, 0.1), truth)
    (score,) = score_tasks([answers], OPTIONS, 0)
    accuracy = score.comparisons[0].accuracy
    assert accuracy is not None
    assert (accuracy.gain.value, accuracy.p < 0.01) == (pytest.approx(0.8), True)
    assert score.corrected == 1
    assert score.verdict is Verdict.INCONCLUSIVE
