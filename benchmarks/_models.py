"""What the benchmarks build: a LLaVA of 17 M parameters, a PaliGemma, photographs, prompts."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from vlmlens.abc.adapter import LoadRequest, ModelAdapter
from vlmlens.samples import Sample
from vlmlens.testing.tiny import byte_tokenizer, save

_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' answer:' }}{% endif %}"
)


def llava(
    folder: Path,
    *,
    side: int = 168,
    layers: int = 8,
    width: int = 256,
    tower: int = 6,
    inner: int | None = None,
    features: int = -2,
) -> ModelAdapter:
    """A LLaVA with a CLIP tower of `tower` x `width` and a Llama of `width`, loaded in float32.

    Args:
        folder: Where its checkpoint is written.
        side: Of an image, in pixels: (side / 14) ** 2 tokens.
        layers: Of the language model.
        width: Of both.
        tower: Layers of the tower.
        inner: Width of the MLPs of the language model; None: 11/2 of `width`.
        features: The layer of the tower that the language model sees.
    """
    import transformers as t

    from vlmlens_adapter_llava.adapter import LlavaAdapter

    tokenizer = byte_tokenizer(["<image>", "</s>", "<pad>"], eos="</s>", pad="<pad>")
    tokenizer.chat_template = _TEMPLATE
    vision = t.CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=tower,
        num_attention_heads=4, image_size=side, patch_size=14,
    )  # fmt: skip
    text = t.LlamaConfig(
        vocab_size=2000, hidden_size=width, intermediate_size=inner or 11 * width // 2,
        num_hidden_layers=layers, num_attention_heads=4, max_position_embeddings=4096,
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=vision, text_config=text, image_seq_length=(side // 14) ** 2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=features,
    )  # fmt: skip
    images = t.CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    processor = t.LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )  # fmt: skip
    save(folder, t.LlavaForConditionalGeneration(config), processor)
    request = LoadRequest(model=str(folder), device="cpu", dtype="float32")
    return LlavaAdapter.load(request)


def paligemma(folder: Path, *, side: int = 224) -> ModelAdapter:
    """A PaliGemma whose tower of 12 x 256 costs about as much as its Gemma of 4 x 256."""
    import transformers as t

    from vlmlens_adapter_paligemma.adapter import PaliGemmaAdapter

    tokenizer = byte_tokenizer(
        ["<pad>", "<eos>", "<bos>", "<unk>", "<image>"],
        bos="<bos>", eos="<eos>", pad="<pad>", unk="<unk>", named={"image_token": "<image>"},
    )  # fmt: skip
    images: Any = t.SiglipImageProcessorPil(size={"height": side, "width": side})
    images.image_seq_length = (side // 14) ** 2
    vision = t.SiglipVisionConfig(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=12, num_attention_heads=4,
        image_size=side, patch_size=14, vision_use_head=False,
    )  # fmt: skip
    tokens: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = t.GemmaConfig(
        hidden_size=256, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=1, head_dim=64, **tokens,
    )  # fmt: skip
    config = t.PaliGemmaConfig(
        vision_config=vision, text_config=text, projection_dim=256, hidden_size=256,
        image_token_index=tokenizer.image_token_id, **tokens,
    )  # fmt: skip
    model = t.PaliGemmaForConditionalGeneration(config)
    save(folder, model, t.PaliGemmaProcessor(images, tokenizer))
    return PaliGemmaAdapter.load(LoadRequest(model=str(folder), device="cpu", dtype="float32"))


def internvl(
    folder: Path, *, side: int = 224, layers: int = 8, width: int = 256, tower: int = 8
) -> ModelAdapter:
    """An InternVL with a tower of `tower` x `width` and a Qwen2 of `width`, loaded in float32.

    The language model reads (side / 28) ** 2 tokens of an image: 2 x 2 of the tower's are merged.
    """
    import transformers as t

    from vlmlens_adapter_internvl.adapter import InternVLAdapter

    named = {
        "start_image_token": "<img>", "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
    }  # fmt: skip
    specials = ["<|endoftext|>", "<|im_end|>", *named.values()]
    tokenizer = byte_tokenizer(specials, eos="<|im_end|>", pad="<|endoftext|>", named=named)
    tokenizer.chat_template = _TEMPLATE.replace("<image>", "<IMG_CONTEXT>")
    vision = t.InternVLVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=tower,
        num_attention_heads=4, image_size=[side, side], patch_size=[14, 14], attention_bias=True,
    )  # fmt: skip
    text = t.Qwen2Config(
        vocab_size=2000, hidden_size=width, intermediate_size=11 * width // 2,
        num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip
    tokens = (side // 28) ** 2
    config = t.InternVLConfig(
        vision_config=vision, text_config=text, image_seq_length=tokens,
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )  # fmt: skip
    images = t.GotOcr2ImageProcessorPil(size={"height": side, "width": side}, max_patches=1)
    said = {"processor_class": "InternVLProcessor", "image_seq_length": tokens}
    model = t.InternVLForConditionalGeneration(config)
    save(folder, model, tokenizer, images, processor_config=said)
    return InternVLAdapter.load(LoadRequest(model=str(folder), device="cpu", dtype="float32"))


def photographs(folder: Path, count: int, *, size: tuple[int, int] = (320, 240)) -> list[str]:
    """JPEG files of noise that is smooth enough to be compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(0)
    paths = []
    for i in range(count):
        small = Image.frombytes("RGB", (16, 12), random.randbytes(16 * 12 * 3))
        path = folder / f"{i:05}.jpg"
        small.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(str(path))
    return paths


def question(random: Random, letters: int) -> str:
    """A prompt of about so many letters, each a token."""
    words: list[str] = []
    while sum(map(len, words)) + len(words) < letters:
        words.append("".join(random.choices("aeioulmnrst", k=random.randint(2, 7))))
    return " ".join(words)[:letters]


def pairs(paths: list[str], questions: int, *, letters: tuple[int, int]) -> list[Sample]:
    """Each photograph with so many questions.

    Args:
        paths: Of the photographs.
        questions: On each of them.
        letters: Shortest and longest question.
    """
    random = Random(1)
    return [
        Sample(f"{i}-{j}", question(random, random.randint(*letters)), (path,))
        for i, path in enumerate(paths)
        for j in range(questions)
    ]


def bare_batches(vlm: Any, samples: list[Sample], size: int) -> list[Any]:
    """Encoded batches of one size, sorted by length: what a bare forward pass is given."""
    order = sorted(samples, key=lambda sample: len(sample.prompt))
    return [vlm.encode(order[start : start + size]) for start in range(0, len(order), size)]
