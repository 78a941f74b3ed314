"""Checks of what was tuned and is to be put into the model, before weights are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmlens.tuned.opening import open_tuned
from vlmlens.tuned.putting import check_fits, made_for_another

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.spec.model import RunSpec
    from vlmlens.tuned.record import Tuned


def opened_tuned(spec: RunSpec, *, trust: bool = False) -> Tuned | None:
    """What a spec names as tuned, opened; None if it names nothing.

    Args:
        spec: The spec.
        trust: Whether a run that somebody else made may have links to other places.

    Raises:
        CheckpointError: It is not there, or nothing that was tuned.
        UntrustedRun: Somebody else made the run, and parts of it are links to other places.
    """
    return None if spec.tuned is None else open_tuned(spec.tuned, trust=trust)


def check_tuned(spec: RunSpec, tuned: Tuned | None, skeleton: ModelAdapter) -> list[str]:
    """Check what was tuned against a model without weights.

    Args:
        spec: The spec.
        tuned: From `opened_tuned`.
        skeleton: The model without weights, which stays as it is.

    Returns:
        What the user should know of it.

    Raises:
        CheckpointError: It does not fit the model, or was made from another checkpoint.
        CompositionError: It cannot be put in as the spec says.
        MissingDependency: peft is not installed.
    """
    if tuned is None:
        return []
    quantized = spec.quantization is not None
    check_fits(skeleton, tuned, merge=spec.merge_tuned, quantized=quantized)
    note = made_for_another(tuned, spec.model)
    return [note] if note else []
