"""PromptWriting: prompts as the family takes them, placeholders, and the chat template."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from vlmlens.abc.adapter import PromptReading
from vlmlens.errors import DataError
from vlmlens.hf.chat_template import render, template_of
from vlmlens.hf.frames import Frames, ProcessorFrames, fewest, made_here, parts, untimed
from vlmlens.hf.loaded_model import LoadedModel
from vlmlens.hf.placeholders import Placeholders, any_of, image_tokens
from vlmlens.hf.prompt_processor import PromptProcessor
from vlmlens.hf.question_rows import STAND_IN
from vlmlens.question_text import IMAGE_MARK
from vlmlens.samples import Sample
from vlmlens.videos import FrameRule, Video


class PromptWriting(LoadedModel):
    """The half of an adapter that writes prompts; `SampleEncoding` makes tensors of them."""

    images_between: ClassVar[bool] = True
    """Whether images may stand between the words of a prompt; else they always stand before it."""
    image_placeholders: ClassVar[Sequence[str]] = ()
    """What stands for an image in prompts of the family, as its manifest says."""
    video_placeholders: ClassVar[Sequence[str]] = ("<video>",)
    """What stands for a video in prompts of the family."""
    _told_of_text_alone = False

    @cached_property
    def takes_video(self) -> bool:
        """See `ModelAdapter.takes_video`: where transformers' class of the family does."""
        return made_here(self.video_processors, self.config.model_type, self.processor)

    @property
    def times_matter(self) -> bool:
        """Whether the times of a video's frames enter the model's inputs."""
        settings = getattr(self.processor, "videos_kwargs", None) or {}
        return bool(settings.get("return_metadata"))

    @property
    def fewest_frames(self) -> int:
        """How many frames a video must have."""
        return fewest(self.processor.video_processor) if self.takes_video else 1

    @property
    def frame_rule(self) -> FrameRule:
        """See `ModelAdapter.frame_rule`: that of transformers' video processor."""
        if not self.takes_video:
            return super().frame_rule
        return ProcessorFrames.of(self.processor.video_processor)

    @property
    def image_mark(self) -> str:
        """The placeholder of an image in the templated text, before the processor expands it."""
        return str(self.tokenizer.convert_ids_to_tokens(self.image_token_id))

    @property
    def image_token_id(self) -> int:
        """The token id at the positions that image features replace."""
        return int(self.config.image_token_id)

    @property
    def video_token_id(self) -> int | None:
        """The token id at the positions that features of a video replace, if it is another one."""
        found = getattr(self.config, "video_token_id", None) if self.takes_video else None
        return None if found is None else int(found)

    @property
    def video_mark(self) -> str:
        """The placeholder of a video in the templated text, before the processor expands it."""
        return str(self.processor.video_token)

    def read_prompt(self, sample: Sample) -> PromptReading:
        """See `ModelAdapter.read_prompt`."""
        shown = self.shown(sample)
        if problem := self.video_problem(sample):
            return PromptReading(problem)
        known, count = self.marks(shown), _count(shown)
        for answer in (*sample.choices, sample.label or ""):
            if found := known.in_answer(answer):
                return PromptReading(f"the answer {answer[:40]!r} holds {found!r}")
        missing = known.mismatch(sample.prompt, count)
        asked = known.asked(sample.prompt, count)
        return PromptReading(missing or asked.problem, asked.note)

    def video_problem(self, sample: Sample) -> str:
        """Why its video cannot be used; "" if it can, or if its frames are not chosen yet."""
        video = sample.video
        if video is None or not (video.decoded and self.takes_video):
            return ""
        if len(video.frames) < self.fewest_frames:
            return f"its video has {len(video.frames)} frame, and {self.fewest_frames} are needed"
        return untimed(video) if self.times_matter else ""

    def shown(self, sample: Sample) -> Sequence[Any]:
        """What of a sample stands in its prompt: its images, or that it has a video."""
        if sample.video is None or not self.takes_video:
            return sample.images
        return Frames([None] * len(sample.images), sample.video)

    def marks(self, images: Sequence[Any]) -> Placeholders:
        """The placeholders of a sample's images, or of its video."""
        return self.placeholders_of_videos if isinstance(images, Frames) else self.placeholders

    @cached_property
    def placeholders(self) -> Placeholders:
        """The placeholders of images in prompts: the family's, and what its template writes."""
        mark, end, front = self._notation((None,))
        named = getattr(self.processor, "image_token", None)
        written = {mark or "", "" if named is None else str(named)}
        own = {*self.image_placeholders, *written, IMAGE_MARK}
        if not isinstance(self.processor, PromptProcessor) and self.image_token_id >= 0:
            own.add(self.image_mark)
        return Placeholders(
            any_of(own), any_of(image_tokens(self.tokenizer) - own), mark, end, front
        )

    @cached_property
    def placeholders_of_videos(self) -> Placeholders:
        """The placeholders of videos in prompts."""
        mark, end, front = self._notation(Frames([None], Video()))
        own = {*self.video_placeholders, mark or "", self.video_mark}
        reserved = image_tokens(self.tokenizer) - own
        return Placeholders(any_of(own), any_of(reserved), mark, end, front, noun="video")

    def _notation(self, images: Sequence[Any]) -> tuple[str | None, str, bool]:
        """How an image is written between words, the space behind it, and see `Placeholders`.

        Args:
            images: One image, or `Frames`.
        """
        if isinstance(self.processor, PromptProcessor):
            return self.processor.place, "", self.processor.place is None
        if not self.images_between:
            return None, "\n", True
        plain, shown = self._written(STAND_IN, ()), self._written(STAND_IN, images)
        head, found, _ = plain.partition(STAND_IN)
        written = shown.removeprefix(head).partition(STAND_IN)[0]
        if not (found and shown.startswith(head) and written.strip()):
            return self.mark(images), "", True
        mark = written.strip()
        return mark, written[written.index(mark) + len(mark) :], True

    def mark(self, images: Sequence[Any]) -> str:
        """What stands for each of a sample's images, or for its video, in the templated text."""
        return self.video_mark if isinstance(images, Frames) else self.image_mark

    def asked(self, samples: Sequence[Sample]) -> list[str]:
        """The prompts as the family takes them; a placeholder between words is the family's mark.

        Placeholders before all words are left out, since the image stands there anyway, and so are
        those of a sample without images.

        Raises:
            DataError: A prompt cannot be used.
        """
        shown = [self.shown(sample) for sample in samples]
        found = [
            self.marks(images).asked(sample.prompt, _count(images))
            for sample, images in zip(samples, shown, strict=True)
        ]
        for sample, asked in zip(samples, found, strict=True):
            if not sample.images and asked.text != sample.prompt:
                self._tell_of_text_alone(sample)
            if asked.problem:
                raise DataError(
                    f"The prompt of {sample.id!r} cannot be used: {asked.problem}.",
                    subject=sample.id,
                    hint="Write one placeholder per image or video, or none.",
                )
        return [asked.text for asked in found]

    def _tell_of_text_alone(self, sample: Sample) -> None:
        if not self._told_of_text_alone:
            self._told_of_text_alone = True
            logging.getLogger("vlmlens").warning(
                "Sample %r has no image: the placeholder in its prompt is left out. This is said "
                "once.",
                sample.id,
            )

    def templated(self, prompt: str, images: Sequence[Any]) -> str:
        """A prompt in the chat template, as text, each image as its placeholder.

        Args:
            prompt: See `asked`.
            images: Their places are in the prompt, or the template writes them before it.
                `Frames` are one video.

        Raises:
            CheckpointError: The checkpoint has no chat template, or one that fails.
        """
        mark = self.marks(images).mark if images else None
        marked = mark is not None and mark in prompt
        template_writes_images = isinstance(self.processor, PromptProcessor) or not marked
        return self._written(prompt, images if template_writes_images else ())

    def _written(self, prompt: str, images: Sequence[Any]) -> str:
        if isinstance(self.processor, PromptProcessor):
            return self.processor.text(prompt, images)
        model = self.model_name(self.request)
        template = template_of(self.processor, model)
        content = [*parts(images), {"type": "text", "text": prompt}]
        return render(template, content, self.tokenizer, model)

    def prompt_text(self, sample: Sample) -> str:
        """A sample's prompt in the chat template, as text, each image as its placeholder."""
        return self.templated(self.asked([sample])[0], self.shown(sample))


def _count(images: Sequence[Any]) -> int:
    """How many places they have in a prompt: a video has one."""
    return 1 if isinstance(images, Frames) else len(images)
