"""The conformance kit on tiny InternLM-XComposers 2.5, without and with the branches of a mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.manifest import Manifest
from vlmlens.testing import AdapterTests
from vlmlens.testing.tiny import write_checkpoint_files
from vlmlens_adapter_internlm_xcomposer.manifest import MANIFEST

_PIECES = "tokenizer.model"


class XComposerChecks(AdapterTests):
    """Mode "base"; the samples' lengths lie on both sides of where rotary scaling begins."""

    manifest: ClassVar[Manifest] = MANIFEST
    values: ClassVar[Mapping[str, Any]] = {}

    def build(self, folder: Path) -> None:
        """See `AdapterTests.build`."""
        import sentencepiece

        from vlmlens_adapter_internlm_xcomposer.tiny import tiny_config, tiny_pieces, tiny_weights

        pieces = tiny_pieces()
        (folder / _PIECES).write_bytes(pieces)
        count = sentencepiece.SentencePieceProcessor(model_proto=pieces).get_piece_size()
        config = tiny_config(count, **self.values)
        write_checkpoint_files(folder, tiny_weights(config), config=config)


class XComposerWriteChecks(XComposerChecks):
    """Mode "write", biases, and rotary positions that are divided."""

    values: ClassVar[Mapping[str, Any]] = {
        "bias": True,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    }

    def load(self, **settings: Any) -> Any:
        """See `AdapterTests.load`."""
        from vlmlens_adapter_internlm_xcomposer.adapter import XComposerOptions

        return super().load(**{"options": XComposerOptions(infer_mode="write"), **settings})


CHECKS = (XComposerChecks, XComposerWriteChecks)
