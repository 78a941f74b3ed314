"""The scene generator: determinism, ranges, and labels that agree with what is drawn."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vlmlens_plugins.demo.questions import (
    CHOICES,
    PROMPTS,
    TASKS,
    presence_prompt,
    presence_question,
    questions,
)
from vlmlens_plugins.demo.scenes import (
    COLORS,
    IMAGE_SIZE,
    MAIN_SIZES,
    MAX_OBJECTS,
    MIN_VISIBLE,
    OTHER_SIZES,
    PHOTOGRAPHERS,
    SHAPES,
    SURFACES,
    TEXTURES,
    Scene,
    draw,
    instance_map,
    make_scene,
    silhouette,
    visible_fractions,
)

PINNED = [
    ("red", "cube", 2, "plain", "B"),
    ("gray", "cone", 4, "plain", "B"),
    ("cyan", "cube", 1, "plain", "A"),
]
SCENES = [make_scene(index, split=split) for split in ("heldout", "train") for index in range(300)]
FEW = SCENES[:60]


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(draw(scene)).astype(int)


def seen_objects(scene: Scene) -> np.ndarray:
    return instance_map(scene.objects, mirrored=scene.mirrored)


def grown(mask: np.ndarray) -> np.ndarray:
    """The mask with a border of two pixels, where edges are antialiased."""
    padded = np.pad(mask, 2)
    shifts = [(row, column) for row in range(5) for column in range(5)]
    side = mask.shape[0]
    return np.any([padded[r : r + side, c : c + side] for r, c in shifts], axis=0)


def with_object(scene: Scene, number: int, **changes: object) -> Scene:
    objects = list(scene.objects)
    objects[number] = replace(objects[number], **changes)
    return replace(scene, objects=tuple(objects))


class TestDeterminism:
    def test_same_arguments_same_scene_and_picture(self):
        for index in (0, 7, 123):
            first, second = make_scene(index), make_scene(index)
            assert first == second
            assert draw(first).tobytes() == draw(second).tobytes()

    def test_order_does_not_matter(self):
        backwards = [make_scene(index) for index in reversed(range(20))]
        assert backwards[::-1] == SCENES[:20]

    def test_drawing_leaves_no_state(self):
        before = draw(SCENES[3]).tobytes()
        for scene in SCENES[:20]:
            draw(scene)
        assert draw(SCENES[3]).tobytes() == before

    def test_global_seeds_do_not_matter(self):
        np.random.seed(1)  # noqa: NPY002
        random.seed(1)
        first = make_scene(5), draw(make_scene(5)).tobytes(), questions(make_scene(5))
        np.random.seed(2)  # noqa: NPY002
        random.seed(2)
        assert (make_scene(5), draw(make_scene(5)).tobytes(), questions(make_scene(5))) == first

    def test_splits_and_seeds_differ(self):
        contents = {
            (make_scene(index, split=split, seed=seed).objects)
            for index in range(50)
            for split in ("train", "heldout")
            for seed in (0, 1)
        }
        assert len(contents) == 200

    def test_version_one_is_pinned(self):
        """Fails when a change gives other scenes: then raise SCENES_VERSION and retrain."""
        found = [
            (s.main.color, s.main.shape, s.number, s.main.surface, s.photographer)
            for s in SCENES[:3]
        ]
        assert found == PINNED

    def test_importing_the_generator_imports_nothing_heavy(self):
        code = (
            "import sys, vlmlens_plugins.demo.questions;"
            "print(sorted({'torch', 'transformers', 'sklearn', 'vlmlens'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        assert done.stdout.strip() == "[]"


class TestRanges:
    @pytest.mark.parametrize("index", [-1, -100])
    def test_negative_index_is_refused(self, index):
        with pytest.raises(ValueError, match=str(index)):
            make_scene(index)

    def test_unknown_split_is_refused(self):
        with pytest.raises(ValueError, match="'test'"):
            make_scene(0, split="test")  # type: ignore[arg-type]

    def test_objects_lie_inside_the_frame(self):
        for scene in SCENES:
            for item in scene.objects:
                assert item.x > 0
                assert item.x + item.size < IMAGE_SIZE
                assert item.y > 0
                assert item.bottom < IMAGE_SIZE

    def test_values_are_known_ones(self):
        for scene in SCENES:
            assert 1 <= scene.number <= MAX_OBJECTS
            assert scene.photographer in PHOTOGRAPHERS
            assert scene.background.texture in TEXTURES
            for item in scene.objects:
                assert item.color in COLORS
                assert item.shape in SHAPES
                assert item.surface in SURFACES

    def test_main_object_is_clearly_the_largest(self):
        assert MAIN_SIZES[0] >= 1.5 * OTHER_SIZES[1]
        for scene in SCENES:
            assert MAIN_SIZES[0] <= scene.main.size <= MAIN_SIZES[1]
            for item in scene.objects[1:]:
                assert OTHER_SIZES[0] <= item.size <= OTHER_SIZES[1]
            areas = np.bincount(seen_objects(scene).ravel() + 1)[1:]
            assert areas.argmax() == 0

    def test_only_the_main_object_may_be_striped(self):
        assert all(item.surface == "plain" for scene in SCENES for item in scene.objects[1:])

    def test_occlusion_is_bounded(self):
        fractions = [
            share
            for scene in SCENES
            for share in visible_fractions(scene.objects, mirrored=scene.mirrored)
        ]
        assert min(fractions) >= MIN_VISIBLE
        assert min(fractions) < 0.95, "some scene should have an occlusion"

    def test_attributes_are_flat_and_agree(self):
        for scene in FEW:
            found = scene.attributes()
            assert found["color"] == scene.main.color
            assert found["number"] == len(scene.objects)
            assert found["photographer"] == scene.photographer
            assert MIN_VISIBLE <= found["visible"] <= 1
            assert all(isinstance(value, str | int | float) for value in found.values())

    def test_ids_are_unique(self):
        assert len({scene.id for scene in SCENES}) == len(SCENES)
        assert SCENES[7].id == "heldout-00007"


class TestBalance:
    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("color", len(COLORS)),
            ("shape", len(SHAPES)),
            ("number", MAX_OBJECTS),
            ("surface", 2),
            ("photographer", 2),
            ("light", 2),
        ],
    )
    def test_attributes_are_uniform(self, name, values):
        counts = Counter(scene.attributes()[name] for scene in SCENES)
        share = 1 / values
        slack = 4 * (len(SCENES) * share * (1 - share)) ** 0.5
        assert len(counts) == values
        assert all(abs(n - len(SCENES) * share) < slack for n in counts.values())

    @pytest.mark.parametrize("name", ["color", "shape", "number", "surface", "light", "texture"])
    def test_photographer_is_independent_of_everything_visible(self, name):
        groups: dict[object, list[bool]] = {}
        for scene in SCENES:
            groups.setdefault(scene.attributes()[name], []).append(scene.photographer == "A")
        for group in groups.values():
            assert abs(np.mean(group) - 0.5) < 4 * 0.5 / len(group) ** 0.5

    def test_surface_is_independent_of_color_and_number(self):
        for name in ("color", "number", "shape"):
            groups: dict[object, list[bool]] = {}
            for scene in SCENES:
                groups.setdefault(scene.attributes()[name], []).append(
                    scene.main.surface == "plain"
                )
            for group in groups.values():
                assert abs(np.mean(group) - 0.5) < 4 * 0.5 / len(group) ** 0.5


class TestDrawing:
    def test_size_and_mode(self):
        image = draw(SCENES[0])
        assert (image.mode, image.size) == ("RGB", (IMAGE_SIZE, IMAGE_SIZE))

    def test_photographer_leaves_no_trace(self):
        for scene in FEW:
            other = replace(scene, photographer="A" if scene.photographer == "B" else "B")
            assert draw(scene).tobytes() == draw(other).tobytes()
            assert questions(scene) == questions(other)

    def test_plain_main_object_has_its_color(self):
        names = list(COLORS)
        nominal = np.array([COLORS[name] for name in names], float)
        nominal /= np.linalg.norm(nominal, axis=1, keepdims=True)
        for scene in SCENES:
            if scene.main.surface == "plain":
                inside = pixels(scene)[seen_objects(scene) == 0]
                median = np.median(inside, axis=0)
                nearest = (nominal @ (median / np.linalg.norm(median))).argmax()
                assert names[nearest] == scene.main.color, scene.id

    def test_recoloring_an_object_changes_its_visible_pixels_only(self):
        for scene in FEW:
            for number in range(scene.number):
                other = with_object(scene, number, rgb=(255, 0, 255))
                changed = (pixels(scene) != pixels(other)).any(-1)
                mask = seen_objects(scene) == number
                assert not changed[~grown(mask)].any(), scene.id
                if scene.objects[number].surface == "plain":
                    assert changed[mask].mean() > 0.9, scene.id

    def test_stripes_are_drawn_on_the_main_object_only(self):
        for scene in FEW:
            flipped = "plain" if scene.main.surface == "striped" else "striped"
            changed = pixels(scene) != pixels(with_object(scene, 0, surface=flipped))
            mask = seen_objects(scene) == 0
            assert not changed.any(-1)[~grown(mask)].any()
            assert 0.3 < changed.any(-1)[mask].mean() < 0.75

    def test_stripes_survive_a_reduction_to_64_pixels(self):
        for scene in FEW:
            small = [
                np.asarray(draw(with_object(scene, 0, surface=surface)).resize((64, 64))).astype(
                    int
                )
                for surface in SURFACES
            ]
            strong = (np.abs(small[0] - small[1]).max(-1) > 60).sum()
            assert strong > 0.1 * (scene.main.size / 2) ** 2, scene.id

    def test_every_object_can_be_seen(self):
        for scene in FEW:
            for number in range(1, scene.number):
                fewer = (*scene.objects[:number], *scene.objects[number + 1 :])
                changed = np.abs(pixels(scene) - pixels(replace(scene, objects=fewer))).max(-1) > 12
                assert changed[seen_objects(scene) == number].mean() > 0.5, scene.id

    def test_shapes_have_different_silhouettes(self):
        for size in (OTHER_SIZES[0], MAIN_SIZES[1]):
            masks = [silhouette(shape, size, False) for shape in SHAPES]
            for one in range(len(masks)):
                for two in range(one):
                    assert (masks[one] != masks[two]).mean() > 0.08

    def test_mirroring_mirrors_the_silhouette(self):
        for shape in SHAPES:
            one, two = (silhouette(shape, 40, mirrored) for mirrored in (False, True))
            assert (one[:, ::-1] == two).all()

    def test_instance_map_counts_objects(self):
        for scene in SCENES:
            assert set(np.unique(seen_objects(scene))) == set(range(-1, scene.number))


class TestQuestions:
    def test_one_per_task_in_order(self):
        for scene in FEW:
            asked = questions(scene)
            assert tuple(question.task for question in asked) == TASKS
            for question in asked:
                assert question.choices == CHOICES[question.task]
                assert question.label in question.choices
                assert question.prompt == PROMPTS.get(question.task, question.prompt)

    def test_labels_are_the_attributes(self):
        for scene in SCENES:
            labels = {question.task: question.label for question in questions(scene)}
            del labels["presence"]
            attributes = {name: str(scene.attributes()[name]) for name in labels}
            assert labels == attributes

    def test_presence_label_is_true(self):
        prompts = {presence_prompt(c, s): (c, s) for c in COLORS for s in SHAPES}
        for scene in SCENES:
            question = questions(scene)[TASKS.index("presence")]
            assert (question.label == "yes") == scene.contains(*prompts[question.prompt])

    def test_presence_is_balanced_and_half_the_negatives_are_hard(self):
        prompts = {presence_prompt(c, s): (c, s) for c in COLORS for s in SHAPES}
        asked = [(scene, questions(scene)[TASKS.index("presence")]) for scene in SCENES]
        negatives = [
            (scene, prompts[question.prompt]) for scene, question in asked if question.label == "no"
        ]
        assert 0.43 < len(negatives) / len(SCENES) < 0.57
        hard = [
            any(item.color == color or item.shape == shape for item in scene.objects)
            for scene, (color, shape) in negatives
        ]
        assert np.mean(hard) > 0.5

    def test_presence_question_varies_with_its_generator(self):
        rng = random.Random(0)
        assert len({presence_question(SCENES[0], rng).prompt for _ in range(50)}) > 5

    def test_articles(self):
        assert presence_prompt("orange", "cube") == "Is there an orange cube?"
        assert presence_prompt("red", "cube") == "Is there a red cube?"
