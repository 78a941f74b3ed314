"""The conformance kit for datasets: subclass `DatasetTests` in your test suite.

::

    class TestMyDataset(DatasetTests):
        dataset = MyDataset

        @pytest.fixture
        def source(self, tmp_path):
            ...  # make a small valid source, return its path or name

        @pytest.fixture
        def broken(self, tmp_path):
            ...  # sources that must be refused
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from vlmlens.abc import Dataset
from vlmlens.errors import DataError
from vlmlens.samples import Sample, check_unique

FIRST, SECOND = "What is this?", "Where was it taken?"


class DatasetTests:
    """What every dataset must do.

    Set `dataset` and override the fixtures `source` and, where there is such a thing, `broken`;
    `options` holds values for the dataset's own options.
    """

    dataset: ClassVar[type[Dataset]]

    @pytest.fixture
    def source(self, tmp_path: Path) -> str:
        """A valid source of at least two samples."""
        raise NotImplementedError("override the fixture `source`")

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Values of the dataset's options."""
        return {}

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Sequence[str]:
        """Sources that must be refused with a `DataError`."""
        return [str(tmp_path / "there-is-no-such-thing")]

    def read(
        self, source: str, options: dict[str, Any], prompts: Sequence[str] = (FIRST,)
    ) -> list[Sample]:
        """The samples of a fresh instance."""
        return self.dataset(source, self.dataset.Options(**options)).samples(prompts)

    def test_samples_are_complete(self, source: str, options: dict[str, Any]) -> None:
        """At least two samples; each has an id and a prompt; a label is one of the choices."""
        samples = self.read(source, options)
        assert len(samples) >= 2
        assert all(isinstance(sample, Sample) for sample in samples)
        assert all(sample.id and sample.prompt.strip() for sample in samples)
        for sample in samples:
            assert not sample.choices or sample.label is None or sample.label in sample.choices

    def test_ids_are_unique(self, source: str, options: dict[str, Any]) -> None:
        """Also where several prompts are asked of each image."""
        check_unique(self.read(source, options))
        check_unique(self.read(source, options, [FIRST, SECOND]))

    def test_order_is_fixed(self, source: str, options: dict[str, Any]) -> None:
        """Two readings give the same samples in the same order."""
        first, second = self.read(source, options), self.read(source, options)
        assert [sample.to_dict() for sample in first] == [sample.to_dict() for sample in second]

    def test_json_round_trip(self, source: str, options: dict[str, Any]) -> None:
        """Samples survive strict JSON; those with image files come back equal."""
        for sample in self.read(source, options):
            text = json.dumps(sample.to_dict(), allow_nan=False, ensure_ascii=False)
            back = Sample.from_dict(json.loads(text.encode()))
            assert back.to_dict() == sample.to_dict()
            if all(isinstance(image, str) for image in sample.images):
                assert back == sample

    def test_no_image_is_decoded(
        self, source: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Reading the samples decodes no pixels: a data set may hold a million images."""
        from PIL import ImageFile

        loaded: list[object] = []
        load = ImageFile.ImageFile.load

        def recording(image: ImageFile.ImageFile) -> Any:
            loaded.append(image.filename)
            return load(image)

        monkeypatch.setattr(ImageFile.ImageFile, "load", recording)
        self.read(source, options)
        assert loaded == []

    def test_images_can_be_opened(self, source: str, options: dict[str, Any]) -> None:
        """Every image of the first samples opens."""
        for sample in self.read(source, options)[:8]:
            assert all(image.mode == "RGB" for image in sample.open_images())

    def test_user_prompts_are_asked(self, source: str, options: dict[str, Any]) -> None:
        """One prompt replaces what the data asks."""
        assert {sample.prompt for sample in self.read(source, options)} == {FIRST}

    def test_prompts_make_the_product(self, source: str, options: dict[str, Any]) -> None:
        """Two prompts: twice the samples, told apart by task; groups stay together."""
        single = self.read(source, options)
        double = self.read(source, options, [FIRST, SECOND])
        assert len(double) == 2 * len(single)
        assert {sample.prompt for sample in double} == {FIRST, SECOND}
        assert all(sample.task is not None and sample.prompt in sample.task for sample in double)
        groups = {
            prompt: [s.split_group for s in double if s.prompt == prompt]
            for prompt in (FIRST, SECOND)
        }
        assert groups[FIRST] == groups[SECOND]

    def test_samples_of_one_image_share_a_group(self, source: str, options: dict[str, Any]) -> None:
        """No image stands on both sides of a split."""
        group_of: dict[tuple[str, ...], str] = {}
        for sample in self.read(source, options, [FIRST, SECOND]):
            images = tuple(sample.to_dict()["images"])
            if images:
                assert group_of.setdefault(images, sample.split_group) == sample.split_group

    def test_broken_sources_are_refused(
        self, broken: Sequence[str], options: dict[str, Any]
    ) -> None:
        """With a `DataError` that names its subject and a way out."""
        assert broken
        for source in broken:
            with pytest.raises(DataError) as caught:
                self.read(source, options)
            assert caught.value.subject is not None
            assert caught.value.hint

    def test_reads_what_it_can_read(
        self, source: str, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """`reads` knows its own paths, and leaves an empty folder to others."""
        if Path(source).exists():
            assert self.dataset.reads(source)
        assert not self.dataset.reads(str(tmp_path_factory.mktemp("empty")))

    def test_unknown_options_are_refused(self) -> None:
        """A misspelt option is an error, and every option is described."""
        with pytest.raises(ValidationError, match="no_such_option"):
            self.dataset.Options.model_validate({"no_such_option": 1})
        assert all(field.description for field in self.dataset.Options.model_fields.values())
