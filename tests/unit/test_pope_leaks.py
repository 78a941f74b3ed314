"""What POPE gives away, and what the analysis of hallucination makes of it; demo:pope."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.unit._pope_files import write_official

from vlmlens.abc.model_work import JSON
from vlmlens.errors import SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.hallucination.asked import Case, object_of
from vlmlens_plugins.analysis.hallucination.measured import Measured, measured
from vlmlens_plugins.analysis.hallucination.options import HallucinationOptions
from vlmlens_plugins.analysis.hallucination.signals import PROBE_LAST
from vlmlens_plugins.benchmarks import answered, card_of, scored
from vlmlens_plugins.benchmarks.pope import CARD, Pope, PopeOptions
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.demo.polling import pictured, polls

Rows = Callable[[Sample], Sequence[float]]


# ------------------------------------------------------------------------ objects and the order


@pytest.fixture(scope="module")
def popular(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
    folder = write_official(tmp_path_factory.mktemp("pope"), images=80)
    return list(Pope(str(folder), PopeOptions(split="popular")).samples([]))


def cases(samples: Sequence[Sample], rows: Rows, bad: Callable[[Sample], bool]) -> list[Case]:
    """Questions whose hidden states and faults are given."""
    rng = np.random.default_rng(2)
    made = []
    for sample in samples:
        sure, answer = -float(rng.random()), str(sample.label)
        wrong = bad(sample)
        if wrong:
            answer = "no" if answer == "yes" else "yes"
        inside: dict[str, JSON] = {
            "entropy": float(rng.random()),
            "answer": None,
            "object": None,
            "chance": None,
            "looks": None,
            "image": [],
            "last": [[*map(float, rows(sample))]],
        }
        named = object_of(sample, "object")
        made.append(Case(sample, answer, wrong, sure, sure, named, True, inside))
    return made


def probed(found: Measured) -> tuple[float, float]:
    """AUROC of the probe on hidden states within labels, and over all samples."""
    one = next(each for each in found.scored if each.signal.name == PROBE_LAST)
    return one.auroc, one.pooled


def test_objects_are_held_out_by_default(popular: Sequence[Sample]) -> None:
    """Planted: answers are wrong for some objects, and states say which object it is."""
    rng = np.random.default_rng(0)
    kinds = sorted({str(sample.attributes["object"]) for sample in popular})
    states = {kind: rng.normal(size=24) for kind in kinds}
    hard = set(kinds[::2])
    told = cases(
        popular,
        lambda sample: states[str(sample.attributes["object"])] + 0.1 * rng.normal(size=24),
        lambda sample: sample.attributes["object"] in hard and rng.random() < 0.9,
    )
    chosen = {"folds": 3, "C": (0.03,), "draws": 100}
    default = HallucinationOptions.model_validate(chosen)
    assert default.hold_out == "object"
    held = measured("popular", told, default, 0)
    assert held.objects == len(kinds)
    leaking = measured(
        "popular", told, HallucinationOptions.model_validate({**chosen, "hold_out": "group"}), 0
    )
    assert probed(leaking)[0] > 0.85
    assert probed(held)[0] < 0.65
    assert not held.adding(0.02)


def test_numbers_of_questions_tell_no_wrong_answer_beyond_the_label(
    popular: Sequence[Sample],
) -> None:
    """Planted: states hold the number's parity, and mostly negatives are answered wrongly.

    A probe on parity knows every label, so over all samples it seems to know wrong answers.
    """
    rng = np.random.default_rng(1)

    def numbered(sample: Sample) -> Sequence[float]:
        number = int(sample.id.rpartition("/")[2])
        return [number % 2, number % 6, *rng.normal(size=6)]

    told = cases(
        popular,
        numbered,
        lambda sample: bool(rng.random() < (0.5 if sample.label == "no" else 0.1)),
    )
    options = HallucinationOptions.model_validate({"folds": 3, "C": (0.03,), "draws": 100})
    found = measured("popular", told, options, 0)
    within, pooled = probed(found)
    assert pooled > 0.65
    assert 0.35 < within < 0.65
    assert not found.adding(0.02)


# ------------------------------------------------------------------------------------ demo:pope


@pytest.fixture(scope="module")
def demo() -> Sequence[Sample]:
    return DemoDataset("pope", DemoOptions(pictures=12)).samples([])


def test_the_demo_asks_in_popes_design(demo: Sequence[Sample]) -> None:
    splits = ("random", "popular", "adversarial")
    assert Counter(s.task for s in demo) == dict.fromkeys(splits, 12 * 6)
    by_picture = Counter((s.task, s.group, s.label) for s in demo)
    assert set(by_picture.values()) == {3}
    positives = {
        split: {(s.group, s.prompt) for s in demo if s.task == split and s.label == "yes"}
        for split in splits
    }
    assert positives["random"] == positives["popular"] == positives["adversarial"]
    for sample in demo:
        there = sample.attributes["object"] in str(sample.attributes["objects"])
        assert there == (sample.label == "yes")
        assert sample.prompt in (
            f"Is there a {sample.attributes['object']}?",
            f"Is there an {sample.attributes['object']}?",
        )


def test_labels_are_those_of_the_scenes_drawn() -> None:
    for split, scene, questions in polls(pictured(8, seed=3)):
        colors = {item.color for item in scene.objects}
        shapes = {item.shape for item in scene.objects}
        for question in questions:
            color, shape = question.object.split()
            assert scene.contains(color, shape) == (question.label == "yes")
            if split == "adversarial" and question.label == "no":
                assert color in colors or shape in shapes


def test_popular_negatives_are_more_frequent_than_random_ones() -> None:
    scenes = pictured(60)
    often = Counter((i.color, i.shape) for scene in scenes for i in scene.objects)
    means = {}
    for wanted in ("random", "popular"):
        asked = [q for split, _, own in polls(scenes) if split == wanted for q in own]
        negative = [tuple(q.object.split()) for q in asked if q.label == "no"]
        means[wanted] = np.mean([often[kind] for kind in negative])
    assert means["popular"] > 1.2 * means["random"]


def test_the_demo_has_popes_card_and_its_order_tells_nothing(demo: Sequence[Sample]) -> None:
    from vlmlens_plugins.benchmarks.pope.editions import order_tells

    card = card_of(str(demo[0].attributes["benchmark"]))
    assert card is CARD
    assert order_tells(demo) is None
    right = answered([str(s.label) for s in demo], demo, card.rules["strict"])
    assert scored(card.metrics, demo, right) == {"mean_accuracy": 100.0, "mean_f1": 100.0}
    assert scored(
        card.metrics, demo, answered(["yes"] * len(demo), demo, card.rules["strict"])
    ) == {
        "mean_accuracy": 50.0,
        "mean_f1": pytest.approx(200 / 3),
    }


def test_options_of_other_demo_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"pictures=3 is an option of demo:pope"):
        DemoDataset("scenes", DemoOptions(pictures=3)).samples([])
    with pytest.raises(SpecError, match=r"scenes=3 is an option of demo:scenes"):
        DemoDataset("pope", DemoOptions(scenes=3)).samples([])


def test_prompts_of_the_user_are_asked_once_of_each_picture() -> None:
    samples = DemoDataset("pope", DemoOptions(pictures=3)).samples(["Color?", "Shape?"])
    assert len(samples) == 6
    assert {sample.label for sample in samples} == {None}
