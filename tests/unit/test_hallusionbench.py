"""HallusionBench: its forms, its metrics on a file of full size, its rules, causes of errors."""

from __future__ import annotations

import base64
import json
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from tests.unit._hallusion_layout import official, rows

from vlmlens.errors import DataError, ManifestError, SpecError
from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks import answered, intervals, scored
from vlmlens_plugins.benchmarks.hallusionbench import CARD, HallusionBench, HallusionOptions
from vlmlens_plugins.benchmarks.hallusionbench.blame import blamed, outcomes
from vlmlens_plugins.benchmarks.hallusionbench.checks import rows as small_rows


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """All 1,129 questions."""
    return read(official(tmp_path_factory.mktemp("hallusion")))


def dataset(source: Path | str, **options: Any) -> HallusionBench:
    return HallusionBench(str(source), HallusionOptions(**options))


def read(source: Path | str, **options: Any) -> list[Sample]:
    return list(dataset(source, **options).samples(()))


def score(samples: list[Sample], text: str | list[str], rule: str = "official") -> dict[str, float]:
    chosen = CARD.rule(rule)
    texts = [text] * len(samples) if isinstance(text, str) else text
    return scored(chosen.metrics or CARD.metrics, samples, answered(texts, samples, chosen))


def png(red: int) -> bytes:
    sink = BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(sink, "PNG")
    return sink.getvalue()


def test_the_edition_and_the_questions_without_a_figure_are_said(tmp_path: Path) -> None:
    made = dataset(official(tmp_path))
    samples = list(made.samples(()))
    edition, notes = made.notes[:2]
    assert "1,129 questions (all questions of November 2023) on 346 figures, 455 pairs" in edition
    assert "official file" in edition
    assert "178 of 1129 questions have no figure" in notes
    assert "text_only=true" in notes
    assert sum(not sample.images for sample in samples) == 178
    assert len({sample.group for sample in samples}) == 167
    counts = {"VD/figure": 80, "VD/illusion": 144, "VD/math": 108, "VD/ocr": 89, "VD/video": 170}
    counts |= {"VS/chart": 206, "VS/map": 96, "VS/ocr": 81, "VS/table": 155}
    assert {task: sum(s.task == task for s in samples) for task in counts} == counts
    assert [sum(s.label == label for s in samples) for label in ("no", "yes")] == [645, 484]


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("official", "Yes", (42.8698, 7.2254, 3.9560)),
        ("official", "No", (57.1302, 12.1387, 19.3407)),
        ("strict", "yes.", (42.8698, 7.2254, 3.9560)),
        ("vlmevalkit", "Yes", (42.1661, 7.2254, 4.6154)),
        ("vlmevalkit", "No", (57.8339, 12.1387, 20.0)),
        ("lmms-eval", "Yes", (42.1661, 7.2254, 4.6154)),
        ("lmms-eval", "No", (57.8339, 12.1387, 20.0)),
    ],
)
def test_constant_answers(
    full: list[Sample], rule: str, text: str, expected: tuple[float, ...]
) -> None:
    """1,129 questions by the authors' metrics; toolkits drop those without a figure."""
    found = score(full, text, rule)
    assert tuple(round(found[name], 4) for name in ("aAcc", "fAcc", "qAcc")) == expected
    assert found["mean"] == pytest.approx(sum(found[n] for n in ("aAcc", "fAcc", "qAcc")) / 3)


def test_constant_answers_on_easy_and_hard_pairs(full: list[Sample]) -> None:
    """455 pairs (625 questions) on originals or none, 430 (504 questions) on edits."""
    yes, no = score(full, "yes"), score(full, "no")
    assert [round(each["easy"], 2) for each in (yes, no)] == [46.37, 53.19]
    assert [round(each["hard"], 2) for each in (yes, no)] == [34.19, 58.14]
    easy = [s for s in full if s.attributes["seen"] != "edited"]
    hard = [s for s in full if s.attributes["seen"] == "edited"]
    assert (len(easy), len({s.attributes["pair"] for s in easy})) == (625, 455)
    assert (len(hard), len({s.attributes["pair"] for s in hard})) == (504, 430)


def test_yes_bias(full: list[Sample]) -> None:
    assert score(full, "yes")["yes_diff"] == pytest.approx(1 - 484 / 1129)
    assert score(full, "no")["yes_diff"] == pytest.approx(-484 / 1129)
    assert (score(full, "yes")["fp_ratio"], score(full, "no")["fp_ratio"]) == (1.0, 0.0)
    assert math.isnan(score(full, [str(s.label) for s in full])["fp_ratio"])


def test_the_951_are_the_same_by_option_and_by_table(full: list[Sample], tmp_path: Path) -> None:
    shown = read(official(tmp_path), part="image")
    assert len(shown) == 951
    assert score(shown, "no")["qAcc"] == pytest.approx(20.0)
    assert math.isnan(score(shown, "no")["language"]), "originals of VS are not there"
    assert len(read(official(tmp_path), part="non_image")) == 178
    texts = ["no" if number % 3 else "yes" for number in range(len(full))]
    kept = [text for text, sample in zip(texts, full, strict=True) if sample.images]
    both = score(full, texts, "vlmevalkit"), score(shown, kept, "vlmevalkit")
    assert both[0] == both[1]


def test_an_answer_that_says_nothing_is_right_only_without_a_figure(full: list[Sample]) -> None:
    unclear = score(full, "It depends.")
    assert unclear["aAcc"] == pytest.approx(100 * 178 / 1129)
    assert (unclear["fAcc"], unclear["qAcc"]) == (0.0, 0.0)
    assert score(full, "It depends.", "vlmevalkit")["aAcc"] == 0.0


@pytest.mark.parametrize("rule", ["lmms-eval", "vlmevalkit"])
def test_toolkits_leave_figureless_questions_out_of_a_task_too(
    full: list[Sample], rule: str
) -> None:
    chosen = CARD.rules[rule]
    assert chosen.task_metrics is not None
    own = [sample for sample in full if sample.task == "VS/chart"]
    answers = answered([str(s.label) if s.images else "?" for s in own], own, chosen)
    found = scored(chosen.task_metrics, own, answers)
    assert (found["aAcc"], found["qAcc"]) == (100.0, 100.0)
    wrong = answered(["?" if s.images else str(s.label) for s in own], own, chosen)
    labels = [s.label for s in own if s.images]
    reads_no = rule == "lmms-eval"
    expected = 100 * labels.count("no") / len(labels) if reads_no else 0.0
    assert scored(chosen.task_metrics, own, wrong)["aAcc"] == pytest.approx(expected)


def test_metrics_again_by_hand(full: list[Sample]) -> None:
    """An independent count, on answers of chance."""
    rng = np.random.default_rng(5)
    texts = [str(each) for each in rng.choice(["yes", "no", "no idea?"], len(full))]
    right = {
        sample.id: text == sample.label or (text == "no idea?" and sample.label == "no")
        for text, sample in zip(texts, full, strict=True)
    }
    figures: dict[str, list[bool]] = {}
    pairs: dict[str, list[bool]] = {}
    for name, hit in right.items():
        category, subcategory, group, figure, question = name.split("_")
        pairs.setdefault(f"{category}{subcategory}{group}q{question}", []).append(hit)
        if (category, figure) != ("VS", "0"):
            figures.setdefault(f"{category}{subcategory}{group}f{figure}", []).append(hit)
    found = score(full, texts)
    assert found["aAcc"] == pytest.approx(100 * np.mean(list(right.values())))
    assert found["fAcc"] == pytest.approx(100 * np.mean([all(x) for x in figures.values()]))
    assert found["qAcc"] == pytest.approx(100 * np.mean([all(x) for x in pairs.values()]))


def test_intervals_hold_whole_sets(full: list[Sample]) -> None:
    """Counts of figures and pairs stand at one sample; its group has all the others."""
    for name in ("figure", "pair"):
        groups: dict[object, set[str]] = {}
        for sample in full:
            groups.setdefault(sample.attributes[name], set()).add(sample.split_group)
        assert {len(each) for each in groups.values()} == {1}
    answers = answered(["no"] * len(full), full, CARD.rule("strict"))
    drawn = intervals(CARD.metrics, full, answers, draws=200, rng=np.random.default_rng(0))
    low, high = drawn["qAcc"]
    assert 10 < low < 19.34 < high < 30


@pytest.mark.parametrize(
    ("text", "strict", "official_says", "lmms_eval", "vlmevalkit"),
    [
        ("Yes.", "yes", "yes", "yes", "yes"),
        ("NO", "no", "no", "no", "no"),
        ("No\n", "no", "no", "no", "no"),
        ("There isn't a dog.", None, None, "no", None),
        ("Yes, there is no other cat.", "yes", "yes", "yes", None),
        ("I don't know.", None, None, "no", None),
        ("", None, None, "no", None),
        ("Not sure", None, None, "no", None),
        ("The answer is yes.", None, "yes", "yes", "yes"),
        ("It was so yesterday.", None, None, "yes", None),
        ("(yes)", "yes", "yes", "yes", "yes"),
        ("yes/no", "yes", "yes", "yes", None),
    ],
)
def test_rules(
    text: str,
    strict: str | None,
    official_says: str | None,
    lmms_eval: str,
    vlmevalkit: str | None,
) -> None:
    asked = Sample("1", "?", label="no", choices=("yes", "no"))
    found = {name: rule.read(text, asked) for name, rule in CARD.rules.items()}
    assert found == {
        "strict": strict,
        "official": official_says,
        "lmms-eval": lmms_eval,
        "vlmevalkit": vlmevalkit,
    }
    assert "GPT-4" in CARD.rule("official").about


def of_pair(category: str, *labels: str) -> list[Sample]:
    """One question on the figures of a set: none or the original, then the others."""
    seen = ("none", "original", "edited") if category == "VS" else ("original", "edited")
    known = {"category": category, "pair": f"{category}/x/0/0"}
    return [
        Sample(str(i), "?", label=label, attributes={**known, "figure": f"{category}/x/0/{i}"}
               | {"seen": seen[i]})
        for i, label in enumerate(labels)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("category", "labels", "said", "causes"),
    [
        ("VD", "yn", "yn", (None, None)),
        ("VD", "yn", "nn", ("visual", None)),
        ("VD", "yn", "?n", ("visual", None)),
        ("VD", "yn", "yy", (None, "mixed")),
        ("VD", "yy", "yn", (None, "visual")),
        ("VD", "yn", "y?", (None, "visual")),
        ("VD", "yn", "ny", ("visual", "visual")),
        ("VS", "yyn", "yyn", (None, None, None)),
        ("VS", "yyn", "nyn", ("language", None, None)),
        ("VS", "yyn", "nny", ("language", "language", "mixed")),
        ("VS", "yyn", "n?n", ("language", "mixed", None)),
        ("VS", "yyn", "?n?", (None, "visual", "visual")),
        ("VS", "yyn", "yny", (None, "visual", "language")),
        ("VS", "yyy", "yyn", (None, None, "visual")),
        ("VS", "yyn", "yy?", (None, None, "visual")),
    ],
)
def test_causes_of_errors(
    category: str, labels: str, said: str, causes: tuple[str | None, ...]
) -> None:
    """The authors' table, where "same answer" is the same word."""
    words = {"y": "yes", "n": "no", "?": "unclear"}
    samples = of_pair(category, *(words[each] for each in labels))
    texts = [words[each] for each in said]
    answers = answered(texts, samples, CARD.rule("strict"))
    assert tuple(blamed(samples, answers, outcomes(answers))) == causes


def saved(folder: Path, part: str) -> Path:
    """What `save_to_disk` writes of the hub's columns."""
    made = [
        {**row, "image": None if row["filename"] is None else {"bytes": png(i), "path": None}}
        for i, row in enumerate(small_rows())
        if part == "all" or (row["filename"] is None) == (part == "non_image")
    ]
    columns = {name: [row[name] for row in made] for name in made[0]}
    features = datasets.Features(
        {name: datasets.Value("string") for name in columns} | {"image": datasets.Image()}
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder / part)
    return folder / part


def test_hub_columns_and_parquet(tmp_path: Path) -> None:
    shown = dataset(saved(tmp_path, "image"))
    samples = list(shown.samples(()))
    assert "hub columns" in shown.notes[0]
    assert len(samples) == 8
    assert all(len(sample.open_images()) == 1 for sample in samples)
    blank = read(saved(tmp_path, "non_image"))
    assert [len(sample.images) for sample in blank] == [0, 0]
    (file,) = saved(tmp_path, "all").glob("*.arrow")
    parquet = tmp_path / "all.parquet"
    datasets.Dataset.from_file(str(file)).to_parquet(parquet)
    assert {s.id for s in read(parquet)} == {s.id for s in (*samples, *blank)}


def test_vlmevalkits_table(tmp_path: Path) -> None:
    """Rows with a figure only; a short image cell names the row that has the image."""
    held: dict[str, str] = {}
    lines = ["index\timage\tquestion\tanswer\tcategory\tl2-category"]
    for row in (row for row in small_rows() if row["filename"]):
        keys = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id")
        index = "_".join(row[key] for key in keys)
        first = held.get(row["filename"])
        held.setdefault(row["filename"], index)
        image = first or base64.b64encode(png(len(held))).decode()
        answer = {"1": "Yes", "0": "No"}[row["gt_answer"]]
        second = f"{row['category']}_{row['subcategory']}"
        lines.append("\t".join((index, image, row["question"], answer, row["category"], second)))
    path = tmp_path / "HallusionBench.tsv"
    path.write_text("\n".join(lines) + "\n")
    found = dataset(tmp_path)
    samples = list(found.samples(()))
    assert "VLMEvalKit table" in found.notes[0]
    (tmp_path / "official.json").write_text(json.dumps(small_rows()))
    others = {each.id: each for each in read(tmp_path / "official.json") if each.images}
    assert {sample.id for sample in samples} == set(others)
    for sample in samples:
        other = others[sample.id]
        assert (sample.label, sample.task, sample.group) == (other.label, other.task, other.group)
        assert sample.attributes["seen"] == other.attributes["seen"]
    assert len({sample.images for sample in samples}) == len(held) == 4
    texts = ["no"] * len(samples)
    assert score(samples, texts, "vlmevalkit") == score(list(others.values()), texts, "vlmevalkit")


def test_an_index_that_says_something_else_tells_no_edits(tmp_path: Path) -> None:
    """Then easy and hard are not known; the other scores are."""
    cell = base64.b64encode(png(1)).decode()
    lines = ["index\timage\tquestion\tanswer\tcategory\tl2-category"]
    for figure, third in (("0", "2"), ("1", "2")):
        lines.append(f"VD_math_{third}_0_{figure}_0\t{cell}\tIs it?\tYes\tVD\tVD_math")
    (tmp_path / "HallusionBench.tsv").write_text("\n".join(lines))
    made = dataset(tmp_path)
    samples = list(made.samples(()))
    assert any("easy and hard are unknown" in note for note in made.notes)
    assert [sample.attributes["seen"] for sample in samples] == ["", ""]
    found = score(samples, "yes")
    assert math.isnan(found["easy"])
    assert math.isnan(found["hard"])
    assert (found["aAcc"], found["qAcc"]) == (100, 100)


@pytest.mark.parametrize("inner", ["", "hallusion_bench"])
def test_figures_are_found_where_the_archive_unpacks(tmp_path: Path, inner: str) -> None:
    (tmp_path / "HallusionBench.json").write_text(json.dumps(small_rows()))
    for row in small_rows():
        if row["filename"]:
            path = tmp_path / inner / row["filename"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(1))
    assert all(s.open_images() for s in read(tmp_path) if s.images)
    elsewhere = read(tmp_path / "HallusionBench.json", images=str(tmp_path / inner))
    assert all(s.open_images() for s in elsewhere if s.images)


def test_wrong_sources_give_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "pope.json").write_text('[{"question_id": 1, "text": "?", "label": "no"}]')
    with pytest.raises(DataError, match="none of the forms of HallusionBench") as caught:
        read(tmp_path / "pope.json")
    assert "question_id, text, label" in caught.value.message
    for form in ("official file", "hub columns", "VLMEvalKit table"):
        assert form in caught.value.hint
    with pytest.raises(DataError, match=r"it has pope\.json"):
        read(tmp_path)
    broken = list(rows())[:3]
    broken[2]["gt_answer"] = "2"
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    with pytest.raises(ManifestError, match=r"item 3: gt_answer is '2', where 1 or 0"):
        read(tmp_path / "broken.json")
    with pytest.raises(SpecError, match="no prompt style"):
        read(official(tmp_path), prompt="llavva")
