"""Which column of a dataset of the package `datasets` is read as what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmlens.errors import ManifestError, did_you_mean
from vlmlens_plugins.data import _cells
from vlmlens_plugins.data import _usual_names as usual
from vlmlens_plugins.data._pairs import pair_columns
from vlmlens_plugins.data._usual_names import CLIPS, KNOWN

_IMAGES = ("image", "images")


class Columns:
    """What a dataset calls each known column.

    Args:
        source: The dataset, for messages.
        features: Its columns and their types, of the package `datasets`.
        given: The user's choice by known name; None: read no column as this.
        asked: Whether the user gave prompts: then none is guessed.

    Raises:
        ManifestError: A column that the user named does not exist.
    """

    def __init__(
        self,
        source: str,
        features: Mapping[str, Any],
        given: Mapping[Any, str | None],
        *,
        asked: bool = False,
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
            if not (asked and name == "prompt"):
                self._guess(name)
        for name in (name for name in CLIPS if name not in given):
            if not any(held in self.known for held in (*_IMAGES, *CLIPS)):
                self._guess(name)
        self._take_pairs(given)
        taken = set(self.known.values())
        self.others = [n for n in features if n not in taken and _plain(features[n])]
        self._note_unused([name for name in features if name not in taken])

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

    def _take_pairs(self, given: Mapping[Any, str | None]) -> None:
        used = set(self.known.values())
        try:
            self.known |= pair_columns(given, [name for name in self._features if name not in used])
        except _cells.CellError as error:
            raise self._wrong(str(error), "Pairs need both. Name the other column, too.") from error

    def _guess(self, name: str) -> None:
        if name in self.known or (name in _IMAGES and any(n in self.known for n in _IMAGES)):
            return
        used = set(self.known.values())
        found = usual.guessed(name, [c for c in self._features if c not in used], self._fits)
        if name == "image" and found is None:
            held = [c for c, kind in self._features.items() if _is_image(kind)]
            found = held[0] if len(held) == 1 else None
        if found is not None:
            self.known[name] = found
            if found != name:
                self.note(usual.guess_note(found, name))

    def _note_unused(self, columns: Sequence[str]) -> None:
        """Name columns that look useful and are not used."""
        taken = any(name in self.known for name in _IMAGES)
        unused = {}
        for column in columns:
            feature = self._features[column]
            kind: str | None = "video" if _is_video(feature) else None
            kind = "image" if _is_image(getattr(feature, "feature", feature)) else kind
            numbers = taken and "int" in str(getattr(feature, "dtype", ""))
            kind = kind or usual.looks_like(column, [0] if numbers else [""], images_taken=taken)
            if kind is not None:
                unused[column] = kind
        if unused:
            self.note(usual.unused_note(unused).rstrip("."))

    def _fits(self, name: str, column: str) -> bool:
        """Whether a column's type is one that can be guessed to be this."""
        feature = self._features[column]
        if name == "video":
            text = getattr(feature, "dtype", "") in ("string", "large_string")
            stored = isinstance(feature, Mapping) and set(feature) == {"bytes", "path"}
            return _is_video(feature) or stored or (text and not usual.is_vague(column))
        if name in ("images", "frames"):
            return _is_image(getattr(feature, "feature", None))
        if name == "image" and usual.plain(column) in ("file", "path", "filepath", "base64"):
            return _is_image(feature)
        if name == "image":
            return _is_image(feature) or getattr(feature, "dtype", "") in ("string", "large_string")
        if name == "prompt":
            return getattr(feature, "dtype", "") in ("string", "large_string")
        return name == "choices" or (isinstance(getattr(feature, "dtype", None), str))

    def note(self, text: str) -> None:
        """Tell the user something about the columns, once."""
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


def _is_video(feature: Any) -> bool:
    return type(feature).__name__ == "Video"


def _plain(feature: Any) -> bool:
    """Whether a column can be an attribute: no pictures, sounds or bytes."""
    inner = getattr(feature, "feature", feature)
    kind = type(inner).__name__
    return kind not in ("Image", "Audio", "Video", "Pdf", "Nifti") and "binary" not in str(
        getattr(inner, "dtype", "")
    )
