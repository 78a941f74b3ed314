"""Drawn tasks: what is drawn is what is said, and no shortcut tells the answer."""

from __future__ import annotations

import colorsys
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from vlmlens.abc import ModelAdapter
from vlmlens.errors import DataNotFound, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.demo.dataset import DemoDataset, DemoOptions
from vlmlens_plugins.demo.scenes import COLORS
from vlmlens_plugins.demo.tasks import KINDS, TASKS_VERSION, Point, Task, make_task
from vlmlens_plugins.demo.tasks.depth import RATIO
from vlmlens_plugins.demo.tasks.marks import HALF, answer_of, square

MANY = 600
TASKS = {kind: [make_task(kind, index) for index in range(MANY)] for kind in KINDS}
PINNED = {
    "depth": (["red", "blue", "red", "blue"], [188.6, 201.7, 172.5, 201.0]),
    "correspondence": (["red", "green", "yellow", "blue"], [139.1, 174.3, 149.9, 150.5]),
    "odd-one-out": (["green", "red", "blue", "yellow"], [159.4, 156.7, 158.3, 141.4]),
    "texture": (["blue", "red", "blue", "red"], [104.9, 146.3, 162.3, 112.2]),
}
"""Labels, and mean brightness of the pictures, of the first four tasks."""


def samples(kind: str, number: int = 4, **options: Any) -> list[Sample]:
    return DemoDataset(kind, DemoOptions(number=number, **options)).samples([])


def of_chance(share: float, chance: float, number: int = MANY) -> bool:
    """Whether a share is within four standard errors of chance."""
    return abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / number)


def right(kind: str, rule: Callable[[Task], str]) -> float:
    return float(np.mean([rule(task) == task.label for task in TASKS[kind]]))


def far(one: Point, other: Point) -> float:
    return float(np.hypot(one.x - other.x, one.y - other.y))


# ------------------------------------------------------------------------------- always the same


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_stay_as_they_are(kind: str) -> None:
    """Otherwise TASKS_VERSION has to be raised."""
    assert TASKS_VERSION == 1
    labels, bright = PINNED[kind]
    tasks = TASKS[kind][:4]
    found = [np.mean([np.asarray(picture).mean() for picture in t.pictures()]) for t in tasks]
    assert [task.label for task in tasks] == labels
    np.testing.assert_allclose(found, bright, atol=0.15)


def test_another_process_and_another_order_make_the_same() -> None:
    code = (
        "from vlmlens_plugins.demo.tasks import make_task; t = make_task('depth', 7); "
        "from hashlib import md5; "
        "print(t.label, t.facts, md5(t.pictures()[0].tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    task = TASKS["depth"][7]
    digest = hashlib.md5(task.pictures()[0].tobytes()).hexdigest()
    assert other.stdout.strip() == f"{task.label} {task.facts} {digest}"
    assert make_task("depth", 7, seed=1).facts != task.facts


# ------------------------------------------------------------------------------- balance, shortcuts


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_right_equally_often(kind: str) -> None:
    choices = TASKS[kind][0].choices
    assert {task.choices for task in TASKS[kind]} == {choices}
    assert {task.prompt for task in TASKS[kind]} == {TASKS[kind][0].prompt}
    for start in range(0, MANY, len(choices)):
        block = TASKS[kind][start : start + len(choices)]
        assert Counter(task.label for task in block) == Counter(choices)


def cues(task: Task) -> list[float]:
    """Where the marks are, and how they lie to each other."""
    spots = [(point.image, point.x, point.y) for point in task.points.values()]
    spots = spots or [(image, *box[:2]) for image, box in task.areas.values()]
    flat = np.array(spots, np.float64)
    apart = np.abs(flat[:, None] - flat[None]).sum(-1)
    return [*flat.ravel(), *apart[np.triu_indices(len(flat), 1)], *np.abs(flat[:, 1:] - 64).ravel()]


def probed(x: Sequence[Sequence[float]], labels: Sequence[str]) -> float:
    rows = np.array(x)
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-9)
    return float(cross_val_score(LogisticRegression(C=0.1), rows, labels, cv=5).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_places_of_marks_do_not_tell_the_answer(kind: str) -> None:
    tasks = TASKS[kind]
    share = probed([cues(task) for task in tasks], [task.label for task in tasks])
    assert of_chance(share, 1 / len(tasks[0].choices))


def test_a_shortcut_in_places_would_be_found() -> None:
    """The same probe, where the answer is the lower mark."""
    tasks = TASKS["depth"]
    lower = [max(task.choices, key=lambda color: task.points[color].y) for task in tasks]
    assert probed([cues(task) for task in tasks], lower) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_no_single_fact_but_the_asked_one_tells_the_answer(kind: str) -> None:
    """The most frequent label of each value, learned on one half and tried on the other."""
    tasks = TASKS[kind]
    asked = ("depth of", "size of", "object of")
    for name in tasks[0].facts:
        if name.startswith(asked):
            continue
        values = [str(task.facts[name]) for task in tasks]
        if len(set(values)) > 20:
            continue
        by_value: dict[str, Counter[str]] = {}
        for value, task in zip(values[: MANY // 2], tasks, strict=False):
            by_value.setdefault(value, Counter())[task.label] += 1
        guesses = [by_value.get(v, Counter(tasks[0].choices)).most_common(1)[0][0] for v in values]
        hits = [g == t.label for g, t in zip(guesses, tasks, strict=True)][MANY // 2 :]
        assert of_chance(float(np.mean(hits)), 1 / len(tasks[0].choices), MANY // 2), name


# ------------------------------------------------------------------------------- the truth


def test_the_nearer_one_is_nearer_and_size_alone_misleads_now_and_then() -> None:
    for task in TASKS["depth"]:
        near, away = sorted(float(str(task.facts[f"depth of {c}"])) for c in task.choices)
        assert task.facts[f"depth of {task.label}"] == near
        assert away / near > RATIO - 0.01
    larger = right(
        "depth", lambda t: max(t.choices, key=lambda c: int(str(t.facts[f"size of {c}"])))
    )
    assert 0.85 < larger < 0.95


def test_haze_in_the_pixels_tells_depth() -> None:
    """How colorful the pixels around a point are: read from the picture, not from the facts."""

    def colorful(task: Task, color: str) -> float:
        point = task.points[color]
        near = np.asarray(task.pictures()[0], np.float64)[point.y - 3 : point.y + 4]
        near = near[:, point.x - 3 : point.x + 4]
        return float((near.max(-1) - near.min(-1)).mean())

    tasks = TASKS["depth"][:100]
    hits = [max(t.choices, key=lambda c: colorful(t, c)) == t.label for t in tasks]
    assert np.mean(hits) > 0.8


def hue(task: Task, point: Point) -> str:
    """The nominal color that a pixel is nearest to, by its hue; gray without one."""
    box = np.asarray(task.pictures()[point.image])[
        point.y - 1 : point.y + 2, point.x - 1 : point.x + 2
    ]
    h, s, _ = colorsys.rgb_to_hsv(*(box.reshape(-1, 3).mean(0) / 255))
    if s < 0.22:
        return "gray"
    names = [name for name in COLORS if name != "gray"]
    turn = {name: colorsys.rgb_to_hsv(*(v / 255 for v in COLORS[name]))[0] for name in names}
    return min(names, key=lambda name: min(abs(h - turn[name]), 1 - abs(h - turn[name])))


def test_the_marked_pixels_have_the_color_that_is_said() -> None:
    tasks = TASKS["correspondence"][:24]
    for_reference = [hue(t, t.points["white"]) == t.facts["color"] for t in tasks]
    said = [
        hue(t, t.points[c]) == str(t.facts[f"object of {c}"]).split()[0]
        for t in tasks
        for c in t.choices
    ]
    assert np.mean(for_reference) > 0.9
    assert np.mean(said) > 0.9


def test_the_same_object_is_marked_and_the_others_differ() -> None:
    for task in TASKS["correspondence"]:
        objects = {c: str(task.facts[f"object of {c}"]) for c in task.choices}
        assert objects[task.label] == f"{task.facts['color']} {task.facts['shape']}"
        assert len(set(objects.values())) == 4
        by_color, by_shape = (Counter(o.split()[i] for o in objects.values()) for i in (0, 1))
        assert set(by_color.values()) == set(by_shape.values()) == {2}
        assert task.points["white"].image == 0
        assert {task.points[c].image for c in task.choices} == {1}
    nearest = right(
        "correspondence",
        lambda t: min(t.choices, key=lambda c: far(t.points[c], t.points["white"])),
    )
    assert of_chance(nearest, 0.25)


def test_one_of_four_is_odd_by_what_is_said() -> None:
    assert set(Counter(t.facts["differs"] for t in TASKS["odd-one-out"])) == {
        "color",
        "shape",
        "surface",
    }
    for task in TASKS["odd-one-out"]:
        assert task.facts["odd"] != task.facts[str(task.facts["differs"])]
    by_color = [t for t in TASKS["odd-one-out"][:150] if t.facts["differs"] == "color"]
    by_color = [t for t in by_color if t.facts["surface"] == "plain"]
    found = [hue(t, t.points[t.label]) == t.facts["odd"] for t in by_color]
    assert len(found) > 15
    assert np.mean(found) > 0.9


def test_textures_have_equal_colors() -> None:
    """Inside the frames, every pixel lies between the same two colors."""

    for task in TASKS["texture"][:20]:
        assert task.facts["texture"] != task.facts["other texture"]
        inks = [np.asarray(COLORS[name]) for name in str(task.facts["colors"]).split(" and ")]
        low, high = np.minimum(*inks) - 12, np.maximum(*inks) + 12
        for picture in task.pictures():
            inner = np.asarray(picture)[8:-8, 8:-8].reshape(-1, 3)
            assert (inner >= low).all()
            assert (inner <= high).all()


# ------------------------------------------------------------------------------- marks, canvas


@pytest.mark.parametrize("kind", ["depth", "correspondence", "odd-one-out"])
def test_squares_are_where_they_are_said_and_leave_their_points_free(kind: str) -> None:
    for task in TASKS[kind][:40]:
        pictures = [np.asarray(picture) for picture in task.pictures()]
        for color, point in task.points.items():
            ink = (255, 255, 255) if color == "white" else COLORS[color]
            left, top, right_, bottom = square(point)
            assert right_ - left == bottom - top == 2 * HALF + 1
            line = pictures[point.image][top, left:right_]
            assert (line == ink).all()
            inner = pictures[point.image][point.y - 8 : point.y + 9, point.x - 8 : point.x + 9]
            assert not (inner == ink).all(-1).any()


def test_one_canvas_holds_the_same_pixels_elsewhere() -> None:
    for kind in ("correspondence", "texture"):
        apart, joined = make_task(kind, 3), make_task(kind, 3, canvas=True)
        (canvas,) = joined.pictures()
        assert canvas.size == (256, 256)
        for color, (image, box) in apart.areas.items():
            number, moved = joined.areas[color]
            assert number == 0
            assert canvas.crop(moved).tobytes() == apart.pictures()[image].crop(box).tobytes()
        assert apart.label == joined.label
    assert make_task("depth", 0, canvas=True) == make_task("depth", 0)


# ------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("canvas", [False, True])
def test_regions_and_points_select_the_patch_at_a_mark(vlm: ModelAdapter, canvas: bool) -> None:
    asked = samples("correspondence", 2, canvas=canvas)
    batch = vlm.encode(asked)
    trace = vlm.trace(batch, "vision.block.0")
    for number, sample in enumerate(asked):
        grid = batch.layouts[trace.sites["vision.block.0"].axis].samples[number].patches
        assert grid is not None
        for color, point in json.loads(str(sample.attributes["points"])).items():
            rows = trace.select(f"vision.block.0/image.region({color})")[number]
            holds = grid.of_image(point["image"]) & (grid.box[:, 0] <= point["x"])
            holds &= (point["x"] < grid.box[:, 2]) & (grid.box[:, 1] <= point["y"])
            (row,) = np.flatnonzero(holds & (point["y"] < grid.box[:, 3]))
            whole = trace.select("vision.block.0/image")[number]
            assert rows.shape[0] == 1
            assert bool((rows[0] == whole[row]).all())


@pytest.mark.parametrize("kind", KINDS)
def test_samples_say_all_that_is_known(vlm: ModelAdapter, kind: str) -> None:
    for index, sample in enumerate(samples(kind)):
        task = TASKS[kind][index]
        assert (sample.id, sample.label, sample.group) == (task.id, task.label, task.id)
        pictures = [picture.tobytes() for picture in sample.open_images()]
        assert pictures == [picture.tobytes() for picture in task.pictures()]
        assert set(str(sample.attributes["region"]).split("+")) <= set(
            json.loads(str(sample.attributes["regions"]))
        )
        ids = [vlm.answer_ids(choice) for choice in sample.choices]
        assert all(len(each) == 1 for each in ids)
        assert len({each[0] for each in ids}) == len(ids)
        assert "<unk>" not in vlm.decode(vlm.answer_ids(sample.prompt))
        assert vlm.decode(vlm.answer_ids(sample.prompt)).strip() == sample.prompt


def test_a_prompt_of_the_users_is_another_wording() -> None:
    asked = DemoDataset("depth", DemoOptions(number=2)).samples(["Nearer?", "In front?"])
    assert [sample.id for sample in asked][:2] == ["depth-00000#0", "depth-00000#1"]
    assert [sample.label for sample in asked[:2]] == [TASKS["depth"][0].label] * 2


def test_wrong_sources_and_options_are_refused() -> None:
    with pytest.raises(DataNotFound, match="depths'"):
        DemoDataset("depths", DemoOptions()).samples([])
    with pytest.raises(SpecError, match="canvas=True is an option of demo:correspondence"):
        samples("depth", canvas=True)
    with pytest.raises(SpecError, match="demo:depth"):
        DemoDataset("scenes", DemoOptions(number=3)).samples([])
    with pytest.raises(ValueError, match="-1"):
        make_task("depth", -1)
    with pytest.raises(ValueError, match="'shape'"):
        make_task("shape", 0)


def test_a_wrong_answer_would_be_seen() -> None:
    """With a label that does not follow the depths, the check of the truth fails."""
    task = TASKS["depth"][0]
    liar = next(color for color in task.choices if color != task.label)
    assert task.facts[f"depth of {liar}"] != min(
        float(str(task.facts[f"depth of {color}"])) for color in task.choices
    )
    drawn = {answer_of(1, index, 0, ("red", "blue")) for index in range(8)}
    assert drawn == {"red", "blue"}
