"""MME's official layout: a folder per task, with images and text files of two questions each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from vlmlens.errors import DataError, ManifestError
from vlmlens_plugins.benchmarks.mme.asked import Asked, label_of, task_of
from vlmlens_plugins.data.images import natural_key

IMAGES: Final = "images"
QUESTIONS: Final = "questions_answers_YN"
SUFFIXES: Final = (".jpg", ".png", ".jpeg", ".webp", ".bmp")
_INNER = ("MME_Benchmark_release_version", "MME_Benchmark")
_RESULT_FIELDS = 4


def task_folders(source: Path) -> list[Path]:
    """The folders of tasks in a folder, or the folder itself where it is one; [] if neither.

    The authors' archive has the folders in `MME_Benchmark_release_version`, in some copies in a
    further `MME_Benchmark`.
    """
    if task_of(source.name) and _texts(source):
        return [source]
    for folder in (source, source / _INNER[0], source / _INNER[1], source.joinpath(*_INNER)):
        if folder.is_dir():
            found = [each for each in folder.iterdir() if each.is_dir() and task_of(each.name)]
            if found:
                return sorted(found)
    return []


def asked_in(folders: Sequence[Path]) -> list[Asked]:
    """The questions of tasks' folders, in the order of the images' names.

    Raises:
        DataError: A task has no questions; an image is missing.
        ManifestError: A text file is not one of questions.
    """
    return [each for folder in folders for each in _in_folder(folder)]


def are_results(source: Path) -> bool:
    """Whether a folder, or a file, holds answers for the official script, not questions."""
    files = [source] if source.is_file() else sorted(source.glob("*.txt"))
    named = [path for path in files if path.suffix == ".txt" and task_of(path.stem)]
    return any(_first_line(path).count("\t") == _RESULT_FIELDS - 1 for path in named)


def digest_of(folders: Sequence[Path]) -> str:
    """The first 12 digits of the SHA-256 of all text files, in order."""
    made = hashlib.sha256()
    for folder in folders:
        for path in _texts(folder):
            made.update(f"{folder.name}/{path.name}\0".encode(errors="surrogatepass"))
            made.update(path.read_bytes())
    return made.hexdigest()[:12]


def _texts(folder: Path) -> list[Path]:
    inner = folder / QUESTIONS
    texts = (inner if inner.is_dir() else folder).glob("*.txt")
    plain = [path for path in texts if path.is_file() and not path.name.startswith(".")]
    return sorted(plain, key=lambda path: natural_key(path.name))


def _in_folder(folder: Path) -> Iterator[Asked]:
    task = task_of(folder.name) or folder.name
    texts = _texts(folder)
    if not texts:
        raise DataError(
            f"The folder {str(folder)!r} has no text files with questions.",
            subject=str(folder),
            hint=f"They are beside the images, or in {QUESTIONS}/.",
        )
    images = _images(folder)
    for path in texts:
        image = images.get(path.stem)
        if image is None:
            raise DataError(
                f"{path}: there is no image {path.stem} with {', '.join(SUFFIXES)}.",
                subject=str(path),
                hint=f"Images are beside the text files, or in {IMAGES}/ of the task's folder.",
            )
        yield from _lines(path, task, image)


def _images(folder: Path) -> dict[str, Path]:
    inner = folder / IMAGES
    among = sorted((inner if inner.is_dir() else folder).iterdir())
    return {path.stem: path for path in among if path.suffix.lower() in SUFFIXES}


def _lines(path: Path, task: str, image: Path) -> Iterator[Asked]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        question, _, answer = line.rpartition("\t")
        label = label_of(answer)
        if not question.strip() or label is None:
            raise ManifestError(
                f"{where}: expected a question, a tab, and Yes or No, got {line[:60]!r}.",
                subject=where,
                hint="Take the text files as the set's authors give them.",
            )
        yield Asked(task, image.name, question.strip(), label, str(image), where)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path}: not UTF-8 text.", subject=str(path), hint="Save it as UTF-8."
        ) from error


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline()
