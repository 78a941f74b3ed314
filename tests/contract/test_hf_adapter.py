"""The generic adapter: the kit on five families, a control, and what it must refuse to guess."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
import transformers

from vlmlens.abc import LoadRequest, ModelAdapter
from vlmlens.errors import CheckpointError, MissingDependency, SiteShapeError
from vlmlens.hf.recurrent import carries_state
from vlmlens.hf.shared_prefix import sees_all
from vlmlens.samples import Sample
from vlmlens.testing import AdapterTests
from vlmlens.tokens import TokenKind
from vlmlens_plugins.demo.adapter import CHECKPOINT, DemoAdapter
from vlmlens_plugins.hf import checks
from vlmlens_plugins.hf.adapter import GenericAdapter

# Glm4vProcessor puts a tensor into numpy.array, of which numpy 2 warns.
COPIES = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class TestGemma3(checks.Gemma3Checks):
    pass


class TestIdefics2(checks.Idefics2Checks):
    pass


class TestIdefics3(checks.Idefics3Checks):
    pass


@COPIES
class TestGlm4v(checks.Glm4vChecks):
    pass


@COPIES
class TestQwen35(checks.Qwen35Checks):
    pass


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_carried_state_is_filled_up_on_the_right(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the left, what is put before a sample would shift the chunks of its linear attention."""
    if side == "left":
        monkeypatch.setattr(GenericAdapter, "padding_side", side)
    kit = checks.Qwen35Checks()
    vlm, samples = kit.vlm, kit.samples
    for answers in (None, ["yes", "perhaps so", "n"]):
        batch = vlm.encode(samples, answers=answers)
        width = batch.inputs["input_ids"].shape[1]
        firsts = {int(batch.layout(i).rows[0]) % width for i in range(len(samples))}
        assert (firsts == {0}) == (side == "right")


def test_convolutions_along_the_sequence_carry_a_state() -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "vocab_size": 9}
    of_conv = transformers.Lfm2Config(
        **sizes, num_hidden_layers=2, layer_types=["conv", "full_attention"]
    )
    with torch.device("meta"):
        assert carries_state(transformers.Lfm2Model(of_conv))
        plain = transformers.LlamaConfig(**sizes, num_hidden_layers=1)
        assert not carries_state(transformers.LlamaModel(plain))


def test_beginnings_are_not_shared_where_a_state_is_carried() -> None:
    assert not sees_all(checks.Qwen35Checks().vlm, 1)
    assert sees_all(checks.Idefics3Checks().vlm, 1)


@COPIES
@pytest.mark.parametrize("kit", checks.CHECKS)
def test_these_families_take_several_images_and_none(kit: type[checks.GenericChecks]) -> None:
    for name in ("several_images", "text_only"):
        result = kit().run_check(name)
        assert result.outcome == "passed", result


def _demo() -> tuple[ModelAdapter, str]:
    return DemoAdapter.load(LoadRequest(device="cpu", dtype="float32")), str(CHECKPOINT)


def _llava() -> tuple[ModelAdapter, str]:
    if importlib.util.find_spec("vlmlens_adapter_llava") is None:
        pytest.skip("vlmlens-adapter-llava is not installed")
    from vlmlens_adapter_llava.checks import LlavaChecks

    kit = LlavaChecks()
    return kit.load(), str(kit.checkpoint)


@pytest.mark.parametrize("make", [_demo, _llava])
def test_control_same_columns_as_the_familys_own_adapter(
    make: Callable[[], tuple[ModelAdapter, str]],
) -> None:
    own, folder = make()
    generic = GenericAdapter.load(LoadRequest(model=folder, device="cpu", dtype="float32"))
    samples = [*checks.Gemma3Checks().samples, Sample("none", "Hello?")]
    shared = [name for name in generic.sites.canonical if name != "llm.head"]
    assert set(generic.sites.canonical) <= set(own.sites.canonical)
    traces = [
        vlm.trace(vlm.encode(samples), shared, logits="all") for vlm in (own, generic)
    ]  # fmt: skip
    for name in shared:
        site = generic.sites.canonical[name]
        assert own.sites.canonical[name] == site
        for selector in ("all", "image", "special", "text"):
            if name.startswith(("vision", "projector")) and selector == "text":
                continue
            for i in range(len(samples)):
                pairs = [trace.batch.layouts[site.axis].samples[i] for trace in traces]
                kinds = [pair.kinds.tolist() for pair in pairs]
                assert kinds[0] == kinds[1], (name, i)
                assert pairs[0].rows.tolist() == pairs[1].rows.tolist(), (name, i)
        assert torch.equal(traces[0][name], traces[1][name])


def test_tower_rows_are_special_where_no_pixel_reaches_them() -> None:
    vlm = GenericAdapter.load(LoadRequest(model=str(CHECKPOINT), device="cpu", dtype="float32"))
    layouts = vlm.encode(checks.Gemma3Checks().samples).layouts["vision"]  # type: ignore[index]
    for layout in layouts.samples:
        assert layout.kinds[0] == TokenKind.SPECIAL
        assert (layout.kinds[1:] == TokenKind.IMAGE).all()


def test_padding_of_the_tower_belongs_to_no_sample() -> None:
    vlm = checks.Idefics2Checks().vlm
    layout = vlm.encode(checks.Idefics2Checks().samples).layouts["vision"]  # type: ignore[index]
    owned = sum(len(sample) for sample in layout.samples)
    assert owned < layout.total
    assert all((sample.kinds == TokenKind.IMAGE).all() for sample in layout.samples)


def test_it_says_that_it_is_generic() -> None:
    assert "generic" in checks.HF.help.lower()
    assert checks.Gemma3Checks().vlm.describe()["note"].startswith("generic adapter")


# ---------------------------------------------------------------------- never a guess


def _fresh(kit: type[checks.GenericChecks]) -> Any:
    return kit().load()


def _spoil(module: Any, change: Callable[[Any], Any]) -> None:
    """Let a module's forward change its output."""
    forward = module.forward

    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        del self
        return change(forward(*args, **kwargs))

    module.forward = MethodType(changed, module)


def test_a_tower_that_mixes_up_its_images_is_refused() -> None:
    kit = checks.Gemma3Checks()
    vlm = _fresh(checks.Gemma3Checks)
    _spoil(vlm.module.model.vision_tower.embeddings, lambda rows: rows.flip(0))
    batch = vlm.encode(kit.samples)
    with pytest.raises(SiteShapeError, match="alone are not its rows"):
        batch.layouts["vision"]
    assert len(vlm.trace(batch, ["llm.block.0"]).select("llm.block.0/last")) == 3
    single = vlm.encode(kit.samples[:1])
    assert len(single.layouts["vision"].samples[0]) == 16


def test_a_tower_whose_number_of_rows_depends_on_the_batch_is_refused() -> None:
    vlm = _fresh(checks.Gemma3Checks)
    embeddings = vlm.module.model.vision_tower.embeddings
    _spoil(embeddings, lambda rows: rows if len(rows) == 1 else rows[:, : 16 - len(rows)])
    batch = vlm.encode(checks.Gemma3Checks().samples)
    with pytest.raises(SiteShapeError, match=r"rows"):
        batch.layouts["vision"]


@pytest.mark.parametrize("change", [lambda rows: rows.flip(1), lambda rows: rows * 2])
def test_a_connector_that_is_not_what_the_language_model_gets_is_refused(
    change: Callable[[Any], Any],
) -> None:
    vlm = _fresh(checks.Gemma3Checks)
    inner = vlm.module.model.get_image_features

    def moved(*args: Any, **kwargs: Any) -> Any:
        output = inner(*args, **kwargs)
        output.pooler_output = change(output.pooler_output)
        return output

    vlm.module.model.get_image_features = moved
    batch = vlm.encode(checks.Gemma3Checks().samples)
    with pytest.raises(SiteShapeError, match="are not, in order"):
        batch.layouts["projector"]


def test_without_weights_nothing_is_found_out() -> None:
    kit = checks.Idefics3Checks()
    skeleton = GenericAdapter.skeleton(LoadRequest(model=str(kit.checkpoint), device="cpu"))
    batch = skeleton.encode(kit.samples)
    assert len(batch.layout(0)) > 4
    with pytest.raises(SiteShapeError, match="none are loaded"):
        batch.layouts["vision"]  # type: ignore[index]


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    import transformers

    transformers.Florence2Config().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="encoder-decoder"):
        GenericAdapter.skeleton(LoadRequest(model=str(tmp_path)))


def _copied(kit: type[AdapterTests], folder: Path) -> AdapterTests:
    """A kit on a copy of its checkpoint, which the test may change."""
    shutil.copytree(kit().checkpoint, folder)
    changed: type[AdapterTests] = type("Copied", (kit,), {"model": str(folder)})
    return changed()


def test_a_checkpoint_without_chat_template_is_refused(tmp_path: Path) -> None:
    kit = _copied(checks.Idefics3Checks, tmp_path / "copy")
    (kit.checkpoint / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="chat template"):
        kit.load().encode(kit.samples)


@pytest.mark.skipif(
    importlib.util.find_spec("num2words") is not None, reason="the package is installed"
)
def test_a_missing_package_is_named(tmp_path: Path) -> None:
    import transformers

    kit = _copied(checks.Idefics3Checks, tmp_path / "copy")
    transformers.Idefics3ImageProcessorPil().save_pretrained(kit.checkpoint)
    named = '{"processor_class": "SmolVLMProcessor"}'
    (kit.checkpoint / "processor_config.json").write_text(named)
    config = kit.checkpoint / "config.json"
    config.write_text(
        config.read_text().replace("idefics3", "smolvlm").replace("Idefics3", "SmolVLM")
    )
    with pytest.raises(MissingDependency, match="num2words"):
        kit.load().encode(kit.samples)


def test_a_batch_layout_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = _fresh(checks.Gemma3Checks)
    batch = vlm.encode(checks.Gemma3Checks().samples)
    passes: list[int] = []
    monkeypatch.setattr(
        vlm, "_run", partial(lambda run, inputs: (passes.append(1), run(inputs)), vlm._run)
    )
    first, before = batch.layouts["vision"], len(passes)
    assert batch.layouts["vision"] is first
    assert len(passes) == before > 0
