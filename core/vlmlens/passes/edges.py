"""Cutting edges of attention: some queries may no longer read some keys, in some layers.

Cells are closed in a clone of the mask that the layer itself is given. So padding, causality,
windows and bidirectional parts stay as they are, and softmax spreads what the closed cells had over
the keys that are left (`dropping` has cuts without that). Cut edges of Geva et al., "Dissecting
Recall of Factual Associations" (2023, arXiv 2304.14767), section 4, are the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from vlmlens.errors import EditError, EditWithoutEffect
from vlmlens.passes.activation import Arguments, check_axis
from vlmlens.passes.growing import GrowingPlaces
from vlmlens.sites import Axis, Site

if TYPE_CHECKING:
    from vlmlens.passes.batch import Batch
    from vlmlens.passes.edits import EdgeCut
    from vlmlens.passes.model import Model
    from vlmlens.sites import SiteMap

_MASKS = ("attention_mask", "mask")
_OTHER_KEYS = ("key_value_states", "encoder_hidden_states")
_NO_MODEL_OF_LANGUAGE = "edges are cut in language models only"

Cells: TypeAlias = "tuple[int, torch.Tensor, torch.Tensor]"
"""The number of a sample, and int64 `[n]` each: the places of queries, and of keys."""


@dataclass(frozen=True, slots=True)
class CutPlace:
    """A cut at one attention module.

    Args:
        cut: The cut.
        site: The attention module.
        heads: Which of its query heads; None: all.
        count: How many query heads it has; None: not known.
    """

    cut: EdgeCut
    site: Site
    heads: tuple[int, ...] | None = None
    count: int | None = None


def cut_places(cut: EdgeCut, sites: SiteMap) -> list[CutPlace]:
    """The attention modules of a cut, each with its heads.

    Raises:
        SiteError: The pattern is malformed, or matches no attention.
        EditError: It matches something else.
    """
    by_module: dict[str, tuple[Site, list[int]]] = {}
    for site, number in sites.attentions(cut.site):
        by_module.setdefault(site.path, (site, []))[1].extend([] if number is None else [number])
    places = []
    for site, numbers in by_module.values():
        heads = sites.heads(site)
        chosen = tuple(numbers) or None
        places.append(CutPlace(cut, site, chosen, None if heads is None else heads.count))
    return places


@dataclass
class Cutting:
    """One cut in one pass, or in the passes of one text."""

    place: CutPlace
    batch: Batch
    writing: bool
    met: list[bool] = field(init=False)
    closed: list[bool] = field(init=False)
    queries: GrowingPlaces = field(init=False)
    keys: GrowingPlaces = field(init=False)

    def __post_init__(self) -> None:
        cut, site = self.place.cut, self.place.site
        if site.axis not in (Axis.LLM, Axis.ENCODER):
            raise refused(self.place, _NO_MODEL_OF_LANGUAGE)
        check_axis(site, self.batch.layouts)
        layout = self.batch.layouts[site.axis]
        self.queries = GrowingPlaces(cut.queries, layout, site)
        self.keys = GrowingPlaces(cut.keys, layout, site)
        self.met = [False] * len(self.batch)
        self.closed = [False] * len(self.batch)

    def __call__(self, module: torch.nn.Module, arguments: Arguments) -> Arguments:
        """The arguments of the attention module, with the cells closed."""
        given = _Given.of(module, arguments, self.place)
        mask = given.mask(module, self.place).clone()
        rows = [len(self.batch), *mask.shape[1:]]
        if self.place.heads is not None:
            rows[1] = self.place.count or mask.shape[1]
        mask = mask.expand(rows).clone()
        closes = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        for i, query, key in self.cells(mask.shape[-2], mask.shape[-1]):
            part = mask[i][self._heads].clone()
            self.closed[i] |= bool(_open(part[:, query[:, None], key]).any())
            part[:, query[:, None], key] = closes
            self._check_open(part[:, query], i)
            mask[i, self._heads] = part
        return given.with_mask(mask)

    @property
    def _heads(self) -> slice | list[int]:
        """The cut heads, as an index."""
        return slice(None) if self.place.heads is None else list(self.place.heads)

    def cells(self, queries: int, keys: int) -> Iterator[Cells]:
        """Samples that have cut queries in a call, with the numbers of these and of the keys.

        Args:
            queries: How many queries the call has.
            keys: How many keys each of them sees.
        """
        writing = self.writing and self.place.site.axis is Axis.LLM
        found = self.queries.of_length(queries, writing=writing)
        columns = self.keys.columns(keys, self.queries)
        for i, (query, key) in enumerate(zip(found, columns, strict=True)):
            if len(query.rows):
                self.met[i] = True
                yield i, torch.from_numpy(query.rows % queries), torch.from_numpy(key)

    def _check_open(self, rows: torch.Tensor, i: int) -> None:
        if not bool(_open(rows).any(-1).all()):
            sample = self.batch.samples[i].id
            raise EditError(
                f"{self.place.cut.text!r} leaves a query of the sample {sample!r} no key to read.",
                subject=self.place.cut.text,
                hint="Leave it at least its own row: cut fewer keys.",
            )

    def check(self) -> None:
        """Raise `EditWithoutEffect` where a strict cut met no query, or closed no open cell."""
        if not self.place.cut.strict:
            return
        ids = [sample.id for sample in self.batch.samples]
        for what, flags in (
            ("met no query", self.met),
            ("closed nothing that was open", self.closed),
        ):
            missed = [i for i, flag in zip(ids, flags, strict=True) if not flag]
            if missed:
                raise EditWithoutEffect(
                    f"{self.place.cut.text!r} {what} in the sample {missed[0]!r} at "
                    f"{self.place.site.name!r}.",
                    subject=self.place.cut.text,
                    hint="Rows read only rows before them, and themselves.",
                )


@dataclass(frozen=True, slots=True)
class _Given:
    """The arguments of an attention module, and where its mask is among them."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    name: str
    position: int | None
    found: Any

    @classmethod
    def of(cls, module: torch.nn.Module, arguments: Arguments, place: CutPlace) -> _Given:
        """Find the mask.

        Raises:
            EditError: The module takes none, or one that is no table of queries and keys.
        """
        args, kwargs = arguments
        check_own_keys(place, kwargs)
        names = list(inspect.signature(module.forward).parameters)
        name = next((n for n in _MASKS if n in kwargs or n in names), None)
        why = _why_never(module)
        if why:
            raise refused(place, why)
        if name is None:
            raise refused(place, "the module takes no attention mask")
        position = names.index(name) if name in names and name not in kwargs else None
        inside = position is not None and position < len(args)
        found = args[position] if inside and position is not None else kwargs.get(name)
        known = isinstance(found, torch.Tensor) and found.ndim == 4
        if found is not None and not known:
            raise refused(place, "its mask is no table of queries and keys")
        return cls(args, kwargs, name, position if inside else None, found)

    def mask(self, module: torch.nn.Module, place: CutPlace) -> torch.Tensor:
        """The mask `[samples or 1, heads or 1, queries, keys]`; made where the layer gets none.

        Raises:
            EditError: It gets none, and what it sees is not known.
        """
        if self.found is not None:
            mask: torch.Tensor = self.found
            return mask
        causal = self.kwargs.get("is_causal", getattr(module, "is_causal", None))
        if place.site.axis is not Axis.LLM or not causal:
            raise refused(place, "the layer is given no mask")
        hidden = next(v for v in (*self.args, *self.kwargs.values()) if isinstance(v, torch.Tensor))
        queries = hidden.shape[1]
        keys = queries + self._cached(module)
        mask = torch.ones(queries, keys, dtype=torch.bool, device=hidden.device)
        mask = mask.tril(keys - queries)[None, None]
        if getattr(module.config, "_attn_implementation", "") != "eager":
            return mask
        return torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(
            ~mask, torch.finfo(hidden.dtype).min
        )

    def _cached(self, module: Any) -> int:
        """How many keys of earlier tokens the layer reads."""
        values = (*self.args, *self.kwargs.values())
        cache = next((v for v in values if hasattr(v, "get_seq_length")), None)
        return 0 if cache is None else int(cache.get_seq_length(module.layer_idx))

    def with_mask(self, mask: torch.Tensor) -> Arguments:
        """The arguments with another mask, which holds causality itself."""
        kwargs = dict(self.kwargs)
        if "is_causal" in kwargs:
            kwargs["is_causal"] = False
        if self.position is None:
            return self.args, {**kwargs, self.name: mask}
        return (*self.args[: self.position], mask, *self.args[self.position + 1 :]), kwargs


def check_cut(cut: EdgeCut, vlm: Model) -> list[Site]:
    """The attention modules of a cut.

    Args:
        cut: The cut.
        vlm: The model; it may have no weights.

    Raises:
        SiteError: The pattern is malformed, or matches no attention.
        EditError: The structure of the model shows that edges cannot be cut there.
    """
    places = cut_places(cut, vlm.sites)
    for place in places:
        if place.site.axis not in (Axis.LLM, Axis.ENCODER):
            raise refused(place, _NO_MODEL_OF_LANGUAGE)
        why = _why_never(vlm.module.get_submodule(place.site.path))
        if why:
            raise refused(place, why)
    return [place.site for place in places]


def _why_never(module: torch.nn.Module) -> str:
    """Why edges can never be cut in a module; "" if they may."""
    implementation = str(getattr(getattr(module, "config", None), "_attn_implementation", ""))
    if implementation.startswith(("flash", "flex", "paged")):
        return f"{implementation} attention takes no table of queries and keys"
    return ""


def check_own_keys(place: CutPlace, given: Mapping[str, Any]) -> None:
    """Raise `EditError` for a call of cross-attention, whose keys are no rows of the site's axis.

    Args:
        place: The cut.
        given: The keyword arguments of the call.
    """
    if any(given.get(name) is not None for name in _OTHER_KEYS):
        raise refused(place, "it reads the rows of another stack (cross-attention)")


def _open(cells: torch.Tensor) -> torch.Tensor:
    """bool: which cells of a mask are open."""
    return cells if cells.dtype == torch.bool else cells > torch.finfo(cells.dtype).min / 2


def refused(place: CutPlace, why: str) -> EditError:
    """The error of a cut that cannot be applied at a place."""
    return EditError(
        f"{place.cut.text!r} cannot be applied at {place.site.name!r}: {why}.",
        subject=place.cut.text,
        hint="Use --attention sdpa or eager, and attention of the language model.",
    )


def check_cuts(cuttings: Sequence[Cutting]) -> None:
    """Raise `EditWithoutEffect` where one of them had none."""
    for cutting in cuttings:
        cutting.check()
