"""Everything vlmlens raises on purpose, as one tree.

::

    VlmlensError
    ├── SpecError                    a run spec, an option or a command-line value
    ├── PluginError                  a plugin cannot be used
    │   ├── UnknownPlugin            nothing of that name is installed
    │   ├── BrokenPlugin             its import or its manifest failed
    │   ├── MissingDependency        a module it needs is not installed
    │   ├── WrongApiVersion          written for another plugin API
    │   ├── AmbiguousPlugin          two distributions claim the name
    │   ├── SlowPlugin               its import took too long
    │   └── DisabledPlugin           an environment variable turns it off
    ├── CompositionError             parts of a run that do not fit together
    ├── CheckpointError              weights that cannot be loaded
    │   ├── CheckpointNotFound
    │   └── CheckpointGated
    ├── SiteError                    a place in the model
    │   ├── SiteSyntaxError
    │   ├── SiteNotFound             matches nothing
    │   ├── SiteSilent               matches, but gave no activation in a pass
    │   └── SiteShapeError           its activation does not have the rows of its axis
    ├── SelectorError                a selector that does not parse or selects no token
    ├── EditError                    an edit that does not parse or cannot be applied
    │   └── EditWithoutEffect        it met no row, or changed no value
    ├── DataError                    samples
    │   ├── DataNotFound
    │   ├── ManifestError            a table with missing or wrong columns
    │   ├── ImageError               a file that is missing or cannot be read
    │   ├── VideoError               the same of a video
    │   ├── DuplicateSample
    │   └── MissingAnnotation        labels, choices or images that an analysis needs
    ├── StoreError                   a storage backend
    │   ├── StoreLocked              another process writes to it
    │   ├── StoreCorrupt
    │   ├── StoreFull
    │   ├── ColumnNotFound
    │   └── FingerprintMismatch      stored rows were made under other conditions
    ├── RunError                     a run folder
    │   ├── RunExists
    │   ├── ResultExists
    │   ├── RunNotFound
    │   └── UntrustedRun             names code or other places, and is not this user's
    ├── HubError                     the Hugging Face hub, or a repository there
    ├── FileError                    the system: a full disk, permissions, names, no folder
    ├── OutOfMemory                  a batch does not fit in memory
    └── ReadoutError                 norm and unembedding do not give the model's own logits

Every error carries its `subject` (what it is about, as the user gave it) and a `hint` (what to
do). The command line prints message and hint and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VlmlensError(Exception):
    """Base of all errors that vlmlens raises on purpose.

    Args:
        message: One sentence: what was given and what was expected.
        subject: What the error is about, as the user gave it.
        hint: What to do.
    """

    exit_code = 2

    def __init__(self, message: str, *, subject: object = None, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class SpecError(VlmlensError):
    """A run spec, an option or a command-line value is wrong."""


class PluginError(VlmlensError):
    """A plugin cannot be used."""


class UnknownPlugin(PluginError):
    """No installed plugin has that name."""


class BrokenPlugin(PluginError):
    """A plugin's import or manifest failed."""


class MissingDependency(PluginError):
    """A plugin needs a module that is not installed."""


class WrongApiVersion(PluginError):
    """A plugin was written for another version of the plugin API."""


class AmbiguousPlugin(PluginError):
    """Two distributions claim the same plugin name."""


class SlowPlugin(PluginError):
    """Importing a plugin took too long."""


class DisabledPlugin(PluginError):
    """An environment variable turns the plugin off."""


class CompositionError(VlmlensError):
    """Adapter, analysis, extractor and storage do not fit together."""


class CheckpointError(VlmlensError):
    """A checkpoint cannot be loaded."""


class CheckpointNotFound(CheckpointError):
    """There is no checkpoint at that hub id or folder."""


class CheckpointGated(CheckpointError):
    """The checkpoint's owner asks users to accept terms first."""


class SiteError(VlmlensError):
    """A site cannot be found or read."""


class SiteSyntaxError(SiteError):
    """A site pattern does not parse."""


class SiteNotFound(SiteError):
    """A site pattern matches nothing in the model."""


class SiteSilent(SiteError):
    """A site exists, but gave no activation (or several) in a forward pass."""


class SiteShapeError(SiteError):
    """A site's activation does not have the number of rows that its axis requires."""


class SelectorError(VlmlensError):
    """A selector does not parse, or selects no position of a sample."""


class EditError(VlmlensError):
    """An edit does not parse, or cannot be applied to a pass."""


class EditWithoutEffect(EditError):
    """An edit met no row, or changed no value of a sample."""


class DataError(VlmlensError):
    """Something is wrong with the samples."""


class DataNotFound(DataError):
    """There is no data at that path or name."""


class ManifestError(DataError):
    """A table of samples lacks columns or holds values of the wrong kind."""


class ImageError(DataError):
    """An image file is missing or cannot be read."""


class VideoError(DataError):
    """A video file is missing or cannot be read."""


class DuplicateSample(DataError):
    """Two samples have the same id."""


class MissingAnnotation(DataError):
    """Samples lack labels, choices or images that an analysis needs."""


class StoreError(VlmlensError):
    """A storage backend refused an operation, or it failed."""


class StoreLocked(StoreError):
    """Another process writes to the store."""


class StoreCorrupt(StoreError):
    """The store's content contradicts itself."""


class StoreFull(StoreError):
    """No space is left for the store."""


class ColumnNotFound(StoreError):
    """The store has no such column."""


class FingerprintMismatch(StoreError):
    """The stored rows were made under other conditions than this run's."""


class RunError(VlmlensError):
    """Something is wrong with a run folder."""


class RunExists(RunError):
    """The output folder already holds another run."""


class ResultExists(RunError):
    """The run already has a result of the analysis, with other options."""


class RunNotFound(RunError):
    """The folder holds no run."""


class UntrustedRun(RunError):
    """A run or run file that this user did not make names code, or reaches other places."""


class HubError(VlmlensError):
    """The Hugging Face hub, or a repository there, does not do what was asked."""


class FileError(VlmlensError):
    """The system refuses to make, write or read a file or folder."""


class OutOfMemory(VlmlensError):
    """A batch does not fit in memory."""


class ReadoutError(VlmlensError):
    """The final norm and the unembedding do not reproduce the model's own logits."""


def nearest(name: str, names: Iterable[str], *, n: int = 5) -> list[str]:
    """The names that look most like `name`, best first; capitals do not count.

    >>> nearest("llm.blok.3", ["llm.block.3", "vision.block.3", "projector"], n=1)
    ['llm.block.3']
    """
    by_lower: dict[str, list[str]] = {}
    for each in names:
        by_lower.setdefault(each.lower(), []).append(each)
    close = difflib.get_close_matches(name.lower(), by_lower, n=n, cutoff=0.4)
    return [each for lower in close for each in by_lower[lower]][:n]


def did_you_mean(name: str, names: Iterable[str], *, n: int = 3) -> str:
    """A hint that lists the nearest names, or an empty string if no name is close.

    >>> did_you_mean("lmbd", ["lmdb", "sqlite"])
    'Did you mean lmdb?'
    """
    close = nearest(name, names, n=n)
    return f"Did you mean {' or '.join(close)}?" if close else ""
