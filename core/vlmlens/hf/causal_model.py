"""What a family's own model class shares with transformers' models: head and generation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from transformers.modeling_outputs import CausalLMOutputWithPast


class ShowsImagesOnce:
    """Generation that passes the images in the first step only; the cache holds them after that.

    List it before transformers' `GenerationMixin` in the bases of a model.
    """

    prompt_inputs: ClassVar[tuple[str, ...]] = ()
    """Inputs of the first step only."""

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As in transformers; with a cache, `prompt_inputs` are passed in the first step only."""
        inputs = super().prepare_inputs_for_generation(*args, **kwargs)  # type: ignore[misc]
        if kwargs.get("use_cache", True) and not kwargs.get("is_first_iteration"):
            inputs = {
                name: value for name, value in inputs.items() if name not in self.prompt_inputs
            }
        return dict(inputs)


def forward_with_head(
    body: Callable[..., Any], *, float32: bool = False
) -> Callable[..., CausalLMOutputWithPast]:
    """The `forward` of a model with the head `lm_head` on the body `model`.

    It takes the arguments of the body's `forward`, and `logits_to_keep`: for how many of the last
    positions logits are computed, or for which positions; 0: for all. The signature names all of
    them, because transformers inspects it.

    Args:
        body: The body's `forward`.
        float32: Whether to return logits in float32, whatever the dtype of the weights.
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
