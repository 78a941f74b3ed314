"""Virtual tokens in the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from vlmlens.abc import ModelAdapter
from vlmlens.errors import CompositionError, DataError, SpecError
from vlmlens.passes.soft_prompt import Place, SoftPrompt, check_model, embedding_of, placed
from vlmlens.sites import Site
from vlmlens.tuned.about import write_about
from vlmlens.tuned.prompt import FILE, NAME, about_prompt
from vlmlens.tuned.record import Kind
from vlmlens_plugins._tensor_files import save_tensors
from vlmlens_plugins.tuning.part import Part
from vlmlens_plugins.tuning.parts.weights import wanting_gradients

Start = Literal["words", "mean", "noise"]
STARTS: tuple[Start, ...] = get_args(Start)
"""What the vectors begin as: the embeddings of words that are drawn from the vocabulary; the mean
of the vocabulary's embeddings, all alike; or normal noise with their mean and spread."""

_AT_ONCE = 4096
_MOST = 1024


class PromptPart(Part):
    """Virtual tokens: vectors in place of embeddings, the same for every sample.

    Args:
        vlm: The model.
        tokens: How many.
        place: Where they stand in the prompt; see `vlmlens.passes.soft_prompt.PLACES`.
        start: What they begin as, see `STARTS`.
        seed: Of what is drawn.

    Raises:
        SpecError: A number, the place or the start is out of range.
        CompositionError: The model reads no prompts, or its embedding is not in memory.
    """

    kind: Kind = "prompt"
    component: str = "prompt"

    def __init__(
        self,
        vlm: ModelAdapter,
        *,
        tokens: int = 8,
        place: Place = "before-question",
        start: Start = "words",
        seed: int = 0,
    ) -> None:
        self.place = placed(place)
        _check_numbers(tokens, start, seed)
        check_model(vlm)
        self._module = vlm.module
        self._attached = False
        with torch.inference_mode(False), torch.no_grad():
            self.vectors = torch.nn.Parameter(_begun(vlm, tokens, start, seed), requires_grad=False)

    @contextmanager
    def attached(self, vlm: ModelAdapter) -> Iterator[None]:
        """See `Part.attached`."""
        if vlm.module is not self._module or self._attached:
            raise SpecError(
                "The virtual tokens were made for another model, or are attached already.",
                subject=self.component,
                hint="Make a PromptPart for this model, and attach it once.",
            )
        with (
            vlm.prompted(self._prompt),
            wanting_gradients(vlm.module, [self.vectors]),
        ):
            self._attached = True
            try:
                yield
            finally:
                self._attached = False

    @property
    def _prompt(self) -> SoftPrompt:
        return SoftPrompt(self.vectors, self.place)

    def describe(self) -> dict[str, Any]:
        """See `Part.describe`."""
        return self._prompt.describe()

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """See `Part.parameters`."""
        return [self.vectors]

    def places(self, vlm: ModelAdapter) -> Sequence[Site]:
        """See `Part.places`: the embedding, which neither vision tower nor projector depend on."""
        return [embedding_of(vlm)]

    def state(self) -> dict[str, torch.Tensor]:
        """See `Part.state`."""
        return {NAME: self.vectors.detach().to("cpu", copy=True).contiguous()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """See `Part.load_state`.

        Raises:
            DataError: The vectors have another shape.
        """
        given = {name: list(value.shape) for name, value in state.items()}
        wanted = {NAME: list(self.vectors.shape)}
        if given != wanted:
            raise DataError(
                f"The values are {given}, and the virtual tokens are {wanted}.",
                subject=self.component,
                hint="Load values that a PromptPart of as many tokens for this model gave.",
            )
        with torch.no_grad():
            self.vectors.copy_(state[NAME])

    def save(self, folder: Path, about: Mapping[str, Any]) -> None:
        """See `Part.save`."""
        said = {"component": self.component, **about, **about_prompt(self._prompt)}
        save_tensors(folder / FILE, self.state(), {"format": "pt"})
        write_about(folder, self.kind, said)


def _check_numbers(tokens: int, start: str, seed: int) -> None:
    if type(tokens) is not int or not 1 <= tokens <= _MOST:
        raise SpecError(
            f"A soft prompt cannot have {tokens!r} tokens.",
            subject="tokens",
            hint=f"Choose 1 to {_MOST}; 8 to 100 are common.",
        )
    if start not in STARTS:
        raise SpecError(
            f"A soft prompt cannot begin as {start!r}.",
            subject="start",
            hint=f"Choose one of {', '.join(STARTS)}.",
        )
    if type(seed) is not int or seed < 0:
        raise SpecError(f"The seed is {seed!r}.", subject="seed", hint="Expected: 0 or more.")


def _begun(vlm: ModelAdapter, tokens: int, start: Start, seed: int) -> torch.Tensor:
    """float32 `[tokens, width]`, on the device of the embedding."""
    draw = torch.Generator().manual_seed(seed)
    if start == "words":
        return embedded(vlm, _words(vlm, tokens, draw))
    mean, deviation = _spread(vlm)
    if start == "mean":
        return mean.repeat(tokens, 1)
    drawn = torch.randn(tokens, len(mean), generator=draw).to(mean.device)
    return mean + deviation * drawn


def embedded(vlm: ModelAdapter, ids: Sequence[int]) -> torch.Tensor:
    """What the model's embedding gives for token ids: float32 `[ids, width]`."""
    module = vlm.module.get_submodule(embedding_of(vlm).path)
    weight = next(module.parameters())
    if weight.is_meta:
        raise CompositionError(
            "The model's embedding is not in memory, so no virtual tokens can be made for it.",
            subject="prompt",
            hint="Load the model without --device-map.",
        )
    given = torch.tensor([list(ids)], device=weight.device)
    found: torch.Tensor = module(given)[0].detach().to(torch.float32, copy=True)
    return found


def _vocabulary(vlm: Any) -> int:
    """How many ids are tokens: the embedding may have more rows."""
    module = vlm.module.get_submodule(embedding_of(vlm).path)
    return min(int(next(module.parameters()).shape[0]), len(vlm.tokenizer))


def _words(vlm: Any, tokens: int, draw: torch.Generator) -> list[int]:
    """Ids of different tokens that spell letters; again from the first if there are too few."""
    found: list[int] = []
    for number in torch.randperm(_vocabulary(vlm), generator=draw).tolist():
        if vlm.decode([number]).strip().isalpha():
            found.append(number)
        if len(found) == tokens:
            break
    if not found:
        raise CompositionError(
            "No token of this model's vocabulary is a word.",
            subject="start",
            hint="Choose start=mean or start=noise.",
        )
    return [found[i % len(found)] for i in range(tokens)]


def _spread(vlm: ModelAdapter) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the vocabulary's embeddings, float32 `[width]` each."""
    size = _vocabulary(vlm)
    starts = range(0, size, _AT_ONCE)
    sums = torch.stack([_sums(embedded(vlm, range(at, min(at + _AT_ONCE, size)))) for at in starts])
    mean, square = sums.sum(0) / size
    return mean.float(), (square - mean.square()).clamp(min=0).sqrt().float()


def _sums(rows: torch.Tensor) -> torch.Tensor:
    """Of values and of their squares: float64 `[2, width]`."""
    exact = rows.double()
    return torch.stack([exact.sum(0), exact.square().sum(0)])
