"""PaliGemma: a SigLIP tower, one linear layer, and Gemma (or Gemma 2) as a prefix language model.

Image and prompt are a prefix in which every position sees every other; what follows is causal.
`token_type_ids` says which is which (0: prefix, 1: suffix). Without it nothing fails, and the
numbers are those of another model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from vlmlens.errors import DataError
from vlmlens.hf import LLAVA_RENAMES, SIGLIP_SITES, RasterAdapter
from vlmlens.sites import Rename, SiteTemplate
from vlmlens_adapter_paligemma.manifest import MANIFEST

_SUFFIX = 1


class PaliGemmaAdapter(RasterAdapter):
    """`PaliGemmaForConditionalGeneration`, which has no chat template and needs an image."""

    templates: ClassVar[Sequence[SiteTemplate]] = SIGLIP_SITES
    renames: ClassVar[Sequence[Rename]] = LLAVA_RENAMES
    image_placeholders: ClassVar[Sequence[str]] = MANIFEST.placeholders
    images_between: ClassVar[bool] = False
    shares_images: ClassVar[bool] = True

    def process(self, prompts: Sequence[str], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """See `TransformersAdapter.process`. The processor's `labels` are for training: dropped.

        Raises:
            DataError: A sample has no image.
        """
        if not all(images):
            raise DataError(
                "PaliGemma needs an image in every sample, and one has none.",
                subject="images",
                hint="Leave out the samples without an image, or use another model for them.",
            )
        token = self.processor.image_token
        encoded = self.processor(
            text=[token * len(g) + prompt for prompt, g in zip(prompts, images, strict=True)],
            images=[list(group) for group in images],
            padding=True,
            padding_side=self.padding_side,
        )
        encoded.pop("labels", None)
        return dict(encoded.convert_to_tensors("pt"))

    def templated(self, prompt: str, images: Sequence[Any]) -> str:
        """See `TransformersAdapter.templated`: there is no template."""
        del images
        return prompt

    def with_answers(
        self, inputs: Mapping[str, Any], answers: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """See `TransformersAdapter.with_answers`. The prompt sees no answer."""
        grown = super().with_answers(inputs, answers)
        for types, answer in zip(grown["token_type_ids"], answers, strict=True):
            types[len(types) - len(answer) :] = _SUFFIX
        return grown

    def answer_ids(self, answer: str) -> list[int]:
        """See `ModelAdapter.answer_ids`: a prompt ends in a line break, which stands alone."""
        return self._plain_ids(answer)

    def scale_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """See `TransformersAdapter.scale_logits`: Gemma 2 caps them, `cap * tanh(logits / cap)`."""
        cap = getattr(self.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def describe(self) -> dict[str, Any]:
        """See `ModelAdapter.describe`: Gemma 2 is eager whatever the whole model says."""
        text = self.config.get_text_config()
        return {**super().describe(), "attention": text._attn_implementation}
