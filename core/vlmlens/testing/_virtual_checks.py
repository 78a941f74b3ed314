"""A check of adapters: virtual tokens of a soft prompt are what tokens are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vlmlens.errors import CompositionError
from vlmlens.passes.soft_prompt import SoftPrompt, embedding_of
from vlmlens.samples import Sample
from vlmlens.testing._adapter_suite import distance
from vlmlens.testing._checks import expect, skip
from vlmlens.testing._limit_checks import LimitChecks
from vlmlens.tokens import Selector

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.batch import Batch
    from vlmlens.sites import Site

_WORDS = ("ab cd ", "Look and say. ", "one two three ", "- ")
"""Put before a question, which a tokenizer may or may not cut in another way then."""
_TOKENS = 2


class VirtualChecks(LimitChecks):
    """What virtual tokens do in an adapter's prompts."""

    def check_virtual_tokens_are_tokens(self, folder: Path) -> None:
        """Vectors that are the embeddings of words give what these words in the prompt give."""
        del folder
        try:
            site = embedding_of(self.vlm)
        except CompositionError as error:
            expect(not self.offers("generate"), "it writes, and has no llm.embed")
            raise skip(error.message) from error
        before = self._last(self.vlm.encode(self._two))
        worded, ids = self._worded(site)
        wanted = self._last(worded)
        vectors = self._embedded(site, ids)
        with self.vlm.prompted(SoftPrompt(vectors)):
            batch = self.vlm.encode(self._two)
            self._expect_same_inputs(worded, batch)
            far = distance(wanted, self._last(batch))
            expect(far <= self.tolerance, f"the words give other logits, by {far:.1e}")
            for i, sample in enumerate(self._two):
                far = distance(wanted[i : i + 1], self._last(self.vlm.encode([sample])))
                expect(far <= self.tolerance, f"{sample.id} alone differs by {far:.1e}")
            self._expect_same_text(worded, batch)
        with self.vlm.prompted(SoftPrompt(vectors.roll(1, 0))):
            moved = distance(wanted, self._last(self.vlm.encode(self._two)))
            expect(moved > self.mask_matters, "vectors one row off give the same logits")
        after = self._last(self.vlm.encode(self._two))
        expect(bool((before == after).all()), "the model is another one afterwards")

    def _last(self, batch: Batch) -> torch.Tensor:
        found = self.vlm.forward(batch, logits="last").logits
        assert found is not None
        return found

    def _worded(self, site: Site) -> tuple[Batch, list[int]]:
        """The samples with some more words before their questions, and the ids of these."""
        plain = self.vlm.encode(self._two)
        for words in _WORDS:
            asked = [Sample(one.id, words + one.prompt, one.images) for one in self._two]
            batch = self.vlm.encode(asked)
            found = [
                _inserted(*pair)
                for pair in zip(
                    plain.layouts[site.axis].samples,
                    batch.layouts[site.axis].samples,
                    strict=True,
                )
            ]
            if found[0] and all(each == found[0] for each in found):
                return batch, found[0]
        raise skip("its tokenizer cuts every question in another way behind more words")

    def _embedded(self, site: Site, ids: list[int]) -> torch.Tensor:
        import torch

        module: Any = self.vlm.module.get_submodule(site.path)
        with torch.no_grad():
            found: torch.Tensor = module(torch.tensor([ids], device=self.device))
        return found[0].float()

    def _expect_same_inputs(self, worded: Batch, batch: Batch) -> None:
        """All inputs are those of the words, but for the ids of tokens."""
        import torch

        for name, wanted in worded.inputs.items():
            if not isinstance(wanted, torch.Tensor):
                continue
            found = batch.inputs[name]
            same = found.shape == wanted.shape and (name == "input_ids" or found.equal(wanted))
            expect(same, f"the input {name!r} is not that of a prompt with the words")

    def _expect_same_text(self, worded: Batch, batch: Batch) -> None:
        """It writes what it writes after the words, with the cache and without."""
        if not self.offers("generate"):
            return
        wanted = [one.token_ids for one in self.vlm.generate(batch, max_new_tokens=_TOKENS)]
        with self._without_cache():
            found = [one.token_ids for one in self.vlm.generate(batch, max_new_tokens=_TOKENS)]
        expect(found == wanted, "the cache changes a text with virtual tokens")
        prompt, self.vlm.soft_prompt = self.vlm.soft_prompt, None
        try:
            found = [one.token_ids for one in self.vlm.generate(worded, max_new_tokens=_TOKENS)]
        finally:
            self.vlm.soft_prompt = prompt
        expect(found == wanted, f"after the words it writes {found}, and with vectors {wanted}")


_QUESTION = Selector.parse("question")


def _inserted(plain: Any, worded: Any) -> list[int]:
    """The ids of the words that stand before a question; empty if other tokens changed, too."""
    first = int(_QUESTION.positions(plain)[0])
    size = len(worded) - len(plain)
    words = worded.token_ids[first : first + size]
    whole = np.insert(plain.token_ids, first, words)
    return list(map(int, words)) if np.array_equal(whole, worded.token_ids) else []
