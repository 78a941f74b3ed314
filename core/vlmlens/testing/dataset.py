"""DatasetTests: the kit of datasets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from vlmlens.abc.dataset import Dataset
from vlmlens.errors import DataError
from vlmlens.samples import Sample, check_unique
from vlmlens.testing._checks import expect, expect_error
from vlmlens.testing._plugin_checks import PluginChecks

FIRST, SECOND = "What is this?", "Where was it taken?"
"""The prompts that the checks give, like a user."""


class DatasetTests(PluginChecks):
    """The conformance kit of datasets.

    Subclass it as `Test...`, set `manifest`, and implement `source`. Override `broken` if more can
    be wrong with a source than that it is missing, for example files with broken content::

        class TestRows(DatasetTests):
            manifest = MANIFEST

            def source(self, folder):
                (folder / "rows.txt").write_text("...")
                return str(folder / "rows.txt")

    Attributes:
        manifest: The dataset's manifest.
        options: Values of its options.
        given: A source to check instead of the one that `source` makes.
    """

    given: ClassVar[str | None] = None

    def source(self, folder: Path) -> str:
        """Make a valid source of at least two samples in an empty folder, and return its name."""
        raise NotImplementedError("implement source")

    def broken(self, folder: Path) -> Sequence[str]:
        """Make sources in an empty folder that must be refused with a `DataError`."""
        return [str(folder / "there-is-no-such-thing")]

    def options_in(self, folder: Path) -> Mapping[str, Any]:
        """The options; override it if they depend on the folder that `source` filled."""
        del folder
        return self.options

    def read(self, source: str, folder: Path, prompts: Sequence[str] = (FIRST,)) -> list[Sample]:
        """The samples of a new instance."""
        options = self.chosen(self.options_in(folder))
        return list(self.plugin(source, options).samples(prompts))

    def check_samples_are_complete(self, folder: Path) -> None:
        """There are at least two samples; each has an id and a prompt; a label is a choice."""
        samples = self._read(folder)
        expect(len(samples) >= 2, f"{len(samples)} samples, where at least 2 are expected")
        for sample in samples:
            expect(isinstance(sample, Sample), f"{sample!r} is not a Sample")
            expect(bool(sample.id), "a sample has an empty id")
            expect(bool(sample.prompt.strip()), f"{sample.id}: the prompt is blank")
            known = not sample.choices or sample.label is None or sample.label in sample.choices
            expect(known, f"{sample.id}: the label {sample.label!r} is no choice")

    def check_ids_are_unique(self, folder: Path) -> None:
        """No two samples have the same id, also with several prompts per image."""
        source = self._source(folder)
        check_unique(self.read(source, folder))
        check_unique(self.read(source, folder, (FIRST, SECOND)))

    def check_order_is_fixed(self, folder: Path) -> None:
        """Reading twice gives the same samples in the same order."""
        source = self._source(folder)
        first, second = (
            [sample.to_dict() for sample in self.read(source, folder)] for _ in range(2)
        )
        expect(first == second, "two readings differ in their samples or in their order")

    def check_json_round_trip(self, folder: Path) -> None:
        """Samples can be written as strict JSON; those with image files come back equal."""
        for sample in self._read(folder):
            text = json.dumps(sample.to_dict(), allow_nan=False, ensure_ascii=False)
            back = Sample.from_dict(json.loads(text.encode()))
            expect(back.to_dict() == sample.to_dict(), f"{sample.id} changes in JSON")
            if all(isinstance(image, str) for image in sample.images):
                expect(back == sample, f"{sample.id} is not equal to what comes back from JSON")

    def check_no_image_is_decoded(self, folder: Path) -> None:
        """Reading the samples decodes no pixels: a dataset may have a million images."""
        from PIL import ImageFile

        source = self._source(folder)
        loaded: list[str] = []
        load = ImageFile.ImageFile.load

        def recording(image: ImageFile.ImageFile) -> Any:
            loaded.append(str(image.filename))
            return load(image)

        with patch.object(ImageFile.ImageFile, "load", recording):
            self.read(source, folder)
        expect(not loaded, f"{len(loaded)} images are decoded, for example {loaded[:1]}")

    def check_images_can_be_opened(self, folder: Path) -> None:
        """Every image of the first samples opens."""
        for sample in self._read(folder)[:8]:
            modes = {image.mode for image in sample.open_images()}
            expect(modes <= {"RGB"}, f"{sample.id}: images open as {modes}")

    def check_user_prompts_are_asked(self, folder: Path) -> None:
        """One prompt replaces the prompts in the data."""
        asked = {sample.prompt for sample in self._read(folder)}
        expect(asked == {FIRST}, f"the prompt is {FIRST!r}, but the samples have {sorted(asked)}")

    def check_prompts_make_the_product(self, folder: Path) -> None:
        """Two prompts give twice the samples, with different tasks; groups stay together."""
        source = self._source(folder)
        single = self.read(source, folder)
        double = self.read(source, folder, (FIRST, SECOND))
        expect(
            len(double) == 2 * len(single),
            f"{len(single)} samples with one prompt, {len(double)} with two",
        )
        expect({sample.prompt for sample in double} == {FIRST, SECOND}, "a prompt is missing")
        for sample in double:
            told = sample.task is not None and sample.prompt in sample.task
            expect(told, f"{sample.id}: its task {sample.task!r} does not say which prompt it has")
        groups = [
            [sample.split_group for sample in double if sample.prompt == prompt]
            for prompt in (FIRST, SECOND)
        ]
        expect(groups[0] == groups[1], "the questions about one image are in different groups")

    def check_samples_of_one_image_share_a_group(self, folder: Path) -> None:
        """Samples with the same image are in one group, so that no split divides them."""
        group_of: dict[tuple[str, ...], str] = {}
        for sample in self.read(self._source(folder), folder, (FIRST, SECOND)):
            images = tuple(sample.to_dict()["images"])
            if images:
                own = group_of.setdefault(images, sample.split_group)
                expect(own == sample.split_group, f"{images[0]} is in two groups")

    def check_broken_sources_are_refused(self, folder: Path) -> None:
        """Broken sources raise a `DataError` with a subject and a hint."""
        sources = self.broken(folder)
        expect(bool(sources), "`broken` gives no source")
        for source in sources:
            error = expect_error(
                DataError, partial(self.read, source, folder), f"Reading {source!r}"
            )
            subject = getattr(error, "subject", None)
            expect(subject is not None, f"{source!r}: the error has no subject: {error}")
            expect(bool(getattr(error, "hint", "")), f"{source!r}: the error has no hint: {error}")

    def check_reads_what_it_can_read(self, folder: Path) -> None:
        """`reads` accepts the dataset's own paths, but not an empty folder.

        A dataset without a `reads` of its own is only chosen by name.
        """
        source = self._source(folder)
        own = next(kind for kind in self.plugin.__mro__ if "reads" in vars(kind))
        if Path(source).exists() and own is not Dataset:
            expect(self.plugin.reads(source), f"`reads` is False for its own source {source!r}")
        empty = folder / "an-empty-folder"
        empty.mkdir()
        expect(not self.plugin.reads(str(empty)), "`reads` is True for an empty folder")

    def _source(self, folder: Path) -> str:
        return self.source(folder) if self.given is None else self.given

    def _read(self, folder: Path) -> list[Sample]:
        return self.read(self._source(folder), folder)
