"""Which column of a dataset of the package `datasets` is read as what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmlens.errors import ManifestError, did_you_mean
from vlmlens_plugins.data import _cells
from vlmlens_plugins.data.table import KNOWN

GUESSES: Mapping[str, Sequence[str]] = {
    "id": ("question_id", "sample_id", "uid", "idx", "index"),
    "image": ("img", "picture", "image_path", "image_file", "image_filename", "file_name"),
    "prompt": ("question", "query", "instruction", "problem"),
    "label": ("answer", "target", "class", "category", "multiple_choice_answer"),
    "choices": ("options",),
}
"""Usual names of a column, best first; taken, and reported, where its own name is missing."""

_IMAGES = ("image", "images")


class Columns:
    """What a dataset calls each known column.

    Args:
        source: The dataset, for messages.
        features: Its columns and their types, of the package `datasets`.
        given: The user's choice by known name; None: read no column as this.

    Raises:
        ManifestError: A column that the user named does not exist.
    """

    def __init__(
        self, source: str, features: Mapping[str, Any], given: Mapping[Any, str | None]
    ) -> None:
        self._source = source
        self._features = features
        self.notes: list[str] = []
        self.known: dict[str, str] = {}
        self._take_given(given)
        free = [name for name in KNOWN if name not in given]
        used = set(self.known.values())
        self.known |= {name: name for name in free if name in features and name not in used}
        for name in free:
            self._guess(name)
        taken = set(self.known.values())
        self.others = [n for n in features if n not in taken and _plain(features[n])]

    def check_prompt(self) -> None:
        """Refuse a dataset without prompts, where the user gave none either."""
        if "prompt" not in self.known:
            raise self._wrong(
                "no column is a prompt",
                'Add --prompt "Describe the image.", or name the column: '
                f"--set options.dataset.columns.prompt=NAME. There are {self._listed}.",
            )

    def label(self, value: Any) -> str | None:
        """A label cell as text; a class number as its name."""
        feature = self._features[self.known["label"]]
        if value is not None and hasattr(feature, "int2str"):
            return str(feature.int2str(int(value))) if int(value) >= 0 else None
        return _cells.text(value)

    def chosen(self, label: str | None, choices: Sequence[str] | None) -> str | None:
        """The answer that a label means: itself, or the choice at that position.

        A column of integers counts from 0, where a label is none of the choices.
        """
        if label is None or not choices or label in choices or not self._integers("label"):
            return label
        position = int(label)
        if not 0 <= position < len(choices):
            return label
        self._note(f"the numbers in {self.known['label']!r} are read as positions of the choices")
        return choices[position]

    def _take_given(self, given: Mapping[Any, str | None]) -> None:
        for name, column in given.items():
            if column is None:
                continue
            if column not in self._features:
                raise self._wrong(
                    f"there is no column {column!r} to use as {name!r}",
                    did_you_mean(column, self._features) or f"There are {self._listed}.",
                )
            self.known[name] = column

    def _guess(self, name: str) -> None:
        if name in self.known or (name in _IMAGES and any(n in self.known for n in _IMAGES)):
            return
        used = set(self.known.values())
        found = [
            column
            for column in GUESSES.get(name, ())
            if column in self._features and column not in used and self._fits(name, column)
        ]
        if name == "image" and not found:
            found = [c for c, kind in self._features.items() if _is_image(kind)]
            found = found if len(found) == 1 else []
        if found:
            self.known[name] = found[0]
            self._note(
                f"the column {found[0]!r} is read as {name!r} "
                f"(another: --set options.dataset.columns.{name}=NAME)"
            )

    def _fits(self, name: str, column: str) -> bool:
        """Whether a column's type is one that can be guessed to be this."""
        feature = self._features[column]
        if name == "image":
            return _is_image(feature) or getattr(feature, "dtype", "") in ("string", "large_string")
        if name == "prompt":
            return getattr(feature, "dtype", "") in ("string", "large_string")
        return name == "choices" or (isinstance(getattr(feature, "dtype", None), str))

    def _integers(self, name: str) -> bool:
        feature = self._features[self.known[name]]
        return "int" in str(getattr(feature, "dtype", "")) and not hasattr(feature, "int2str")

    def _note(self, text: str) -> None:
        line = f"{self._source}: {text}."
        if line not in self.notes:
            self.notes.append(line)

    @property
    def _listed(self) -> str:
        return ", ".join(self._features)

    def _wrong(self, what: str, hint: str) -> ManifestError:
        return ManifestError(f"{self._source}: {what}.", subject=self._source, hint=hint)


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _plain(feature: Any) -> bool:
    """Whether a column can be an attribute: no pictures, sounds or bytes."""
    inner = getattr(feature, "feature", feature)
    kind = type(inner).__name__
    return kind not in ("Image", "Audio", "Video", "Pdf", "Nifti") and "binary" not in str(
        getattr(inner, "dtype", "")
    )
