"""COCO's own files: which kinds are outlined in each image, and its five captions."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmlens.errors import DataError, DataNotFound, ManifestError
from vlmlens.images import check_plain

INSTANCES, CAPTIONS = "instances_{split}.json", "captions_{split}.json"
_NAME = re.compile(r"(?:instances|captions)_(\w+)\.json")
_OUTLINES = re.compile(rb'"segmentation"\s*:\s*(?:\[[^][]*(?:\[[^][]*\][^][]*)*\]|\{[^{}]*\})')


@dataclass(slots=True)
class Seen:
    """What is known of one image.

    Args:
        file: Its file name.
        split: "val2014".
        kinds: Of what is outlined, sorted.
        captions: In the order of the file.
    """

    file: str
    split: str
    kinds: Sequence[str] = ()
    captions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Annotated:
    """The images of some splits by id, and the digest of the files that say so."""

    images: Mapping[int, Seen]
    digest: str


def splits_in(folders: Iterable[Path]) -> tuple[Path | None, list[str]]:
    """The first folder with annotations, and the splits of which it has both files.

    Raises:
        DataError: A split's instances are there without its captions, or the other way round.
    """
    for folder in folders:
        names = {path.name for path in folder.glob("*.json")} if folder.is_dir() else set()
        found = sorted({match[1] for match in map(_NAME.fullmatch, names) if match})
        whole = [s for s in found if names >= {INSTANCES.format(split=s), CAPTIONS.format(split=s)}]
        if whole:
            return folder, whole
        if found:
            there = sorted(name for name in names if _NAME.fullmatch(name))
            raise DataNotFound(
                f"{str(folder)!r} has {', '.join(there)}, but CHAIR needs both the instances and "
                "the captions of a split.",
                subject=str(folder),
                hint=f"Put {INSTANCES.format(split=found[0])} and "
                f"{CAPTIONS.format(split=found[0])} there (COCO, annotations_trainval).",
            )
    return None, []


def annotated(folder: Path, splits: Sequence[str]) -> Annotated:
    """The images of some splits.

    Raises:
        DataError: A file is not COCO's, or the two do not belong together.
    """
    images: dict[int, Seen] = {}
    digests = []
    for split in splits:
        instances, first = _read(folder / INSTANCES.format(split=split))
        captions, second = _read(folder / CAPTIONS.format(split=split))
        digests += [first, second]
        images |= _joined(folder, split, instances, captions)
    whole = (
        digests if len(digests) == 1 else [hashlib.sha256("".join(digests).encode()).hexdigest()]
    )
    return Annotated(images, whole[0][:12])


def _read(path: Path) -> tuple[Any, str]:
    """The document without its outlines, which are most of it; and the digest of the file."""
    check_plain(path)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    for text in (_OUTLINES.sub(b'"segmentation":0', data), data):
        try:
            return json.loads(text), digest
        except (ValueError, RecursionError) as error:
            wrong = error
    raise _not_coco(path, str(wrong)) from wrong


def _joined(folder: Path, split: str, instances: Any, captions: Any) -> dict[int, Seen]:
    path = folder / INSTANCES.format(split=split)
    try:
        names = {each["id"]: str(each["name"]) for each in instances["categories"]}
        kinds: dict[int, set[str]] = defaultdict(set)
        for each in instances["annotations"]:
            kinds[each["image_id"]].add(names[each["category_id"]])
        found = {
            int(each["id"]): Seen(str(each["file_name"]), split, tuple(sorted(kinds[each["id"]])))
            for each in instances["images"]
        }
        path = folder / CAPTIONS.format(split=split)
        for each in captions["annotations"]:
            found[each["image_id"]].captions.append(str(each["caption"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _not_coco(path, f"{type(error).__name__}: {error}") from error
    return found


def _not_coco(path: Path, what: str) -> DataError:
    return ManifestError(
        f"{path} is not a file of COCO ({what}).",
        subject=str(path),
        hint="Instances have images, annotations with category_id, and categories; captions have "
        "annotations with caption. Both are of the same split.",
    )
