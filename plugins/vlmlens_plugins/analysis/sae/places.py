"""Where SAEs are trained: the columns that the options name, or those that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vlmlens.abc import ModelAdapter
from vlmlens.errors import CompositionError, SpecError, did_you_mean
from vlmlens.tokens import Column
from vlmlens_plugins.analysis._columns import in_order, is_ragged
from vlmlens_plugins.analysis.sae.options import TrainOptions

_MOST = 4
_WITHOUT_TRAINING = {"column", "source", "file", "anyway", "held_out"}


@dataclass(frozen=True, slots=True)
class Place:
    """What one SAE reads.

    Args:
        columns: The columns; several are read side by side.
        target: Of a transcoder, the column that it predicts; else "".
        stored: Whether the rows are in the store; else the model gives them.
    """

    columns: tuple[str, ...]
    target: str = ""
    stored: bool = False

    @property
    def name(self) -> str:
        """The columns in words: `llm.block.3/image`, `a + b`, `a -> b`."""
        joined = " + ".join(self.columns)
        return f"{joined} -> {self.target}" if self.target else joined

    @property
    def column(self) -> str:
        """The first column."""
        return self.columns[0]

    @property
    def edited(self) -> bool:
        """Whether features can be changed where they are read: neither joined nor a transcoder."""
        return len(self.columns) == 1 and not self.target


def check_options(options: TrainOptions) -> None:
    """Raise an error for options that do not fit together.

    Raises:
        SpecError: They do not.
        SelectorError, SiteError: A column does not parse.
    """
    for text in options.column or ():
        check_rows(text, "column")
    if options.target:
        check_rows(options.target, "target")
    _check_kind(options)
    columns = options.column or ()
    if options.join and len(columns) < 2:
        raise SpecError(
            f"join puts several columns side by side, and {len(columns) or 'no'} column is named.",
            subject="join",
            hint="Name them: column=[vision.block.3/image,llm.block.3/image].",
        )
    if options.target and (options.join or len(columns) != 1):
        raise SpecError(
            "A transcoder predicts `target` from one column.",
            subject="target",
            hint="Name one column, without join.",
        )
    if options.file:
        _check_untrained(options)


def _check_untrained(options: TrainOptions) -> None:
    """Raise an error for options of training where nothing is trained."""
    fields = TrainOptions.model_fields
    useless = [
        name
        for name in sorted(fields.keys() - _WITHOUT_TRAINING)
        if getattr(options, name) != fields[name].default
    ]
    if useless:
        raise SpecError(
            f"With `file`, SAEs are judged and not trained: {', '.join(useless)} would do nothing.",
            subject="file",
            hint=f"Leave {' and '.join(useless)} out, or `file`.",
        )


def check_rows(text: str, option: str) -> None:
    """Raise an error for what is no column: SITE/SELECTOR.

    Raises:
        SpecError: It names no rows.
        SelectorError, SiteError: It does not parse.
    """
    if "/" not in text:
        raise SpecError(
            f"{text!r} names no rows.",
            subject=option,
            hint=f"Write SITE/SELECTOR, for example {text}/image.",
        )
    Column.parse(text)


def _check_kind(options: TrainOptions) -> None:
    if options.coefficient is not None and options.kind not in ("standard", "gated", "jumprelu"):
        raise SpecError(
            f"{options.kind} keeps k features and has no coefficient.",
            subject="coefficient",
            hint="Set `k`, or choose another kind: standard, gated or jumprelu.",
        )
    broken = [k for k in options.k or () if k != int(k)]
    if options.kind == "topk" and broken:
        raise SpecError(
            f"topk keeps a whole number of features in each row, not {broken[0]:g}.",
            subject="k",
            hint="Give a whole number, or kind=batchtopk, which keeps k on average.",
        )


def places(options: TrainOptions, vlm: ModelAdapter | None, stored: Sequence[str]) -> list[Place]:
    """The places that the options mean.

    Args:
        options: The options.
        vlm: The model or its skeleton; None: there is none.
        stored: Names of the stored columns.

    Raises:
        SpecError, SiteError: A column names no single site.
        CompositionError: Rows are not stored, and there is no model, or the store is insisted on.
    """
    names = [_canonical(text, vlm) for text in options.column or _usual(vlm, stored, options)]
    target = _canonical(options.target, vlm) if options.target else ""
    groups = [tuple(names)] if options.join else [(name,) for name in dict.fromkeys(names)]
    return [
        Place(group, target, _from_store([*group, *filter(None, [target])], options, vlm, stored))
        for group in groups
    ]


def _usual(vlm: ModelAdapter | None, stored: Sequence[str], options: TrainOptions) -> list[str]:
    ragged = in_order(name for name in stored if is_ragged(name))
    if ragged and options.source != "model":
        if len(ragged) > _MOST:
            raise SpecError(
                f"{len(ragged)} stored columns have several rows per sample.",
                subject="column",
                hint=f"Name some of them with `column`: {', '.join(ragged[:_MOST])}, ...",
            )
        return ragged
    if vlm is None or options.source == "store":
        raise CompositionError(
            "No stored column has several rows per sample, so there is little to train an SAE on.",
            subject="column",
            hint="Store one (--sites llm.block.14/image), or name a pooled one with `column`.",
        )
    return _of_model(vlm.sites.canonical)


def _of_model(sites: Mapping[str, object]) -> list[str]:
    """The image rows of the last vision block, and of the middle block of the language model.

    Where that has an encoder, its decoder reads no image.
    """
    seen, read = blocks_of(sites, "vision"), blocks_of(sites, "llm.encoder")
    read, text = read or blocks_of(sites, "llm"), blocks_of(sites, "text")
    middle = read[len(read) // 2 :][:1]
    if not any(name.startswith("vision.") for name in sites):
        return [f"{name}/all" for name in middle] or [f"{name}/text" for name in text[-1:]]
    images = [f"{name}/image" for name in (*seen[-1:], *middle)]
    return [*images, *(f"{name}/text" for name in text[-1:])][:2]


def blocks_of(sites: Iterable[str], side: str) -> list[str]:
    """The names of a side's blocks, in order of depth.

    >>> blocks_of(["llm.block.10", "llm.block.9", "llm.block.9.mlp", "llm.norm"], "llm")
    ['llm.block.9', 'llm.block.10']
    """
    found = [name for name in sites if name.rpartition(".")[0] == f"{side}.block"]
    return sorted(found, key=lambda name: int(name.rpartition(".")[2]))


def _canonical(text: str, vlm: ModelAdapter | None) -> str:
    column = Column.parse(text)
    if vlm is None:
        return str(column)
    found = vlm.sites.resolve(column.site)
    if len(found) != 1:
        raise SpecError(
            f"{text!r} names {len(found)} sites, an SAE reads one.",
            subject="column",
            hint="Name one site; several columns are a list.",
        )
    return f"{found[0].name}/{column.selector}"


def _from_store(
    columns: Sequence[str],
    options: TrainOptions,
    vlm: ModelAdapter | None,
    stored: Sequence[str],
) -> bool:
    missing = [name for name in columns if name not in stored]
    if options.source == "model" or (missing and options.source == "auto" and vlm is not None):
        if vlm is None:
            raise CompositionError(
                "source=model runs the model, and there is none.",
                subject="source",
                hint="Use stored columns, or analyse a run with its model.",
            )
        return False
    if missing:
        raise CompositionError(
            f"The column {missing[0]!r} is not stored.",
            subject=missing[0],
            hint=did_you_mean(missing[0], stored) or f"Store it: --sites '{missing[0]}'.",
        )
    return True
