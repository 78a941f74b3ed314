"""The tiny model of real classes for the kits of extractors and analyses."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from vlmlens.abc.adapter import Answer, LoadRequest
from vlmlens.hf import RasterAdapter
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.passes.batch import Batch
from vlmlens.samples import Sample
from vlmlens.testing.tiny import byte_tokenizer, save, small_text, small_vision

TINY = Manifest(
    kind=PluginKind.ADAPTER,
    name="tiny",
    target="vlmlens.testing.model:TinyLlava",
    help="A LLaVA of two blocks with random weights.",
    offers=frozenset({"generate", "readout", "patch-grid", "text-only", "several-images"}),
)
"""What the tiny model offers."""

_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>\\n' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


class TinyLlava(RasterAdapter):
    """A LLaVA: a vision tower whose CLS token does not reach the projector, and a Llama."""

    shares_prefix: ClassVar[bool] = True
    reads_feature_layer: ClassVar[bool] = True


class TinyBlind(TinyLlava):
    """The same model, which always sees a gray picture."""

    def encode(
        self, samples: Sequence[Sample], *, answers: Sequence[Answer] | None = None
    ) -> Batch:
        """See `ModelAdapter.encode`."""
        batch = super().encode(samples, answers=answers)
        pixels = batch.inputs.get("pixel_values")
        if pixels is None:
            return batch
        return replace(batch, inputs={**batch.inputs, "pixel_values": pixels * 0})


_SEED = 0
"""Of the weights: what the tests say of the model must not depend on what ran before."""


def write_tiny_llava(folder: Path) -> Path:
    """Write a checkpoint of `LlavaForConditionalGeneration`: two blocks, 32 wide, random weights.

    Args:
        folder: The folder for config, weights, tokenizer and processor.
    """
    import torch
    import transformers as t

    tokenizer = byte_tokenizer(
        ["<unk>", "<s>", "</s>", "<pad>", "<image>"],
        bos="<s>", eos="</s>", pad="<pad>", unk="<unk>", add_bos=True,
    )  # fmt: skip
    vision = t.CLIPVisionConfig(**small_vision(projection_dim=16))
    text = t.LlamaConfig(**small_text(tokenizer))
    config = t.LlavaConfig(
        vision_config=vision, text_config=text, image_seq_length=16,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    images = _image_processor()(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = t.LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=_TEMPLATE,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = t.LlavaForConditionalGeneration(config)
    return save(folder, model, processor)


def _image_processor() -> Any:
    """The class that transformers takes anyway; asking for another one makes it warn."""
    import transformers as t

    plain = None if find_spec("torchvision") else getattr(t, "CLIPImageProcessorPil", None)
    return plain or t.CLIPImageProcessor


@cache
def tiny_checkpoint() -> Path:
    """The tiny checkpoint, written once per process and removed when it ends."""
    owner = os.getpid()
    folder = Path(tempfile.mkdtemp(prefix="vlmlens-tiny-"))

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return write_tiny_llava(folder)


def request(**settings: Any) -> LoadRequest:
    """How the kits load the tiny model: float32 on the CPU."""
    return LoadRequest(
        **{"model": str(tiny_checkpoint()), "device": "cpu", "dtype": "float32", **settings}
    )


@cache
def tiny_model(attention: str | None = None, *, blind: bool = False) -> TinyLlava:
    """The loaded tiny model, once per process.

    Args:
        attention: transformers' attention implementation.
        blind: Whether it always sees a gray picture.
    """
    return (TinyBlind if blind else TinyLlava).load(request(attention=attention))
