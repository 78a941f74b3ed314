"""The model that is asked: what is known of it, loading it, and the samples of questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any

from vlmlens.compose.adapter_choice import check_adapter, with_adapter
from vlmlens.compose.edit_check import opened_edits
from vlmlens.compose.looking import checked
from vlmlens.compose.plan import load_model, load_request
from vlmlens.compose.tuned_check import check_tuned, opened_tuned
from vlmlens.covers import covered
from vlmlens.errors import DataError
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.runs.trust import NOWHERE
from vlmlens.view.live.uploads import Uploads

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.registry import Registry
    from vlmlens.samples import Sample
    from vlmlens.spec.model import RunSpec
    from vlmlens.view.live.question import LiveQuestion
    from vlmlens.view.shown_run import ShownRun

Step = Callable[[int, "int | None"], None]
"""Tells how many steps of how many are done; raises `Stopped` where the job is to end."""

Answering = Callable[["LiveModel", "LiveQuestion", Step], "dict[str, Any]"]
"""Answers a question of one kind."""


class LiveModel:
    """The model that is asked, loaded once by the first question.

    Args:
        spec: Which model, and how it is loaded, tuned and edited: these settings of a run.
        registry: The installed plugins.
        of_run: The number of the run whose model it is; its samples are those to which its edits
            compare.

    Raises:
        PluginError: There is no such adapter.
        SpecError: It has no such option.
    """

    def __init__(self, spec: RunSpec, registry: Registry, *, of_run: int | None = None) -> None:
        self.spec, _ = with_adapter(spec, registry)
        self.given = spec
        self.registry = registry
        manifest = self._adapter
        if given := self.spec.options.adapter:
            registry.options(manifest, given)
        self.runs: Sequence[ShownRun] = ()
        self.uploads = Uploads()
        self.tells_paths = True
        self._of_run = of_run
        self._vlm: ModelAdapter | None = None
        self._loading = Lock()
        self._folder: TemporaryDirectory[str] | None = None
        self.known: dict[Any, Any] = {}
        """Answers of the unedited model, by question."""

    @cached_property
    def folder(self) -> Path:
        """A folder for files of questions, which goes with this process."""
        made = TemporaryDirectory(prefix="vlmlens-live-", ignore_cleanup_errors=True)
        self._folder = made
        return Path(made.name)

    def close(self) -> None:
        """Remove what questions left on the disk."""
        if self._folder is not None:
            self._folder.cleanup()

    def show(self, runs: Sequence[ShownRun], *, tells_paths: bool) -> None:
        """Say what is open beside it.

        Args:
            runs: The open runs, whose samples and directions questions may name.
            tells_paths: Whether commands name the folders of files.
        """
        self.runs, self.tells_paths = runs, tells_paths

    @property
    def _adapter(self) -> Manifest:
        return self.registry.find(PluginKind.ADAPTER, self.spec.adapter)

    @property
    def name(self) -> str:
        """What it is called."""
        checkpoint = self.spec.model or self.spec.adapter
        return checkpoint if self.tells_paths else checkpoint.rstrip("/").rsplit("/", 1)[-1]

    def without_paths(self, text: str) -> str:
        """A text in which the folders of open runs are called as in the app's addresses."""
        for shown in self.runs:
            text = text.replace(str(shown.run.path), f"runs/{shown.number}")
        return text

    @property
    def is_loaded(self) -> bool:
        """Whether its weights are in memory."""
        return self._vlm is not None

    def load(self) -> ModelAdapter:
        """The model, with what was tuned and the edits of its run; only one thread uses it.

        Raises:
            VlmlensError: It cannot be loaded.
        """
        with self._loading:
            if self._vlm is None:
                self._vlm = self._loaded()
            return self._vlm

    def _loaded(self) -> ModelAdapter:
        spec = self.spec
        manifest = self._adapter
        adapter_class: type[ModelAdapter] = self.registry.load(manifest)
        request = load_request(spec, self.registry, manifest)
        check_adapter(manifest, adapter_class, request, self.registry)
        if found := opened_tuned(spec):
            check_tuned(spec, found, adapter_class.skeleton(request))
        edits = opened_edits(spec, self.registry)
        compares = edits and self._of_run is not None
        others = self.runs[self._of_run or 0].samples if compares else ()
        return load_model(spec, adapter_class, request, edits, others)

    def sample(self, question: LiveQuestion, *, changed: bool) -> Sample:
        """The question as a sample.

        Args:
            question: The question.
            changed: Whether parts of the picture are covered.

        Raises:
            DataError: There is no such picture, or the text or the choices cannot be used.
        """
        shown = self._shown(question)
        text, choices = checked(question.text, question.choices)
        made = replace(shown, prompt=text, choices=choices, label=None, task=None)
        return covered(made, question.covers) if changed else made

    def _shown(self, question: LiveQuestion) -> Sample:
        """A sample with the pictures of a question."""
        from vlmlens.samples import Sample

        if question.upload is not None:
            upload = self.uploads.get(question.upload)
            return Sample(upload.file, "", (upload.picture(),))
        if question.sample is None:
            return Sample("question", "")
        return self.sample_of_run(*question.sample)

    def sample_of_run(self, run: int, number: int) -> Sample:
        """A sample of an open run.

        Raises:
            DataError: There is none with these numbers.
        """
        if run >= len(self.runs):
            raise DataError(f"There is no run {run}: {len(self.runs)} are open.", subject="sample")
        samples = self.runs[run].samples
        if number >= len(samples):
            raise DataError(
                f"There is no sample {number}: the run has {len(samples)}.", subject="sample"
            )
        found = samples[number]
        if any(isinstance(image, str) and image.startswith(NOWHERE) for image in found.images):
            raise DataError(
                "The pictures of this run are outside its folder and are not opened, because "
                "somebody else made it.",
                subject="sample",
                hint="If you trust whoever made it: vlmlens view RUN --trust.",
            )
        return found
