"""Placeholders: what stands for an image in the text of a prompt, and must not reach the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vlmlens.question_text import IMAGE_MARK

_OF_IMAGES = re.compile(
    r"(?i)image|img|vision|video|patch|slice|crop|<(row|col)_|<im_(start|end|col)>"
)
"""Names of tokens that a checkpoint keeps for images and videos."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt as the family takes it.

    Args:
        text: What is left of it; each placeholder that stands between words is the family's mark.
        between: Whether there are such.
        problem: Why it cannot be used; empty if it can.
        note: What became of the placeholders.
    """

    text: str
    between: bool = False
    problem: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Placeholders:
    """What a family makes of placeholders.

    Args:
        pattern: Matches each.
        reserved: Matches other tokens that are kept for images and videos.
        mark: How an image is written between words; None: it always stands before the prompt.
        end: White space that the template puts behind an image.
        front: Whether placeholders before all words mean the same as none.
        noun: What they stand for.
    """

    pattern: re.Pattern[str]
    reserved: re.Pattern[str]
    mark: str | None
    end: str = ""
    front: bool = True
    noun: str = "image"

    def asked(self, prompt: str, images: int) -> Asked:
        """A prompt with that many images; if there is none, placeholders are left out."""
        found = self.pattern.findall(prompt)
        rest = self.pattern.sub("", prompt)
        if unseen := self.reserved.search(rest):
            return Asked(rest, problem=f"{unseen[0]!r} is a token for images or videos")
        if not found or not images:
            return Asked(rest)
        if len(found) != images:
            return Asked(rest, problem=self.mismatch(prompt, images))
        head = re.match(rf"(?:\s*(?:{self.pattern.pattern}))+", prompt)
        if self.front and head and len(self.pattern.findall(head[0])) == images:
            text = prompt[head.end() :].removeprefix(self.end)
            note = f"is left out: the {self.noun} stands before the prompt anyway"
            return Asked(text, note=f"{_named(found[0])} {note}")
        if self.mark is None:
            said = "stands between words, but {}s of this family always stand before the prompt"
            said = said.format(self.noun)
            return Asked(rest, problem=f"{_named(repr(found[0]))} {said}")
        mark = self.mark
        text = self.pattern.sub(lambda _: mark, prompt)
        said = f"{_named(found[0])} is where the {self.noun} stands"
        return Asked(text, between=True, note=said)

    def mismatch(self, prompt: str, images: int) -> str:
        """The problem if a prompt has placeholders, and not one per image."""
        found = self.pattern.findall(prompt)
        if not found or len(found) == images:
            return ""
        has = f"{len(found)} {_named(found[0])}"
        return f"the prompt has {has}, the sample {_count(images, self.noun)}"

    def in_answer(self, text: str) -> str | None:
        """The placeholder, or another token for images, in a choice or a label."""
        found = self.pattern.search(text) or self.reserved.search(text)
        return found[0] if found else None


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches each of some texts, the longest first; nothing if there is none."""
    ordered = sorted(set(texts) - {""}, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def image_tokens(tokenizer: Any) -> set[str]:
    """The tokens that a checkpoint keeps for images and videos, judged by their names."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {str(token) for token in added.values() if _OF_IMAGES.search(str(token))}


def _named(placeholder: str) -> str:
    """A placeholder for messages; the mark for whatever family cannot be seen."""
    return "the mark of an image (U+FFFC)" if IMAGE_MARK in placeholder else placeholder


def _count(images: int, noun: str) -> str:
    return f"no {noun}" if not images else f"{images} {noun}{'s' * (images > 1)}"
