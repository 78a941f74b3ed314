"""Checks of adapters that are about heads and about what blocks add to the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.sites import Site
from vlmlens.testing._adapter_suite import distance
from vlmlens.testing._checks import expect, skip
from vlmlens.testing._name_checks import NameChecks

if TYPE_CHECKING:
    import torch

    from vlmlens.sites.anatomy import Heads

VALUES = ("v_proj", "value", "v", "wv")
"""What families call the projection that gives an attention's values."""
_CROSS = "layer.1.EncDecAttention"
"""T5's decoder adds what it reads from the encoder, too."""


class InnerChecks(NameChecks):
    """What an adapter's sites inside blocks mean."""

    def check_blocks_add_their_parts(self, folder: Path) -> None:
        """A block's input, `attn_out` and `mlp_out` sum to its output."""
        del folder
        for block in self._ends_of_stacks():
            parts = [f"{block.name}:in", f"{block.name}.attn_out", f"{block.name}.mlp_out"]
            cross = self.vlm.sites.matching(f"{block.name}.{_CROSS}")
            of_parts = [self.vlm.sites.matching(part) for part in parts]
            if not all(of_parts):
                continue
            sites = [site for found in of_parts for site in found]
            found = self._read([*sites, *cross, block])
            whole = found.pop(block.name)
            far = distance(whole, sum(part.reshape(whole.shape) for part in found.values()))
            expect(far <= self.tolerance, f"{block}: its parts sum to {far:.1e} away from it")

    def check_heads_are_heads(self, folder: Path) -> None:
        """What single heads add sums to the attention's output, and each reaches all of its width.

        A slice of the output projection's output is no head: what it adds stays in the slice.
        """
        del folder
        tried = 0
        for attention, heads in self._attentions():
            sum_of_heads = self._summed(attention, heads)
            out = self._read([sum_of_heads])[sum_of_heads.name]
            nothing = self._with_heads(attention, heads, ())
            total = nothing.clone()
            for head in range(heads.count):
                added = self._with_heads(attention, heads, (head,)) - nothing
                total += added
                low, high = heads.columns(head)
                elsewhere = added.clone()
                elsewhere[..., low:high] = 0
                expect(
                    heads.count == 1 or bool(elsewhere.any()),
                    f"head {head} of {attention} adds nothing outside columns {low} to {high}: it "
                    "is a slice of the projection's output, not of its input",
                )
            far = distance(out, total)
            expect(far <= self.tolerance, f"the heads of {attention} sum to {far:.1e} away from it")
            tried += 1
        if not tried:
            raise skip("no block has an attention whose heads are known")

    def check_heads_take_their_values(self, folder: Path) -> None:
        """Without the values of one key-value head, its query heads give 0 and others the same."""
        del folder
        tried = 0
        for attention, heads in self._attentions():
            named = [f"{attention.path}.{name}" for name in VALUES]
            values = [site for name in named for site in self.vlm.sites.matching(name)][:1]
            if not values:
                continue
            (joined,) = self.vlm.sites.resolve(f"{attention.name}.heads")
            before = self._read([joined])[joined.name]
            group = heads.count // heads.kv_count

            def without_first(rows: torch.Tensor, size: int = heads.size) -> torch.Tensor:
                rows = rows.clone()
                rows[..., :size] = 0
                return rows

            after = self._read([joined], [(values[0], without_first)])[joined.name]
            own = after[..., : group * heads.size]
            rest = slice(group * heads.size, None)
            expect(not bool(own.any()), f"heads 0 to {group - 1} of {attention} read other values")
            same = bool((before[..., rest] == after[..., rest]).all())
            expect(same, f"heads {group} and up of {attention} read the values of the first")
            tried += 1
        if not tried:
            raise skip("no attention has a projection of its own for values")

    # ------------------------------------------------------------------ parts

    def _ends_of_stacks(self) -> list[Site]:
        """The first and the last block of each stack."""
        stacks: dict[str, list[Site]] = {}
        for name, site in self.vlm.sites.canonical.items():
            if site.index is not None and name.endswith(f".block.{site.index}"):
                stacks.setdefault(name.rpartition(".")[0], []).append(site)
        return [site for stack in stacks.values() for site in dict.fromkeys([stack[0], stack[-1]])]

    def _attentions(self) -> list[tuple[Site, Heads]]:
        """The attention of the last block of each stack, where its heads are known."""
        found = []
        for block in self._ends_of_stacks()[1::2]:
            for site in self.vlm.sites.matching(f"{block.name}.attn"):
                heads = self.vlm.sites.heads(site)
                if heads is not None:
                    found.append((site, heads))
        return found

    def _with_heads(self, attention: Site, heads: Heads, kept: Sequence[int]) -> torch.Tensor:
        """An attention's output with all heads but some set to 0."""
        (joined,) = self.vlm.sites.resolve(f"{attention.name}.heads")

        def only(rows: torch.Tensor) -> torch.Tensor:
            less = rows * 0
            for head in kept:
                columns = slice(*heads.columns(head))
                less[..., columns] = rows[..., columns]
            return less

        read = self._summed(attention, heads)
        return self._read([read], [(joined, only)])[read.name]

    def _summed(self, attention: Site, heads: Heads) -> Site:
        """Where the heads are summed: in Q-Former's attention, a norm follows the projection."""
        if heads.projection.rpartition(".")[0] == attention.path:
            return attention
        (projection,) = self.vlm.sites.resolve(heads.projection)
        return projection

    def _read(self, sites: Sequence[Site], edits: Any = ()) -> dict[str, torch.Tensor]:
        """Activations of a sample, by site."""
        import torch

        from vlmlens.passes.tracing import hooked

        found: dict[str, torch.Tensor] = {}
        reads = hooked(
            self.vlm.module, sites, lambda s, t: found.update({s.name: t}), edits, stop=True
        )
        with torch.inference_mode(), reads:
            self.vlm.forward(self._one)
        return found

    @cached_property
    def _one(self) -> Any:
        """A batch of one sample."""
        return self.vlm.encode(self.samples[:1])
