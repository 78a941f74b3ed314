"""A hand-built model with one induction circuit: a planted truth for analyses of heads.

It is a real `GPT2LMHeadModel` whose weights are written by hand. The residual stream has a part for
each of: the token, the position, the token before, the copied token. One head reads positions and
writes the token before. A head of a later block looks for the place whose token before is the
current token, and copies what stands there. All other heads rest on the first token and write
nothing, and so do the MLPs.

Every row of the residual stream has as many ones as writers came before it, and otherwise zeros.
So mean and variance of LayerNorm are known, and its weights are chosen so that it changes nothing.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.abc.adapter import LoadRequest, ModelAdapter
from vlmlens.manifest import PluginKind

if TYPE_CHECKING:
    import torch

BOS = "<|endoftext|>"
"""The token before each text, id 0; the model writes it where there is nothing to copy."""

Head = tuple[int, int]
"""Numbers of a block and of a head in it."""


@dataclass(frozen=True, slots=True)
class Induction:
    """What the model is like. Words are called `w1`, `w2`, ...; their ids are these numbers.

    Args:
        heads: Heads per block.
        previous: The head that attends to the token before.
        induction: The head that attends to what followed the current token, in a later block.
        sharpness: The score of attention (the logit, of words) at the one right place; half of it
            at the first token, if a head rests there; 0 elsewhere.
        vocabulary: Number of tokens, `BOS` included.
        positions: The most tokens that it reads.
        blocks: Number of blocks.
    """

    heads: int = 4
    previous: Head = (0, 0)
    induction: Head = (1, 1)
    sharpness: float = 50.0
    vocabulary: int = 32
    positions: int = 64
    blocks: int = 2

    def __post_init__(self) -> None:
        blocks = self.previous[0], self.induction[0]
        numbers = self.previous[1], self.induction[1]
        if not 0 <= blocks[0] < blocks[1] < self.blocks:
            raise ValueError(f"blocks {blocks} of {self.blocks}: expected two in this order")
        if not all(0 <= number < self.heads for number in numbers):
            raise ValueError(f"heads {numbers}: each block has {self.heads}")

    @property
    def size(self) -> int:
        """Width of a head: it holds all tokens and a place to rest, or all positions."""
        return max(self.vocabulary + 1, self.positions, -(-self._used // self.heads))

    @property
    def width(self) -> int:
        """Width of the residual stream; what no part needs stays 0."""
        return self.heads * self.size

    @property
    def token(self) -> slice:
        """Columns of the residual stream that say the token."""
        return slice(0, self.vocabulary)

    @property
    def before(self) -> slice:
        """Columns that say the token before."""
        return slice(self.vocabulary, 2 * self.vocabulary)

    @property
    def copied(self) -> slice:
        """Columns that say the copied token: the only ones that the unembedding reads."""
        return slice(2 * self.vocabulary, 3 * self.vocabulary)

    @property
    def place(self) -> slice:
        """Columns that say the position."""
        return slice(3 * self.vocabulary, self._used)

    @property
    def _used(self) -> int:
        return 3 * self.vocabulary + self.positions

    def ones(self, block: int) -> int:
        """How many ones a row has that enters a block: token, position, and what heads wrote."""
        return 2 + (block > self.previous[0]) + (block > self.induction[0])


@cache
def induction_model(**differing: Any) -> ModelAdapter:
    """The model, loaded by the adapter `lm` in float32; made once per process.

    Args:
        differing: Arguments of `Induction` that differ from its defaults.
    """
    from vlmlens.registry import Registry

    folder = Path(tempfile.mkdtemp(prefix="vlmlens-induction-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_induction_model(folder, **differing)
    registry = Registry.default()
    adapter: type[ModelAdapter] = registry.load(registry.find(PluginKind.ADAPTER, "lm"))
    return adapter.load(LoadRequest(str(folder), device="cpu", dtype="float32"))


def write_induction_model(folder: Path, **differing: Any) -> Path:
    """Write the model and its tokenizer as a checkpoint.

    Args:
        folder: The folder to write to.
        differing: Arguments of `Induction` that differ from its defaults.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    from vlmlens.hf.checkpoints import quiet

    plan = Induction(**differing)
    config = GPT2Config(
        vocab_size=plan.vocabulary, n_positions=plan.positions, n_embd=plan.width,
        n_layer=plan.blocks, n_head=plan.heads, n_inner=plan.size, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    _write_weights(model, plan)
    with quiet():
        model.save_pretrained(folder)
        _tokenizer(plan).save_pretrained(folder)
    return folder


def _write_weights(model: Any, plan: Induction) -> None:
    import torch

    body = model.transformer
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        _identity(body.wte.weight[:, plan.token])
        _identity(body.wpe.weight[:, plan.place])
        for number, block in enumerate(body.h):
            _change_nothing(block.ln_1, plan.ones(number))
            _change_nothing(block.ln_2, plan.ones(number + 1))
            for head in range(plan.heads):
                _write_head(block.attn, plan, (number, head))
        _change_nothing(body.ln_f, plan.ones(plan.blocks))
        _identity(model.lm_head.weight[:, plan.copied], plan.sharpness)


def _write_head(attention: Any, plan: Induction, head: Head) -> None:
    """The weights of one head; rows of queries and columns of keys meet in its own width."""
    inside = slice(head[1] * plan.size, (head[1] + 1) * plan.size)
    queries, keys, values = (part[:, inside] for part in attention.c_attn.weight.chunk(3, dim=1))
    constant = attention.c_attn.bias[: plan.width][inside]
    outputs = attention.c_proj.weight[inside]
    score = plan.sharpness * plan.size**0.5
    if head == plan.previous:
        _identity(queries[plan.place][1:], score)
        _identity(keys[plan.place])
        _identity(values[plan.token])
        _identity(outputs[:, plan.before])
        return
    keys[0, plan.vocabulary] = 1
    constant[plan.vocabulary] = score / 2
    if head == plan.induction:
        _identity(queries[plan.token], score)
        _identity(keys[plan.before])
        _identity(values[plan.token])
        _identity(outputs[:, plan.copied])


def _identity(matrix: torch.Tensor, factor: float = 1.0) -> None:
    matrix.diagonal().fill_(factor)


def _change_nothing(norm: Any, ones: int) -> None:
    """Let a LayerNorm give rows of so many ones and otherwise zeros as it is given them."""
    mean = ones / len(norm.weight)
    norm.weight.fill_((mean - mean**2 + norm.eps) ** 0.5)
    norm.bias.fill_(mean)


def _tokenizer(plan: Induction) -> Any:
    """One token per word; all else is unknown, and unknown text is `BOS`, as in GPT-2."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {BOS: 0, **{f"w{i}": i for i in range(1, plan.vocabulary)}}
    backend = Tokenizer(models.WordLevel(words, unk_token=BOS))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"w\d+|\S"), "removed", invert=True)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS, eos_token=BOS, unk_token=BOS
    )
