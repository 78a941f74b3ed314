"""ModelAdapter: the common interface of all families of vision-language models.

An adapter implements six things: load, skeleton, sites, encode, forward/generate, readout.
For families with a class in transformers, `vlmlens.hf.TransformersAdapter` implements most of them.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from vlmlens._display import brief, count, shape
from vlmlens.abc import options as base
from vlmlens.abc.editable import Edits
from vlmlens.abc.traceable import Traceable
from vlmlens.passes.batch import Batch, ForwardOutput, Logits
from vlmlens.samples import Sample
from vlmlens.sites import SiteMap
from vlmlens.videos import FrameRule

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch


Answer: TypeAlias = "str | Sequence[int]"
"""A continuation of a prompt: text, or the token ids that a model generated."""


Sharing = Literal["nothing", "images", "beginnings"]
"""What is computed once for samples with the same images: nothing, the vision features, or the
whole beginning that the samples have in common."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What to load, and how.

    Args:
        model: Hub id or folder; None: the adapter's default checkpoint.
        revision: Branch, tag or commit of a hub checkpoint.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto" (the best device available).
        device_map: Passed to transformers instead of `device`; "auto" spreads the model over
            devices.
        dtype: "auto" (the checkpoint's; on a CPU float16 becomes float32), "float32",
            "bfloat16" or "float16".
        attention: transformers' attention implementation: "sdpa", "eager", ...; None: its default.
        autocast: "bfloat16" or "float16": run matrix products under torch.autocast in that type.
            Weights and the residual stream keep their dtype. None: compute everything in `dtype`.
        quantization: "4bit" or "8bit" through bitsandbytes; None: as stored in the checkpoint.
        trust_remote_code: Whether to run code that comes with the checkpoint.
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
    """The text that a model generated for one sample.

    Args:
        text: The text, without special tokens.
        token_ids: The token ids, with special tokens, up to and including the end token.
        masks: bool `[objects, height, width]` in pixels of the sample's image, if the family
            segments the objects that it names (GLaMM); else None.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    masks: npt.NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        masks = [f"masks {shape(self.masks)}"] if self.masks is not None else []
        return brief(self, self.text, count(len(self.token_ids), "token"), *masks)


@dataclass(frozen=True, slots=True)
class Readout:
    """How the model turns its last residual stream into logits: final norm, then unembedding.

    Args:
        norm: `[..., width] -> [..., width]`.
        unembed: `[..., width] -> [..., vocabulary]`: raw logits, including the family's scaling or
            soft cap.
        site: The site whose activation gives the model's own logits after norm and unembedding.
        some: `unembed` for a part of the vocabulary, given as a slice or int64 token ids:
            `[..., width] -> [..., tokens]`. None: only the whole vocabulary can be computed.
    """

    norm: Callable[[torch.Tensor], torch.Tensor]
    unembed: Callable[[torch.Tensor], torch.Tensor]
    site: str
    some: Callable[[torch.Tensor, slice | torch.Tensor], torch.Tensor] | None = None

    def __repr__(self) -> str:
        return brief(self, self.site)

    def __call__(self, hidden: torch.Tensor, *, norm: bool = True) -> torch.Tensor:
        """The logits of a residual stream: float32 `[..., vocabulary]` from `[..., width]`."""
        return self.unembed(self.norm(hidden) if norm else hidden).float()


@dataclass(frozen=True, slots=True)
class PromptReading:
    """What an adapter makes of a sample's text, before the sample is encoded.

    Args:
        problem: Why it cannot be used; empty if it can.
        note: What the adapter reads in another way than as text, such as a placeholder of an image.
    """

    problem: str = ""
    note: str = ""


_SEE = re.compile(r"See `ModelAdapter\.(?P<name>\w+)`[.,:;]?\s*(?P<more>.*)", re.DOTALL)
"""How a docstring refers to that of the interface; `help` shows that one instead."""


class ModelAdapter(Traceable, ABC):
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
            CheckpointNotFound: There is no checkpoint at that id or folder.
            CheckpointGated: The checkpoint's owner must grant access first.
            MissingDependency: The family needs a package that is not installed.
        """

    @classmethod
    @abstractmethod
    def skeleton(cls, request: LoadRequest) -> Self:
        """The same adapter, built from the config alone: a module tree without weights.

        The modules are on torch's meta device. `sites` works on them; computing does not.
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
        """Blocks that run in a pass although nothing in the model reads their output.

        These are the vision blocks after the one that gives the image's features: names of
        canonical sites, the last ones of their stack, in order. Extraction skips them if no wanted
        site needs them. All other activations and the logits stay the same, bit for bit.
        """
        return ()

    @abstractmethod
    def encode(
        self, samples: Sequence[Sample], *, answers: Sequence[Answer] | None = None
    ) -> Batch:
        """Encode samples as one padded batch. Batching never changes a sample's activations.

        Args:
            samples: At least one sample.
            answers: Per sample, a continuation to append after the prompt: an answer to be scored,
                or one that the model generated. Its tokens get the kind ANSWER.

        Raises:
            DataError: The family cannot take a sample's number of images.
        """

    def place(self, batch: Batch) -> Batch:
        """A batch that was encoded within `vlmlens.passes.later.for_later`, ready for a pass.

        Its inputs are on the model's device, as `encode` gives them otherwise. This default is for
        adapters whose `encode` always places them there.
        """
        return batch

    def read_prompt(self, sample: Sample) -> PromptReading:
        """What is read in a sample's prompt and answers. No image is opened, so it is cheap.

        Composing asks this of every sample, before weights are loaded. A placeholder of an image in
        the family's own notation must be taken for the image, or be a problem.
        """
        del sample
        return PromptReading()

    @property
    def context(self) -> int | None:
        """The most tokens of a sample that the model can read, image tokens included.

        None: it is not known, or there is no limit. `encode` refuses a longer sample.
        """
        return None

    @property
    def frame_rule(self) -> FrameRule:
        """Which frames of a video file the family takes, unless the user says so."""
        return FrameRule()

    @property
    def takes_video(self) -> bool:
        """Whether `encode` gives a sample with a `video` to the model as a video.

        If not, it gets the frames as several images, which a run says.
        """
        return False

    @classmethod
    def checkpoint_config(cls, request: LoadRequest) -> Mapping[str, Any]:
        """What the checkpoint's config.json says; empty if it has none, or the family none.

        Raises:
            CheckpointError: The checkpoint cannot be found.
        """
        del request
        return {}

    @property
    def shares(self) -> Sharing:
        """What `encode_shared` computes once for this model (some samples may not allow it)."""
        return "nothing"

    def encode_shared(
        self, groups: Sequence[Sequence[Sample]], *, budget: int | None = None
    ) -> Batch | None:
        """Encode samples so that what samples with the same images share is computed once.

        Activations equal those of `encode` up to rounding. In the layouts, samples share rows.
        Such a batch is for reading activations only: `forward` and `generate` do not accept it.

        Args:
            groups: Groups of samples with equal images: at least one group of at least one sample.
            budget: About how many tokens one pass should have, if it can be split; None: no limit.

        Returns:
            The batch; None if the family, or these samples, do not allow sharing.
        """
        del groups, budget
        return None

    @abstractmethod
    def forward(self, batch: Batch, *, logits: Logits = "none") -> ForwardOutput:
        """Run one pass without gradients. Only the logits that are asked for are computed."""

    @abstractmethod
    def generate(self, batch: Batch, *, max_new_tokens: int, edits: Edits = ()) -> list[Generation]:
        """The greedy continuation of each sample.

        Args:
            batch: The batch.
            max_new_tokens: The largest number of tokens.
            edits: What to replace meanwhile; see `edited`. This class applies them around the
                method, so an adapter ignores them.
        """

    def readout(self) -> Readout | None:
        """The final norm and the unembedding; None if the family has none (CLIP)."""
        return None

    def choice_scores(self, samples: Sequence[Sample]) -> list[list[float]] | None:
        """The log-probabilities of each sample's choices, from comparing them with the image.

        For families that generate no text (CLIP). Their manifest offers "choice-scores". For an
        empty list of samples, the result is an empty list.

        Args:
            samples: Samples with choices.

        Returns:
            Per sample, one natural logarithm per choice; their exponentials sum to 1. None if the
            family generates text; then the tokens of the choices are scored instead.
        """
        del samples
        return None

    @abstractmethod
    def answer_ids(self, answer: str) -> list[int]:
        """The token ids that the model would generate for this answer right after a prompt."""

    @abstractmethod
    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Everything that determines the numbers, as JSON-ready data.

        Checkpoint, revision, dtype, attention, image backend, versions. It is stored in the run
        and is part of the fingerprint of its columns.
        """

    @property
    def dtype(self) -> str:
        """The type in which the model computes, a key of `vlmlens.abc.storage.DTYPES`."""
        return "float32"

    def widths(self) -> Mapping[str, int]:
        """The output width of modules by path, as far as the config gives them; for display."""
        return {}
