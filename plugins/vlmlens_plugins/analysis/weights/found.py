"""What was found, module by module, with the test over all pairs of a stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, slots=True)
class Module:
    """One attention module.

    Args:
        site: Its name.
        stack: The stack that it belongs to.
        told: See `HeadWork`.
    """

    site: str
    stack: str
    told: Mapping[str, Any]

    @property
    def refused(self) -> str:
        """Why nothing is known of it; empty if it is."""
        return str(self.told.get("refused", ""))

    @property
    def block(self) -> str:
        """The name without `.attn`."""
        return self.site.removesuffix(".attn")


@dataclass(frozen=True, slots=True)
class Pair:
    """A head that reads what an earlier one writes.

    Args:
        stack: Their stack.
        kind: "Q", "K" or "V".
        reader: Block of the later head.
        head: Its number.
        writer: Block of the earlier one.
        earlier: Its number.
        score: The composition score.
        random: That of random directions.
        p: How often random directions reach the score.
        p_all: The same, corrected for all pairs of the stack.
    """

    stack: str
    kind: str
    reader: str
    head: int
    writer: str
    earlier: int
    score: float
    random: float
    p: float
    p_all: float


@dataclass(frozen=True)
class Found:
    """All that was found.

    Args:
        modules: The attention modules, in order of depth in each stack.
        projector: See `HeadWork`; empty without one.
        words: The followed words with their tokens.
        tokens: How many tokens copying scores use.
        text: The text of a token.
    """

    modules: Sequence[Module]
    projector: Mapping[str, Any]
    words: Mapping[str, int]
    tokens: int
    text: Callable[[int], str]

    @property
    def read(self) -> list[Module]:
        """The modules that could be read."""
        return [module for module in self.modules if not module.refused]

    @cached_property
    def stacks(self) -> dict[str, list[Module]]:
        """Those by stack."""
        found: dict[str, list[Module]] = {}
        for module in self.read:
            found.setdefault(module.stack, []).append(module)
        return found

    def tests(self, stack: str) -> int:
        """How many pairs of heads were compared, of all kinds."""
        sums = [module.told["sums"].values() for module in self.stacks[stack]]
        return sum(int(count) for each in sums for _, count in each)

    def mean(self, stack: str, kind: str) -> float:
        """The mean score of all pairs of a kind."""
        sums = [module.told["sums"][kind] for module in self.stacks[stack]]
        return sum(float(total) for total, _ in sums) / sum(int(count) for _, count in sums)

    @cached_property
    def pairs(self) -> list[Pair]:
        """The strongest pairs of each head."""
        return [pair for stack in self.stacks for pair in self._pairs(stack)]

    def _pairs(self, stack: str) -> Iterator[Pair]:
        tests = self.tests(stack)
        for module in self.stacks[stack]:
            for kind, heads in module.told["compositions"].items():
                for head, rows in enumerate(heads):
                    for row in rows:
                        yield Pair(
                            stack, kind, module.block, head, row["site"].removesuffix(".attn"),
                            row["head"], row["score"], module.told["random"], row["p"],
                            min(1.0, tests * row["p"]),
                        )  # fmt: skip
