"""The dataset `images`: order, ids, labels, groups, links, and its errors."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlmlens.abc.dataset import Dataset
from vlmlens.errors import DataError, DataNotFound
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.samples import Sample
from vlmlens_plugins.data.images import ImageFolder, ImageFolderOptions, natural_key
from vlmlens_plugins.data.manifests import IMAGES, TABLE


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not decoded here")
    return folder


def read(source: Path | str, *prompts: str, **options: Any) -> list[Sample]:
    dataset = ImageFolder(str(source), ImageFolderOptions(**options))
    return dataset.samples(prompts or ["Colour?"])


def test_all_suffixes_in_natural_order_without_hidden_files(tmp_path: Path) -> None:
    make(tmp_path, "10.png", "9.JPG", "b.JPEG", "c.webp", "d.bmp", "e.gif", "f.TIFF", "g.tif")
    make(tmp_path, ".hidden.png", ".cache/x.png", "notes.txt", "z/1.png", "png")
    ids = [sample.id for sample in read(tmp_path)]
    assert ids == [
        "9.JPG",
        "10.png",
        "b.JPEG",
        "c.webp",
        "d.bmp",
        "e.gif",
        "f.TIFF",
        "g.tif",
        "z/1.png",
    ]


def test_a_sample_of_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "defect/deep/007.png", "normal/1.png")
    assert read(tmp_path)[0] == Sample(
        id="defect/deep/007.png",
        prompt="Colour?",
        images=(str(tmp_path / "defect/deep/007.png"),),
        label="defect",
        group="defect/deep/007.png",
    )


def test_labels(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png")
    assert [sample.label for sample in read(tmp_path)] == ["a", "b"]
    assert [sample.label for sample in read(tmp_path, labels="none")] == [None, None]
    make(tmp_path, "loose.png")
    assert {sample.label for sample in read(tmp_path)} == {None}
    with pytest.raises(DataError, match=r"1 images of .* lie in no sub-folder") as caught:
        read(tmp_path, labels="folders")
    assert caught.value.subject == "loose.png"


def test_not_recursive(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "2.png")
    assert [sample.id for sample in read(tmp_path, recursive=False)] == ["2.png"]


def test_one_image_file(tmp_path: Path) -> None:
    make(tmp_path, "cat.png", "dog.png")
    (sample,) = read(tmp_path / "cat.png")
    assert (sample.id, sample.images) == ("cat.png", (str(tmp_path / "cat.png"),))


def test_relative_sources_give_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "photos/1.png")
    monkeypatch.chdir(tmp_path)
    assert read("photos")[0].images == (str(tmp_path / "photos/1.png"),)


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    make(tmp_path, "sub/.hidden.png", "readme.md")
    with pytest.raises(DataNotFound, match=r"avif, .* webp\. There are 1 \.md") as caught:
        read(tmp_path)
    assert "sub-folders included" in str(caught.value)
    with pytest.raises(DataNotFound, match="sub-folders left out"):
        read(tmp_path, recursive=False)


def test_a_missing_folder_names_its_neighbours(tmp_path: Path) -> None:
    make(tmp_path, "photos/1.png")
    with pytest.raises(DataNotFound, match=r"Did you mean photos\?"):
        read(tmp_path / "fotos")
    with pytest.raises(DataNotFound, match="Check the path"):
        read(tmp_path / "no" / "where")


def test_no_prompt_asks_for_one(tmp_path: Path) -> None:
    make(tmp_path, "1.png")
    with pytest.raises(DataError, match="--prompt"):
        ImageFolder(str(tmp_path), ImageFolderOptions()).samples([])


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "secret/1.png", "photos/2.png")
    (tmp_path / "photos" / "link.png").symlink_to(tmp_path / "secret" / "1.png")
    with pytest.raises(DataError, match="is outside the folder") as caught:
        read(tmp_path / "photos")
    assert "allow_outside=true" in caught.value.hint
    ids = [sample.id for sample in read(tmp_path / "photos", allow_outside=True)]
    assert ids == ["2.png", "link.png"]


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert [sample.id for sample in read(tmp_path)] == ["a/1.png"]


def test_a_file_name_that_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    with pytest.raises(DataError, match="no UTF-8"):
        read(tmp_path)


def test_an_unreadable_folder_is_an_error(tmp_path: Path) -> None:
    from vlmlens_plugins.data import images

    error = PermissionError(13, "Permission denied", str(tmp_path / "x"))
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        images._unreadable(error)


def test_reads(tmp_path: Path) -> None:
    make(tmp_path, "photos/deep/1.png", "docs/readme.md", "run/picture.png", "run/run.json")
    claims = {
        name: ImageFolder.reads(str(tmp_path / name))
        for name in ("photos", "photos/deep/1.png", "docs", "docs/readme.md", "run", "missing")
    }
    assert claims == {
        "photos": True,
        "photos/deep/1.png": True,
        "docs": False,
        "docs/readme.md": False,
        "run": False,
        "missing": False,
    }


def test_several_prompts_make_the_product(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png")
    samples = read(tmp_path, "Colour?", "Shape?")
    assert [(s.id, s.prompt, s.task, s.group, s.label) for s in samples] == [
        ("a/1.png#0", "Colour?", "Colour?", "a/1.png", "a"),
        ("a/1.png#1", "Shape?", "Shape?", "a/1.png", "a"),
        ("b/2.png#0", "Colour?", "Colour?", "b/2.png", "b"),
        ("b/2.png#1", "Shape?", "Shape?", "b/2.png", "b"),
    ]


@pytest.mark.parametrize(
    ("prompts", "message"), [((" ",), "is blank"), (("a", "b", "a"), "'a' is given 2 times")]
)
def test_prompts_that_make_no_sense(tmp_path: Path, prompts: tuple[str, ...], message: str) -> None:
    make(tmp_path, "1.png")
    with pytest.raises(DataError, match=message):
        read(tmp_path, *prompts)


def test_samples_open(tmp_path: Path) -> None:
    Image.new("L", (5, 3), 7).save(tmp_path / "1.png")
    (image,) = read(tmp_path)[0].open_images()
    assert (image.size, image.mode, image.getpixel((0, 0))) == ((5, 3), "RGB", (7, 7, 7))


def told(folder: Path, *prompts: str, **options: Any) -> tuple[list[Sample], list[str]]:
    """The samples, and what is told about them."""
    found = ImageFolder(str(folder), ImageFolderOptions(**options))
    return found.samples(prompts), list(found.notes)


def test_every_format_that_pillow_reads_is_read(tmp_path: Path) -> None:
    names = ["a.avif", "b.jfif", "c.jp2", "d.ppm", "e.TGA", "f.webp", "g.heic"]
    make(tmp_path, *names)
    assert [sample.id for sample in read(tmp_path)] == names


def test_files_that_are_left_out_are_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a.png", "b.svg", "c/d.mp4", "c/e.mp4", "f.txt", "g", ".hidden.txt")
    make(tmp_path, "Thumbs.db", ".DS_Store")
    assert told(tmp_path, "?")[1] == [
        f"{tmp_path}: 5 files are left out, not read as images: "
        "2 .mp4, 1 .svg, 1 .txt, 1 without a suffix."
    ]
    make(tmp_path, "h.heic")
    monkeypatch.setattr("vlmlens_plugins.data.images.has_heif", lambda: False)
    samples, (note,) = told(tmp_path, "?")
    assert [sample.id for sample in samples] == ["a.png"]
    assert "6 files are left out" in note
    assert "1 .heic (pip install 'vlmlens[heif]' reads it)" in note
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataNotFound, match=r"There are 2 \.mp4, .*heif"):
        read(tmp_path)
    assert ImageFolder.reads(str(tmp_path))


METADATA = {
    "csv": "file_name,question,label,weight\nred.png,Color?,red,3\nsub/blue.png,Colour?,blue,4\n",
    "jsonl": '{"file_name": "red.png", "question": "Color?", "label": "red", "weight": "3"}\n'
    '{"file_name": "sub/blue.png", "question": "Colour?", "label": "blue", "weight": "4"}\n',
}


@pytest.mark.parametrize("kind", METADATA)
def test_a_metadata_file_describes_the_images(tmp_path: Path, kind: str) -> None:
    make(tmp_path, "red.png", "sub/blue.png", "sub/green.png")
    (tmp_path / f"metadata.{kind}").write_text(METADATA[kind])
    samples, notes = told(tmp_path)
    assert [(s.id, s.prompt, s.label, s.group) for s in samples] == [
        ("red.png", "Color?", "red", "red.png"),
        ("sub/blue.png", "Colour?", "blue", "sub/blue.png"),
    ]
    assert dict(samples[0].attributes) == {"weight": "3"}
    assert any("1 file is left out, for example 'sub/green.png'" in note for note in notes)
    assert any("'question' is read as 'prompt'" in note for note in notes)
    assert [s.prompt for s in read(tmp_path, "What?")] == ["What?", "What?"]
    without = read(tmp_path, "What?", metadata=False)
    assert [(s.id, s.label) for s in without] == [
        ("red.png", None),
        ("sub/blue.png", None),
        ("sub/green.png", None),
    ]


def test_metadata_in_every_split_and_several_rows_of_an_image(tmp_path: Path) -> None:
    make(tmp_path, "test/a.png", "train/a.png")
    for split in ("test", "train"):
        rows = "file_name,prompt\na.png,One?\na.png,Two?\n"
        (tmp_path / split / "metadata.csv").write_text(rows)
    samples = read(tmp_path)
    assert [s.id for s in samples] == [
        f"{split}/row-00000{i}" for split in ("test", "train") for i in (1, 2)
    ]
    assert samples[2].images == (str(tmp_path / "train/a.png"),)


def test_metadata_without_labels_leaves_those_of_folders(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\ncat/1.png,one\ndog/2.png,two\n")
    samples = read(tmp_path, "What?")
    assert [(s.label, dict(s.attributes)) for s in samples] == [
        ("cat", {"text": "one"}),
        ("dog", {"text": "two"}),
    ]


def test_a_metadata_file_that_names_no_images_or_others(tmp_path: Path) -> None:
    make(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text("name,prompt\nx,?\n")
    with pytest.raises(DataError, match="no column 'file_name'") as caught:
        told(tmp_path)
    assert "metadata=false" in caught.value.hint
    (tmp_path / "metadata.csv").write_text("file_name,prompt\n../x.png,?\n")
    with pytest.raises(DataError, match="is outside the folder"):
        told(tmp_path)


@given(st.lists(st.text(st.sampled_from("aB0129/._é²"), min_size=1, max_size=9), max_size=12))
def test_natural_order_is_total(names: list[str]) -> None:
    backwards = names[::-1]
    assert sorted(names, key=natural_key) == sorted(backwards, key=natural_key)


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_sort_by_value(numbers: list[int]) -> None:
    names = sorted((f"x{number}.png" for number in numbers), key=natural_key)
    assert names == [f"x{number}.png" for number in sorted(numbers)]


@pytest.mark.parametrize("manifest", [IMAGES, TABLE], ids=["images", "table"])
def test_manifests_name_their_class(manifest: Manifest) -> None:
    module, _, name = manifest.target.partition(":")
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, Dataset)
    assert manifest.kind is PluginKind.DATASET


def test_the_manifests_and_classes_import_nothing_heavy() -> None:
    code = (
        "import sys, vlmlens_plugins.data.manifests, vlmlens_plugins.data.images, "
        "vlmlens_plugins.data.table; "
        "print({'torch', 'pyarrow', 'PIL', 'transformers', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
