"""Ways to put a question, and what a written answer says."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from vlmlens.abc import AnalysisContext, Generation, Options
from vlmlens.abc.unit_batches import run_here
from vlmlens.compose.applicability import suitable
from vlmlens.errors import CompositionError, MissingAnnotation
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Registry
from vlmlens.results import Result, Verdict
from vlmlens.samples import Sample
from vlmlens.testing._rounding import close
from vlmlens_plugins.analysis._answer_work import ChoiceScores
from vlmlens_plugins.analysis._scoring import AnswerScorer
from vlmlens_plugins.analysis.blind_test import BlindOptions, BlindTest
from vlmlens_plugins.analysis.blind_test.answer_text import KnownAnswers
from vlmlens_plugins.analysis.blind_test.answer_text import normalized as plain
from vlmlens_plugins.analysis.blind_test.choosing import Choice, Chooser
from vlmlens_plugins.analysis.blind_test.conditions import Conditions
from vlmlens_plugins.analysis.blind_test.open_questions import StoredTexts, WrittenQuestions
from vlmlens_plugins.analysis.blind_test.question_forms import combined, forms_of, normalized
from vlmlens_plugins.storage.memory import MemoryStore

COLORS = ("red", "blue", "green", "gray")
FAVOUR = {"A": 3.0, "B": 0.0, "C": -1.0, "D": 0.5, "yes": 2.0, "no": 0.0}


def question(i: int = 0, **more: Any) -> Sample:
    image = Image.new("RGB", (8, 8), (40 * (i % 4), 100, 200))
    made = {"prompt": "Which color?", "choices": COLORS, "label": COLORS[i % 4], **more}
    return Sample(f"s{i}", images=(image,), group=f"{i}", **made)


class Biased:
    """Sees the color, but favours some letters, and yes, whatever they stand for."""

    active_edits: ClassVar[list[Any]] = []

    def __init__(self, knows: float = 1.0) -> None:
        self._knows = knows

    def choice_scores(self, samples: Any) -> Any:
        return [self._logs(sample) for sample in samples]

    def _logs(self, sample: Sample) -> list[float]:
        pixel = np.asarray(sample.open_images()[0])[0, 0].tolist()
        truth = COLORS[pixel[0] // 40] if pixel[1] == 100 else None
        logs = [FAVOUR.get(reply, 0.0) for reply in sample.choices]
        for line in sample.prompt.splitlines():
            letter, _, option = line.partition(". ")
            if option and option == truth:
                logs[sample.choices.index(letter)] += self._knows
        if "Is it red" in sample.prompt and truth:
            right = "yes" if (truth == "red") != ("not red" in sample.prompt) else "no"
            logs[sample.choices.index(right)] += self._knows
        return normalized(np.array(logs)).tolist()


def run(vlm: Any, samples: list[Sample], generated: Any = None, **options: Any) -> Result:
    with MemoryStore.open("blind-forms", mode="a", options=Options()) as store:
        context = AnalysisContext(
            samples, store, lambda: vlm, batch_size=7, generated=generated or {}
        )
        return BlindTest(BlindOptions(draws=1000, resamples=200, **options)).run(context)


def chosen(vlm: Any, samples: list[Sample], options: BlindOptions) -> list[Choice]:
    """How questions are answered with their image, three at once."""
    chooser = Chooser(Conditions(samples, options, 0), options, 3)
    put = chooser.put("task", samples)[0]
    results = run_here(
        vlm, ChoiceScores(), chooser.units, 3, warn=pytest.fail, progress=lambda *steps: None
    )
    return [chooser.choice(each, results) for each in put]


def test_every_choice_stands_at_every_letter_once() -> None:
    forms = forms_of(question(), BlindOptions(form="rotated"))
    assert len(forms) == 4
    assert sorted(form.stands.index(0) for form in forms) == [0, 1, 2, 3]
    assert forms[1].prompt.splitlines()[:3] == ["Which color?", "A. blue", "B. green"]
    assert forms_of(question(), BlindOptions(form="letters")) == forms[:1]
    (same,) = forms_of(question(), BlindOptions())
    assert (same.prompt, same.replies) == ("Which color?", COLORS)


def test_what_favours_a_letter_cancels_over_all_orders() -> None:
    answers = chosen(Biased(), [question(i) for i in range(4)], BlindOptions(form="rotated"))
    for i, choice in enumerate(answers):
        expected = np.where(np.arange(4) == i, 1.0, 0.0)
        np.testing.assert_allclose(choice.logs, normalized(expected), atol=1e-9)
        assert len(set(choice.picks)) > 1


def test_the_bias_to_letters_is_measured_and_removed() -> None:
    samples = [question(i) for i in range(80)]
    once = run(Biased(), samples, form="letters").table("blind-tasks").columns
    result = run(Biased(), samples, form="rotated")
    assert once["accuracy_image"][0] < 0.5
    assert result.table("blind-tasks").columns["accuracy_image"] == [1.0]
    assert result.findings[0].verdict is Verdict.USES_IMAGE
    replies = result.table("blind-replies").columns
    assert replies["reply"] == ["A", "B", "C", "D"]
    assert replies["excess_low"][0] > 0.3
    assert replies["excess_high"][2] < -0.1
    assert sum(replies["excess"]) == pytest.approx(0)
    assert replies["right_in_all_forms"] == [0.0] * 4


def test_yes_no_questions_are_asked_both_ways() -> None:
    asked = {"prompt": "Is it red?", "choices": ("yes", "no")}
    turned = {"negated": "Is it red? No: is it not red?"}
    samples = [
        question(i, **asked, label="no" if i % 4 else "yes", attributes=turned) for i in range(80)
    ]
    alone = run(Biased(1.5), samples).table("blind-tasks").columns
    assert alone["accuracy_image"] == [0.25]
    both = run(Biased(1.5), samples, polarity=True)
    assert both.table("blind-tasks").columns["accuracy_image"] == [1.0]
    replies = both.table("blind-replies").columns
    assert replies["reply"] == ["yes", "no"]
    assert replies["excess_low"][0] > 0.2


def test_without_a_negated_question_a_template_turns_it_round() -> None:
    sample = question(prompt="Is it red?", choices=("no", "yes"))
    options = BlindOptions(polarity=True, negation="Not so: {prompt}")
    first, second = forms_of(sample, options)
    assert (second.prompt, second.stands) == ("Not so: Is it red?", (1, 0))
    np.testing.assert_allclose(
        np.exp(combined((first, second), [np.log([0.1, 0.9]), np.log([0.1, 0.9])])), [0.5, 0.5]
    )
    assert len(forms_of(question(), options)) == 1


@pytest.mark.parametrize(
    ("options", "sample", "said"),
    [
        ({"form": "rotated"}, question(choices=("A", "B"), label="A"), "are letters"),
        ({"form": "letters"}, question(choices=tuple(map(str, range(27)))), "more than there are"),
        ({"polarity": True}, question(), "choices yes and no"),
    ],
)
def test_what_cannot_be_asked_so_is_an_error_at_once(
    options: Any, sample: Sample, said: str
) -> None:
    with pytest.raises(MissingAnnotation, match=said):
        BlindTest(BlindOptions(**options)).check([sample], ())


@pytest.mark.parametrize(
    ("options", "offers", "lacks"),
    [
        ({"blank": ["gray", "none"]}, {"generate"}, "text-only"),
        ({"blank": "none"}, {"generate", "text-only"}, None),
        ({"form": "rotated"}, {"choice-scores"}, "generate"),
        ({"calibrate": True}, {"choice-scores"}, "generate"),
        ({"open": "generate"}, {"choice-scores"}, "generate"),
        ({}, {"choice-scores"}, None),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_it_is_loaded(
    options: Any, offers: set[str], lacks: str | None
) -> None:
    adapter = Manifest(PluginKind.ADAPTER, "it", "it:It", "", offers=frozenset(offers))

    def composed() -> Any:
        return suitable(
            Registry.default(), {"blind-test": options}, adapter=adapter, samples=[question()],
            columns=(), strict=True,
        )  # fmt: skip

    if lacks is None:
        assert list(composed()[0]) == ["blind-test"]
        return
    with pytest.raises(
        CompositionError, match=f"With these options, the analysis 'blind-test' needs '{lacks}'"
    ):
        composed()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (" The cube. ", "cube"),
        ("THREE cubes!", "3 cubes"),
        ("1,000", "1000"),
        ("-3.5", "-3.5"),
        ("red-ish", "red ish"),
        ("It's", "its"),
        ("\uff21", "a"),
        ("A", "a"),
        ("...", ""),
    ],
)
def test_spelling_does_not_count(text: str, wanted: str) -> None:
    assert plain(text) == wanted


@pytest.mark.parametrize(
    ("known", "text", "wanted"),
    [
        (COLORS, "The object is red.", "red"),
        (COLORS, "red or blue", "red or blue"),
        (COLORS, "reddish", "reddish"),
        (("dark red", "red"), "a dark red one", "dark red"),
        (("yes", "no"), "Yes, there is no doubt.", "yes"),
        (("yes", "no"), "There is no cube", "there is no cube"),
        (("2", "3"), "There are two.", "2"),
        ((), "anything", "anything"),
    ],
)
def test_a_sentence_that_names_one_known_answer_gives_it(
    known: Any, text: str, wanted: str
) -> None:
    assert KnownAnswers(known).read(text) == wanted


def test_open_questions_are_answered_by_writing(vlm: Any, scenes: list[Sample]) -> None:
    closed = [sample for sample in scenes if sample.task == "color"]
    bare = [Sample(s.id, s.prompt, s.images, f"The {s.label}.", group=s.group) for s in closed]
    result = run(vlm, bare, open="generate", max_new_tokens=4)
    row = result.table("blind-answers").columns
    texts = [made.text for made in vlm.generate(vlm.encode(bare), max_new_tokens=4)]
    assert row["answer_image"] == [plain(text) for text in texts]
    assert result.table("blind-tasks").columns["accuracy_image"] == [1.0]
    assert row["total_variation"] == [float(flipped) for flipped in row["flipped"]]


class Spelling:
    """Knows tokens by their numbers."""

    def decode(self, token_ids: Any) -> str:
        return " ".join(map(str, token_ids))


def test_what_the_run_wrote_is_used_where_it_is_what_would_be_written() -> None:
    known = {
        "s0": Generation("short", (1, 2)),
        "s1": Generation("cut here", (1, 2, 3, 4, 5)),
        "s2": Generation("", ()),
    }
    vlm: Any = Spelling()
    stored = StoredTexts(vlm, 8, known)
    assert [stored.text(f"s{i}") for i in range(4)] == ["short", None, None, None]
    stored = StoredTexts(vlm, 3, known)
    assert [stored.text(f"s{i}") for i in range(2)] == ["short", "1 2 3"]
    assert StoredTexts(vlm, 5, known).text("s1") == "cut here"


def test_only_what_the_run_has_not_written_is_asked() -> None:
    samples = [question(i) for i in range(3)]
    stored = StoredTexts(
        Spelling(), 8, {"s1": Generation("known", (1, 2)), "x": Generation("", (1, 2, 3))}
    )  # type: ignore[arg-type]
    questions = WrittenQuestions(Conditions(samples, BlindOptions(), 0), 2, stored, 8)
    questions.put("task", samples)
    assert [(unit.sample.id, unit.batch) for unit in questions.units] == [
        ("s0", "task/None/0"), ("s2", "task/None/1"),
        ("s0", "task/gray/0"), ("s1", "task/gray/0"), ("s2", "task/gray/1"),
    ]  # fmt: skip
    made = questions.answers(["a", "c", "d", "e", "f"])["task"]
    assert set(made.answers) == {"a", "known", "c", "d", "e", "f"}
    assert [made.answers[i] for i in made.image.picks] == ["a", "known", "c"]


def test_scores_are_means_on_request(vlm: Any, scenes: list[Sample]) -> None:
    choices = ("red cube", "a blue sphere there", "no")
    sample = Sample("s", scenes[0].prompt, scenes[0].images, choices=choices)
    (total,), (mean,) = (AnswerScorer(vlm, mean=m).choices([sample]) for m in (False, True))
    lengths = [len(vlm.answer_ids(choice)) for choice in choices]
    assert max(lengths) > 1
    close(mean * lengths, total, scale=3 * 26)  # of three logits


def test_calibration_takes_away_what_speaks_for_a_choice_without_a_question(
    vlm: Any, scenes: list[Sample]
) -> None:
    sample = scenes[0]
    scorer = AnswerScorer(vlm)
    gray = Image.new("RGB", sample.open_images()[0].size, (128, 128, 128))
    empty = Sample("e", "", (gray,), choices=sample.choices)
    (raw,), (prior,) = scorer.choices([sample]), scorer.choices([empty])
    (found,) = chosen(vlm, [sample], BlindOptions(calibrate=True))
    close(found.logs, normalized(raw - prior), scale=2 * 26)  # of two logits
    assert np.abs(found.logs - normalized(raw)).max() > 0.01
