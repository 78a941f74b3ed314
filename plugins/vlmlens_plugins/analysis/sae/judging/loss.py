"""Loss recovered: what the answers lose when rows are replaced by their reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from vlmlens.abc import (
    AnalysisContext,
    EditedRows,
    Intervention,
    ModelAdapter,
    ModelWork,
    Options,
    WorkUnit,
)
from vlmlens.errors import DataError
from vlmlens.passes.edits import Edit
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.tokens import Column, TokenKind
from vlmlens_plugins.analysis.sae.judging.comparing import losses_compared
from vlmlens_plugins.analysis.sae.judging.judged import Judged, Recovered, Role
from vlmlens_plugins.analysis.sae.judging.resampling import UNKNOWN, Interval, Resampling
from vlmlens_plugins.analysis.sae.judging.variance import POOLED
from vlmlens_plugins.sae import Sae, open_sae, save_sae

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
CLEAN, ZERO, MEAN = "clean", "zero", "mean"
_HARMLESS = 0.05
_ROWS = 1024
_EVERY = "all"
_PARTS = ("image", "text")


class LossOptions(Options):
    """Options of `ReplacedLoss`."""

    column: str = Field(description="The column whose rows are replaced: SITE/SELECTOR.")
    parts: dict[str, str] = Field(description="By name, the selector of the rows.")
    means: dict[str, list[float]] = Field(description="By the same names, the mean row.")
    files: dict[str, str] = Field(description="The folder of each SAE, by its digest.")


class ReplacedLoss(ModelWork):
    """Cross-entropy of an answer's tokens under replacements of some rows of the prompt.

    Arguments: "answer". Result: the mean over tokens, in nats: {"clean": number, and for each part
    {"zero", "mean" and the digest of each SAE: number}}.
    """

    Options: ClassVar[type[Options]] = LossOptions
    options: LossOptions
    version: ClassVar[int | None] = 1

    def __init__(self, options: LossOptions) -> None:
        super().__init__(options)
        self._saes: dict[str, Sae] = {}
        self._rows = 0
        """Of the longest sample so far: says how many samples fit, whose logits are all needed."""

    def identity(self) -> dict[str, Any]:
        """See `ModelWork.identity`; folders do not matter, what is in them does."""
        told = super().identity()
        return {**told, "options": {**told["options"], "files": sorted(self.options.files)}}

    def run(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, Any]]:
        """See `ModelWork.run`.

        Raises:
            DataError: A folder holds another SAE than when the work was handed out.
        """
        found: list[dict[str, Any]] = []
        while left := len(units) - len(found):
            fit = max(1, _ROWS // self._rows) if self._rows else 1
            size = -(-left // -(-left // fit))
            found += self._together(vlm, units[len(found) : len(found) + size])
        return found

    def _together(self, vlm: ModelAdapter, units: Sequence[WorkUnit]) -> list[dict[str, Any]]:
        batch = vlm.encode(
            [unit.sample for unit in units], answers=[unit.arguments["answer"] for unit in units]
        )
        axis = batch.layouts[Axis.LLM]
        self._rows, layouts = max(self._rows, -(-axis.total // len(units))), axis.samples
        passes = vlm.replay(batch, logits="all")
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
        made |= {digest: _Reconstructed(self._sae(digest)) for digest in self.options.files}
        return {name: each.at(site, selector, strict=False) for name, each in made.items()}

    def _sae(self, digest: str) -> Sae:
        if digest not in self._saes:
            path = self.options.files[digest]
            opened = open_sae(path)
            if opened.digest != digest:
                raise DataError(
                    f"The folder {path!r} holds another SAE than before.",
                    subject=path,
                    hint="Do not change the run's folder while it is analysed.",
                )
            self._saes[digest] = opened
        return self._saes[digest]


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
        if self._sae.W_enc.device != rows.device:
            self._sae = self._sae.to(rows.device)
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


def replaced_parts(column: str, *, pictured: bool = True) -> dict[str, str]:
    """Which rows of a column are replaced: by name, their selector.

    Args:
        column: The column.
        pictured: Whether all samples have images; image rows are told apart only then.

    >>> replaced_parts("llm.block.3/all")
    {'all': 'all', 'image': 'image', 'text': 'text'}
    >>> replaced_parts("vision.block.3/all")
    {'all': 'all'}
    >>> replaced_parts("llm.block.3/all", pictured=False)
    {'all': 'all'}
    """
    parsed = Column.parse(column)
    selector = str(parsed.selector)
    parts = {selector: selector}
    if pictured and selector == _EVERY and parsed.site.split(".")[0] == "llm":
        parts |= {name: name for name in _PARTS}
    return parts


def with_loss(
    judged: Judged,
    context: AnalysisContext,
    samples: Sequence[Sample],
    *,
    roles: Sequence[Role] = (Role.SAE, Role.UNTRAINED),
    draws: int = 1000,
    progress: Progress | None = None,
) -> Judged:
    """Run the model with rows replaced, and see what the right answers lose.

    Only rows of the prompt are replaced; those of the answer's own tokens stay. Transcoders and
    crosscoders are left out, whose rows are those of several columns.

    Args:
        judged: The SAEs, of a column of one site.
        context: The context of the analysis.
        samples: Held-out samples; those without a label are left out.
        roles: Which of the bases stand for rows.
        draws: Bootstrap resamples behind each interval.
        progress: Called with (samples done, all); None: the context's own.

    Returns:
        `judged` with `loss`, and with the SAEs beside the baselines by it. The same where there is
        nothing to run: no sample has a label, or no basis can stand for rows.
    """
    bases = {
        name: basis.sae
        for name, basis in judged.bases.items()
        if basis.role in roles and not (basis.sae.about.target or " + " in judged.column)
    }
    asked = [sample for sample in samples if sample.label]
    if not asked or not bases:
        return judged
    parts = replaced_parts(judged.column, pictured=all(sample.images for sample in asked))
    rows = {name: judged.means.get(name, judged.means[POOLED]).tolist() for name in parts}
    if context.folder is not None:
        context.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="sae.judged-", dir=context.folder) as folder:
        digests, files = _saved(Path(folder), bases)
        options = LossOptions(column=judged.column, parts=parts, means=rows, files=files)
        units = [WorkUnit(sample, {"answer": sample.label}) for sample in asked]
        found = context.run_units(ReplacedLoss(options), units, progress=progress)
    groups = Resampling.of([sample.split_group for sample in asked], draws, context.seed)
    loss = tuple(
        _summed(name, digest, part, found, groups)
        for part in parts
        for name, digest in digests.items()
    )
    more = losses_compared(judged.peers, loss, groups)
    return replace(judged, loss=loss, compared=(*judged.compared, *more))


def _saved(folder: Path, bases: Mapping[str, Sae]) -> tuple[dict[str, str], dict[str, str]]:
    """The digest of each basis by name, and its folder by digest."""
    digests, files = {}, {}
    for place, (name, sae) in enumerate(bases.items()):
        path = save_sae(folder / str(place), sae)
        digests[name] = open_sae(path).digest
        files[digests[name]] = str(path)
    return digests, files


def _summed(
    basis: str, digest: str, part: str, found: Sequence[Mapping[str, Any]], groups: Resampling
) -> Recovered:
    clean = np.array([each[CLEAN] for each in found])
    replaced, zero, mean = (
        np.array([each[part][name] for each in found]) for name in (digest, ZERO, MEAN)
    )
    of_zero, of_mean = (_share(other - replaced, other - clean, groups) for other in (zero, mean))
    return Recovered(basis, part, clean, replaced, zero, mean, of_zero, of_mean)


def _share(kept: Floats, lost: Floats, groups: Resampling) -> Interval:
    """The ratio of means; unknown where the loss is not clearly at least 0.05 nats."""
    clear = np.quantile(groups.means(lost), 0.025) > 0
    if not (lost.mean() >= _HARMLESS and clear):
        return UNKNOWN
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = groups.sums(kept) / groups.sums(lost)
    return groups.interval(float(kept.sum() / lost.sum()), drawn)
