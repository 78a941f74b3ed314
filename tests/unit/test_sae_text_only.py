"""The analysis `sae` on a language model without images: nothing asks for image rows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import transformers as t

import vlmlens
from vlmlens.abc import AnalysisContext
from vlmlens.samples import Sample
from vlmlens.testing import Planted
from vlmlens.testing.analysis import _stored
from vlmlens.testing.tiny import byte_tokenizer, save, small_text
from vlmlens_plugins.analysis.sae import SaeAnalysis
from vlmlens_plugins.analysis.sae.options import SaeOptions

SAMPLES = [
    Sample(f"s{i}", f"Is {i} odd?", label="ab"[i % 2], choices=("a", "b"), task="t", group=f"g{i}")
    for i in range(24)
]


def test_all_rows_of_a_model_without_images(tmp_path: Path) -> None:
    tokens = byte_tokenizer(["<s>"], bos="<s>", eos="<s>", pad="<s>", unk="<s>")
    save(tmp_path / "model", t.LlamaForCausalLM(t.LlamaConfig(**small_text(tokens))), tokens)
    vlm = vlmlens.load("lm", str(tmp_path / "model"), device="cpu")
    analysis = SaeAnalysis(
        SaeOptions(
            rows=600, batch=64, seeds=1, pages=2, effects=0, draws=100, permutations=99, loss="on"
        )
    )
    analysis.check_model(vlm, SAMPLES, ())
    with _stored(Planted(SAMPLES, {})) as store:
        result = analysis.run(
            AnalysisContext(SAMPLES, store, cache(lambda: vlm), folder=tmp_path / "results")
        )
    (loss,) = [table for table in result.tables if table.name == "sae-loss"]
    assert set(loss.columns["rows"]) == {"all"}
    assert result.figures[0].pages[0].samples[0].tokens
