"""Plain data: an edit of a pass, how it is written, and what an operation is told.

An edit replaces rows of one site during a pass: `llm.block.12/image = zero`. The operation changes
the rows of one sample at a time, so that batching never changes what it does.

Over 400 lines: the classes and their written form stay together, since each field is a part of the
form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vlmlens._display import brief
from vlmlens.errors import EditError
from vlmlens.sites import Site
from vlmlens.tokens import Ints, Selector

if TYPE_CHECKING:
    import torch

    from vlmlens.samples import Sample

Need = Literal["nothing", "spread", "donor"]
"""What an operation needs besides the rows: nothing; the mean and spread of the rows of other
samples; or the same rows of one other sample, the donor."""

_NAME = re.compile(r"\s*(?P<name>[^()\s][^()]*?)\s*(?:\((?P<arguments>.*)\))?\s*", re.DOTALL)
_KEYWORD = re.compile(r"\s*(?P<name>[A-Za-z]\w*)\s*=(?P<value>.*)", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_GROUP = re.compile(r"\([^()\[\]{}]*\)|\[[^()\[\]{}]*\]|\{[^()\[\]{}]*\}")
_LONE = re.compile(r"[()\[\]{}]")
_EXAMPLE = "Write, for example, llm.block.12/image = zero."


@dataclass(frozen=True, slots=True)
class Spread:
    """What the rows of some samples are like at one site, under one selector.

    Args:
        count: Number of rows.
        mean: float32 `[width]`.
        deviation: float32 `[width]`: the standard deviation of each dimension over the rows.
    """

    count: int
    mean: torch.Tensor
    deviation: torch.Tensor

    def __repr__(self) -> str:
        return brief(self, "", f"{self.count} rows", f"width {len(self.mean)}")


@dataclass(frozen=True, slots=True)
class EditedRows:
    """What an operation is told about the rows that it changes.

    Args:
        site: Where they are.
        selector: Which rows are meant.
        sample: Whose they are.
        positions: int64 `[k]`: the place of each among the sample's rows on the site's axis. A row
            that the model generates comes after those of the prompt.
        spread: See `Need`; None where the operation does not need it.
        donor: float `[k, width]`, the donor's rows; None where the operation does not need them.
    """

    site: Site
    selector: Selector
    sample: Sample
    positions: Ints
    spread: Spread | None = None
    donor: torch.Tensor | None = None

    def of_donor(self, rows: torch.Tensor) -> torch.Tensor:
        """The donor's rows, in the type and on the device of `rows`.

        Raises:
            EditError: The operation does not say that it needs a donor.
        """
        if self.donor is None:
            raise _not_asked("donor")
        return self.donor.to(rows.device, rows.dtype)

    def of_others(self, rows: torch.Tensor) -> Spread:
        """The spread of other samples' rows, in float32 on the device of `rows`.

        Raises:
            EditError: The operation does not say that it needs a spread.
        """
        if self.spread is None:
            raise _not_asked("spread")
        found = self.spread
        return Spread(found.count, found.mean.to(rows.device), found.deviation.to(rows.device))

    @property
    def column(self) -> str:
        """The rows as a column: `llm.block.12/image`."""
        return f"{self.site.name}/{self.selector}"

    def __repr__(self) -> str:
        return brief(self, self.column, f"sample {self.sample.id}", f"{len(self.positions)} rows")


def _not_asked(need: Need) -> EditError:
    return EditError(
        f"An intervention asked for a {need}, and its class does not say so.",
        subject=need,
        hint=f'Write needs = "{need}" in the class.',
    )


@dataclass(frozen=True, slots=True)
class EditPlace:
    """Where an operation is to be used, as far as it is known before weights are loaded.

    Args:
        site: The site; of a pattern, one of those that it matches.
        selector: Which rows of each sample.
        text: How the edit is written, for messages.
        describe: Gives what tells the model from others: `ModelAdapter.describe`.
    """

    site: Site
    selector: Selector
    text: str
    describe: Callable[[], Mapping[str, Any]]

    @property
    def column(self) -> str:
        """The rows as a column: `llm.block.12/image`."""
        return f"{self.site.name}/{self.selector}"

    def __repr__(self) -> str:
        return brief(self, self.column)


class Operation(Protocol):
    """What an edit does. `vlmlens.abc.Intervention` is one; `function_edits` makes others."""

    @property
    def needs(self) -> Need:
        """What it needs besides the rows."""

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """The rows that replace `rows`, float `[k, width]` both."""

    def donor(self, sample: Sample, others: Sequence[Sample]) -> Sample | None:
        """The donor of a sample; None if it has none."""

    def describe(self) -> Mapping[str, Any]:
        """Everything that determines what it does, as JSON-ready data."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What replaces the selected rows at a site during a pass.

    Args:
        site: A site or a pattern of sites.
        selector: Which rows of each sample; None: the whole activation, with padding; then the
            operation is a `Function`.
        operation: What happens to them.
        text: How the edit is written, for messages and records.
        strict: Whether it is an error if the edit changes no value of a sample.
    """

    site: str | Site
    selector: Selector | None
    operation: Operation
    text: str
    strict: bool = True

    def __post_init__(self) -> None:
        if self.selector is not None and self.selector.pool is not None:
            raise EditError(
                f"{self.text!r} pools rows, and an edit replaces each of them.",
                subject=self.text,
                hint="Name rows without .mean or .max.",
            )

    def describe(self) -> dict[str, Any]:
        """Everything that determines what it does, as JSON-ready data."""
        return {"edit": self.text, **self.operation.describe()}

    def __repr__(self) -> str:
        return brief(self, self.text)


@dataclass(frozen=True, slots=True)
class EdgeCut:
    """Some queries of attention may no longer read some keys.

    Args:
        site: Attention modules (`llm.block.[8-16].attn`), or some of their heads.
        queries: Which rows no longer read ...
        keys: ... these.
        text: How the cut is written, for messages and records.
        renormalise: Whether the keys that are left get what the cut ones had; else it is lost.
        strict: Whether it is an error if the cut meets no query, or closes nothing that was open,
            in a sample and a layer.
    """

    site: str
    queries: Selector
    keys: Selector
    text: str
    renormalise: bool = True
    strict: bool = True

    def describe(self) -> dict[str, Any]:
        """Everything that determines what it does, as JSON-ready data."""
        return {"edit": self.text}

    def __repr__(self) -> str:
        return brief(self, self.text)


@dataclass(frozen=True, slots=True)
class WrittenEdit:
    """An edit as text, taken apart.

    Args:
        text: The whole of it, with single spaces.
        site: The pattern of sites.
        selector: Which rows.
        name: The name of the intervention.
        positional: Its arguments without a name.
        named: Its arguments with a name.
        keys: Of an edge of attention: which rows are read; "" for an edit of rows.
    """

    text: str
    site: str
    selector: str
    name: str
    positional: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)
    keys: str = ""

    @property
    def cut(self) -> EdgeCut:
        """The cut that it means.

        Raises:
            EditError: It does something else to edges than to cut them.
            SelectorError: A selector does not parse.
        """
        given = self.named.get("renormalise", "true").lower()
        strange = self.positional or self.named.keys() - {"renormalise"}
        if self.name != "cut" or strange or given not in ("true", "false"):
            raise EditError(
                f"{self.text!r} does something else to edges of attention than to cut them.",
                subject=self.text,
                hint="Write, for example, llm.block.[8-16].attn / last <- image = cut, or "
                "cut(renormalise=false).",
            )
        queries, keys = Selector.parse(self.selector), Selector.parse(self.keys)
        for selector in (queries, keys):
            if selector.pool is not None:
                raise EditError(f"{self.text!r} pools rows, which edges do not.", subject=self.text)
        return EdgeCut(self.site, queries, keys, self.text, given == "true")

    def __repr__(self) -> str:
        return brief(self, self.text)

    def __str__(self) -> str:
        named = (f"{key}={quoted(value)}" for key, value in self.named.items())
        given = [*map(quoted, self.positional), *named]
        arguments = f"({', '.join(given)})" if given else ""
        edge = f" <- {self.keys}" if self.keys else ""
        return f"{self.site}/{self.selector}{edge} = {self.name}{arguments}"

    @classmethod
    def parse(cls, text: str) -> WrittenEdit:
        """Take `SITE/SELECTOR = INTERVENTION(arguments)` apart.

        Raises:
            EditError: It has another form.

        >>> edit = WrittenEdit.parse("llm.block.3/last = noise(2, seed=1)")
        >>> edit.site, edit.selector, edit.name, edit.positional, dict(edit.named)
        ('llm.block.3', 'last', 'noise', ('2',), {'seed': '1'})
        >>> WrittenEdit.parse('llm.block.3/last = add("a, b (1).npy", 2)').positional
        ('a, b (1).npy', '2')
        """
        sides = split_outside(text, "=")
        match = _NAME.fullmatch("=".join(sides[1:])) if len(sides) > 1 else None
        if match is None:
            raise EditError(f"{text!r} is not an edit.", subject=text, hint=_EXAMPLE)
        site, slash, selector = (part.strip() for part in sides[0].partition("/"))
        if not (site and slash and selector):
            raise EditError(
                f"{text!r} does not say which rows are edited.", subject=text, hint=_EXAMPLE
            )
        positional, named = _arguments(match["arguments"] or "", text)
        shown = " ".join(text.split())
        selector, arrow, keys = (part.strip() for part in selector.partition("<-"))
        if arrow and not (selector and keys):
            raise EditError(
                f"{text!r} does not say which rows read which.", subject=text, hint=_EXAMPLE
            )
        return cls(shown, site, selector, match["name"], positional, named, keys)


def split_outside(text: str, mark: str) -> list[str]:
    """The parts of a text between marks that stand in no parentheses, brackets or double quotes.

    >>> split_outside("image.region(cube, ring=1) = zero", "=")
    ['image.region(cube, ring=1) ', ' zero']
    """
    parts, depth, within = [""], 0, False
    quotes = text.count('"') % 2 == 0
    for letter in text:
        within ^= quotes and letter == '"'
        if not within:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == mark and depth <= 0 and not within:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def quoted(value: str) -> str:
    """The value of an argument as it is written: in double quotes where it needs them.

    >>> quoted("directions/red.npy"), quoted("a, b.npy"), quoted("[1, 2]")
    ('directions/red.npy', '"a, b.npy"', '[1, 2]')
    """
    plain = (
        split_outside(value, ",") == [value] == split_outside(value, "=")
        and not _LONE.search(_GROUP.sub("", value))
        and value == value.strip() != ""
        and '"' not in value
    )
    return value if plain else '"' + value.replace('"', '""') + '"'


def _unquoted(value: str, whole: str) -> str:
    """The value that was written, without the quotes around it."""
    value = value.strip()
    if '"' not in value:
        return value
    if not _QUOTED.fullmatch(value):
        raise EditError(
            f"{whole!r} has quotes that do not stand around an argument.",
            subject=whole,
            hint='Write "a, b.npy"; a quote inside of quotes is written twice.',
        )
    return value[1:-1].replace('""', '"')


def _arguments(text: str, whole: str) -> tuple[tuple[str, ...], dict[str, str]]:
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in split_outside(text, ",") if text.strip() else ():
        match = _KEYWORD.fullmatch(part)
        key, value = (match["name"], match["value"]) if match else ("", part)
        wrong = (
            "has an empty argument" if not value.strip()
            else f"gives {key!r} twice" if key in named
            else "has an argument without a name after one with a name" if named and not key
            else ""
        )  # fmt: skip
        if wrong:
            raise EditError(f"{whole!r} {wrong}.", subject=whole, hint=_EXAMPLE)
        if key:
            named[key] = _unquoted(value, whole)
        else:
            positional.append(_unquoted(value, whole))
    return tuple(positional), named


@dataclass(frozen=True, slots=True)
class Function:
    """The operation of an edit that is a Python function.

    Args:
        function: A function from float `[k, width]` (or from the whole activation, if the edit has
            no selector) to the tensor of the same shape that replaces it.
    """

    function: Callable[[torch.Tensor], torch.Tensor]
    needs: Need = "nothing"

    def change(self, rows: torch.Tensor, about: EditedRows) -> torch.Tensor:
        """See `Operation.change`."""
        del about
        return self.function(rows)

    def donor(self, sample: Sample, others: Sequence[Sample]) -> Sample | None:
        """None: it needs no donor."""
        del sample, others
        return None

    def describe(self) -> Mapping[str, Any]:
        """The function's name."""
        return {"function": getattr(self.function, "__qualname__", type(self.function).__name__)}


def function_edits(edits: Mapping[str, Callable[[torch.Tensor], torch.Tensor]]) -> list[Edit]:
    """Edits that are functions, by site (`llm.block.3`) or column (`llm.block.3/last`).

    A function may return what it is given; that is no error.
    """
    found = []
    for where, function in edits.items():
        site, slash, selector = where.partition("/")
        rows = Selector.parse(selector) if slash else None
        found.append(Edit(site, rows, Function(function), f"{where} = a function", strict=False))
    return found
