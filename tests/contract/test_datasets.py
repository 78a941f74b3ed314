"""The conformance kit over the built-in datasets, and over datasets with deliberate mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from vlmlens.samples import Sample
from vlmlens_plugins.data import checks
from vlmlens_plugins.data.images import ImageFolder
from vlmlens_plugins.demo.checks import ChartsChecks, DepthChecks, ScenesChecks, TextureChecks


class TestImageFolder(checks.ImageFolderChecks):
    pass


class TestJsonl(checks.JsonlChecks):
    pass


class TestCsv(checks.CsvChecks):
    pass


class TestParquet(checks.ParquetChecks):
    pass


class TestClevr(checks.ClevrChecks):
    pass


class TestScenes(ScenesChecks):
    pass


class TestCharts(ChartsChecks):
    pass


class TestDepth(DepthChecks):
    pass


class TestTexture(TextureChecks):
    pass


class Shuffled(ImageFolder):
    """Another order at every reading."""

    readings = 0

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        Shuffled.readings += 1
        return super().samples(prompts)[:: (-1) ** Shuffled.readings]


class Repeated(ImageFolder):
    """Every id twice."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        return super().samples(prompts) * 2


class Decoding(ImageFolder):
    """Opens every image to learn its width."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        samples = super().samples(prompts)
        return [replace(s, attributes={"width": s.open_images()[0].width}) for s in samples]


class NotJson(ImageFolder):
    """Attributes that JSON cannot carry."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        return [replace(s, attributes={"x": float("nan")}) for s in super().samples(prompts)]


class Deaf(ImageFolder):
    """Asks what it likes."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        return [replace(sample, prompt="Hm?") for sample in super().samples(prompts)]


class Torn(ImageFolder):
    """Splits the questions about one image over two groups."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        return [replace(sample, group=sample.id) for sample in super().samples(prompts)]


class Loose(ImageFolder):
    """Raises errors of its own."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        if not Path(self.source).exists():
            raise FileNotFoundError(self.source)
        return super().samples(prompts)


class Silent(ImageFolder):
    """An option that says nothing of itself."""

    class Options(ImageFolder.Options):  # type: ignore[name-defined,misc]
        """With one more."""

        quiet: bool = False


class Blank(ImageFolder):
    """A label that is none of the choices."""

    def samples(self, prompts: Sequence[str]) -> list[Sample]:
        return [replace(s, label="x", choices=("a", "b")) for s in super().samples(prompts)]


class Greedy(ImageFolder):
    """Claims every path."""

    @classmethod
    def reads(cls, path: str) -> bool:
        return True


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        (Shuffled, "order_is_fixed"),
        (Repeated, "ids_are_unique"),
        (Decoding, "no_image_is_decoded"),
        (NotJson, "json_round_trip"),
        (Deaf, "user_prompts_are_asked"),
        (Deaf, "prompts_make_the_product"),
        (Torn, "samples_of_one_image_share_a_group"),
        (Loose, "broken_sources_are_refused"),
        (Greedy, "reads_what_it_can_read"),
        (Silent, "options"),
        (Blank, "samples_are_complete"),
    ],
)
def test_the_kit_catches_mistakes(mistake: type[ImageFolder], check: str) -> None:
    kit = type("Kit", (checks.ImageFolderChecks,), {"plugin": mistake})
    result = kit().run_check(check)
    assert result.outcome == "failed", result
    assert result.detail.startswith(("CheckFailed", "DuplicateSample", "ValueError")), result
