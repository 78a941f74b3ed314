"""Components that are ablated, which rows of them, and the edits that do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from vlmlens.abc import ModelAdapter
from vlmlens.errors import SiteNotFound, SpecError
from vlmlens.sites import Axis
from vlmlens.tokens import Selector, TokenKind, TokenLayout
from vlmlens_plugins.analysis._sweeps import Change
from vlmlens_plugins.analysis._sweeps.sweeping import check_writes
from vlmlens_plugins.analysis.ablation.options import AblationOptions, Part

_SITES: Final[Mapping[Part, tuple[str, ...]]] = {
    "heads": ("llm.block.*.attn.heads[*]",),
    "attn": ("llm.block.*.attn_out",),
    "mlp": ("llm.block.*.mlp_out",),
    "block": ("llm.block.*.attn_out", "llm.block.*.mlp_out"),
}
_EDITS = {"mean": "mean", "zero": "zero", "resample": "patch"}

Rows = Mapping[Axis, Sequence[str]]
"""By axis, the selectors of the rows that are ablated."""


@dataclass(frozen=True, slots=True)
class Component:
    """Something that is ablated as a whole.

    Args:
        name: `llm.block.3.attn.heads[2]`, `llm.block.3.mlp_out`, `llm.block.3`.
        part: Of which part it is one; "site" for sites that the user names.
        layer: The block that it is in.
        sites: The sites whose rows are replaced, with their axis.
    """

    name: str
    part: Part | Literal["site"]
    layer: str
    sites: tuple[tuple[str, Axis], ...]

    def changes(self, by: str, rows: Rows) -> tuple[Change, ...]:
        """The edits that ablate it."""
        return tuple(
            Change(f"{site}/{selector} = {_EDITS[by]}")
            for site, axis in self.sites
            for selector in rows[axis]
        )

    def columns(self, rows: Rows) -> list[str]:
        """The places whose mean is needed."""
        return [f"{site}/{name}" for site, axis in self.sites for name in rows[axis]]

    @property
    def short(self) -> str:
        """Its name within its layer: `head 2`, `mlp`."""
        number = self.name.rpartition("heads[")[2].removesuffix("]")
        if number != self.name:
            return f"head {number}"
        inside = self.name.removeprefix(self.layer).strip(".")
        return inside.removesuffix("_out") or "block"


def components(vlm: ModelAdapter, options: AblationOptions) -> list[Component]:
    """The components, part by part, in order of depth.

    Raises:
        CompositionError: The model has no language model, or writes nothing.
        SiteError: A pattern matches nothing.
    """
    check_writes(vlm, "ablation")
    if options.sites is not None:
        sites = vlm.sites.resolve_all(options.sites)
        return [Component(s.name, "site", _layer(s.name), ((s.name, s.axis),)) for s in sites]
    return [each for part in dict.fromkeys(options.parts) for each in _of_part(vlm, part)]


def rows_of(
    layouts: Mapping[Axis, Sequence[TokenLayout]], given: Sequence[str] | None
) -> dict[Axis, Sequence[str]]:
    """Which rows are ablated on each axis.

    Args:
        layouts: By axis, those of the samples.
        given: The user's selectors; None: all rows, by kind.

    Raises:
        SpecError: Only some of the samples have rows of a kind.
        SelectorError: A sample has none of the given rows.
    """
    found: dict[Axis, Sequence[str]] = {}
    for axis, samples in layouts.items():
        found[axis] = _by_kind(samples) if given is None else tuple(given)
        for name in found[axis]:
            selector = Selector.parse(name)
            if selector.pool is not None:
                raise SpecError(
                    f"{name!r} pools rows, and an ablation replaces them.",
                    subject="rows",
                    hint="Name rows without .mean or .max.",
                )
            for layout in samples:
                selector.positions(layout)
    return found


def _by_kind(samples: Sequence[TokenLayout]) -> tuple[str, ...]:
    names = []
    for kind in (TokenKind.SPECIAL, TokenKind.IMAGE, TokenKind.TEXT):
        having = sum(bool(len(layout.positions(kind))) for layout in samples)
        if 0 < having < len(samples):
            raise SpecError(
                f"Only {having} of {len(samples)} samples have rows of the kind "
                f"{kind.name.lower()}.",
                subject="rows",
                hint="Name the rows to ablate: --set analysis.ablation.rows=last.",
            )
        names += [kind.name.lower()] if having else []
    several = all(len(layout.positions(TokenKind.TEXT)) > 1 for layout in samples)
    if "text" in names and several and all(one.kinds[-1] == TokenKind.TEXT for one in samples):
        return (*(name for name in names if name != "text"), "text[:-1]", "last")
    return tuple(names)


def _of_part(vlm: ModelAdapter, part: Part) -> list[Component]:
    try:
        sites = [site for pattern in _SITES[part] for site in vlm.sites.resolve(pattern)]
    except SiteNotFound as error:
        raise SpecError(
            f"The ablation of {part} needs the sites {_SITES[part][-1]}. {error.message}",
            subject="parts",
            hint="Choose other parts, or name sites: --set analysis.ablation.sites='llm.block.*'.",
        ) from error
    if part != "block":
        return [Component(s.name, part, _layer(s.name), ((s.name, s.axis),)) for s in sites]
    layers = dict.fromkeys(_layer(site.name) for site in sites)
    return [
        Component(
            layer,
            part,
            layer,
            tuple((s.name, s.axis) for s in sites if _layer(s.name) == layer),
        )
        for layer in layers
    ]


def _layer(name: str) -> str:
    """The block that a site is in; itself if in none.

    >>> _layer("llm.block.3.attn.heads[2]"), _layer("projector")
    ('llm.block.3', 'projector')
    """
    head, block, rest = name.partition(".block.")
    return f"{head}{block}{rest.partition('.')[0].partition(':')[0]}" if block else name
