"""ModelAdapter: what makes one family of vision-language models speak our interface.

An adapter answers six questions: load, skeleton, sites, encode, forward/generate, readout.
Families with a native transformers class start from
`vlmlens.hf.TransformersAdapter`, which answers most of them.
"""

from __future__ import annotations

import inspect
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, overload

from vlmlens._display import brief, count, shape
from vlmlens.abc import options as base
from vlmlens.errors import DataError, SiteNotFound
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.samples import Sample
from vlmlens.sites import Site, SiteMap

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from PIL.Image import Image

    from vlmlens.passes.tracing import Edit, Trace

Answer: TypeAlias = "str | Sequence[int]"
"""A continuation of a prompt: as text, or as the token ids that a model wrote."""


Picture: TypeAlias = "str | os.PathLike[str] | Image"
"""An image as a path or a Pillow image."""

Sites: TypeAlias = "str | Site | Iterable[str | Site]"
"""One site or several, as names, patterns or sites."""

Sharing = Literal["nothing", "images", "beginnings"]
"""What is computed once for samples on the same images: nothing, what the vision tower gives, or
all that stands before what differs."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load, and how.

    Args:
        model: Hub id or folder; None: the adapter's default checkpoint.
        revision: Branch, tag or commit of a hub checkpoint.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto" (the best one there is).
        device_map: Passed to transformers ("auto" spreads over devices), instead of `device`.
        dtype: "auto" (the checkpoint's; on a CPU float16 becomes float32), "float32",
            "bfloat16" or "float16".
        attention: transformers' attention implementation: "sdpa", "eager", ...; None: its default.
        autocast: "bfloat16" or "float16": matrix products are computed so, while weights and the
            residual stream keep their dtype; None: all in `dtype`.
        quantization: "4bit" or "8bit" through bitsandbytes; None: as the checkpoint is.
        trust_remote_code: Run code that comes with the checkpoint.
        options: The adapter's own options.
    """

    model: str | None = None
    revision: str | None = None
    device: str = "auto"
    device_map: str | None = None
    dtype: str = "auto"
    attention: str | None = None
    autocast: str | None = None
    quantization: str | None = None
    trust_remote_code: bool = False
    options: base.Options = field(default_factory=base.Options)


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """What a model wrote after one sample.

    Args:
        text: Without special tokens.
        token_ids: With special tokens, up to the one that ends it.
        masks: bool `[objects, height, width]` in pixels of the sample's image, where the family
            draws what it names (GLaMM); else None.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    masks: npt.NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        masks = [f"masks {shape(self.masks)}"] if self.masks is not None else []
        return brief(self, self.text, count(len(self.token_ids), "token"), *masks)


@dataclass(frozen=True, slots=True)
class Readout:
    """How the language model reads its last residual stream: final norm, then unembedding.

    Args:
        norm: `[..., width] -> [..., width]`.
        unembed: `[..., width] -> [..., vocabulary]` raw logits, with the family's scaling or
            soft cap.
        site: The site whose activation, put through both, gives the model's own logits.
        some: `unembed` for a part of the vocabulary, a slice or int64 token ids:
            `[..., width] -> [..., tokens]`; None where only all of it can be computed.
    """

    norm: Callable[[torch.Tensor], torch.Tensor]
    unembed: Callable[[torch.Tensor], torch.Tensor]
    site: str
    some: Callable[[torch.Tensor, slice | torch.Tensor], torch.Tensor] | None = None

    def __repr__(self) -> str:
        return brief(self, self.site)

    def __call__(self, hidden: torch.Tensor, *, norm: bool = True) -> torch.Tensor:
        """Logits `[..., vocabulary]` in float32 of a residual stream `[..., width]`."""
        return self.unembed(self.norm(hidden) if norm else hidden).float()


_SEE = re.compile(r"See `ModelAdapter\.(?P<name>\w+)`[.,:;]?\s*(?P<more>.*)", re.DOTALL)
"""How a docstring refers to that of the interface; `help` shows that one instead."""


class ModelAdapter(ABC):
    """A loaded vision-language model behind the common interface. Made by `load`."""

    Options: ClassVar[type[base.Options]] = base.Options

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name, own in vars(cls).items():
            said = _SEE.match(getattr(own, "__doc__", None) or "")
            if said and said["name"] == name:
                more = f"\n\n{said['more'][:1].upper()}{said['more'][1:]}" if said["more"] else ""
                target = getattr(own, "__func__", own)
                target.__doc__ = f"{inspect.getdoc(getattr(ModelAdapter, name))}{more}"

    def __repr__(self) -> str:
        return brief(self, self.dtype, repr(self.sites)[1:-1])

    @classmethod
    @abstractmethod
    def load(cls, request: LoadRequest) -> Self:
        """Load a checkpoint.

        Raises:
            CheckpointNotFound: Nothing at that id or folder.
            CheckpointGated: Access must be asked for first.
            MissingDependency: The family needs a package that is not installed.
        """

    @classmethod
    @abstractmethod
    def skeleton(cls, request: LoadRequest) -> Self:
        """The same adapter over a module tree on the meta device, from the config alone.

        `sites` works on it; nothing that computes does.
        """

    @property
    @abstractmethod
    def module(self) -> torch.nn.Module:
        """The model itself; site paths are relative to it."""

    @property
    @abstractmethod
    def sites(self) -> SiteMap:
        """The model's sites."""

    @property
    def unread(self) -> Sequence[str]:
        """Blocks that a pass runs though nothing in the model reads what they give.

        Those behind the one whose output the model takes as an image's features: names of
        canonical sites, the last of their stack, in order. Extraction leaves them out where no
        wanted site needs them; every other activation and the logits keep their bits.
        """
        return ()

    @abstractmethod
    def encode(
        self, samples: Sequence[Sample], *, answers: Sequence[Answer] | None = None
    ) -> Batch:
        """One padded batch. Batching never changes a sample's activations.

        Args:
            samples: At least one.
            answers: Per sample, a continuation to append after the prompt, as the model itself
                would write it (for scoring), or did write it; its tokens have kind ANSWER.

        Raises:
            DataError: A sample has images (or none) where the family cannot take that.
        """

    @property
    def shares(self) -> Sharing:
        """What `encode_shared` computes once, as far as the model alone tells."""
        return "nothing"

    def encode_shared(
        self, groups: Sequence[Sequence[Sample]], *, budget: int | None = None
    ) -> Batch | None:
        """One batch in which what samples on the same images have in common is computed once.

        Activations equal those of `encode` up to rounding; samples then share rows in the layouts.
        Such a batch is for reading activations: `forward` and `generate` do not take it.

        Args:
            groups: Samples with equal images, at least one group of at least one.
            budget: About how many tokens one pass is to have, where several can be made; None:
                no bound.

        Returns:
            None where the family, or these samples, do not allow it.
        """
        del groups, budget
        return None

    @abstractmethod
    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """One pass without gradients; only the wanted logits are computed."""

    @abstractmethod
    def generate(self, batch: Batch, *, max_new_tokens: int) -> list[Generation]:
        """Greedy continuation per sample."""

    def readout(self) -> Readout | None:
        """Final norm and unembedding; None where the family has none (CLIP)."""
        return None

    def choice_scores(self, samples: Sequence[Sample]) -> list[list[float]] | None:
        """Log-probabilities of each sample's choices, where the family compares them to the image.

        For families that write no text (CLIP); their manifest offers "choice-scores". Asked about
        no samples, they answer with an empty list.

        Args:
            samples: With choices.

        Returns:
            Per sample, one natural logarithm per choice; their exponentials sum to 1. None where
            the family writes answers: then the tokens it would write are scored.
        """
        del samples
        return None

    @abstractmethod
    def answer_ids(self, answer: str) -> list[int]:
        """Token ids that the model would write for this answer right after a prompt."""

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens included."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What determines the numbers, JSON-ready.

        Checkpoint, revision, dtype, attention, image backend, versions: goes into the run and
        into the fingerprint of its columns.
        """

    @property
    def dtype(self) -> str:
        """The type in which it computes, a key of `vlmlens.abc.storage.DTYPES`."""
        return "float32"

    def widths(self) -> Mapping[str, int]:
        """Output width per module path, as far as the configuration tells; for display."""
        return {}

    @overload
    def trace(
        self,
        batch: Batch,
        sites: Sites,
        /,
        *,
        logits: Logits = "none",
        edits: Mapping[str, Edit] | None = None,
    ) -> Trace: ...

    @overload
    def trace(
        self,
        image: Picture | Sequence[Picture] | None,
        prompt: str,
        sites: Sites,
        *,
        logits: Logits = "none",
        edits: Mapping[str, Edit] | None = None,
    ) -> Trace: ...

    def trace(
        self,
        image: Batch | Picture | Sequence[Picture] | None,
        prompt: str | Sites | None = None,
        sites: Sites | None = None,
        *,
        logits: Logits = "none",
        edits: Mapping[str, Edit] | None = None,
    ) -> Trace:
        """One pass that keeps the raw activations of some sites.

        `vlm.trace(image, prompt, sites)` for one question, `vlm.trace(batch, sites)` for a batch
        from `encode`.

        Args:
            image: A path, a Pillow image, a list of them, or None; or a batch, without a prompt.
            prompt: The user's text, without any chat template.
            sites: Sites or patterns, one or several.
            logits: Which logits to compute too.
            edits: Per site pattern, a function that maps the activation to what replaces it.

        Returns:
            Activations by site name, as the modules gave them, and the logits.

        Raises:
            DataError: There is no prompt, or the image cannot be used.
            SiteNotFound: A pattern matches nothing.
            SiteSilent: A site gave no activation in this pass.
        """
        from vlmlens.passes.tracing import trace_forward

        if isinstance(image, Batch):
            batch, wanted = image, prompt if sites is None else sites
        else:
            batch, wanted = self.encode([_asked(image, prompt)]), sites
        if wanted is None:
            raise SiteNotFound("No site was given to `trace`.", hint='Give ["llm.block.*"], say.')
        chosen = [wanted] if isinstance(wanted, str | Site) else wanted
        return trace_forward(self, batch, chosen, logits=logits, edits=edits or {})


def _asked(image: Any, prompt: Any) -> Sample:
    """The sample of one question about one image, several or none."""
    if not isinstance(prompt, str):
        raise DataError(
            f"`trace` was given {repr(prompt)[:80]} as the prompt, and expected text.",
            subject=prompt,
            hint="Call trace(image, prompt, sites), or trace(batch, sites) with a batch of encode.",
        )
    images = image if isinstance(image, list | tuple) else () if image is None else (image,)
    return Sample("traced", prompt, tuple(images))
