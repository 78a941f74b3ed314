"""The conformance kit over the built-in datasets, and over datasets with deliberate mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlmlens.samples import Sample
from vlmlens.testing.dataset import DatasetTests
from vlmlens_plugins.data.images import ImageFolder
from vlmlens_plugins.data.table import Table

ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "image": "img/1.png",
        "prompt": "Colour?",
        "label": "red",
        "choices": ["red", "blue"],
        "task": "colour",
        "weight": 1.5,
    },
    {
        "id": "b",
        "image": "img/1.png",
        "prompt": "How many?",
        "label": "3",
        "choices": ["1", "3"],
        "task": "number",
        "weight": None,
    },
    {
        "id": "c",
        "image": None,
        "prompt": "Grüße?",
        "label": None,
        "choices": None,
        "task": None,
        "weight": 2.0,
    },
]


def _images(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (number, 0, 0)).save(path)
    return folder


class TestImageFolder(DatasetTests):
    dataset = ImageFolder

    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        return str(_images(tmp_path / "photos", "ok/1.png", "ok/2.jpg", "bad/10.webp"))

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Sequence[str]:
        (tmp_path / "empty").mkdir()
        (tmp_path / "notes.txt").write_text("no image")
        return [str(tmp_path / name) for name in ("missing", "empty", "notes.txt")]


class TestJsonl(DatasetTests):
    dataset = Table

    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        _images(tmp_path, "img/1.png")
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
        return str(path)

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Sequence[str]:
        sources = {
            "empty.jsonl": "",
            "bad.jsonl": '{"prompt": "a"}\n{"prompt": ',
            "list.jsonl": "[1]",
            "twice.jsonl": '{"id": 1}\n{"id": 1}\n',
            "outside.jsonl": '{"image": "../../secret.png"}',
            "cut.csv": "id,label\n1\n",
            "no.parquet": "PAR1",
            "data.xlsx": "",
        }
        for name, text in sources.items():
            (tmp_path / name).write_text(text)
        return [str(tmp_path / name) for name in (*sources, "missing.csv")]


class TestCsv(TestJsonl):
    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        _images(tmp_path, "img/1.png")
        path = tmp_path / "data.csv"
        path.write_text(
            "id,image,prompt,label,choices,camera\n"
            'a,img/1.png,"Colour, please?",red,red|blue,left\n'
            'b,,How many?,3,"[1, 3]",\n',
            encoding="utf-8-sig",
        )
        return str(path)


class TestParquet(TestJsonl):
    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        _images(tmp_path, "img/1.png")
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "data.parquet")
        return str(tmp_path / "data.parquet")


class Shuffled(ImageFolder):
    """Another order at every reading."""

    readings = 0

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        Shuffled.readings += 1
        return super().samples(prompts)[:: (-1) ** Shuffled.readings]


class Repeated(ImageFolder):
    """Every id twice."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        return super().samples(prompts) * 2


class Decoding(ImageFolder):
    """Opens every image to learn its width."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        samples = super().samples(prompts)
        return [replace(s, attributes={"width": s.open_images()[0].width}) for s in samples]


class NotJson(ImageFolder):
    """Attributes that JSON cannot carry."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        return [replace(s, attributes={"x": float("nan")}) for s in super().samples(prompts)]


class Deaf(ImageFolder):
    """Asks what it likes."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        return [replace(sample, prompt="Hm?") for sample in super().samples(prompts)]


class Torn(ImageFolder):
    """Splits the questions about one image over two groups."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        return [replace(sample, group=sample.id) for sample in super().samples(prompts)]


class Loose(ImageFolder):
    """Raises errors of its own."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        if not Path(self.source).exists():
            raise FileNotFoundError(self.source)
        return super().samples(prompts)


class Greedy(ImageFolder):
    """Claims every path."""

    @classmethod
    def reads(cls, path: str) -> bool:
        return True


Check = Callable[[DatasetTests, str, pytest.FixtureRequest], None]


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        (Shuffled, "test_order_is_fixed"),
        (Repeated, "test_ids_are_unique"),
        (Decoding, "test_no_image_is_decoded"),
        (NotJson, "test_json_round_trip"),
        (Deaf, "test_user_prompts_are_asked"),
        (Deaf, "test_prompts_make_the_product"),
        (Torn, "test_samples_of_one_image_share_a_group"),
        (Loose, "test_broken_sources_are_refused"),
        (Greedy, "test_reads_what_it_can_read"),
    ],
)
def test_the_kit_catches_mistakes(
    mistake: type[ImageFolder],
    check: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kit = type("Kit", (DatasetTests,), {"dataset": mistake})()
    given = {
        "source": str(_images(tmp_path / "photos", "1.png", "2.png")),
        "broken": [str(tmp_path / "missing")],
        "options": {},
        "tmp_path_factory": tmp_path_factory,
        "monkeypatch": monkeypatch,
    }
    method = getattr(kit, check)
    wanted = method.__code__.co_varnames[1 : method.__code__.co_argcount]
    with pytest.raises(Exception) as caught:  # noqa: PT011
        method(**{name: given[name] for name in wanted})
    assert caught.type is not TypeError
