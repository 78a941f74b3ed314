"""Tiny checkpoints of real classes for tests: a byte tokenizer, larger weights, pictures.

With the default initialisation (standard deviation 0.02), a tiny model is almost linear. Masks and
images hardly change its numbers, so tests of them would pass without meaning anything. `wake` draws
larger weights, so that everything matters.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

Shapes = dict[str, tuple[int, ...]]
"""The shape of every weight of a checkpoint, by name."""

_EMBEDDINGS = ("embed_tokens", "shared", "wte", "query_tokens", "token_embedding")


def byte_tokenizer(
    specials: Sequence[str],
    *,
    bos: str | None = None,
    eos: str | None = None,
    pad: str | None = None,
    unk: str | None = None,
    add_bos: bool = False,
    add_eos: bool = False,
    named: Mapping[str, str] | None = None,
    **settings: Any,
) -> Any:
    """A fast tokenizer of 256 bytes and some special tokens; it encodes any text.

    Args:
        specials: Special tokens, in order, after the bytes.
        bos: The special token at the beginning of a text.
        eos: The special token at the end.
        pad: The special token for padding.
        unk: The special token for unknown text.
        add_bos: Whether to put `bos` before every text.
        add_eos: Whether to put `eos` after every text.
        named: More special tokens by attribute name, such as {"image_token": "<image>"}.
        settings: Passed to `PreTrainedTokenizerFast`.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in specials]
    )
    ends = [bos if add_bos else None, eos if add_eos else None]
    if any(ends):
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join(filter(None, [ends[0], "$A", ends[1]])),
            special_tokens=[(token, backend.token_to_id(token)) for token in set(ends) if token],
        )
    roles = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": unk}
    given: dict[str, Any] = {role: token for role, token in roles.items() if token is not None}
    if named:
        given["extra_special_tokens"] = dict(named)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **given, **settings)


def wake(model: Any, *, seed: int = 1) -> Any:
    """Draw every matrix of a model anew, in place, so that masks, images and layers matter.

    Embeddings get standard deviation 0.5, other matrices 1.2 / sqrt(inputs).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    model = model.to(torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                embedding = any(part in name for part in _EMBEDDINGS)
                scale = 0.5 if embedding else 1.2 / max(_inputs(name, parameter), 1) ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def drawn_weights(
    shapes: Mapping[str, tuple[int, ...]], *, embeddings: str, scales: str = "$^", seed: int = 3
) -> dict[str, Any]:
    """Random weights for a checkpoint in a layout of its own, as large as `wake` makes them.

    A one-dimensional tensor called `weight` scales a norm, so it is drawn around 1.

    Args:
        shapes: Shapes by name in the checkpoint, in the order in which they are drawn.
        embeddings: A regular expression for the names of embeddings.
        scales: A regular expression for other names that are drawn around 1.
        seed: The seed of the random numbers.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=generator)
        flat = len(shape) == 1
        if re.search(embeddings, name):
            weights[name] = drawn * 0.5
        elif re.search(scales, name) or (flat and name.endswith("weight")):
            weights[name] = drawn * 0.1 + 1
        else:
            weights[name] = (
                drawn * 0.1 if flat else drawn * 1.2 / torch.Size(shape[1:]).numel() ** 0.5
            )
    return weights


def state_shapes(make: Callable[[], Any]) -> Shapes:
    """The shapes of a module's state dict.

    Args:
        make: Makes the module; called on the meta device, where it takes no memory.
    """
    import torch

    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


def linear(name: str, outputs: int, inputs: int, *kernel: int) -> Shapes:
    """The shapes of a linear layer, or of a convolution with that kernel."""
    return {f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> Shapes:
    """The shapes of a norm with a bias."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def write_checkpoint_files(
    folder: Path, weights: Mapping[str, Any], **files: Mapping[str, Any]
) -> Path:
    """Write `model.safetensors`, and JSON files by their names without `.json`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), folder / "model.safetensors")
    return _write_json(folder, files)


def _write_json(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Path:
    for name, said in files.items():
        (folder / f"{name}.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def sentencepiece_model(sentences: Iterable[str], **settings: Any) -> bytes:
    """A `tokenizer.model` of the BPE kind that keeps every space and spells the unknown in bytes.

    Args:
        sentences: The training text.
        settings: Passed to SentencePiece's trainer.
    """
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=written, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        minloglevel=2, num_threads=1, **settings,
    )  # fmt: skip
    return written.getvalue()


def _inputs(name: str, parameter: Any) -> int:
    """How many numbers each output sums over; experts have shape `[experts, outputs, inputs]`."""
    experts = ".experts." in name and parameter.dim() == 3
    return int(parameter.shape[-1] if experts else parameter[0].numel())


def small_text(tokenizer: Any, **differing: Any) -> dict[str, Any]:
    """Sizes and token ids for the config of a tiny language model.

    Args:
        tokenizer: Its tokenizer.
        differing: Other values, and additional ones.
    """
    return {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 2048, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        **differing,
    }  # fmt: skip


def small_vision(**differing: Any) -> dict[str, Any]:
    """Sizes for the config of a tiny vision tower: images of 32 pixels, patches of 8."""
    return {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8, **differing,
    }  # fmt: skip


def save(folder: Path, model: Any, *parts: Any, **files: Mapping[str, Any]) -> Path:
    """Save a model after `wake`, with its processor, or its tokenizer and image processor.

    Args:
        folder: The folder to write to.
        model: The model; `wake` is called on it first.
        parts: More objects with `save_pretrained`.
        files: The content of JSON files, by their names without `.json`.
    """
    from vlmlens.hf.checkpoints import quiet

    with quiet():
        for part in (wake(model), *parts):
            part.save_pretrained(folder)
    return _write_json(folder, files)


def picture(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """A picture with structure in every corner. Each seed gives a different picture."""
    ground = [(200, 30, 40), (20, 180, 60), (40, 60, 220), (220, 200, 40)][seed % 4]
    image = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(image)
    pen.rectangle((width // 4, height // 4, width // 2, height // 2), fill=(255, 255, 255))
    pen.ellipse(
        (width // 2, height // 2, width - 2, height - 2), fill=(10 + 20 * seed % 200, 9, 90)
    )
    pen.line((0, 0, width, height), fill=(0, 0, 0), width=2)
    pen.line((0, height, width, 0), fill=(90, 200, 255), width=1)
    return image
