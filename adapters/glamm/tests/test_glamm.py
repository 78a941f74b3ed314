"""GLaMM: the conformance kit, its sites, when the grounding encoder runs, masks in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vlmlens.abc import Batch
from vlmlens.abc.adapter import LoadRequest
from vlmlens.errors import DataError, SiteNotFound, SiteShapeError, SiteSilent
from vlmlens.passes.tracing import hooked
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._painting import paint_cells, painted_is_changed, still
from vlmlens.testing._rounding import close
from vlmlens.testing.tiny import picture
from vlmlens.tokens import AxisLayout, TokenKind
from vlmlens_adapter_glamm.adapter import GlammAdapter
from vlmlens_adapter_glamm.checks import GlammChecks, GlammEagerChecks
from vlmlens_adapter_glamm.masks import mask_logits

DATA = Path(__file__).parent / "data" / "glamm"
SAM = "model.grounding_encoder"
TWO_MASKS = "Sure, <p> it </p> [SEG] and <p> that </p> [SEG]."


class TestGlamm(GlammChecks):
    pass


class TestGlammEager(GlammEagerChecks):
    pass


@cache
def tiny() -> GlammAdapter:
    vlm = GlammChecks().vlm
    assert isinstance(vlm, GlammAdapter)
    return vlm


@cache
def golden() -> GlammAdapter:
    """With the goldens' weights the model writes tokens that ask for masks."""
    return GlammAdapter.load(LoadRequest(model=str(DATA), device="cpu", dtype="float32"))


def samples() -> list[Sample]:
    sizes = ((64, 48), (40, 88), (64, 64))
    prompts = ("What is this?", "Segment the largest thing, please:", "Hm?")
    return [
        Sample(f"s{i}", prompt, (picture(*size, seed=i),))
        for i, (prompt, size) in enumerate(zip(prompts, sizes, strict=True))
    ]


def runs(vlm: GlammAdapter, batch: Batch, path: str, watched: Sequence[str]) -> int:
    """How often a module runs in a pass in which some sites are watched."""
    calls: list[int] = []
    module = vlm.module.get_submodule(path)
    right = module.forward

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return right(*args, **kwargs)

    module.forward = counted  # type: ignore[method-assign]
    try:
        sites = [site for pattern in watched for site in vlm.sites.resolve(pattern)]
        with torch.inference_mode(), hooked(vlm.module, sites, lambda site, activation: None):
            vlm.forward(batch)
    finally:
        del module.forward
    return len(calls)


# ---------------------------------------------------------------------- when grounding runs


@pytest.mark.parametrize(
    ("watched", "encoders", "projections"),
    [
        ([], 0, 0),
        (["llm.block.*", "vision.block.*", "projector"], 0, 0),
        (["grounding.projector"], 0, 1),
        (["grounding.block.1"], 1, 0),
        ([f"{SAM}.image_encoder.blocks.0.attn.qkv"], 1, 0),
        ([f"{SAM}.mask_decoder"], 1, 1),
    ],
)
def test_grounding_runs_where_it_is_watched(
    watched: list[str], encoders: int, projections: int
) -> None:
    vlm = tiny()
    batch = vlm.encode(samples()[:1], answers=["[SEG]"])
    assert runs(vlm, batch, f"{SAM}.vision_encoder", watched) == encoders
    assert runs(vlm, batch, "model.text_hidden_fcs.0", watched) == projections


def test_a_pass_is_the_same_with_and_without_grounding() -> None:
    vlm, batch = tiny(), tiny().encode(samples())
    plain = vlm.trace(batch, ["llm.block.1"], logits="all")
    watched = vlm.trace(batch, ["llm.block.1", "grounding.block.0"], logits="all")
    assert plain.logits is not None
    assert watched.logits is not None
    assert torch.equal(plain.logits, watched.logits)
    assert torch.equal(plain["llm.block.1"], watched["llm.block.1"])


def test_a_mask_decoder_without_a_mask_to_draw_is_silent() -> None:
    vlm = tiny()
    for path in (f"{SAM}.mask_decoder", f"{SAM}.prompt_encoder", "model.region_encoder"):
        with pytest.raises(SiteSilent, match="did not run"):
            vlm.trace(vlm.encode(samples()[:1]), [path])
    with pytest.raises(SiteSilent, match="did not run"):
        vlm.trace(vlm.encode([Sample("t", "Hello")]), ["grounding.block.0"])


def test_the_mask_decoder_runs_once_per_image_with_a_mask() -> None:
    vlm = tiny()
    batch = vlm.encode(samples(), answers=["[SEG]", "no", TWO_MASKS])
    site = f"{SAM}.mask_decoder"
    with pytest.raises(SiteSilent, match="ran 2 times"):
        vlm.trace(batch, [site])
    trace = vlm.trace(batch, [f"{site}#0", f"{site}#1"])
    assert [found.shape[:3] for found in trace.values()] == [(1, 1, 1), (1, 2, 1)]


# ---------------------------------------------------------------------- sites


LEGACY = {
    "model.layers.1.post_attention_layernorm": "llm.block.1.post_attention_layernorm",
    "model.norm": "llm.norm",
    "model.embed_tokens": "llm.embed",
    "lm_head": "llm.head",
    "model.mm_projector": "projector",
    "model.mm_projector.2": "projector.2",
    "model.vision_tower.vision_tower.vision_model.encoder.layers.3": "vision.block.3",
    "model.vision_tower.vision_tower.vision_model.encoder.layers.3.mlp.fc1": (
        "vision.block.3.mlp.fc1"
    ),
    f"{SAM}.image_encoder": f"{SAM}.vision_encoder",
    f"{SAM}.image_encoder.blocks.1": "grounding.block.1",
    f"{SAM}.image_encoder.blocks.1.norm2": "grounding.block.1.layer_norm2",
    f"{SAM}.image_encoder.neck.3": f"{SAM}.vision_encoder.neck.layer_norm2",
    f"{SAM}.image_encoder.patch_embed.proj": f"{SAM}.vision_encoder.patch_embed.projection",
    f"{SAM}.mask_decoder.transformer.layers.1.norm4": (
        f"{SAM}.mask_decoder.transformer.layers.1.layer_norm4"
    ),
    f"{SAM}.mask_decoder.transformer.norm_final_attn": (
        f"{SAM}.mask_decoder.transformer.layer_norm_final_attn"
    ),
    f"{SAM}.mask_decoder.output_upscaling.1": f"{SAM}.mask_decoder.upscale_layer_norm",
    f"{SAM}.mask_decoder.iou_prediction_head.layers.2": (
        f"{SAM}.mask_decoder.iou_prediction_head.proj_out"
    ),
    f"{SAM}.mask_decoder.output_hypernetworks_mlps.3.layers.0": (
        f"{SAM}.mask_decoder.output_hypernetworks_mlps.3.proj_in"
    ),
    "model.text_hidden_fcs.0": "grounding.projector",
    "model.text_hidden_fcs.0.2": "grounding.projector.2",
    "model.region_encoder.roi_align.updims": "model.region_encoder.roi_align.updims",
}


@pytest.mark.parametrize("path", list(LEGACY))
def test_upstreams_paths(path: str) -> None:
    (site,) = tiny().sites.resolve(path)
    assert site.name == LEGACY[path]


def test_a_path_that_means_another_module_here_is_not_found() -> None:
    """Upstream's second layer of SAM's small networks is transformers' `layers.0`."""
    head = f"{SAM}.mask_decoder.iou_prediction_head"
    assert head + ".layers.0" in dict(tiny().module.named_modules())
    (site,) = tiny().sites.resolve(head + ".layers.0")
    assert site.path == head + ".proj_in"
    with pytest.raises(SiteNotFound):
        tiny().sites.resolve(head + ".layers.1")


@pytest.mark.parametrize(
    "path",
    [
        f"{SAM}.mask_decoder.transformer.layers.0",
        f"{SAM}.prompt_encoder",
        f"{SAM}.shared_image_embedding",
        "model.region_encoder.roi_align",
    ],
)
def test_rows_of_objects_and_boxes_belong_to_no_axis(path: str) -> None:
    (site,) = tiny().sites.resolve(path)
    assert site.axis not in tiny().encode(samples()).layouts


def test_no_selector_takes_rows_in_another_order() -> None:
    """Windows stand in an order of their own, the neck's channels come first."""
    vlm = tiny()
    names = [f"{SAM}.image_encoder.blocks.0.attn", f"{SAM}.image_encoder.neck"]
    trace = vlm.trace(vlm.encode(samples()[:2]), names)
    for name in trace:
        with pytest.raises(SiteShapeError):
            trace.select(f"{name}/image.mean")


def test_widths_of_the_grounding_sites() -> None:
    widths = tiny().widths()
    for pattern, width in (("grounding.block.1", 24), ("grounding.projector", 16)):
        (site,) = tiny().sites.resolve(pattern)
        assert widths[site.path] == width


# ---------------------------------------------------------------------- layouts


def grounding_layout(batch: Batch) -> AxisLayout:
    (layout,) = batch.layouts[Axis.VISION].others
    return layout


def test_the_padding_of_the_grounding_image_is_no_image() -> None:
    layout = grounding_layout(tiny().encode(samples()))
    assert layout.total == 3 * 64
    counts = [int((one.kinds == TokenKind.IMAGE).sum()) for one in layout.samples]
    assert counts == [6 * 8, 8 * 4, 64]
    for one, count in zip(layout.samples, counts, strict=True):
        assert one.patches is not None
        assert len(one.patches) == count
        assert set(one.patches.view) == {"grounding"}
    first = layout.samples[0].patches
    assert first is not None
    np.testing.assert_allclose(first.box[0], [0, 0, 1 / 8, 1 / 6], atol=1e-6)
    np.testing.assert_allclose(first.box[-1], [7 / 8, 5 / 6, 1, 1], atol=1e-6)


@pytest.mark.parametrize("size", [(64, 48), (40, 88), (64, 64)])
def test_the_grounding_layout_is_where_the_image_is(size: tuple[int, int]) -> None:
    vlm = GlammChecks().load()
    still(vlm)
    with torch.no_grad():
        vlm.module.model.grounding_encoder.vision_encoder.pos_embed.zero_()
    plain = picture(*size)
    _, cells = paint_cells(vlm, plain, Axis.VISION)
    assert cells
    for cell, painted in cells:
        rows = []
        for image in (plain, painted):
            batch = vlm.encode([Sample("p", "?", (image,))])
            layout = grounding_layout(batch).samples[0]
            found = vlm.trace(batch, ["grounding.block.0"])["grounding.block.0"]
            rows.append(found.reshape(-1, 24)[layout.rows[layout.kinds == TokenKind.IMAGE]])
        moved = (rows[0] - rows[1]).norm(dim=1)
        changed = torch.nonzero(moved > 1e-4)[:, 0].tolist()
        assert layout.patches is not None
        assert not painted_is_changed(layout.patches, cell, changed)


def test_text_alone_has_no_lead_in_about_a_picture() -> None:
    vlm = tiny()
    ids = vlm.encode([Sample("t", "Hello")]).layout(0).token_ids
    assert ids is not None
    assert "picture" not in vlm.decode(ids.tolist())
    assert "USER: Hello ASSISTANT:" in vlm.decode(ids.tolist())


@pytest.mark.parametrize("prompt", ["Look at <image>, please", "<image> <image>", "What? <image>"])
def test_a_placeholder_in_the_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(DataError, match="<image>"):
        tiny().encode([replace(samples()[0], prompt=prompt)])


def test_two_images_are_refused() -> None:
    two = Sample("two", "?", (picture(8, 8), picture(8, 8)))
    with pytest.raises(DataError, match="2 images"):
        tiny().encode([two])


# ---------------------------------------------------------------------- masks


def test_masks_of_a_batch_are_those_of_each_sample() -> None:
    vlm = golden()
    shown = [*samples(), Sample("text", "Draw [SEG]!")]
    answers = [TWO_MASKS, "nothing", "[SEG]", "[SEG]"]
    together = vlm.mask_logits(vlm.encode(shown, answers=answers))
    assert [None if one is None else tuple(one.shape) for one in together] == [
        (2, 48, 64), (0, 88, 40), (1, 64, 64), None,
    ]  # fmt: skip
    for sample, answer, found in zip(shown, answers, together, strict=True):
        (alone,) = vlm.mask_logits(vlm.encode([sample], answers=[answer]))
        assert (alone is None) == (found is None)
        if alone is not None and found is not None:
            close(found, alone)
    first = together[0]
    assert first is not None
    assert float((first[0] - first[1]).abs().max()) > 1e-3


def test_drawing_masks_runs_each_part_once() -> None:
    vlm = golden()
    batch = vlm.encode(samples()[:1], answers=[TWO_MASKS])
    paths = ["model.text_hidden_fcs.0", f"{SAM}.vision_encoder", f"{SAM}.mask_decoder"]
    sites = [site for path in paths for site in vlm.sites.resolve(path)]
    seen: dict[str, torch.Tensor] = {}
    with hooked(vlm.module, sites, lambda site, found: seen.update({site.name: found})):
        vlm.mask_logits(batch)
    trace = vlm.trace(batch, sites)
    assert all(torch.equal(seen[name], trace[name]) for name in trace)


def questions() -> list[Sample]:
    """After the first and the last, the goldens' model writes tokens that ask for masks."""
    prompts = (
        "Can you segment the red circle in this image?",
        "What is this?",
        "Where is the dog, and where the cat?",
    )
    image = Image.open(DATA / "image.png")
    return [Sample(f"q{i}", prompt, (image,)) for i, prompt in enumerate(prompts)]


def states_while_writing(vlm: GlammAdapter, batch: Batch, steps: int) -> torch.Tensor:
    """What each step of `generate` predicts its token from, `[samples, steps, width]`."""
    with torch.inference_mode():
        output = vlm.module.generate(  # type: ignore[operator]
            **batch.inputs, max_new_tokens=steps, do_sample=False, pad_token_id=0,
            output_hidden_states=True, return_dict_in_generate=True,
        )  # fmt: skip
    return torch.cat([states[-1][:, -1:] for states in output.hidden_states], 1)


def test_generated_masks_come_from_the_steps_that_write_their_tokens() -> None:
    """As upstream's evaluate does it: out of the generating passes themselves."""
    vlm, steps = golden(), 24
    batch = vlm.encode(questions())
    written = vlm.generate(batch, max_new_tokens=steps)
    seg = vlm.config.seg_token_id
    counts = [one.token_ids.count(seg) for one in written]
    assert [count > 0 for count in counts] == [True, False, True]
    states = states_while_writing(vlm, batch, steps)
    body = vlm.module.model
    with torch.inference_mode():
        asked = body.text_hidden_fcs[0](states)  # type: ignore[union-attr, index]
        images = body.images(batch.inputs["grounding_pixel_values"])  # type: ignore[union-attr, operator]
    for i, one in enumerate(written):
        assert one.masks is not None
        assert one.masks.shape == (counts[i], 83, 131)
        if not counts[i]:
            continue
        prompts = asked[i][: len(one.token_ids)][torch.tensor(one.token_ids) == seg]
        with torch.inference_mode():
            decoded = body.decoded(images[i : i + 1], prompts)  # type: ignore[union-attr, operator]
        logits = mask_logits(decoded, 64, (41, 64), (83, 131))
        sure = logits.abs() > 1e-4
        assert float(sure.float().mean()) > 0.99
        assert torch.equal((logits > 0)[sure], torch.from_numpy(one.masks)[sure])


def test_a_written_text_keeps_phrases_and_mask_tokens() -> None:
    (written,) = golden().generate(golden().encode(samples()[:1]), max_new_tokens=12)
    assert written.text.count("[SEG]") == written.token_ids.count(golden().config.seg_token_id)
    ids = golden().answer_ids("<p> red circle </p> [SEG]")
    text = golden().tokenizer.decode(ids, skip_special_tokens=True)
    assert text.replace(" ", "") == "<p>redcircle</p>[SEG]"


def test_padding_on_the_right_gives_the_same_states() -> None:
    vlm = tiny()
    single = vlm.encode(samples()[:1])
    ids, mask = single.inputs["input_ids"], single.inputs["attention_mask"]
    padded = {
        "input_ids": torch.cat([ids, ids.new_zeros(1, 3)], 1),
        "attention_mask": torch.cat([mask, mask.new_zeros(1, 3)], 1),
    }
    with torch.inference_mode():
        alone = vlm.module(**single.inputs).logits
        right = vlm.module(**{**single.inputs, **padded}).logits
    close(right[:, :-3], alone)
