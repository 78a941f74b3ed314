"""What families with a model class of their own share: head, tokenizer, renames, crops."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vlmlens.errors import CheckpointError
from vlmlens.hf import CropGeometry, crop_patches, grid_patches
from vlmlens.hf.causal_model import ShowsImagesOnce, forward_with_head
from vlmlens.hf.fast_tokenizer import fast_tokenizer, tokenizer_backend
from vlmlens.hf.layouts import with_row_ends
from vlmlens.hf.prompt_processor import PromptProcessor, padded
from vlmlens.hf.renames import native_name, renames_below
from vlmlens.hf.token_ids import counted_positions
from vlmlens.testing.tiny import byte_tokenizer


def body(self: Any, input_ids: torch.Tensor, pixels: Any = None, **kwargs: Any) -> Any:
    raise NotImplementedError


class Headed:
    forward = forward_with_head(body, float32=True)

    def __init__(self) -> None:
        self.lm_head = torch.nn.Linear(4, 3).bfloat16()

    def model(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        assert "return_dict" not in kwargs
        hidden = torch.nn.functional.one_hot(input_ids, 4).bfloat16()
        return SimpleNamespace(
            last_hidden_state=hidden, past_key_values=None, hidden_states=None, attentions=None
        )


def test_a_head_takes_what_the_body_takes_and_how_many_logits_to_keep() -> None:
    assert list(inspect.signature(Headed().forward).parameters) == [
        "input_ids", "pixels", "logits_to_keep", "kwargs",
    ]  # fmt: skip


def test_a_head_gives_the_logits_that_are_asked_for() -> None:
    model, ids = Headed(), torch.tensor([[0, 1, 2, 3]])
    whole = model.forward(input_ids=ids, return_dict=True).logits
    assert whole is not None
    assert whole.dtype == torch.float32
    assert whole.shape == (1, 4, 3)
    for keep, wanted in ((2, whole[:, -2:]), (torch.tensor([0, 2]), whole[:, [0, 2]])):
        found = model.forward(input_ids=ids, logits_to_keep=keep).logits
        assert found is not None
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("first", "cache", "shown"), [(True, True, True), (False, True, False), (False, False, True)]
)
def test_images_are_shown_once_where_there_is_a_cache(
    first: bool, cache: bool, shown: bool
) -> None:
    class Base:
        def prepare_inputs_for_generation(self, ids: Any, **kwargs: Any) -> dict[str, Any]:
            return {"ids": ids, "pixels": 1}

    class Model(ShowsImagesOnce, Base):
        prompt_inputs = ("pixels",)

    inputs = Model().prepare_inputs_for_generation(0, is_first_iteration=first, use_cache=cache)
    assert ("pixels" in inputs) is shown


class Words(PromptProcessor):
    def text(self, question: str, images: Any) -> str:
        return f"{'*' * len(images)}{question}:"

    def encoded(self, prompts: Any) -> dict[str, Any]:
        return padded([self.ids(self.text(*prompt)) for prompt in prompts], 9)


def message(text: str, images: int) -> dict[str, Any]:
    pictures = [{"type": "image", "image": i} for i in range(images)]
    return {"role": "user", "content": [*pictures, {"type": "text", "text": text}]}


def test_prompts_are_padded_on_the_left() -> None:
    tokenizer = byte_tokenizer(["<s>"], bos="<s>", add_bos=True)
    processor = Words(tokenizer, None)
    assert processor.apply_chat_template([message("a", 2)], tokenize=False) == "**a:"
    made = processor.apply_chat_template([[message("a", 2)], [message("b", 0)]], tokenize=True)
    assert made["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert made["input_ids"][1, :2].tolist() == [9, 9]
    assert tokenizer.decode(made["input_ids"][1, 2:]) == "b:"


def test_positions_are_counted_without_padding() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert counted_positions(mask, 5).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
    assert counted_positions(mask, 1).tolist() == [[2], [4]]


def test_a_tokenizer_takes_its_roles_from_the_settings(tmp_path: Any) -> None:
    file = tmp_path / "tokenizer.json"
    byte_tokenizer(["<s>", "</s>", "<end>"]).backend_tokenizer.save(str(file))
    backend = tokenizer_backend(file)
    plain = fast_tokenizer(backend, {}, eos="<end>")
    assert (plain.eos_token, plain.pad_token, plain.bos_token) == ("<end>", "<end>", None)
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "pad_token": None}
    named = fast_tokenizer(backend, settings, eos="<end>")
    assert (named.bos_token, named.eos_token, named.pad_token) == ("<s>", "</s>", "</s>")
    file.write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is no tokenizer"):
        tokenizer_backend(file)


def test_renames_meet_whole_names_of_modules_and_weights() -> None:
    rules = renames_below(
        "old.{i}", {"attn.(q|k)": r"self_attn.\2_proj", "mlp": "ffn"}, "model.layers.{i}"
    )
    assert native_name("old.7.attn.k.weight", rules) == "model.layers.7.self_attn.k_proj.weight"
    assert native_name("old.*.mlp", rules) == "model.layers.*.ffn"
    for other in ("old.7.attnxk", "old.7.mlps", "very.old.7.mlp"):
        assert native_name(other, rules) == other


def test_crops_that_overlap() -> None:
    canvas = CropGeometry(40, 20, left=-4)
    crops = crop_patches(0, (2, 2), canvas, (1, 2), name="crop {}", step=12, patch=8)
    assert [crop.view[0] for crop in crops] == ["crop 0", "crop 1"]
    np.testing.assert_allclose(crops[0].box[0], [-0.1, 0, 0.1, 0.4], atol=1e-6)
    np.testing.assert_allclose(crops[1].box[0], [0.2, 0, 0.4, 0.4], atol=1e-6)
    (left, right) = crop_patches(0, (2, 2), CropGeometry(4, 2), (1, 2))
    np.testing.assert_allclose(left.box[1], [0.25, 0, 0.5, 0.5])
    np.testing.assert_allclose(right.box[0], [0.5, 0, 0.75, 0.5])


@pytest.mark.parametrize("more", [0, 2])
def test_separators_stand_after_each_row(more: int) -> None:
    grid = grid_patches(3, 2, 3, (1, 1), CropGeometry(3, 2))
    ended = with_row_ends(grid, 3, 2, 3, more)
    nowhere = np.isnan(ended.box).any(1)
    assert np.flatnonzero(nowhere).tolist() == [3, 7, *range(8, 8 + more)]
    assert np.array_equal(ended.box[~nowhere], grid.box)
    assert set(ended.image.tolist()) == {3}
    none = grid_patches(3, 2, 0, (1, 1), CropGeometry(3, 2))
    assert len(with_row_ends(none, 3, 2, 0)) == 2
