"""Loss recovered: what the answers lose when rows are replaced by their reconstructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from vlmlens.abc import AnalysisContext, EditedRows, Intervention, ModelAdapter, ModelWork, Options
from vlmlens.abc import WorkUnit as Unit
from vlmlens.errors import DataError
from vlmlens.passes.edits import Edit
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import Column, TokenKind
from vlmlens_plugins.analysis.sae.judging.variance import Interval, Resampling
from vlmlens_plugins.sae import Sae, open_sae, save_sae

Floats = npt.NDArray[np.float64]
CLEAN, ZERO, MEAN = "clean", "zero", "mean"
_HARMLESS = 0.05
_EVERY = "all"
_PARTS = ("image", "text")


@dataclass(frozen=True, slots=True)
class Recovered:
    """How much of the answers' loss a basis keeps when it stands for rows.

    Args:
        basis: Its name.
        rows: Which rows were replaced: a selector.
        samples: How many samples.
        clean: Mean cross-entropy of the right answers' tokens, in nats, with nothing replaced.
        replaced: The same with rows replaced by their reconstructions.
        zero: The same with rows replaced by zeros; `mean` by the mean row.
        of_zero: `(zero - replaced) / (zero - clean)` with its interval; NaN where zeros cost less
            than 0.05 nats, or not clearly anything: then there is nothing to recover.
        of_mean: The same of the mean row.
    """

    basis: str
    rows: str
    samples: int
    clean: float
    replaced: float
    zero: float
    mean: float
    of_zero: Interval
    of_mean: Interval


class LossOptions(Options):
    """Options of `ReplacedLoss`."""

    column: str = Field(description="The column whose rows are replaced: SITE/SELECTOR.")
    parts: dict[str, str] = Field(description="By name, the selector of the rows.")
    means: dict[str, list[float]] = Field(description="By the same names, the mean row.")
    files: dict[str, str] = Field(description="By name of the basis, its folder.")
    digests: dict[str, str] = Field(description="By name, the digest of the SAE in the folder.")


class ReplacedLoss(ModelWork):
    """Cross-entropy of an answer's tokens under replacements of some rows of the prompt.

    Arguments: "answer". Result: the mean over tokens, in nats: {"clean": number, and for each part
    {"zero", "mean" and each basis: number}}.
    """

    Options: ClassVar[type[Options]] = LossOptions
    options: LossOptions
    version: ClassVar[int | None] = 1

    def __init__(self, options: LossOptions) -> None:
        super().__init__(options)
        self._saes: dict[str, Sae] = {}

    def identity(self) -> dict[str, Any]:
        """See `ModelWork.identity`; folders do not matter, what is in them does."""
        told = super().identity()
        kept = {name: value for name, value in told["options"].items() if name != "files"}
        return {**told, "options": kept}

    def run(self, vlm: ModelAdapter, units: Sequence[Unit]) -> list[dict[str, Any]]:
        """See `ModelWork.run`.

        Raises:
            DataError: A folder holds another SAE than when the work was handed out.
        """
        batch = vlm.encode(
            [unit.sample for unit in units], answers=[unit.arguments["answer"] for unit in units]
        )
        passes = vlm.replay(batch, logits="all")
        layouts = batch.layouts[Axis.LLM].samples
        clean = _losses(passes.logits, layouts)
        found: list[dict[str, Any]] = [{CLEAN: value} for value in clean]
        for part in self.options.parts:
            for name, edit in self._edits(part).items():
                values = _losses(passes.edited([edit]), layouts)
                for told, value in zip(found, values, strict=True):
                    told.setdefault(part, {})[name] = value
        return found

    def _edits(self, part: str) -> dict[str, Edit]:
        site, selector = Column.parse(self.options.column).site, self.options.parts[part]
        mean = torch.tensor(self.options.means[part])
        made: dict[str, Intervention] = {
            ZERO: _Constant(torch.zeros_like(mean)),
            MEAN: _Constant(mean),
        }
        made |= {name: _Reconstructed(self._sae(name)) for name in self.options.files}
        return {name: each.at(site, selector, strict=False) for name, each in made.items()}

    def _sae(self, name: str) -> Sae:
        if name not in self._saes:
            path = self.options.files[name]
            opened = open_sae(path)
            if opened.digest != self.options.digests[name]:
                raise DataError(
                    f"The folder {path!r} holds another SAE than before.",
                    subject=path,
                    hint="Do not change the run's folder while it is analysed.",
                )
            self._saes[name] = opened
        return self._saes[name]


class _Constant(Intervention):
    """Every row is the same."""

    def __init__(self, row: torch.Tensor) -> None:
        super().__init__(Options())
        self._row = row

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        del about
        return self._row.to(rows).expand_as(rows)


class _Reconstructed(Intervention):
    """Every row is what the SAE gives back."""

    def __init__(self, sae: Sae) -> None:
        super().__init__(Options())
        self._sae = sae

    @property
    def width(self) -> int | None:
        """See `Intervention.width`."""
        return self._sae.inputs

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Intervention.change`."""
        del about
        return self._sae.reconstruct(rows.float()).to(rows)


def _losses(logits: torch.Tensor | None, layouts: Sequence[Any]) -> list[float]:
    """Per sample the mean cross-entropy of its answer's tokens."""
    assert logits is not None  # noqa: S101
    flat = logits.flatten(0, 1)
    found = []
    for layout in layouts:
        where = layout.positions(TokenKind.ANSWER)
        before = torch.from_numpy(layout.rows[where - 1]).to(flat.device)
        tokens = torch.from_numpy(layout.token_ids[where]).to(flat.device)
        logs = flat[before].double().log_softmax(-1)
        found.append(float(-logs.gather(1, tokens[:, None]).mean()))
    return found


def replaced_parts(column: str) -> dict[str, str]:
    """Which rows of a column are replaced: by name, their selector.

    >>> replaced_parts("llm.block.3/all")
    {'all': 'all', 'image': 'image', 'text': 'text'}
    >>> replaced_parts("vision.block.3/all")
    {'all': 'all'}
    """
    parsed = Column.parse(column)
    selector = str(parsed.selector)
    parts = {selector: selector}
    if selector == _EVERY and parsed.site.split(".")[0] == "llm":
        parts |= {name: name for name in _PARTS}
    return parts


def recovered(
    context: AnalysisContext,
    column: str,
    bases: Mapping[str, Sae],
    means: Mapping[str, npt.NDArray[np.floating]],
    samples: Sequence[Sample],
    *,
    draws: int = 1000,
    progress: Any = None,
) -> list[Recovered]:
    """Run the model with rows replaced, and see what the right answers lose.

    Only rows of the prompt are replaced; those of the answer's own tokens stay.

    Args:
        context: The context of the analysis.
        column: The column of all bases; of a single site.
        bases: By name; each gives back the rows that it reads.
        means: By the names of `replaced_parts`, the mean row; a missing one is that of the column.
        samples: Held-out samples with labels; others are left out.
        draws: Bootstrap resamples behind each interval.
        progress: Called with (samples done, all).

    Returns:
        For each basis and part; empty if no sample has a label.
    """
    asked = [sample for sample in samples if sample.label]
    if not asked:
        return []
    parts = replaced_parts(column)
    own = next(iter(parts))
    rows = {name: [float(v) for v in means.get(name, means[own])] for name in parts}
    if context.folder is not None:
        context.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="sae.judged-", dir=context.folder) as folder:
        files = {
            name: str(save_sae(Path(folder, str(place)), sae))
            for place, (name, sae) in enumerate(bases.items())
        }
        # what is read again may differ in the flags that a format keeps
        digests = {name: open_sae(path).digest for name, path in files.items()}
        work = ReplacedLoss(
            LossOptions(column=column, parts=parts, means=rows, files=files, digests=digests)
        )
        units = [Unit(sample, {"answer": sample.label}) for sample in asked]
        found = context.run_units(work, units, progress=progress)
    groups = Resampling.of([sample.split_group for sample in asked], draws, context.seed)
    return [_summed(name, part, found, groups) for part in parts for name in bases]


def _summed(
    basis: str, part: str, found: Sequence[Mapping[str, Any]], groups: Resampling
) -> Recovered:
    clean = np.array([each[CLEAN] for each in found])
    losses = {name: np.array([each[part][name] for each in found]) for name in (ZERO, MEAN, basis)}
    of = {
        name: _share(losses[name] - losses[basis], losses[name] - clean, groups)
        for name in (ZERO, MEAN)
    }
    return Recovered(
        basis, part, len(found), float(clean.mean()), float(losses[basis].mean()),
        float(losses[ZERO].mean()), float(losses[MEAN].mean()), of[ZERO], of[MEAN],
    )  # fmt: skip


def _share(kept: Floats, lost: Floats, groups: Resampling) -> Interval:
    """The ratio of means; unknown where the loss is not clearly above 0.05 nats."""
    unknown = Interval(float("nan"), float("nan"), float("nan"))
    below = groups.weights @ lost
    size = groups.weights.sum(1)
    if not lost.mean() >= _HARMLESS or np.quantile(below / size, 0.025) <= 0:
        return unknown
    with np.errstate(divide="ignore", invalid="ignore"):
        return groups.interval(float(kept.sum() / lost.sum()), (groups.weights @ kept) / below)


def without(samples: Sequence[Sample], most: int) -> list[Sample]:
    """The first samples of each task, at most so many of each."""
    counts: dict[str | None, int] = {}
    kept = []
    for sample in samples:
        counts[sample.task] = counts.get(sample.task, 0) + 1
        if counts[sample.task] <= most:
            kept.append(replace(sample))
    return kept
