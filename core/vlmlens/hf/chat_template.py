"""The chat template of a checkpoint: found, rendered within limits, with clear errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmlens.errors import CheckpointError
from vlmlens.hf.bounded_templates import rendered

FINISHED = "{{ messages[0]['rendered'] }}"
"""A template for transformers that takes a prompt which is already rendered."""

_NAMED = "default"


def template_of(processor: Any, model: str) -> str:
    """The chat template of a processor or a tokenizer.

    Args:
        processor: Of the checkpoint.
        model: Hub id or folder, named in errors.

    Raises:
        CheckpointError: There is none.
    """
    found = getattr(processor, "chat_template", None)
    if isinstance(found, Mapping):
        found = found.get(_NAMED)
    if not found:
        raise CheckpointError(
            f"The checkpoint {model!r} has no chat template, so that prompts cannot be written.",
            subject=model,
            hint="Copy chat_template.jinja (or chat_template.json) from the checkpoint that it was "
            "made of, or from a newer copy, into its folder. A base model that never had one needs "
            "an instruction-tuned checkpoint instead.",
        )
    return str(found)


def render(
    template: str, content: str | Sequence[Mapping[str, Any]], tokenizer: Any, model: str
) -> str:
    """The prompt of one user message, up to where the answer begins.

    Args:
        template: The chat template.
        content: Text, or parts of the types "image" and "text".
        tokenizer: Names special tokens.
        model: Hub id or folder, named in errors.

    Raises:
        CheckpointError: The template fails, does what the sandbox forbids, or works too long.
    """
    variables = {
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        **{name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "messages": [{"role": "user", "content": content}],
    }
    try:
        return rendered(template, variables)
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"The chat template of {model!r} cannot be used: {why}.",
            subject=model,
            hint="Replace chat_template.jinja in its folder by that of the checkpoint that it was "
            "made of.",
        ) from error
