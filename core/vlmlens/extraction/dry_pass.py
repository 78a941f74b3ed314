"""A dry pass: finds out which modules matched by a regular expression give activations.

An expression such as `re:language_model.*` also matches containers that never run, tables of angles
and whole models. Only a pass shows which modules give rows. The others are left out, each with the
reason. A site that the user named without an expression is still an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlmlens.abc.storage import DTYPES
from vlmlens.errors import SiteShapeError, SiteSilent
from vlmlens.sites.regex import PREFIX
from vlmlens.tokens import Column, select

if TYPE_CHECKING:
    import torch

    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.passes.batch import Batch
    from vlmlens.samples import Sample
    from vlmlens.sites import Site

_HEAD = "llm.head"


def silent_columns(
    vlm: ModelAdapter, asked_sites: Sequence[str], columns: Sequence[str], samples: Sequence[Sample]
) -> dict[str, str]:
    """The columns that an expression matched but that give no rows, each with the reason.

    Runs one pass over two samples, or more if modules can only be tried one by one. Runs none if
    the user gave no expression.

    Args:
        vlm: The loaded model.
        asked_sites: The sites and columns that the user asked for.
        columns: The names of the columns that the extractor gives.
        samples: Samples to try; `two_samples` are enough.

    Raises:
        SiteSilent: No module matched by an expression gives rows.
    """
    asked = [site.partition("/")[0] for site in asked_sites if site.startswith(PREFIX)]
    if not asked:
        return {}
    sites = {site.name: site for site in vlm.sites.resolve_all(asked)}
    parsed = [Column.parse(name) for name in columns if "/" in name]
    plain = [site for site in asked_sites if not site.startswith(PREFIX)]
    named = {site.name for site in vlm.sites.resolve_all(s.partition("/")[0] for s in plain)}
    tried = [c for c in parsed if c.site in sites and c.site not in named]
    silent = _try(vlm, two_samples(samples), tried, sites)
    for expression in asked:
        _check_some_left(expression, [s.name for s in vlm.sites.resolve(expression)], silent)
    return {str(column): silent[column.site] for column in tried if column.site in silent}


def _check_some_left(expression: str, names: Sequence[str], silent: dict[str, str]) -> None:
    if all(name in silent for name in names):
        raise SiteSilent(
            f"None of the {len(names)} modules that match {expression!r} gives rows, for example "
            f"{names[0]}: {silent[names[0]]}",
            subject=expression,
            hint="Name blocks or modules inside them; `vlmlens sites --all` lists the modules.",
        )


def two_samples(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample, and one of another length if there is one, so that the batch is padded."""
    first = samples[0]
    others = (sample for sample in samples[1:] if len(sample.prompt) != len(first.prompt))
    return [first, next(others, samples[-1])] if len(samples) > 1 else [first]


@dataclass
class _Watched:
    """What a pass shows about the sites that are tried."""

    batch: Batch
    columns: dict[str, list[Column]]
    calls: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)

    def visit(self, site: Site, activation: torch.Tensor) -> None:
        """Select rows in the same way as the run."""
        self.calls[site.name] += 1
        dtype = str(activation.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            self.reasons[site.name] = f"it gives {dtype}, no activation."
            return
        layout = self.batch.layouts[site.axis]
        try:
            for column in self.columns[site.name]:
                select(activation, column.selector, layout, site)
        except SiteShapeError as error:
            self.reasons[site.name] = error.message


def _try(
    vlm: ModelAdapter, samples: Sequence[Sample], tried: Iterable[Column], sites: dict[str, Site]
) -> dict[str, str]:
    """Reasons by site name."""
    by_site: dict[str, list[Column]] = {}
    for column in tried:
        by_site.setdefault(column.site, []).append(column)
    batch = vlm.encode(samples)
    left = {name: sites[name] for name in by_site}
    reasons = {
        name: f"it lies on the {site.axis.value} axis, which samples without an image lack."
        for name, site in left.items()
        if site.axis not in batch.layouts
    }
    finished = False
    while not finished:
        left = {name: site for name, site in left.items() if name not in reasons}
        found, finished = _pass(vlm, _Watched(batch, by_site), list(left.values()))
        reasons |= found
    return reasons


def _pass(
    vlm: ModelAdapter, watched: _Watched, sites: Sequence[Site]
) -> tuple[dict[str, str], bool]:
    """What is wrong with the sites in one pass, and whether the pass reached its end.

    It ends early at a module whose output contains no tensor.
    """
    import torch

    from vlmlens.passes.tracing import hooked

    logits = any(site.name.startswith(_HEAD) for site in sites)
    finished = False
    try:
        with torch.inference_mode(), hooked(vlm.module, sites, watched.visit):
            vlm.forward(watched.batch, logits="all" if logits else "none")
            finished = True
    except SiteSilent as error:
        if not finished:
            return {str(error.subject): error.message}, False
    reasons = dict(watched.reasons)
    for site in sites:
        calls = watched.calls[site.name]
        if not calls:
            reasons[site.name] = f"its module ({site.path}) did not run."
        elif calls > 1 and site.call is None:
            reasons[site.name] = f"its module ran {calls} times; choose one call with #k."
    return reasons, True
