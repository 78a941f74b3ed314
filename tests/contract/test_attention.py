"""The attention extractor on the demo model: what a row means, and that mistakes are seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import vlmlens
from vlmlens.abc import Batch, LoadRequest
from vlmlens.errors import (
    CompositionError,
    MissingAnnotation,
    SiteShapeError,
    SiteSilent,
    SpecError,
)
from vlmlens.registry import Registry
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._rounding import close
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind
from vlmlens_plugins.demo.adapter import DemoAdapter
from vlmlens_plugins.extract._weights import Reading, weights_of
from vlmlens_plugins.extract.attention import AttentionExtractor, AttentionOptions

TOLERANCE = 1e-5
"""84 eps of a whole: weights are at most 1."""
HEADS = 4
PATCHES = 64
COLUMNS = ("llm.block.*.attn/last", "llm.block.2.attn/all", "llm.block.4.attn/text[-3:].mean")


@pytest.fixture(scope="module")
def eager() -> Any:
    return vlmlens.load("demo", device="cpu", attention="eager")


@pytest.fixture(scope="module")
def mixed(scenes: list[Sample]) -> list[Sample]:
    """Prompts of different lengths: the batch is padded."""
    long = "Please look closely and tell me, in one word, the color of the main object:"
    return [*scenes[:3], Sample("long", long, scenes[7].images)]


def extractor(vlm: Any, *columns: str, **options: Any) -> AttentionExtractor:
    chosen = Registry.default().options(AttentionExtractor, options)
    return AttentionExtractor(vlm, columns or COLUMNS, chosen)


def truth(vlm: Any, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """transformers' own weights `[layers, heads, queries, keys]` of one unpadded sample, and kinds.

    Processor and model of transformers itself, no code of ours.
    """
    content = [{"type": "image", "image": image} for image in sample.open_images()]
    content.append({"type": "text", "text": sample.prompt})
    text = vlm.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    encoded = vlm.processor(
        text=text,
        images=sample.open_images() or None,
        return_tensors="pt",
        add_special_tokens=not text.startswith("<s>"),
    )
    with torch.inference_mode():
        output = vlm.module(**encoded, output_attentions=True)
    ids = encoded["input_ids"][0].numpy()
    kinds = np.where(np.isin(ids, sorted(vlm.special_ids)), TokenKind.SPECIAL, TokenKind.TEXT)
    kinds[ids == vlm.image_token_id] = TokenKind.IMAGE
    return torch.cat(output.attentions).numpy(), kinds


def by_region(weights: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """`[..., queries, heads * 3]` of `[..., heads, queries, keys]`."""
    wanted = (TokenKind.IMAGE, TokenKind.TEXT, TokenKind.SPECIAL)
    sums = np.stack([weights[..., kinds == kind].sum(-1) for kind in wanted], -1)
    moved = np.moveaxis(sums, -3, -2)
    return moved.reshape(*moved.shape[:-2], -1)


def disagreement(vlm: Any, samples: list[Sample], reading: Reading | None = None) -> float:
    """How far the columns of a padded batch are from transformers' own weights of each sample."""
    made = extractor(vlm)
    if reading is not None:
        made._reading = lambda: reading  # type: ignore[method-assign]
    values = made.extract(vlm.encode(samples))
    worst = 0.0
    for number, sample in enumerate(samples):
        weights, kinds = truth(vlm, sample)
        expected = {f"llm.block.{i}.attn/last": by_region(weights[i], kinds)[-1:] for i in range(6)}
        expected["llm.block.2.attn/all"] = by_region(weights[2], kinds)
        text = np.flatnonzero(kinds == TokenKind.TEXT)[-3:]
        of_text = by_region(weights[4], kinds)[text]
        expected["llm.block.4.attn/text[-3:].mean"] = of_text.mean(0, keepdims=True)
        assert set(expected) == set(values)
        for name, right in expected.items():
            found = values[name].per_sample()[number]
            same = found.shape == right.shape
            worst = max(worst, float(np.abs(found - right).max()) if same else np.inf)
    return worst


def test_columns_equal_output_attentions(eager: Any, mixed: list[Sample]) -> None:
    assert len({len(layout) for layout in eager.encode(mixed).layouts[Axis.LLM].samples}) > 1
    assert disagreement(eager, mixed) <= TOLERANCE


class Shifted(Reading):
    """Takes the key after the right one."""

    def __call__(self, weights: Any, *rest: Any) -> Any:
        return super().__call__(weights.roll(1, -1), *rest)


class IgnoresTheMask(DemoAdapter):
    """Looks at padding, and knows that it belongs to nobody."""

    def encode(self, samples: Any, **settings: Any) -> Batch:
        batch = super().encode(samples, **settings)
        mask = batch.inputs["attention_mask"]
        return replace(batch, inputs={**batch.inputs, "attention_mask": torch.ones_like(mask)})


class PaddingIsText(DemoAdapter):
    """Masks padding, and counts it as text of the sample."""

    def sequence_layouts(self, inputs: Any, *rest: Any) -> Any:
        whole = {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}
        return super().sequence_layouts(whole, *rest)


class LooksAtPadding(PaddingIsText, IgnoresTheMask):
    """Both: the weights sum to 1, over what is not the sample's."""


def test_shifted_keys_are_caught(eager: Any, mixed: list[Sample]) -> None:
    """Alone, where no padding is hit, the sums stay 1: only the comparison sees it."""
    regions = (TokenKind.IMAGE, TokenKind.TEXT, TokenKind.SPECIAL)
    assert disagreement(eager, mixed[:1], Shifted(None, regions)) > 0.1


@pytest.mark.parametrize("adapter", [PaddingIsText, LooksAtPadding])
def test_padding_counted_as_text_is_caught(adapter: Any, mixed: list[Sample]) -> None:
    vlm = adapter.load(LoadRequest(device="cpu", attention="eager"))
    assert disagreement(vlm, mixed[:1]) <= TOLERANCE
    assert disagreement(vlm, mixed) > 0.1


def test_weights_on_padding_are_refused(mixed: list[Sample]) -> None:
    vlm = IgnoresTheMask.load(LoadRequest(device="cpu", attention="eager"))
    with pytest.raises(SiteShapeError, match="not probabilities over the query's own sample"):
        extractor(vlm).extract(vlm.encode(mixed))


def test_features_are_heads_by_regions_in_the_order_given(eager: Any, mixed: list[Sample]) -> None:
    column = "llm.block.3.attn/last"
    batch = eager.encode(mixed)
    whole = extractor(eager, column).extract(batch)[column].array
    assert whole.shape == (len(mixed), HEADS * 3)
    close(whole.reshape(-1, HEADS, 3).sum(-1), 1)
    some = extractor(eager, column, heads=[3, 0], regions=["text", "image"])
    found = some.extract(batch)[column].array.reshape(-1, 2, 2)
    np.testing.assert_array_equal(found, whole.reshape(-1, HEADS, 3)[:, [3, 0]][:, :, [1, 0]])
    assert len(np.unique(found)) == found.size


def test_patches_sum_to_the_image(eager: Any, mixed: list[Sample]) -> None:
    column = "llm.block.1.attn/last"
    batch = eager.encode(mixed)
    each = extractor(eager, column, heads=[2, 0], regions="patches").extract(batch)[column]
    image = extractor(eager, column, heads=[2], regions="image").extract(batch)[column].array
    assert each.lengths == (PATCHES,) * len(mixed)
    close(np.stack(each.per_sample())[..., 0].sum(1), image[:, 0], scale=1)
    weights, kinds = truth(eager, mixed[-1])
    right = weights[1][[2, 0], -1][:, kinds == TokenKind.IMAGE]
    close(each.per_sample()[-1], right.T, scale=1)


def test_a_tower_of_several_images(eager: Any, scenes: list[Sample]) -> None:
    """A patch attends to its own image only; the sample's other image gets nothing."""
    pair = (*scenes[0].images, *scenes[5].images)
    sample = Sample("pair", "Which is larger?", pair)
    column = "vision.block.1.attn/image[:64]"
    made = extractor(eager, column, regions="patches")
    values = made.extract(eager.encode([sample]))[column].array.reshape(64, HEADS, 2, PATCHES)
    assert values[:, :, 0].min() > 0
    assert np.abs(values[:, :, 1]).max() == 0


def test_text_alone_pays_nothing_to_images(eager: Any) -> None:
    column = "llm.block.0.attn/last"
    sample = Sample("text", "What color is the sky?")
    made = extractor(eager, column)
    made.check([sample])
    found = made.extract(eager.encode([sample]))[column].array.reshape(HEADS, 3)
    assert found[:, 0].max() == 0
    close(found.sum(1), 1)
    for wrong in (
        extractor(eager, column, regions="patches"),
        extractor(eager, "llm.block.0.attn/image"),
        extractor(eager, "vision.block.0.attn"),
    ):
        with pytest.raises(MissingAnnotation, match="needs images"):
            wrong.check([sample])


def test_half_precision(mixed: list[Sample]) -> None:
    """Sums are float32, single weights as they are computed, to half an eps of themselves."""
    vlm = vlmlens.load("demo", device="cpu", attention="eager", dtype="bfloat16")
    batch, column = vlm.encode(mixed), "llm.block.3.attn/last"
    sums = extractor(vlm, column).extract(batch)[column]
    assert sums.dtype == "float32"
    half = torch.finfo(torch.bfloat16).eps
    np.testing.assert_allclose(sums.array.reshape(-1, HEADS, 3).sum(-1), 1, atol=half)
    assert extractor(vlm, column, regions="patches").extract(batch)[column].dtype == "bfloat16"


def test_default_columns(eager: Any) -> None:
    made = AttentionExtractor(eager, (), AttentionOptions())
    assert made.columns() == [f"llm.block.{i}.attn/last" for i in range(6)]


def test_a_missing_weight_is_never_silent(vlm: Any, scenes: list[Sample]) -> None:
    with pytest.raises(CompositionError, match="'sdpa' attention, which does not give any"):
        extractor(vlm).check(scenes)
    with pytest.raises(SiteSilent, match="gave no attention weights"):
        extractor(vlm).extract(vlm.encode(scenes[:1]))


@pytest.mark.parametrize("site", ["llm.block.0", "llm.block.0.mlp", "vision.block.1.attn.q_proj"])
def test_modules_that_are_no_attention(eager: Any, scenes: list[Sample], site: str) -> None:
    with pytest.raises(SiteSilent, match="no attention weights"):
        extractor(eager, f"{site}/last").extract(eager.encode(scenes[:1]))


def test_the_position_bias_of_t5_is_not_taken_for_weights(eager: Any) -> None:
    (site,) = eager.sites.resolve("llm.block.0.attn")
    hidden, bias, weights = torch.zeros(1, 5, 8), torch.ones(1, 2, 5, 5), torch.zeros(1, 2, 5, 5)
    assert weights_of((hidden, bias, weights), site) is weights
    for silent in ((hidden, bias, None), hidden, (hidden,), (hidden, None), [hidden, hidden]):
        with pytest.raises(SiteSilent):
            weights_of(silent, site)


def test_cross_attention_is_refused(eager: Any) -> None:
    (site,) = eager.sites.resolve("llm.block.0.attn")
    layout = eager.encode([Sample("a", "Hm?")]).layouts[Axis.LLM]
    selector = extractor(eager)._columns["llm.block.0.attn/last"][1].selector
    weights = torch.full((1, 2, layout.total, 3), 1 / 3)
    with pytest.raises(SiteShapeError, match="not self-attention over"):
        AttentionOptions().reading(weights, selector, layout, site)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"heads": [0, 0]}, "each once"),
        ({"heads": []}, "at least one"),
        ({"heads": [-1]}, "numbered from 0"),
        ({"regions": []}, "at least one"),
        ({"regions": ["image", "foo"]}, "'answer', 'virtual' or 'patches'"),
        ({"regions": ["image", "patches"]}, "cannot be mixed"),
        ({"head": [1]}, "has no 'head'"),
    ],
)
def test_wrong_options(eager: Any, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SpecError, match=complaint):
        extractor(eager, **options)


def test_unknown_heads_are_found_early_and_late(eager: Any, scenes: list[Sample]) -> None:
    made = extractor(eager, heads=[0, 4])
    with pytest.raises(SpecError, match="no head 4"):
        made.check(scenes)
    with pytest.raises(SpecError, match="no head 4"):
        made.extract(eager.encode(scenes[:1]))


def test_patches_of_several_queries_need_as_many_in_every_sample() -> None:
    """Found on the skeleton, before any weight is read. Of one query, images may differ."""
    from vlmlens_adapter_qwen2vl.checks import Qwen2VLChecks

    suite = Qwen2VLChecks()
    request = LoadRequest(model=str(suite.checkpoint), device="cpu", attention="eager")
    skeleton = suite.adapter.skeleton(request)
    made = extractor(skeleton, "llm.block.*.attn/text", regions="patches")
    assert len({image.size for sample in suite.samples for image in sample.images}) > 1
    with pytest.raises(SiteShapeError, match=r"'s0' has \d+ image tokens .* 's1' \d+") as caught:
        made.check(suite.samples)
    assert "regions" in caught.value.hint
    same = [Sample(f"s{i}", "Hm?" * i, (picture(64, 48, seed=i),)) for i in range(1, 4)]
    made.check(same)
    vlm = suite.load(attention="eager")
    batch = vlm.encode(suite.samples)
    late = extractor(vlm, "llm.block.0.attn/text", regions="patches")
    with pytest.raises(SiteShapeError, match="different numbers of image tokens"):
        late.extract(batch)
    counts = [len(layout.positions(TokenKind.IMAGE)) for layout in batch.layouts[Axis.LLM].samples]
    assert len(set(counts)) > 1
    for column in ("llm.block.0.attn/last", "llm.block.0.attn/text.mean"):
        one = extractor(vlm, column, regions="patches")
        one.check(suite.samples)
        found = one.extract(batch)[column]
        assert list(found.lengths or ()) == counts
        alone = one.extract(vlm.encode(suite.samples[1:2]))[column]
        close(found.per_sample()[1], alone.array, scale=1)
