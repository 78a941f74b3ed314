"""Checks of adapters that are about the text of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmlens.errors import DataError
from vlmlens.question_text import IMAGE_MARK
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._adapter_suite import AdapterSuite
from vlmlens.testing._checks import expect, expect_error
from vlmlens.tokens import TokenKind, TokenLayout


class PromptChecks(AdapterSuite):
    """What an adapter does with placeholders of images in prompts."""

    def own_placeholders(self) -> Sequence[str]:
        """What stands for an image in prompts of the checkpoint."""
        return self.manifest.placeholders

    def check_placeholders_are_seen(self, folder: Path) -> None:
        """A placeholder of an image in a prompt is taken for the image, or refused; never text."""
        del folder
        self._needs_text()
        image = self.samples[0].images
        plain = self._sequence(Sample("plain", "What is this?", image))
        own = self.own_placeholders()
        for text in (*own, *([IMAGE_MARK] if own else [])):
            for prompt in (f"{text}\nWhat is this?", f"What is {text} this?", f"What? {text}"):
                sample = Sample("marked", prompt, image)
                if self.vlm.read_prompt(sample).problem:
                    self._refuses(sample)
                    continue
                layout = self._sequence(sample)
                same = _images(layout) == _images(plain)
                expect(same, f"{prompt!r} has {_images(layout)} image tokens, not {_images(plain)}")
                written = self.vlm.decode(_text_ids(layout))
                expect(text not in written, f"{text} in {prompt!r} reaches the model as text")
                self.vlm.forward(self.vlm.encode([sample]))
            twice = Sample("twice", f"{text} or {text}?", image)
            answered = Sample("answered", "Which?", image, choices=("one", f"a {text}"))
            for sample, what in ((twice, "more placeholders than images"), (answered, "a choice")):
                problem = self.vlm.read_prompt(sample).problem
                expect(bool(problem), f"`read_prompt` finds no problem in {text} as {what}")
            self._refuses(twice)
            without = self._sequence(Sample("none", "What?")) if self.offers("text-only") else None
            expect(without is None or not _images(without), "text alone has image tokens")

    def check_image_tokens_in_a_prompt(self, folder: Path) -> None:
        """The token at image positions, written in a prompt, is refused or makes no image token."""
        del folder
        self._needs_text()
        image = self.samples[0].images
        plain = self._sequence(Sample("plain", "What is this?", image))
        assert plain.token_ids is not None
        kept = plain.token_ids[plain.kinds == TokenKind.IMAGE]
        for number in sorted({int(i) for i in kept if i >= 0})[:2]:
            token = self.vlm.decode([number]).strip()
            sample = Sample("token", f"What {token} is this {token}?", image)
            if not token:
                continue
            if self.vlm.read_prompt(sample).problem:
                self._refuses(sample)
                continue
            found = _images(self._sequence(sample))
            expect(found == _images(plain), f"{token!r} in a prompt makes {found} image tokens")
            self.vlm.forward(self.vlm.encode([sample]))

    def check_too_long_is_refused(self, folder: Path) -> None:
        """A sample with more tokens than the model reads is refused, not cut."""
        del folder
        self._needs_text()
        longest = self.vlm.context
        if longest is None:
            longest = 10_000
            sample = Sample("long", "what is it? " * longest, self.samples[0].images)
            if not self.vlm.read_prompt(sample).problem:
                layout = self._sequence(sample)
                expect(len(layout) > longest, f"the prompt was cut to {len(layout)} tokens")
                return
        self._refuses(Sample("long", "what is it? " * longest, self.samples[0].images))

    def _refuses(self, sample: Sample) -> None:
        expect_error(DataError, lambda: self.vlm.encode([sample]), f"{sample.prompt[:60]!r}")

    def _sequence(self, sample: Sample) -> TokenLayout:
        batch = self.vlm.encode([sample])
        return batch.layout(0, Axis.ENCODER if Axis.ENCODER in batch.layouts else Axis.LLM)


def _images(layout: TokenLayout) -> int:
    return int((layout.kinds == TokenKind.IMAGE).sum())


def _text_ids(layout: TokenLayout) -> list[int]:
    assert layout.token_ids is not None
    found: list[int] = layout.token_ids[layout.kinds == TokenKind.TEXT].tolist()
    return found
