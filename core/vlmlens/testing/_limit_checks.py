"""A check of adapters: what a family's models cannot do is said in its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmlens.sites import Axis, Site
from vlmlens.testing._checks import expect
from vlmlens.testing._edit_checks import ROWS
from vlmlens.testing._gradient_checks import GradientChecks
from vlmlens.tokens import TokenKind

_INSIDE = {"heads": "attn.heads", "attn_out": "attn_out", "mlp_out": "mlp_out"}
"""What blocks have, by the word for it."""


class LimitChecks(GradientChecks):
    """What an adapter says of its limits."""

    def check_limits_are_said(self, folder: Path) -> None:
        """What edits, gradients and the like cannot do is said in `limits`, word for word."""
        del folder
        said = " ".join(self.manifest.limits)
        unsaid: dict[str, str] = {}
        for word, why in self._lacks():
            if word not in said:
                unsaid.setdefault(word, why)
        expect(
            not unsaid,
            "the manifest's `limits` needs a sentence, with the reason, that has the word "
            + "; the word ".join(f"{word!r}: {why}" for word, why in unsaid.items()),
        )

    def _lacks(self) -> Iterator[tuple[str, str]]:
        """What the model cannot do: a word for it, and where it was seen."""
        for block in self._all_blocks():
            for word, inside in _INSIDE.items():
                if not self.vlm.sites.matching(f"{block.name}.{inside}"):
                    yield word, f"there is no {block.name}.{inside}"
        for block in self._uncuttable():
            yield "edges", f"no edges can be cut in {block.name}"
        for axis in self._axes_without_places():
            yield "image.region", f"image rows of the {axis.value} axis have no place in the image"
        if not self.offers("generate"):
            yield "generate", "it does not offer 'generate'"
        if self.offers("choice-scores"):
            yield "choices", "they are compared outside of passes, so not under edits"
        yield from self._ungiven()

    def _all_blocks(self) -> list[Site]:
        sites = self.vlm.sites.canonical.items()
        return [site for name, site in sites if name.endswith(f".block.{site.index}")]

    def _uncuttable(self) -> Iterator[Site]:
        """Ends of the language side's stacks in whose attention no edges can be cut."""
        layouts = self.vlm.encode(self._two).layouts
        for block in self._ends_of_stacks():
            if block.axis not in (Axis.LLM, Axis.ENCODER):
                continue
            enough = min(map(len, layouts[block.axis].samples)) > ROWS
            if enough and not any(
                map(self._takes_cuts, self.vlm.sites.matching(f"{block.name}.attn"))
            ):
                yield block

    def _axes_without_places(self) -> Iterator[Axis]:
        for axis, layout in self.vlm.encode(self._two).layouts.items():
            first = layout.samples[0]
            if first.patches is None and len(first.positions(TokenKind.IMAGE)):
                yield axis
