"""The conformance kit over the built-in extractors, and over some with deliberate mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from vlmlens.abc import Batch, Values
from vlmlens.samples import Sample
from vlmlens_plugins.extract import checks
from vlmlens_plugins.extract.activations import ActivationExtractor


class TestActivations(checks.ActivationChecks):
    pass


class TestRaggedActivations(checks.RaggedActivationChecks):
    pass


class TestAttention(checks.AttentionChecks):
    pass


class TestAttentionPatches(checks.AttentionPatchChecks):
    pass


Found = Mapping[str, Values]


def changed(found: Found, change: object) -> Found:
    """Every column with another array."""
    return {n: Values(change(v.array), v.dtype, v.lengths) for n, v in found.items()}  # type: ignore[operator]


class Sorted(ActivationExtractor):
    """Rows in the order of the samples' ids."""

    def extract(self, batch: Batch) -> Found:
        order = np.argsort([sample.id for sample in batch.samples])
        return changed(super().extract(batch), lambda array: array[order])


class OneForAll(ActivationExtractor):
    """The first sample's row for every sample."""

    def extract(self, batch: Batch) -> Found:
        return changed(super().extract(batch), lambda array: np.repeat(array[:1], len(array), 0))


class Centered(ActivationExtractor):
    """Takes away the mean of the batch, which makes a row depend on its neighbours."""

    def extract(self, batch: Batch) -> Found:
        return changed(super().extract(batch), lambda array: array - array.mean(0))


class Forgetful(ActivationExtractor):
    """Leaves a column out."""

    def extract(self, batch: Batch) -> Found:
        return dict(list(super().extract(batch).items())[1:])


class Doubles(ActivationExtractor):
    """Calls float32 what is float64."""

    def extract(self, batch: Batch) -> Found:
        return changed(super().extract(batch), lambda array: array.astype("<f8"))


class Wider(ActivationExtractor):
    """As wide as the batch is long."""

    def extract(self, batch: Batch) -> Found:
        return changed(super().extract(batch), lambda array: array[:, : len(array)])


class Warming(ActivationExtractor):
    """Another answer each time."""

    passes = 0

    def extract(self, batch: Batch) -> Found:
        self.passes += 1
        return changed(super().extract(batch), lambda array: array * np.float32(self.passes))


class Reused(ActivationExtractor):
    """Gives out one buffer, again and again."""

    def extract(self, batch: Batch) -> Found:
        found = super().extract(batch)
        kept: dict[str, Values] = self.__dict__.setdefault("kept", {})
        for name, values in found.items():
            mine = kept.setdefault(name, values)
            if mine.array.shape == values.array.shape:
                mine.array[:] = values.array
        return kept if all(len(v) == len(batch) for v in kept.values()) else found


class Hooked(ActivationExtractor):
    """Leaves a hook at the last block."""

    def extract(self, batch: Batch) -> Found:
        block = self.vlm.module.get_submodule("model.language_model.layers.1")
        handle = block.register_forward_hook(lambda module, given, output: None)
        HANDLES.append(handle)
        return super().extract(batch)


class Computing(ActivationExtractor):
    """Needs weights to say what its columns are."""

    def columns(self) -> list[str]:
        batch = self.vlm.encode([Sample("x", "?")])
        self.vlm.forward(batch)
        return super().columns()


class Anything(ActivationExtractor):
    """Takes any site for one of its own."""

    def columns(self) -> list[str]:
        return ["llm.block.0/last"]


HANDLES: list[object] = []

MISTAKES: Sequence[tuple[type[ActivationExtractor], str]] = [
    (Sorted, "rows_are_in_batch_order"),
    (OneForAll, "samples_are_told_apart"),
    (Centered, "batch_equals_single"),
    (Forgetful, "columns_are_as_promised"),
    (Doubles, "values_can_be_stored"),
    (Wider, "form_is_kept"),
    (Warming, "batches_do_not_meddle"),
    (Reused, "batches_do_not_meddle"),
    (Hooked, "the_model_is_left_as_it_was"),
    (Computing, "columns_are_known_without_weights"),
    (Anything, "unknown_sites_are_refused"),
    (Warming, "shared_beginnings"),
]


@pytest.mark.parametrize(("mistake", "check"), MISTAKES)
def test_a_deliberate_mistake_is_caught(mistake: type[ActivationExtractor], check: str) -> None:
    kit = type("Kit", (checks.ActivationChecks,), {"plugin": mistake})
    try:
        result = kit().run_check(check)
    finally:
        while HANDLES:
            HANDLES.pop().remove()  # type: ignore[attr-defined]
    assert result.outcome == "failed", result
    if mistake is not Computing:
        assert result.detail.startswith("CheckFailed"), result
