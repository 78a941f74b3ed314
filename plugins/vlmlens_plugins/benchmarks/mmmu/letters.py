"""Which option a text chooses, as the authors' script and lmms-eval read it.

Both look for marks of options, from sure to vague, and take the last of several. Where nothing is
found, both draw a letter at random; here that is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_SIGNS = ",.!?;:'"
_FEW_WORDS = 5

Mark = Callable[[str], str]
"""How an option's letter is marked in a text."""


@dataclass(frozen=True)
class LetterRule:
    """Steps that are tried in turn.

    Args:
        steps: Per step, the mark that is looked for, and the mark by whose last place one of
            several letters is chosen.
    """

    steps: Sequence[tuple[Mark, Mark]]

    def letter(self, text: str, options: Mapping[str, str], letters: Sequence[str]) -> str | None:
        """The letter that a text chooses.

        Args:
            text: The answer.
            options: Texts of options by letter; they are looked for in answers of more than five
                words without a mark.
            letters: Of the options.
        """
        for sign in _SIGNS:
            text = text.strip(sign)
        padded = f" {text} "
        for mark, place in self.steps:
            found = [letter for letter in letters if mark(letter) in padded]
            if found:
                return max(found, key=lambda letter: padded.rfind(place(letter)))
        if len(padded.split()) <= _FEW_WORDS:
            return None
        lower = padded.lower()
        named = {letter: said.lower() for letter, said in options.items() if said.lower() in lower}
        return max(named, key=lambda letter: lower.rfind(named[letter])) if named else None


def _bracketed(letter: str) -> str:
    return f"({letter})"


def _alone(letter: str) -> str:
    return f" {letter} "


def _before_blank(letter: str) -> str:
    return f"{letter} "


def _before_dot(letter: str) -> str:
    return f"{letter}."


AUTHORS = LetterRule(((_bracketed, _bracketed), (_alone, _alone)))
LMMS_EVAL = LetterRule(
    ((_bracketed, _bracketed), (_before_blank, _alone), (_before_dot, _alone)),
)
"""Takes the end of a word for a letter: "DNA is it" reads as A."""
