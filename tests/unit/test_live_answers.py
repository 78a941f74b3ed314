"""What the live page is told: answers, edits, covers, patches, commands, figures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vlmlens import Sample
from vlmlens.abc import ModelAdapter
from vlmlens.cli._app import app
from vlmlens.covers import Cover, covered
from vlmlens.errors import DataError, EditError, SiteNotFound
from vlmlens.registry import Registry
from vlmlens.view.live.answer import answer, choice_logs
from vlmlens.view.live.commands import look_commands
from vlmlens.view.live.jobs import Stopped
from vlmlens.view.live.kinds import answered
from vlmlens.view.live.model import LiveModel
from vlmlens.view.live.question import Asked, LiveQuestion
from vlmlens.view.opening import model_for

COLORS = ("red", "green", "blue", "yellow", "purple", "cyan", "orange", "gray")
HALF = "llm.block.2/image = scale(0.1)"
PATCHES = (Cover(0.125, 0.125, 0.75, 0.625), Cover(0.125, 0.625, 0.5, 0.875))


def nothing(done: int, total: int | None) -> None:
    del done, total


@pytest.fixture(scope="module")
def file(scenes: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "a scene.png"
    scenes[0].open_images()[0].save(path)
    return path


@pytest.fixture(scope="module")
def model(vlm: ModelAdapter, scenes: list[Sample]) -> Iterator[LiveModel]:
    made = model_for([], {"adapter": "demo", "device": "cpu"}, Registry.default())
    assert made is not None
    made._vlm = vlm
    run: Any = SimpleNamespace(samples=scenes, number=0, run=SimpleNamespace(path=Path("/no/run")))
    made.show([run], tells_paths=True)
    yield made
    made.close()


@pytest.fixture(scope="module")
def upload(model: LiveModel, file: Path) -> str:
    return model.uploads.add(file.read_bytes(), str(file)).name


def shares(told: dict[str, Any]) -> dict[str, float]:
    return {each["text"]: each["probability"] for each in told["choices"]}


def softmax(logs: Any) -> np.ndarray:
    values = np.exp(np.asarray(logs, np.float64) - np.max(logs))
    return values / values.sum()


def logits_of(vlm: ModelAdapter, sample: Sample) -> Any:
    """Computed apart from the module: the logits of the first token of each choice."""
    found = vlm.forward(vlm.encode([sample]), logits="last").logits
    assert found is not None
    tokens = [vlm.answer_ids(choice)[0] for choice in sample.choices]
    return found[0, tokens].double().numpy()


def test_choices_have_the_probabilities_of_the_model(
    model: LiveModel, vlm: ModelAdapter, scenes: list[Sample]
) -> None:
    told = answer(model, LiveQuestion(scenes[0].prompt, sample=(0, 0), choices=COLORS), nothing)
    expected = softmax(logits_of(vlm, replace(scenes[0], choices=COLORS)))
    found = shares(told["unedited"])
    np.testing.assert_allclose([found[name] for name in COLORS], expected, rtol=1e-5, atol=1e-12)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert told["unedited"]["text"] == COLORS[int(expected.argmax())] == scenes[0].label
    assert told["edited"] is None


def test_long_choices_are_scored_token_by_token(vlm: ModelAdapter, scenes: list[Sample]) -> None:
    sample = replace(scenes[0], choices=("red cube", "red", "blue cone"))
    found = choice_logs(vlm, sample)
    for choice, log in zip(sample.choices, found, strict=True):
        batch = vlm.encode([sample], answers=[choice])
        logits = vlm.forward(batch, logits="all").logits
        assert logits is not None
        ids = vlm.answer_ids(choice)
        steps = logits[0, -len(ids) - 1 : -1].double().log_softmax(-1)
        expected = sum(float(steps[i, token]) for i, token in enumerate(ids))
        assert log == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_edits_and_covers_change_the_edited_answer_as_the_model_is_changed(
    model: LiveModel, vlm: ModelAdapter, scenes: list[Sample]
) -> None:
    question = LiveQuestion(
        scenes[0].prompt, sample=(0, 0), choices=COLORS, covers=PATCHES, edits=(HALF,)
    )
    told = answer(model, question, nothing)
    changed = covered(replace(scenes[0], choices=COLORS), PATCHES)
    with vlm.edited([HALF]):
        expected = softmax(logits_of(vlm, changed))
    found = [shares(told["edited"])[name] for name in COLORS]
    np.testing.assert_allclose(np.log(found), np.log(expected), atol=1e-3)
    plain = [shares(told["unedited"])[name] for name in COLORS]
    assert np.abs(np.subtract(found, plain)).max() > 0.01
    swapped = [Cover(c.top, c.left, c.bottom, c.right) for c in PATCHES]
    with vlm.edited([HALF]):
        other = softmax(logits_of(vlm, covered(replace(scenes[0], choices=COLORS), swapped)))
    assert np.abs(np.log(other / expected)).max() > 0.5, "swapped covers would not be noticed"
    assert not vlm.active_edits


def test_the_unedited_answer_is_computed_once(
    model: LiveModel, scenes: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlmlens.view.live import answer as module

    asked: list[Sample] = []
    own = module.ask

    def counted(vlm: ModelAdapter, sample: Sample) -> dict[str, Any]:
        asked.append(sample)
        return own(vlm, sample)

    monkeypatch.setattr(module, "ask", counted)
    for strength in (0.5, 0.6):
        edit = f"llm.block.3/image = scale({strength})"
        question = LiveQuestion("Shape of the main object:", sample=(0, 1), edits=(edit,))
        answer(model, question, nothing)
    assert len(asked) == 3


def test_free_answers_are_what_the_model_writes(
    model: LiveModel, vlm: ModelAdapter, scenes: list[Sample], upload: str
) -> None:
    told = answer(model, LiveQuestion(scenes[0].prompt, upload=upload), nothing)["unedited"]
    (made,) = vlm.generate(vlm.encode([scenes[0]]), max_new_tokens=16)
    assert told["text"] == made.text.strip()
    first = told["choices"][0]
    assert vlm.decode([made.token_ids[0]]) == first["text"]
    assert 0 < first["probability"] <= 1


def test_patches_are_those_of_the_layout(model: LiveModel, upload: str) -> None:
    told = answer(model, LiveQuestion("What?", upload=upload), nothing)
    rows, columns = told["grid"]
    assert len(told["patches"]) == rows * columns
    assert told["patches"][1] == [1 / columns, 0, 2 / columns, 1 / rows]
    assert answer(model, LiveQuestion("What?"), nothing)["grid"] is None


def test_a_cancelled_question_ends_between_passes(model: LiveModel, scenes: list[Sample]) -> None:
    def stop(done: int, total: int | None) -> None:
        del total
        if done == 1:
            raise Stopped

    question = LiveQuestion("Stop?", sample=(0, 0), edits=(HALF,))
    with pytest.raises(Stopped):
        answer(model, question, stop)
    view = Asked("occlusion", LiveQuestion(scenes[0].prompt, sample=(0, 0)))
    with pytest.raises(Stopped):
        answered(model, view, lambda done, total: stop(min(done, 1), total))
    assert not model.load().active_edits
    assert not [*model.folder.iterdir()]


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (LiveQuestion(" ", sample=(0, 0)), DataError),
        (LiveQuestion("?", sample=(1, 0)), DataError),
        (LiveQuestion("?", sample=(0, 10**6)), DataError),
        (LiveQuestion("?", upload="gone"), DataError),
        (LiveQuestion("?", sample=(0, 0), choices=("one",)), DataError),
        (LiveQuestion("?", covers=PATCHES), DataError),
        (LiveQuestion("?", sample=(0, 0), edits=("llm.block.99/last = zero",)), SiteNotFound),
        (LiveQuestion("?", sample=(0, 0), edits=("llm.block.1/last = scale(1)",)), EditError),
    ],
)
def test_errors_say_what_is_wrong(model: LiveModel, question: LiveQuestion, error: Any) -> None:
    with pytest.raises(error):
        answer(model, question, nothing)
    assert not model.load().active_edits


def test_the_copied_commands_give_the_same_answer(
    model: LiveModel, upload: str, file: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are executed; the look is stopped after its answer, which comes first."""
    from vlmlens_plugins.analysis.look import analysis

    for name in ("evidence", "layers", "components"):
        none = [None]
        monkeypatch.setattr(analysis, name, lambda *given, none=none: none)
    choices = COLORS[:3]
    question = LiveQuestion(
        "Color of the main object:", upload=upload, choices=choices, covers=PATCHES, edits=(HALF,)
    )
    told = answer(model, question, nothing)
    assert told["edited"]["text"] != told["unedited"]["text"]
    words = shlex.split(told["commands"]["shell"])
    assert words[0] == "vlmlens"
    done = CliRunner().invoke(app, [*words[1:], "--json"])
    assert done.exit_code == 0, done.output
    by_command = json.loads(done.stdout)
    assert [*by_command["answers"].values()] == [told["edited"]["text"]]
    known: dict[str, Any] = {}
    exec(told["commands"]["python"], known)
    finding = known["look"].findings[0]
    assert known["look"].answer == told["edited"]["text"]
    best = told["edited"]["choices"][0]["probability"]
    assert finding.values["probability"] == pytest.approx(best, rel=1e-4)
    assert str(file) in told["commands"]["python"]


def test_commands_hold_odd_texts(model: LiveModel, file: Path) -> None:
    name = model.uploads.add(file.read_bytes(), "-rf $(x) 'a'.png").name
    told = answer(model, LiveQuestion('-what\'s "this"; `x`\n?', upload=name), nothing)
    words = shlex.split(told["commands"]["shell"])
    assert words[-3:] == ["--", "-rf $(x) 'a'.png", '-what\'s "this"; `x`\n?']
    compile(told["commands"]["python"], "copied", "exec")


def test_where_no_command_says_the_same_there_is_none(
    model: LiveModel, scenes: list[Sample]
) -> None:
    in_memory = replace(scenes[0], images=(scenes[0].open_images()[0],))
    several = replace(scenes[0], images=scenes[0].images * 2)
    for sample in (in_memory, several):
        run: Any = SimpleNamespace(samples=[sample])
        other = LiveModel(model.spec, model.registry)
        other.show([run], tells_paths=True)
        told = look_commands(other, LiveQuestion("?", sample=(0, 0)))
        assert told == {"shell": None, "python": None}
    region = LiveQuestion("?", sample=(0, 0), edits=("llm.block.1/image.region(main) = zero",))
    assert look_commands(model, region) == {"shell": None, "python": None}
    with_comma = LiveQuestion("?", sample=(0, 0), choices=("a, b", "c"))
    told = look_commands(model, with_comma)
    assert told["shell"] is None
    assert "'a, b'" in str(told["python"])


def test_others_are_not_told_where_files_are(model: LiveModel, scenes: list[Sample]) -> None:
    question = LiveQuestion("?", sample=(0, 0))
    assert str(Path(str(scenes[0].images[0])).parent) in str(look_commands(model, question))
    hidden = LiveModel(model.spec, model.registry)
    hidden.show(model.runs, tells_paths=False)
    shown = look_commands(hidden, question)
    assert str(Path(str(scenes[0].images[0])).parent) not in str(shown)
    assert Path(str(scenes[0].images[0])).name in str(shown)


def test_a_view_is_the_run_that_its_command_repeats(
    model: LiveModel, upload: str, in_tmp: Path
) -> None:
    edits = ("llm.block.2/image = scale(0.5)",)
    asked = LiveQuestion("<b>Color</b>:", upload=upload, choices=COLORS, edits=edits)
    steps: list[Any] = []
    told = answered(model, Asked("lens", asked), lambda *step: steps.append(step))
    assert "<figure" in told["html"]
    assert "<b>Color" not in told["html"]
    scripts = told["html"].count("<script")
    assert told["html"].count('<script type="application/json"') == scripts
    assert steps
    assert not [*model.folder.iterdir()]
    assert "--edit" in shlex.split(told["commands"]["shell"])
    known: dict[str, Any] = {}
    exec(told["commands"]["python"], known)
    by_command = known["run"].results["logit-lens"]
    said = by_command.findings[0].text.removeprefix("all samples: ")
    assert told["said"][0].casefold() == said.casefold()


def test_pictures_are_decoded_as_runs_decode_them(model: LiveModel, tmp_path: Path) -> None:
    turned = Image.new("RGB", (4, 2), "red")
    turned.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    clear.save(tmp_path / "clear.png")
    for name in ("turned.png", "clear.png"):
        path = tmp_path / name
        kept = model.uploads.get(model.uploads.add(path.read_bytes()).name)
        (expected,) = Sample("s", "?", (str(path),)).open_images()
        assert np.array_equal(np.asarray(Image.open(BytesIO(kept.png))), np.asarray(expected))
        assert kept.size == expected.size


def test_few_pictures_are_kept(model: LiveModel) -> None:
    content = BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    made = LiveModel(model.spec, model.registry).uploads
    names = [made.add(content.getvalue()).name for _ in range(40)]
    with pytest.raises(DataError, match="not there any more"):
        made.get(names[0])
    made.get(names[-1])
    assert len(set(names)) == 40


@pytest.mark.parametrize("choices", [("red", "green"), ()])
@pytest.mark.parametrize("kind", ["answer", "occlusion"])
def test_an_edit_that_leaves_no_numbers_is_told(
    model: LiveModel, kind: str, choices: tuple[str, ...]
) -> None:
    edits = ("llm.block.1/image = scale(1e308)",)
    question = LiveQuestion("Color?", sample=(0, 0), choices=choices, edits=edits)
    with pytest.raises(EditError, match="no probabilities"):
        answered(model, Asked(kind, question), nothing)


def test_attention_is_that_of_the_copied_code_which_knows_no_regions(model: LiveModel) -> None:
    question = LiveQuestion("Is it there?", sample=(0, 0))
    assert "regions" in model.sample_of_run(0, 0).attributes
    said = answered(model, Asked("attention", question), nothing)["said"]
    assert "region" not in " ".join(said)
