"""Virtual tokens of a prompt: vectors that stand where tokens' embeddings would, in every pass.

Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning" (2021): the vectors are
what the embedding gives, so whatever a model does with an embedding (positions, scaling) it does
with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from vlmlens._display import brief, count
from vlmlens.errors import CompositionError, DataError, SpecError
from vlmlens.passes.editing import Editing
from vlmlens.passes.edits import Edit, EditedRows, Need
from vlmlens.passes.tracing import depth
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Selector, TokenKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vlmlens.passes.batch import Batch
    from vlmlens.passes.model import EncodingModel, Model
    from vlmlens.samples import Sample

Place = Literal["before-question", "after-image"]
PLACES: tuple[Place, ...] = get_args(Place)
"""Where virtual tokens stand: right before the first token of the user's words; or right behind the
last row of the last image, before whatever the template writes there. Where a family writes nothing
between image and question, the two are the same rows."""

_ROWS = Selector(TokenKind.VIRTUAL)
_EMBEDDINGS = ("llm.encoder.embed", "llm.embed")


@dataclass(slots=True, eq=False)
class SoftPrompt:
    """Virtual tokens. `ModelAdapter.soft_prompt` holds those of a model.

    Args:
        vectors: float `[tokens, width]`, as the model's embedding gives them; may want gradients.
        place: Where they stand in every prompt.

    Raises:
        SpecError: There is no such place, or the vectors are no matrix of finite floats.
    """

    vectors: torch.Tensor
    place: Place = "before-question"
    _inside: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        check_place(self.place)
        given = self.vectors
        if given.ndim != 2 or not given.is_floating_point() or not given.numel():
            raise SpecError(
                f"The vectors of a soft prompt are {tuple(given.shape)} of {given.dtype}.",
                subject="vectors",
                hint="Expected: floats [tokens, width], with at least one token.",
            )
        if not bool(torch.isfinite(given).all()):
            raise SpecError(
                "The vectors of a soft prompt hold NaN or infinity.",
                subject="vectors",
                hint="Train them again, at a lower rate.",
            )

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return brief(self, self.place, count(len(self), "token"), f"width {self.vectors.shape[1]}")

    def describe(self) -> dict[str, Any]:
        """What a model with it says of it: part of every fingerprint. The values are a digest."""
        values = self.vectors.detach().to("cpu", torch.float32).contiguous()
        digest = hashlib.sha256(f"{self.place} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
        return {
            "kind": "prompt",
            "component": "prompt",
            "place": self.place,
            "tokens": len(self),
            "digest": digest.hexdigest(),
            "merged": False,
        }

    @contextmanager
    def applied(self, vlm: EncodingModel, batch: Batch, *, writing: bool = False) -> Iterator[None]:
        """Have the vectors in their rows in one pass of a batch, or in all passes of its writing.

        Args:
            vlm: The model.
            batch: From `encode` of the model with this soft prompt.
            writing: Whether the model generates.

        Raises:
            DataError: The batch was encoded without this soft prompt.
            CompositionError: The model has no embedding of tokens, or one of another width.
        """
        at = depth()
        if at in self._inside:  # a method of a base class
            yield
            return
        site = embedding_of(vlm)
        self._check_room(batch)
        edit = Edit(site, _ROWS, _Put(self.vectors), "the soft prompt", strict=False)
        self._inside.add(at)
        try:
            with Editing(vlm, [edit]).applied(batch, writing=writing):
                yield
        finally:
            self._inside.discard(at)

    def check_made(self, batch: Batch) -> None:
        """Raise an error if an adapter encoded a batch without room for virtual tokens.

        Raises:
            CompositionError: It did.
        """
        if not any(_room_in(batch)):
            raise CompositionError(
                "This family's adapter makes no room for virtual tokens when it encodes prompts.",
                subject="prompt",
                hint="Its `encode` must put rows of kind VIRTUAL into the prompt, as that of "
                "`vlmlens.hf.TransformersAdapter` does.",
            )

    def _check_room(self, batch: Batch) -> None:
        for sample, room in zip(batch.samples, _room_in(batch), strict=True):
            if room != len(self):
                raise DataError(
                    f"The sample {sample.id!r} has room for {room} virtual tokens, and the "
                    f"model's soft prompt has {len(self)}.",
                    subject=sample.id,
                    hint="Encode the samples again: a batch is of the soft prompt that the model "
                    "had when it was encoded.",
                )


def placed(place: Any) -> Place:
    """A place by its name.

    Raises:
        SpecError: There is no such place.
    """
    check_place(place)
    found: Place = place
    return found


def check_place(place: Any) -> None:
    """Raise an error if there is no such place.

    Raises:
        SpecError: There is none.
    """
    if place not in PLACES:
        raise SpecError(
            f"A soft prompt cannot stand at {place!r}.",
            subject=str(place),
            hint=f"Choose {' or '.join(PLACES)}.",
        )


def check_model(vlm: Any) -> None:
    """Raise an error if a model cannot take a soft prompt.

    Raises:
        CompositionError: It reads no prompts, or has virtual tokens already.
    """
    embedding_of(vlm)
    if vlm.soft_prompt is not None:
        raise CompositionError(
            f"The model has a soft prompt of {len(vlm.soft_prompt)} tokens already.",
            subject="prompt",
            hint="Put one soft prompt into a model at a time.",
        )


def check_width(width: int, vlm: Any) -> None:
    """Raise an error if the embedding of a model is known to have another width.

    Raises:
        CompositionError: It has.
    """
    needed = vlm.widths().get(embedding_of(vlm).path, width)
    if needed != width:
        raise other_width(width, needed)


def other_width(own: int, needed: int) -> CompositionError:
    """The error of vectors that do not fit a model."""
    return CompositionError(
        f"The soft prompt is {own} wide, and the model's embedding {needed}.",
        subject="prompt",
        hint="It was trained for another model.",
    )


def check_no_room(batch: Batch) -> None:
    """Raise an error if a batch has rows of a soft prompt; called where the model has none.

    Raises:
        DataError: It has some.
    """
    for sample, room in zip(batch.samples, _room_in(batch), strict=False):
        if room:
            raise DataError(
                f"The sample {sample.id!r} was encoded with virtual tokens, and the model has "
                "none now.",
                subject=sample.id,
                hint="Encode the samples again.",
            )


def _room_in(batch: Batch) -> list[int]:
    """Per sample, its virtual tokens."""
    axis = Axis.ENCODER if Axis.ENCODER in batch.layouts else Axis.LLM
    if axis not in batch.layouts:
        return []
    kinds = (layout.kinds for layout in batch.layouts[axis].samples)
    return [int((each == TokenKind.VIRTUAL).sum()) for each in kinds]


def embedding_of(vlm: Model) -> Site:
    """The site of the embedding of the prompt's tokens: that of the encoder, where there is one.

    Raises:
        CompositionError: The model has none: it does not read prompts as a language model does.
    """
    known = vlm.sites.canonical
    found = next((known[name] for name in _EMBEDDINGS if name in known), None)
    if found is None:
        raise CompositionError(
            f"{type(vlm.module).__name__} has no language model that reads a prompt, so it takes "
            "no virtual tokens.",
            subject="prompt",
            hint="Choose a model that writes, or tune another component.",
        )
    return found


@dataclass(frozen=True, slots=True)
class _Put:
    """The operation that replaces rows by vectors."""

    vectors: torch.Tensor
    needs: Need = "nothing"

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """The vectors, in the type and on the device of the rows."""
        del about
        if rows.shape[-1] != self.vectors.shape[-1]:
            raise other_width(self.vectors.shape[-1], rows.shape[-1])
        return self.vectors.to(rows.device, rows.dtype)

    def donor(self, sample: Sample, others: Sequence[Sample]) -> Sample | None:
        """None: it needs no donor."""
        del sample, others
        return None

    def describe(self) -> Mapping[str, Any]:
        """Nothing: a soft prompt describes itself."""
        return {}
