"""Every column equals an independent computation at batch size 1, to 1e-5 in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from vlmlens.abc import Options, Values
from vlmlens.errors import MissingAnnotation, SiteShapeError
from vlmlens.samples import Sample
from vlmlens.testing import _rounding as rounding
from vlmlens.tokens import TokenKind
from vlmlens_plugins.extract.activations import ActivationExtractor


def extract(vlm: Any, samples: list[Sample], *columns: str) -> dict[str, Values]:
    extractor = ActivationExtractor(vlm, columns, Options())
    return dict(extractor.extract(vlm.encode(samples)))


def alone(vlm: Any, sample: Sample) -> dict[str, Any]:
    """Processor and model of transformers itself, one unpadded sample, no code of ours."""
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
    assert encoded["attention_mask"].all()
    with torch.inference_mode():
        output = vlm.module(**encoded, output_hidden_states=True)
        vision = None
        if sample.images:
            tower = vlm.module.model.vision_tower
            vision = tower(encoded["pixel_values"], output_hidden_states=True).hidden_states
    return {
        "ids": encoded["input_ids"][0],
        "hidden": output.hidden_states,
        "vision": vision,
        "images": output.image_hidden_states,
        "logits": output.logits,
    }


@pytest.fixture(scope="module")
def mixed(scenes: list[Sample]) -> list[Sample]:
    """Prompts of different lengths: the batch is padded."""
    long = "Please look closely and tell me, in one word, the color of the main object:"
    return [*scenes[:4], Sample("long", long, scenes[7].images)]


def test_language_blocks_equal_hidden_states(vlm: Any, mixed: list[Sample]) -> None:
    values = extract(
        vlm,
        mixed,
        "llm.block.*/last",
        "llm.block.*/image.mean",
        "llm.block.*/all",
        "llm.norm/last",
        "llm.block.*/text[2:5].mean",
    )
    lengths = set()
    for i, sample in enumerate(mixed):
        reference = alone(vlm, sample)
        lengths.add(len(reference["ids"]))
        image = reference["ids"] == vlm.image_token_id
        special = torch.isin(reference["ids"], torch.tensor(sorted(vlm.special_ids)))
        text = torch.nonzero(~image & ~special)[:, 0][2:5]
        for layer in range(5):  # the last entry of hidden_states is normed already
            hidden = reference["hidden"][layer + 1][0]
            close(values[f"llm.block.{layer}/last"], i, hidden[-1:])
            close(values[f"llm.block.{layer}/image.mean"], i, hidden[image].mean(0, keepdim=True))
            close(values[f"llm.block.{layer}/all"], i, hidden)
            close(
                values[f"llm.block.{layer}/text[2:5].mean"], i, hidden[text].mean(0, keepdim=True)
            )
        close(values["llm.norm/last"], i, reference["hidden"][-1][0, -1:])
    assert len(lengths) > 1, "the batch was not padded, so the test would prove nothing"


def test_the_last_block_equals_a_plain_hook(vlm: Any, mixed: list[Sample]) -> None:
    values = extract(vlm, mixed, "llm.block.5/last")["llm.block.5/last"]
    kept: list[torch.Tensor] = []
    handle = vlm.module.model.language_model.layers[5].register_forward_hook(
        lambda module, args, output: kept.append(output)
    )
    for sample in mixed:
        alone(vlm, sample)
    handle.remove()
    for i, hidden in enumerate(kept):
        close(values, i, hidden[0, -1:])


def test_vision_side_equals_the_tower_alone(vlm: Any, mixed: list[Sample]) -> None:
    values = extract(
        vlm,
        mixed,
        "vision.block.*",
        "vision.block.0/special",
        "projector/image.mean",
        "vision.block.2/image",
    )
    for i, sample in enumerate(mixed):
        reference = alone(vlm, sample)
        for layer in range(4):
            patches = reference["vision"][layer + 1][0, 1:]
            close(values[f"vision.block.{layer}/image.mean"], i, patches.mean(0, keepdim=True))
        close(values["vision.block.2/image"], i, reference["vision"][3][0, 1:])
        close(values["vision.block.0/special"], i, reference["vision"][1][0, :1])
        features = reference["images"].reshape(-1, reference["images"].shape[-1])
        close(values["projector/image.mean"], i, features.mean(0, keepdim=True))


def test_the_head_gives_logits(vlm: Any, mixed: list[Sample]) -> None:
    values = extract(vlm, mixed, "llm.head/last")["llm.head/last"]
    for i, sample in enumerate(mixed):
        close(values, i, alone(vlm, sample)["logits"][0, -1:])


def test_sub_modules_and_raw_paths_are_columns(vlm: Any, mixed: list[Sample]) -> None:
    raw = "model.language_model.layers.2.mlp.down_proj"
    values = extract(vlm, mixed, "llm.block.2.mlp.down_proj/last", f"{raw}/last")
    assert list(values) == ["llm.block.2.mlp.down_proj/last"], "one place has one name"


def test_a_mean_over_padding_would_be_caught(vlm: Any, mixed: list[Sample]) -> None:
    """The same comparison with a wrong pooling fails: the tolerance means something."""
    batch = vlm.encode(mixed)
    trace = vlm.trace(batch, ["llm.block.3"])
    wrong = trace["llm.block.3"].mean(1)
    padded = int(batch.inputs["attention_mask"].sum(1).argmin())
    right = alone(vlm, mixed[padded])["hidden"][4][0].mean(0)
    assert (wrong[padded] - right).abs().max() > 100 * rounding.ROUNDING * right.abs().max()


def test_two_images_and_none_share_a_batch(vlm: Any, scenes: list[Sample]) -> None:
    two = Sample("two", "Number of objects:", (scenes[0].images[0], scenes[5].images[0]))
    none = Sample("none", "Number of objects:")
    samples = [scenes[2], two, none]
    values = extract(vlm, samples, "llm.block.2/last")["llm.block.2/last"]
    for i, sample in enumerate(samples):
        close(values, i, alone(vlm, sample)["hidden"][3][0, -1:])
    layout = vlm.encode(samples).layout(1)
    assert len(layout.positions(TokenKind.IMAGE)) == len(layout.patches) == 128
    assert set(layout.patches.image) == {0, 1}


def test_samples_without_an_image_are_refused_early(vlm: Any, scenes: list[Sample]) -> None:
    none = Sample("none", "Number of objects:")
    extractor = ActivationExtractor(vlm, ["vision.block.0"], Options())
    extractor.check(scenes[:2])
    with pytest.raises(MissingAnnotation, match="1 of 3 samples have none"):
        extractor.check([*scenes[:2], none])
    ActivationExtractor(vlm, ["llm.block.0/last"], Options()).check([none])


def test_a_pooled_output_is_refused(vlm: Any, scenes: list[Sample]) -> None:
    """CLIP's post_layernorm sees the CLS token alone: no row per patch."""
    with pytest.raises(SiteShapeError, match="2 rows, but the vision axis has 130"):
        extract(vlm, scenes[:2], "model.vision_tower.post_layernorm/all")


def close(values: Values, i: int, expected: torch.Tensor) -> None:
    got = values.per_sample()[i]
    assert got.shape == tuple(expected.shape)
    rounding.close(got, expected)
