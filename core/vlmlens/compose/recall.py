"""Samples of a run, taken from it when it is resumed, if nothing that they depend on has changed.

Then the data are not read again, and images and prompts are not checked again. A run keeps, signed
by this user, a digest of what its samples depend on: the spec, the data, the checkpoint's files,
the versions of what reads them, and the state of every image file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens._version import __version__
from vlmlens.compose.image_cache import SETTLED, state_of
from vlmlens.errors import VlmlensError
from vlmlens.regions import ATTRIBUTE as REGIONS
from vlmlens.regions import masks_in
from vlmlens.runs.run import Run, is_run
from vlmlens.runs.signing import is_signed, signature
from vlmlens.samples import Sample

if TYPE_CHECKING:
    from vlmlens.manifest import Manifest
    from vlmlens.registry import Registry
    from vlmlens.sample_table import SampleTable
    from vlmlens.spec.model import RunSpec

NAME = "planned"
"""The entry of run.json, and the name under which it is signed."""

_NO_MATTER = {"out", "engine", "batch_size", "samples_at_once", "seed", "analysis", "samples"}
"""Settings of a spec that its samples do not depend on."""

_READERS = ("av", "pillow", "pillow-heif", "pyarrow", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class Planned:
    """What a run keeps about how its samples came about.

    Args:
        key: A digest of what the samples depend on, except the images.
        states: A digest of the states of the images' files.
        suggested: Options of analyses that the data suggests.
        guesses: What was guessed when the data were read.
        image_notes: What is done with images that can be read in several ways.
        image_rules: The rules of `ImageRules` that matter to the images.
        notes: What was noted about prompts.
        warnings: What was warned of in prompts.
    """

    key: str
    states: str
    suggested: Mapping[str, Any] = field(default_factory=dict)
    guesses: Sequence[str] = ()
    image_notes: Sequence[str] = ()
    image_rules: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready data."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found


class FileStates:
    """A digest of the states of files, in order."""

    def __init__(self) -> None:
        self._began = time.time()
        self._sum = hashlib.sha256()
        self._last = ""
        self._latest = 0

    def add(self, path: str, state: Sequence[int]) -> None:
        """Add a file with its `state_of`; one that comes twice in a row counts once."""
        if path != self._last:
            self._last = path
            self._latest = max(self._latest, state[1] if state else 0)
            self._sum.update(f"{path}\0{state}\n".encode(errors="surrogatepass"))

    def add_sources(self, sample: Sample) -> None:
        """Add the file of a sample's video, and the masks of its regions."""
        if sample.video is not None and sample.video.source:
            self.add(sample.video.source, state_of(sample.video.source))
        for mask in masks_in(sample.attributes.get(REGIONS)):
            self.add(mask, state_of(mask))

    @property
    def digest(self) -> str | None:
        """The digest; None if a file was changed so late that it could change unnoticed."""
        settled = self._latest < (self._began - SETTLED) * 1e9
        return self._sum.hexdigest() if settled else None


def key_of(spec: RunSpec, adapter: Manifest, registry: Registry) -> str | None:
    """A digest of what the samples of a spec depend on, except the images; None: not known.

    Args:
        spec: With the adapter chosen.
        adapter: The adapter's manifest.
        registry: The installed plugins.
    """
    if spec.data is None or is_run(spec.data):
        return None
    manifest, source = registry.dataset_for(spec.data)
    options = registry.options(manifest, spec.options.dataset)
    state = registry.load(manifest)(source, options).state()
    if state is None:
        return None
    told = {
        "spec": spec.model_dump(mode="json", exclude=_NO_MATTER),
        "parts": [manifest.name, manifest.target, adapter.name, adapter.target],
        "data": state,
        "folder": str(Path.cwd()),
        "checkpoint": _checkpoint(spec.model),
        "versions": [__version__, *map(_version, _READERS)],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def recall(
    spec: RunSpec, key: str | None, registry: Registry
) -> tuple[Planned, SampleTable] | None:
    """The samples of the run in the spec's folder, if they are those that the spec would give.

    Args:
        spec: The spec.
        key: From `key_of`.
        registry: The installed plugins.
    """
    if key is None or spec.out is None:
        return None
    try:
        if not is_run(spec.out):
            return None
        run = Run(spec.out, registry=registry)
        planned = _signed(run)
        if planned is None or planned.get("key") != key or run.skipped:
            return None
        samples = run.own_samples()
    except (VlmlensError, OSError):
        return None
    if samples is None or samples.seen is None or _states(samples) != planned["states"]:
        return None
    return Planned(**planned), samples


def keep(run: Run, planned: Planned) -> None:
    """Write it into run.json, signed."""
    content = planned.to_dict()
    made = signature(NAME, _text(content))
    run.update(**{NAME: content}, signed={**run.info.get("signed", {}), NAME: made})


def _signed(run: Run) -> dict[str, Any] | None:
    """What `keep` wrote; None unless this user's vlmlens did so on this machine."""
    content = run.info.get(NAME)
    known = isinstance(content, dict) and is_signed(run.path, NAME, _text(content))
    return content if known else None


def _text(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _states(samples: Iterable[Sample]) -> str | None:
    states = FileStates()
    for sample in samples:
        for image in sample.images:
            if not isinstance(image, str):
                return None
            states.add(image, state_of(image))
        states.add_sources(sample)
    return states.digest


def _checkpoint(model: str | None) -> list[Any]:
    """The files of a checkpoint's folder with their states; of one on the hub, its name."""
    folder = Path(model or "")
    if model is None or not folder.is_dir():
        return [model]
    return [[path.name, state_of(str(path))] for path in sorted(folder.iterdir())]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
