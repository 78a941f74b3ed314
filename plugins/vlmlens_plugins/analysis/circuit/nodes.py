"""The nodes of circuits: components at groups of rows, and the inputs at the same groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vlmlens.abc import ModelAdapter
from vlmlens.errors import SelectorError, SpecError
from vlmlens.tokens import Selector, TokenKind, TokenLayout
from vlmlens_plugins.analysis._attribution import Node, nodes_of
from vlmlens_plugins.analysis.circuit.options import CircuitOptions
from vlmlens_plugins.analysis.patching.grid import parts_of

IMAGE, TEXT = "image", "text"
INPUTS = "llm.block.0:in"
"""What enters the first block: embeddings of words, and what the projector gives."""

Groups = Mapping[str, Sequence[str]]
"""The selectors of each group of rows."""


@dataclass(frozen=True)
class Nodes:
    """What a circuit can be made of.

    Args:
        components: Heads and MLPs at groups of rows, in order of depth.
        groups: The groups of rows, which are all rows, each once.
    """

    components: Sequence[Node]
    groups: Groups

    @cached_property
    def every(self) -> list[Node]:
        """The components, then the inputs. Their numbers name them everywhere."""
        return [*self.components, *(Node(INPUTS, group) for group in self.groups)]

    @property
    def inputs(self) -> range:
        """The numbers of the inputs."""
        return range(len(self.components), len(self.every))

    def kind(self, number: int) -> str:
        """What a component is: `attn.heads`, `mlp_out`; of a block itself ""."""
        site = self.every[number].site.partition(".block.")[2]
        return site.partition(".")[2].partition("[")[0]

    def block(self, number: int) -> int:
        """The number of the block that a component is in."""
        return int(self.every[number].site.split(".block.")[1].partition(".")[0].partition(":")[0])

    def singly(self) -> Iterator[tuple[int, Node]]:
        """Each component once for each selector of its rows, with its number."""
        for number, node in enumerate(self.components):
            for selector in self.groups[node.rows]:
                yield number, Node(node.site, selector)


def all_nodes(vlm: ModelAdapter, options: CircuitOptions, groups: Groups) -> Nodes:
    """The nodes of a model.

    Args:
        vlm: The model, or its skeleton.
        options: The analysis's options.
        groups: The groups of rows.

    Raises:
        CompositionError: The language model has none of the components.
    """
    return Nodes(nodes_of(vlm, list(groups), options.parts), groups)


def groups_of(layouts: Sequence[TokenLayout], given: Sequence[str] | None) -> dict[str, list[str]]:
    """The groups of rows.

    Args:
        layouts: Those of the language model's rows, of all samples and donors.
        given: The user's; None: image rows, and all others.

    Raises:
        SpecError: The groups are not all rows, each once.
        SelectorError: A sample has no such row.
    """
    found = _by_kind(layouts) if given is None else {name: parts_of(name) for name in given}
    for layout in layouts:
        times = np.zeros(len(layout), int)
        for parts in found.values():
            for part in parts:
                selector = Selector.parse(part)
                if selector.pool is not None:
                    raise SpecError(
                        f"{part!r} pools rows, and a circuit exchanges each of them.",
                        subject="rows",
                        hint="Name rows without .mean or .max.",
                    )
                times[_positions(selector, layout, given is None)] += 1
        asked = layout.kinds != TokenKind.ANSWER
        if (times[asked] != 1).any():
            raise SpecError(
                f"The groups of rows {', '.join(found)} leave out {int((times[asked] == 0).sum())} "
                f"rows, and have {int((times[asked] > 1).sum())} more than once.",
                subject="rows",
                hint="For example --set 'analysis.circuit.rows=[image, special+text[:-1], last]'.",
            )
    return found


def groups_like(saved: Groups, layouts: Sequence[TokenLayout]) -> Groups:
    """The groups of rows of a saved circuit, in other samples.

    Image rows and all others are found anew: not all models have special tokens.

    Args:
        saved: The groups of the circuit.
        layouts: Those of the samples.
    """
    if set(saved) <= {IMAGE, TEXT}:
        return groups_of(layouts, None)
    named = groups_of(layouts, ["+".join(parts) for parts in saved.values()])
    return dict(zip(saved, named.values(), strict=True))


def _positions(selector: Selector, layout: TokenLayout, may_lack: bool) -> np.ndarray:
    try:
        return selector.positions(layout)
    except SelectorError:
        if may_lack:
            return np.array([], int)
        raise


def _by_kind(layouts: Sequence[TokenLayout]) -> dict[str, list[str]]:
    """Image rows, and all others, as far as the samples have them."""
    having = {
        kind: sum(bool(len(layout.positions(kind))) for layout in layouts)
        for kind in (TokenKind.IMAGE, TokenKind.SPECIAL, TokenKind.TEXT)
    }
    for kind, number in having.items():
        if 0 < number < len(layouts):
            raise SpecError(
                f"{number} of {len(layouts)} samples have rows of the kind {kind.name.lower()}.",
                subject="rows",
                hint="Use samples that all have an image, or that all have none.",
            )
    text = [kind.name.lower() for kind in (TokenKind.SPECIAL, TokenKind.TEXT) if having[kind]]
    groups = {IMAGE: ["image"]} if having[TokenKind.IMAGE] else {}
    return {**groups, TEXT: text} if text else groups
