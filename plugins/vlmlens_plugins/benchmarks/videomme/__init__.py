"""Video-MME: questions with four options on videos, with or without their subtitles."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from vlmlens._display import count
from vlmlens.abc import Options
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Attribute, Sample
from vlmlens.videos import Video
from vlmlens_plugins.benchmarks.benchmark import Benchmark, BenchmarkOptions, Found
from vlmlens_plugins.benchmarks.card import Card
from vlmlens_plugins.benchmarks.videomme.asked import OPTIONS, SUBTITLE_TEXT, SUBTITLED
from vlmlens_plugins.benchmarks.videomme.card import CARD
from vlmlens_plugins.benchmarks.videomme.files import NONE, VideoFiles
from vlmlens_plugins.benchmarks.videomme.forms import (
    Question,
    folder_of,
    form_of,
    questions_in,
    table_of,
)
from vlmlens_plugins.benchmarks.videomme.shown import ALL, OFF, ShownSubtitles

__all__ = ["VideoMme", "VideoMmeOptions"]

_FOUR = 4


class VideoMmeOptions(BenchmarkOptions):
    """Options of Video-MME."""

    videos: str | None = Field(
        None,
        description="Folder of the videos; default: data/, video/ or videos/ beside the questions. "
        "none: ask without them.",
    )
    subtitles: str = Field(
        OFF,
        description="off, all, or the number of frames whose subtitles are shown (32).",
    )
    subtitle_files: str | None = Field(
        None, description="subtitle.zip, or a folder of .srt files; default: beside the questions."
    )

    @field_validator("subtitles", mode="before")
    @classmethod
    def _known(cls, value: object) -> str:
        text = OFF if value is False else ALL if value is True else str(value).strip().lower()
        if text not in (OFF, ALL) and not (text.isascii() and text.isdigit() and int(text) > 0):
            raise ValueError(f"expected off, all or a number of frames, got {value!r}")
        return text


class VideoMme(Benchmark):
    """Questions on videos; the frames are chosen by the run (`--set frames=8`)."""

    Options: ClassVar[type[Options]] = VideoMmeOptions
    options: VideoMmeOptions
    card: ClassVar[Card] = CARD

    def found(self) -> Found:
        """See `Benchmark.found`."""
        options = self.options
        table = table_of(self.source, options.subset, options.revision)
        form, beside = form_of(table), folder_of(self.source)
        questions = list(questions_in(table))
        blind = options.videos == NONE
        videos = None if blind else VideoFiles(options.videos, beside)
        said = None if options.subtitles == OFF else self._shown(beside, blind=blind)
        samples = SampleTable(_samples(questions, videos, said))
        number = len({question.videos for question in questions})
        notes = [*_notes(questions), *(said.notes() if said else ())]
        if blind:
            notes.append("asked without videos: a run needs --set text_only=true")
        missing = videos.note(number) if videos else None
        notes += [missing] if missing else []
        told = tuple(f"{CARD.title}: {note}." for note in notes)
        return Found(samples, form, _edition(questions, number), table.digest, told)

    def _shown(self, beside: Path | None, *, blind: bool) -> ShownSubtitles:
        which, files = self.options.subtitles, self.options.subtitle_files
        return ShownSubtitles(which, files, beside, self.options.prompt, blind=blind)

    def samples(self, prompts: Sequence[str]) -> Sequence[Sample]:
        """See `Benchmark.samples`. What subtitles say stands in prompts only."""
        samples = super().samples(prompts)
        if self.options.subtitles == OFF:
            return samples
        if prompts:
            self.notes = [*self.notes, f"{CARD.title}: prompts of --prompt have no subtitles."]
        return SampleTable(map(_without_text, samples))


def _samples(
    questions: Sequence[Question], videos: VideoFiles | None, said: ShownSubtitles | None
) -> Iterator[Sample]:
    for question in questions:
        path = videos.path(*question.videos) if videos else None
        attributes: dict[str, Attribute] = {
            **question.known,
            OPTIONS: json.dumps(question.options, ensure_ascii=False),
            "video_id": question.videos[0],
        }
        if said:
            text = said.of(question.videos, path)
            attributes[SUBTITLED], attributes[SUBTITLE_TEXT] = text is not None, text
        yield Sample(
            question.id,
            question.text,
            label=question.answer,
            choices=question.letters,
            group=question.videos[0],
            task=question.known.get("duration"),
            attributes=attributes,
            video=Video(path) if path else None,
        )


def _without_text(sample: Sample) -> Sample:
    kept = {name: value for name, value in sample.attributes.items() if name != SUBTITLE_TEXT}
    return replace(sample, attributes=kept)


def _notes(questions: Sequence[Question]) -> Iterator[str]:
    unknown = sum(question.answer is None for question in questions)
    more = sum(len(question.options) > _FOUR for question in questions)
    if unknown:
        yield f"{count(unknown, 'question')} without an answer: not scored"
    if more:
        yield (
            f"{count(more, 'question')} with more than four options: this looks like "
            "Video-MME-v2, which is scored in another way"
        )


def _edition(questions: Sequence[Question], videos: int) -> str:
    durations = Counter(question.known.get("duration", "") for question in questions)
    named = ", ".join(f"{name} {number:,}" for name, number in durations.items() if name)
    counts = f"{count(len(questions), 'question')} on {count(videos, 'video')}"
    return f"{counts} ({named})" if named else counts
