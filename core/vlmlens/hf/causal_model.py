"""What a model class of a family's own takes over from transformers' models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast


class ShowsImagesOnce:
    """Generation whose steps after the first find the images in the cache.

    Stands before transformers' `GenerationMixin` in the bases of a model.
    """

    prompt_inputs: ClassVar[tuple[str, ...]] = ()
    """Inputs that only the first step is given."""

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As in transformers; with a cache, `prompt_inputs` are shown in the first step only."""
        inputs = super().prepare_inputs_for_generation(*args, **kwargs)  # type: ignore[misc]
        if kwargs.get("use_cache", True) and not kwargs.get("is_first_iteration"):
            inputs = {
                name: value for name, value in inputs.items() if name not in self.prompt_inputs
            }
        return dict(inputs)


def forward_with_head(
    body: Callable[..., Any], *, float32: bool = False
) -> Callable[..., CausalLMOutputWithPast]:
    """The `forward` of a model that has the head `lm_head` over the body `model`.

    It takes what the body's takes, and `logits_to_keep`: of how many of the last positions logits
    are computed, or of which ones; 0: of all. transformers reads that in its signature.

    Args:
        body: The body's `forward`.
        float32: Whether logits are given in float32 whatever the weights are.
    """

    def forward(
        self: Any, *args: Any, logits_to_keep: int | torch.Tensor = 0, **inputs: Any
    ) -> CausalLMOutputWithPast:
        inputs.pop("return_dict", None)
        output = self.model(*args, **inputs)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(output.last_hidden_state[:, kept])
        return CausalLMOutputWithPast(
            logits=logits.float() if float32 else logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    signature = inspect.signature(body)
    *given, rest = signature.parameters.values()
    keep = inspect.Parameter(
        "logits_to_keep", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=int | torch.Tensor
    )
    forward.__dict__["__signature__"] = signature.replace(parameters=[*given, keep, rest])
    return forward
