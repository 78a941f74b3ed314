"""What sweeps, edits, attribution and maps cost beside bare passes, nnsight and an extraction.

The model is a LLaVA of 8 + 8 blocks of one width, with random weights, the proportions of LLaVA-1.5
(576 image tokens, MLPs of 43/16 of the width), and the last block of the tower as what the language
model sees. In the sweep, the rows of a donor take the place of a sample's own: at each
vision block those of the image, at each language block those of the image, of the question, or the
last one. These are 32 cells; two more passes are without edits. All variants give the same logit
differences, which is checked:

- vlmlens: what the analysis `patching` runs, from samples to numbers, with replay;
- whole passes: `forward` under edits, on encoded batches, with the donors' rows from one pass;
- nnsight: likewise, at the batch size at which it is fastest.

Attribution of all heads and MLPs at three groups of rows, and of all edges between components, is
held against bare passes of the same batch, and its memory against a plain backward pass. An
occlusion map is held against a loop over the altered images.

All variants of a table run in turn, round after round, in one process. The ratios are those of
each round, and their median counts.

    python -m benchmarks.causal                     # about 10 minutes
    python -m benchmarks.causal --only extraction
    python -m benchmarks.causal --check             # exit 1 where a target is missed
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from benchmarks._attribution import attributions, peaks
from benchmarks._compare import Target, Times, in_turn, ratios, table, verdicts
from benchmarks._models import llava, pairs, photographs
from benchmarks._occlusion import occlusions
from vlmlens.abc import AnalysisContext
from vlmlens.extraction.extraction import Extraction
from vlmlens.samples import Sample
from vlmlens.sites import Axis, Site
from vlmlens.tokens import Selector
from vlmlens_plugins.analysis._sweeps import Cell, Change, Item, SweepOptions, sweep
from vlmlens_plugins.analysis._sweeps.sweeping import answer_tokens
from vlmlens_plugins.extract.activations import ActivationExtractor
from vlmlens_plugins.storage.lmdb import LmdbStore

Floats = npt.NDArray[np.float64]

BLOCKS, WIDTH, SIDE = 8, 512, 336
INNER = 43 * WIDTH // 16
LETTERS = (16, 24)
ANSWERS = ("a", "e")
VISION_ROWS, LANGUAGE_ROWS = ("image",), ("image", "question", "last")
SIZES = (1, 2, 4, 8)
NEAR = 1e-3
EDIT = "llm.block.0/last = scale(0.5)"
POOLED = ("vision.block.3/image.mean", "llm.block.3/mean", "llm.block.7/last")


def main() -> int:
    """Print a table per question, then every number that has a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=2, help="samples with a donor")
    parser.add_argument("--samples", type=int, default=24, help="of the extraction")
    parser.add_argument("--only", choices=("sweep", "extraction", "attribution", "occlusion"))
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(
        f"torch {torch.__version__}, {chosen.threads} threads, {chosen.rounds} rounds", end="\n\n"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = {"layers": BLOCKS, "tower": BLOCKS, "width": WIDTH, "inner": INNER}
        vlm = llava(folder / "model", side=SIDE, features=-1, **size)
        parts: dict[str, Callable[[], list[Target]]] = {
            "sweep": lambda: _sweeps(vlm, folder, chosen.pairs, chosen.rounds),
            "extraction": lambda: _extractions(vlm, folder, chosen.samples, chosen.rounds),
            "attribution": lambda: _attributions(vlm, folder, chosen.pairs, chosen.rounds),
            "occlusion": lambda: _occlusions(vlm, folder, chosen.pairs, chosen.rounds),
        }
        run = [part for name, part in parts.items() if chosen.only in (None, name)]
        targets = [target for part in run for target in part()]
    print(verdicts(targets))
    return int(chosen.check and not all(target.met for target in targets))


def _attributions(vlm: Any, folder: Path, count: int, rounds: int) -> list[Target]:
    peaks(folder / "model")
    return attributions(vlm, _items(folder, count), rounds)


def _occlusions(vlm: Any, folder: Path, count: int, rounds: int) -> list[Target]:
    samples = pairs(photographs(folder / "occluded", count), 1, letters=LETTERS)
    return occlusions(vlm, samples, ANSWERS[0], rounds)


def _items(folder: Path, count: int) -> list[Item]:
    samples = pairs(photographs(folder / "pairs", 2 * count), 1, letters=LETTERS)
    return [
        Item(sample, ANSWERS, donor=Sample(f"donor of {sample.id}", sample.prompt, donor.images))
        for sample, donor in zip(samples[:count], samples[count:], strict=True)
    ]


def _sweeps(vlm: Any, folder: Path, count: int, rounds: int) -> list[Target]:
    items = _items(folder, count)
    cells = [
        (site, rows)
        for stack, selectors in (("vision", VISION_ROWS), ("llm", LANGUAGE_ROWS))
        for site in vlm.sites.resolve(f"{stack}.block.*")
        for rows in selectors
    ]
    own, whole, other = "vlmlens", "whole passes", "nnsight"
    found: dict[str, Floats] = {}
    variants: dict[str, Callable[[], Floats]] = {
        own: lambda: _swept(vlm, items, cells),
        whole: lambda: _by_hand(_Whole(vlm), vlm, items, cells, count),
    }
    if find_spec("nnsight"):
        wrapped = _Nnsight(vlm)
        size = _best_size(wrapped, vlm, items, cells)
        variants[other] = lambda: _by_hand(wrapped, vlm, items, cells, size)
        print(f"nnsight is fastest in batches of {size}")
    seconds = in_turn(
        {name: lambda n=name, run=run: found.update({n: run()}) for name, run in variants.items()},
        rounds,
    )
    length = len(vlm.encode([items[0].target]).layouts[Axis.LLM].samples[0])
    print(f"{len(cells)} cells on {count} pairs of about {length} tokens")
    print(table(seconds, whole, per=len(cells) * count, unit="cell and pair"))
    for name in found.keys() - {own}:
        apart = float(np.abs(found[name] - found[own]).max())
        print(f"largest difference between {own} and {name}: {apart:.1e}")
        assert apart < NEAR, name
    spread = float(np.ptp(found[own]))
    print(f"the logit differences lie {spread:.2f} apart", end="\n\n")
    assert spread > 100 * NEAR
    targets = [_at_most("sweep, of whole passes", seconds, own, whole, 0.60)]
    if other in seconds:
        targets.append(_at_most("sweep, of nnsight", seconds, own, other, 0.40))
    return targets


Place = tuple[Site, str]
"""A site, and which rows of it."""


def _swept(vlm: Any, items: Sequence[Item], cells: Sequence[Place]) -> Floats:
    """The logit differences `[cells, items]` as the analysis gets them."""
    samples = [item.target for item in items]
    context = AnalysisContext(samples, None, cache(lambda: vlm))  # type: ignore[arg-type]
    made = [Cell((Change(f"{site.name}/{rows} = patch"),)) for site, rows in cells]
    return sweep(context, items, made, SweepOptions()).difference()


class _Passes(Protocol):
    """How one runs a model by hand."""

    def recorded(self, batch: Any, sites: Sequence[Site]) -> list[torch.Tensor]:
        """The activation of each site in a pass, `[..., width]`."""

    def plain(self, batch: Any) -> torch.Tensor:
        """The logits behind each sample's last token."""

    def patched(
        self, batch: Any, site: Site, index: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Likewise, with these rows `[k, width]` of the flattened activation replaced."""


def _by_hand(
    passes: _Passes, vlm: Any, items: Sequence[Item], cells: Sequence[Place], size: int
) -> Floats:
    """The logit differences `[cells, items]` from whole passes over batches."""
    _, prefixes, tokens, _ = answer_tokens(vlm, items)
    one, other = tokens[0]
    sites = {site.name: site for site, _ in cells}
    found = []
    for start in range(0, len(items), size):
        some, begun = items[start : start + size], prefixes[start : start + size]
        batch = vlm.encode([item.target for item in some], answers=begun)
        donors = vlm.encode([item.donor for item in some], answers=begun)
        given = dict(zip(sites, passes.recorded(donors, list(sites.values())), strict=True))
        passes.plain(batch)
        logits = []
        for site, rows in cells:
            activation = given[site.name]
            index = _rows(batch, site, rows)
            flat = activation.reshape(-1, activation.shape[-1])
            logits.append(passes.patched(batch, site, index, flat[index]))
        stacked = torch.stack(logits).double()
        found.append((stacked[..., one] - stacked[..., other]).numpy())
    return np.concatenate(found, 1)


def _rows(batch: Any, site: Site, rows: str) -> torch.Tensor:
    """Row numbers of the flattened activation. The last row is that of what the answers share."""
    layouts = batch.layouts[site.axis].samples
    chosen = [
        one.rows[-1:] if rows == "last" else Selector.parse(rows).rows(one) for one in layouts
    ]
    return torch.from_numpy(np.concatenate(chosen))


@dataclass(frozen=True)
class _Whole:
    """Whole passes of vlmlens."""

    vlm: Any

    def recorded(self, batch: Any, sites: Sequence[Site]) -> list[torch.Tensor]:
        trace = self.vlm.trace(batch, sites, logits="last")
        return [trace[site.name] for site in sites]

    def plain(self, batch: Any) -> torch.Tensor:
        logits: torch.Tensor = self.vlm.forward(batch, logits="last").logits
        return logits

    def patched(
        self, batch: Any, site: Site, index: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        def put(activation: torch.Tensor) -> torch.Tensor:
            flat = activation.reshape(-1, activation.shape[-1])
            return flat.index_copy(0, index, rows).reshape(activation.shape)

        with self.vlm.edited({site.name: put}):
            return self.plain(batch)


class _Nnsight:
    """The same through nnsight. It computes no logits but the last, and keeps no cache.

    It wraps a copy: the modules that it wraps are slower ever after.
    """

    def __init__(self, vlm: Any) -> None:
        from nnsight import NNsight

        self._model = NNsight(deepcopy(vlm.module))

    @torch.inference_mode()
    def recorded(self, batch: Any, sites: Sequence[Site]) -> list[torch.Tensor]:
        from nnsight import save

        with self._model.trace(**_inputs(batch)):
            found = save([self._model.get(site.path).output for site in sites])
        return list(found)

    @torch.inference_mode()
    def plain(self, batch: Any) -> torch.Tensor:
        from nnsight import save

        with self._model.trace(**_inputs(batch)):
            logits = save(self._model.output.logits[:, -1])
        found: torch.Tensor = logits
        return found

    @torch.inference_mode()
    def patched(
        self, batch: Any, site: Site, index: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        from nnsight import save

        with self._model.trace(**_inputs(batch)):
            activation = self._model.get(site.path).output
            activation.view(-1, activation.shape[-1])[index] = rows
            logits = save(self._model.output.logits[:, -1])
        found: torch.Tensor = logits
        return found


def _inputs(batch: Any) -> dict[str, Any]:
    """What the model is called with; samples are padded at the left."""
    return {**batch.inputs, "use_cache": False, "logits_to_keep": 1}


def _best_size(wrapped: _Passes, vlm: Any, items: Sequence[Item], cells: Sequence[Place]) -> int:
    """The batch size at which nnsight needs the least time for three of the cells."""
    some = [cells[0], cells[len(cells) // 2], cells[-1]]
    sizes = [size for size in SIZES if size <= len(items)]
    spent: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(3):
        for size in sizes:
            before = time.process_time()
            _by_hand(wrapped, vlm, items, some, size)
            spent[size].append(time.process_time() - before)
    best = {size: min(times[1:]) for size, times in spent.items()}
    said = ", ".join(f"{size}: {1000 * best[size] / len(items):.0f}" for size in sizes)
    print(f"nnsight by batch size, ms/pair in cpu for {len(some)} cells: {said}")
    return min(best, key=best.__getitem__)


def _extractions(vlm: Any, folder: Path, count: int, rounds: int) -> list[Target]:
    """One question per image, so that nothing could be shared between samples."""
    samples = pairs(photographs(folder / "photographs", count), 1, letters=LETTERS)
    base, own = "vlmlens", "vlmlens, one edit"

    def edited() -> None:
        with vlm.edited([EDIT]):
            _extract(vlm, samples, folder)

    variants: dict[str, Callable[[], object]] = {
        base: lambda: _extract(vlm, samples, folder),
        own: edited,
    }
    seconds = in_turn(variants, rounds)
    print(f"{count} samples, {', '.join(POOLED)}; the edit is {EDIT}")
    print(table(seconds, base, per=count, unit="sample"), end="\n\n")
    return [_at_most("extraction under an edit", seconds, own, base, 1.05)]


def _extract(vlm: Any, samples: Sequence[Sample], folder: Path) -> None:
    extractor = ActivationExtractor(vlm, POOLED, ActivationExtractor.Options())
    columns = tuple(extractor.columns())
    work = Extraction(vlm, extractor, samples, "auto", True, print)
    place = folder / "columns"
    shutil.rmtree(place, ignore_errors=True)
    with LmdbStore.open(str(place), mode="a", options=LmdbStore.Options()) as store:
        work.run(store, [columns] * len(samples), lambda done: None)


def _at_most(what: str, seconds: dict[str, Times], name: str, base: str, limit: float) -> Target:
    wall, cpu = (median(ratios(seconds[name], seconds[base], kind)) for kind in ("wall", "cpu"))
    return Target(what, wall, limit, cpu=cpu)


if __name__ == "__main__":
    sys.exit(main())
