"""Shared by the adapter checks: the tiny checkpoint, its samples, comparisons."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vlmlens.abc.adapter import LoadRequest, ModelAdapter
from vlmlens.errors import nearest
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.testing._checks import expect, skip
from vlmlens.testing._plugin_checks import PluginChecks
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector

if TYPE_CHECKING:
    import torch

SIZES = ((64, 48), (40, 88), (64, 64))
"""(width, height) of the pictures in the checks."""

PROBES = {
    Axis.LLM: "llm.block.0",
    Axis.PROJECTOR: "projector",
    Axis.VISION: "vision.block.0",
}


SHARED = "VLMLENS_TINY_CHECKPOINTS"
"""Variable with the folder in which processes of a test session share tiny checkpoints."""

_NAMING = frozenset(vars(type("Empty", (), {}))) | {"__annotations__"}


class AdapterSuite(PluginChecks):
    """A family's tiny checkpoint, and the helpers of the checks in `AdapterTests`.

    A suite may set `stands_for`: the listed checkpoint whose architecture the tiny one has.
    """

    tolerance: ClassVar[float] = 2e-5
    mask_matters: ClassVar[float] = 1e-3
    model: ClassVar[str | None] = None
    device: ClassVar[str] = "cpu"
    attention: ClassVar[str | None] = None
    images: ClassVar[bool] = True
    text: ClassVar[bool] = True
    stands_for: ClassVar[str]
    _built: ClassVar[dict[type, Path]] = {}
    _loaded: ClassVar[dict[type, ModelAdapter]] = {}

    def build(self, folder: Path) -> None:
        """Write a tiny checkpoint: config, weights, tokenizer, processor."""
        raise NotImplementedError("implement build")

    # ------------------------------------------------------------------ parts

    @property
    def adapter(self) -> type[ModelAdapter]:
        """The adapter class."""
        return self.plugin

    @property
    def checkpoint(self) -> Path:
        """The checkpoint to check: the given one, or the tiny one, built once per class."""
        if self.model is not None:
            return Path(self.model)
        suite = self._suite()
        if suite not in self._built:
            self._built[suite] = _built_once(suite, self.build)
        return self._built[suite]

    @property
    def vlm(self) -> ModelAdapter:
        """The loaded model, in float32, once per class."""
        suite = self._suite()
        if suite not in self._loaded:
            self._loaded[suite] = self.load()
        return self._loaded[suite]

    @classmethod
    def _suite(cls) -> type:
        """The class that defines something: the base of an empty `class TestX(XChecks)`."""
        return next(each for each in cls.__mro__ if set(vars(each)) - _NAMING)

    def load(self, **settings: Any) -> ModelAdapter:
        """A fresh instance of the model."""
        given: dict[str, Any] = {
            "device": self.device, "dtype": "float32", "options": self.chosen(),
            "attention": self.attention, **settings,
        }  # fmt: skip
        return self.adapter.load(LoadRequest(model=str(self.checkpoint), **given))

    @cached_property
    def samples(self) -> list[Sample]:
        """Samples with prompts of different lengths, and pictures of different shapes if any."""
        prompts = ("What is this?", "Name the colour of the largest thing, please:", "Hm?")
        shown = [(picture(*size, seed=i),) if self.images else () for i, size in enumerate(SIZES)]
        return [Sample(f"s{i}", each, shown[i]) for i, each in enumerate(prompts)]

    def hidden_states(self, output: Any) -> Sequence[torch.Tensor]:
        """The language model's hidden states in transformers' own output, embeddings first."""
        states: Sequence[torch.Tensor] = output.hidden_states
        return states

    def offers(self, what: str) -> bool:
        """Whether the manifest says that the family offers this."""
        return what in self.manifest.offers

    def _needs(self, what: str) -> None:
        if not self.offers(what):
            raise skip(f"{self.manifest.name} does not offer {what!r}")

    def _needs_images(self) -> None:
        if not self.images:
            raise skip(f"{self.manifest.name} reads text only")

    def _needs_text(self) -> None:
        if not self.text:
            raise skip(f"{self.manifest.name} reads images only")

    def _missing_site(self, name: str) -> str:
        """Why a canonical site does not exist: its template's paths are not in the model."""
        for template in getattr(self.adapter, "templates", ()):
            if template.name.replace("{i}", "0") == name:
                paths = [path.replace("{i}", "0") for path in template.paths]
                near = nearest(paths[0], self.vlm.sites.modules, n=1)
                return (
                    f"template {template.name!r}: none of {', '.join(paths)} exists in the model; "
                    f"nearest: {', '.join(near) or 'none'}"
                )
        return f"there is no site {name!r}: add a template for it"

    def _scores(self, samples: Sequence[Sample]) -> Any:
        scores = self.vlm.choice_scores(samples)
        expect(scores is not None, "it offers 'choice-scores' and gives none")
        return np.array(scores)

    def _blocks(self) -> list[Site]:
        return [
            site
            for name, site in self.vlm.sites.canonical.items()
            if name.startswith("llm.block.") and name.count(".") == 2
        ]

    def _edited_blocks(self) -> list[Site]:
        """The first, and the last two, of the vision blocks and of the language blocks."""
        chosen: list[Site] = []
        for side in ("vision", "llm"):
            names = (n for n in self.vlm.sites.canonical if n.startswith(f"{side}.block."))
            blocks = [self.vlm.sites.canonical[n] for n in names if n.count(".") == 2]
            chosen += {site.name: site for site in [*blocks[:1], *blocks[-2:]]}.values()
        return chosen

    def _columns(self, vlm: ModelAdapter) -> list[str]:
        """Columns on every axis, pooled and whole."""
        names = [name for name in vlm.sites.canonical if ".block." in name or name == "projector"]
        columns = []
        for name in names:
            axis = vlm.sites.canonical[name].axis
            pooled = "last" if axis is Axis.LLM else "image.mean"
            columns += [f"{name}/{pooled}", f"{name}/all"]
        return columns

    def _activations(self, vlm: ModelAdapter, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        import torch

        columns = self._columns(vlm)
        trace = vlm.trace(vlm.encode(samples), [name.partition("/")[0] for name in columns])
        found = {}
        for name in columns:
            rows = trace.select(name)
            found[name] = torch.cat(rows) if isinstance(rows, list) else rows
        return found

    def _questions(self, image: Any) -> list[Sample]:
        """Questions of different lengths on one picture."""
        prompts = [sample.prompt for sample in self.samples]
        return [Sample(f"q{i}", prompt, (image,)) for i, prompt in enumerate(prompts)]

    def _in_passes(self, batch: Any, *, stop: bool) -> dict[str, Any]:
        from vlmlens.passes.selection import select_in_passes

        sites = self.vlm.sites.canonical
        columns = {}
        for name in self._columns(self.vlm):
            site, _, selector = name.partition("/")
            columns[name] = (sites[site], Selector.parse(selector))
        axes = {site.axis for site, _ in columns.values()}
        layouts = {axis: batch.layouts[axis] for axis in axes}
        return select_in_passes(self.vlm, batch, columns, layouts, stop=stop)

    def _compare_with_single(
        self, samples: Sequence[Sample], sites: Sequence[Site] | None = None
    ) -> None:
        import torch

        names = (
            [s.name for s in sites]
            if sites
            else [n.partition("/")[0] for n in self._columns(self.vlm)]
        )
        names = list(dict.fromkeys(names))
        together = self.vlm.trace(self.vlm.encode(samples), names)
        for i, sample in enumerate(samples):
            single = self.vlm.trace(self.vlm.encode([sample]), names)
            for name in names:
                batched, alone = together.select(f"{name}/all"), single.select(f"{name}/all")
                assert isinstance(batched, list)
                assert isinstance(alone, list)
                same = batched[i].shape == alone[0].shape
                rows = f"{len(batched[i])} rows in a batch, {len(alone[0])} alone"
                expect(same, f"{name}, {sample.id}: {rows}")
                far = distance(alone[0], batched[i])
                expect(far <= self.tolerance, f"{name}, {sample.id}: {far:.1e} away from alone")
        if self.offers("readout"):
            logits = self.vlm.forward(self.vlm.encode(samples), logits="last").logits
            ones = [self.vlm.forward(self.vlm.encode([s]), logits="last").logits for s in samples]
            far = distance(torch.cat([one for one in ones if one is not None]), logits)
            expect(far <= self.tolerance, f"the logits are {far:.1e} away from alone")

    def _probe_site(self, vlm: ModelAdapter, axis: Axis) -> str | None:
        """The site at which to look for changed tokens on an axis."""
        name = PROBES[axis]
        return name if name in vlm.sites.canonical else None


def replaced(batch: Any, **inputs: Any) -> Any:
    return replace(batch, inputs={**batch.inputs, **inputs})


def distance(expected: Any, found: Any) -> float:
    """Largest difference, relative to the largest expected value (at least 1)."""
    a, b = expected.float().cpu().numpy(), found.float().cpu().numpy()
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a - b).max() / max(1.0, np.abs(a).max()))


def halved(activation: Any) -> Any:
    """An edit that halves the activation."""
    return activation * 0.5


@contextmanager
def forward_replaced(module: Any, site: Site, edit: Any) -> Iterator[None]:
    """Make a module return the edited activation itself, without a hook."""
    from vlmlens.passes.activation import replaced_activation

    forward = module.forward

    def edited(*args: Any, **kwargs: Any) -> Any:
        return replaced_activation(forward(*args, **kwargs), site, edit)

    module.forward = edited
    try:
        yield
    finally:
        del module.forward


def _built_once(suite: type, build: Callable[[Path], None]) -> Path:
    """A suite's tiny checkpoint; if processes share them, that of the first one to finish."""
    known = getattr(sys.modules.get(suite.__module__), suite.__qualname__, None)
    shared = os.environ.get(SHARED) if known is suite else None  # others may have the same name
    place = Path(shared, f"{suite.__module__}.{suite.__qualname__}") if shared else None
    if place is not None and place.exists():
        return place
    folder = Path(tempfile.mkdtemp(prefix="vlmlens-tiny-", dir=shared))
    _remove_at_exit(folder)
    build(folder)
    if place is None:
        return folder
    with suppress(OSError):
        folder.rename(place)
    return place


def _remove_at_exit(folder: Path) -> None:
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
