"""Checks of adapters that are about edits: which rows they meet, in a batch and while writing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.errors import EditError, EditWithoutEffect, SelectorError
from vlmlens.passes.edits import EdgeCut, Edit, WrittenEdit, function_edits
from vlmlens.sites import Axis
from vlmlens.testing._adapter_suite import distance
from vlmlens.testing._checks import expect, skip
from vlmlens.testing._inner_checks import VALUES, InnerChecks
from vlmlens.tokens import Selector, TokenKind

if TYPE_CHECKING:
    import torch

    from vlmlens.passes.batch import Batch
    from vlmlens.passes.tracing import Trace
    from vlmlens.samples import Sample
    from vlmlens.sites import Site
    from vlmlens.tokens import AxisLayout

_TOKENS = 2
ROWS = 3
"""More rows than this must a sample have, so that some can be cut."""


class EditChecks(InnerChecks):
    """What edits do to an adapter's passes."""

    def check_edits_meet_their_rows(self, folder: Path) -> None:
        """An edit of some rows, in a batch, does what a plain hook does to a sample alone."""
        del folder
        batch, ends = self.vlm.encode(self._two), self._last_blocks()
        plain = self.vlm.trace(batch, [end.name for end in ends])
        for site, selector in self._edited_places(batch):
            edit = self._half(site, selector)
            with self.vlm.edited([edit]):
                together = self.vlm.trace(batch, [end.name for end in ends])
            moved = 0.0
            for i, alone in enumerate(self._by_plain_hooks(site, selector, ends)):
                for column in (f"{end.name}/all" for end in ends):
                    found, before = together.select(column)[i], plain.select(column)[i]
                    far = distance(alone.select(column)[0], found)
                    expect(
                        far <= self.tolerance,
                        f"{edit.text}: {column} is {far:.1e} away from what a plain hook gives",
                    )
                    moved = max(moved, distance(before, found))
            expect(moved > self.tolerance, f"{edit.text} changes nothing")

    def check_replay_gives_whole_passes(self, folder: Path) -> None:
        """Edited passes that run only what an edit can change give what whole passes give."""
        del folder
        batch, ends = self.vlm.encode(self._two), [end.name for end in self._last_blocks()]
        replay, computed = self.vlm.replay(batch, logits="none"), {}
        for site, selector in self._edited_places(batch):
            edit = self._half(site, selector)
            whole = self.vlm.trace(batch, ends, edits=[edit])
            with replay.before([site]):
                part = self.vlm.trace(batch, ends, edits=[edit])
            for end in ends:
                same = bool((whole[end] == part[end]).all())
                expect(same, f"{edit.text}: {end} is not what a whole pass gives")
            computed[site.name] = replay.computed([site])
        expect(len(set(computed.values())) > 1, f"every edit runs as many blocks: {computed}")

    def check_edits_while_writing(self, folder: Path) -> None:
        """A text written under edits is what a pass over it under the same edits predicts."""
        del folder
        self._needs("generate")
        import torch

        batch, blocks = self.vlm.encode(self._two), self._blocks()
        middle = blocks[len(blocks) // 2]
        edits: list[Edit | EdgeCut] = [self._half(middle, "all"), self._half(middle, "steps")]
        if min(map(len, batch.layouts[Axis.LLM].samples)) > ROWS:
            far = [site for site in self._cuttable() if self._takes_cuts(site, "[1:3]")]
            for site in far[-1:]:
                edits += [self._cut(site, "steps", "[1:3]"), self._drop(site, "steps", "[3:4]")]
        made = self.vlm.generate(batch, max_new_tokens=_TOKENS, edits=edits)
        ids = [one.token_ids for one in made]
        if any(self._images_in(batch) & set(one) for one in ids):
            raise skip("it wrote the token of an image, which a pass over the text reads as one")
        with self._without_cache():
            again = self.vlm.generate(batch, max_new_tokens=_TOKENS, edits=edits)
        expect([one.token_ids for one in again] == ids, "the cache changes a text under edits")
        whole = self.vlm.encode(self._two, answers=ids)
        with self.vlm.edited(edits):
            logits = self.vlm.forward(whole, logits="all").logits
        assert logits is not None
        for i in range(len(made)):
            rows = torch.from_numpy(Selector.parse("steps").rows(whole.layout(i)))
            said = logits.flatten(0, 1)[rows].argmax(-1).tolist()
            expect(said == list(ids[i]), f"under edits it wrote {ids[i]}, and a pass says {said}")

    def check_edges_are_cut(self, folder: Path) -> None:
        """A row that reads nothing but itself gives its own value; eager and sdpa do the same."""
        del folder
        batch, tried = self.vlm.encode(self._two), 0
        for site in self._cuttable():
            if min(map(len, batch.layouts[site.axis].samples)) <= ROWS:
                continue
            heads = self.vlm.sites.heads(site)
            assert heads is not None
            values = self._values_of(site)
            joined, cut = f"{site.name}.heads", self._cut(site, "all[-1]", "all[:-1]")
            found = []
            for _ in self._implementations():
                with self.vlm.edited([cut]):
                    trace = self.vlm.trace(batch, [joined, *values])
                found.append(trace.select(f"{joined}/all[-1]"))
                for name in values:
                    own: Any = trace.select(f"{name}/all[-1]")
                    split = own.reshape(len(own), heads.kv_count, heads.size)
                    each = split.repeat_interleave(heads.count // heads.kv_count, 1).flatten(1)
                    far = distance(each, found[-1])
                    expect(far <= self.tolerance, f"{cut.text}: {far:.1e} away from its own value")
            far = max(distance(found[0], one) for one in found)
            expect(far <= self.tolerance, f"{cut.text}: eager and sdpa differ by {far:.1e}")
            tried += 1
        if not tried:
            raise skip("no attention of the language side is given a mask")

    def check_edges_are_dropped(self, folder: Path) -> None:
        """What a row gets from some keys and from the others sums to what it gets from all."""
        del folder
        batch, tried = self.vlm.encode(self._two), 0
        for site in self._cuttable():
            joined, found = f"{site.name}.heads", []
            last = f"{joined}/all[-1]"
            plain = self.vlm.trace(batch, [joined]).select(last)
            for _ in self._implementations():
                parts: list[Any] = []
                for keys in ("all[:-1]", "all[-1]"):
                    with self.vlm.edited([self._drop(site, "all[-1]", keys)]):
                        parts.append(self.vlm.trace(batch, [joined]).select(last))
                far = distance(plain, sum(parts))
                expect(far <= self.tolerance, f"{site.name}: the parts are {far:.1e} off the whole")
                found.append(parts[0])
            far = max(distance(found[0], one) for one in found)
            expect(far <= self.tolerance, f"{site.name}: eager and sdpa differ by {far:.1e}")
            tried += 1
        if not tried:
            raise skip("no attention of the language side is given a mask")

    # ------------------------------------------------------------------ parts

    def _cut(self, site: Site, queries: str, keys: str) -> EdgeCut:
        return WrittenEdit.parse(f"{site.name}/{queries} <- {keys} = cut").cut

    def _drop(self, site: Site, queries: str, keys: str) -> EdgeCut:
        return replace(self._cut(site, queries, keys), renormalise=False)

    def _cuttable(self) -> list[Site]:
        """The attention of the last block of each language stack, where edges can be cut."""
        sides = (Axis.LLM, Axis.ENCODER)
        found = [site for site, _ in self._attentions() if site.axis in sides]
        return [site for site in found if self._takes_cuts(site)]

    def _images_in(self, batch: Batch) -> set[int]:
        """The token ids that stand for images."""
        layouts = batch.layouts[Axis.LLM].samples
        return {
            int(token)
            for layout in layouts
            if layout.token_ids is not None
            for token in layout.token_ids[layout.kinds == TokenKind.IMAGE]
        }

    def _takes_cuts(self, site: Site, keys: str = "all[-2]") -> bool:
        """Whether the last row can be kept from reading others.

        SigLIP's text tower sees all, without a mask; a sliding window ends before far rows.
        """
        batch = self.vlm.encode(self._two)
        if min(map(len, batch.layouts[site.axis].samples)) <= ROWS:
            return False
        try:
            with self.vlm.edited([self._cut(site, "all[-1]", keys)]):
                self.vlm.forward(batch)
        except EditWithoutEffect:
            return False
        except EditError as error:
            expect("cannot be applied" in error.message, error.message)
            return False
        return True

    def _values_of(self, site: Site) -> list[str]:
        """The projection of values, unless a gate stands behind them."""
        if self._gated(site):
            return []
        named = [f"{site.path}.{name}" for name in VALUES]
        return [found.name for name in named for found in self.vlm.sites.matching(name)][:1]

    def _gated(self, site: Site) -> bool:
        """Whether the query projection makes a gate for what heads give, too (Qwen3.5)."""
        attention: Any = self.vlm.module.get_submodule(site.path)
        heads = self.vlm.sites.heads(site)
        query = getattr(getattr(attention, "q_proj", None), "out_features", None)
        return heads is None or query not in (None, heads.count * heads.size)

    def _implementations(self) -> Iterator[str]:
        """Run with the model's own attention, then with the other of eager and sdpa."""
        model: Any = self.vlm.module
        configs = (getattr(part, "config", None) for part in model.modules())
        own = {str(each._attn_implementation) for each in configs if each is not None}
        yield "its own"
        if own not in ({"sdpa"}, {"eager"}):
            return
        (before,) = own
        try:
            model.set_attn_implementation("eager" if before == "sdpa" else "sdpa")
            yield "the other"
        except ValueError:
            return
        finally:
            model.set_attn_implementation(before)

    def _half(self, site: Site, selector: str) -> Edit:
        (edit,) = function_edits({f"{site.name}/{selector}": lambda rows: rows * 0.5})
        return edit

    @property
    def _two(self) -> Sequence[Sample]:
        """Two samples of different shapes and lengths."""
        return self.samples[:2]

    def _edited_places(self, batch: Batch) -> Iterator[tuple[Site, str]]:
        """Sites on every axis, inside and between blocks, and rows that every sample has there."""
        blocks = [site.name for site in self._blocks()]
        blocks = blocks or (["text.block.0"] if self.text else [self._last_blocks()[0].name])
        places = [
            ("vision.block.0", "image[1:]"),
            ("projector", "image[:3]"),
            (blocks[0], "text[1:]"),
            (f"{blocks[-1]}:in", "last"),
            (f"{blocks[-1]}.attn.heads[1]", "all"),
        ]
        for name, rows in places:
            for site in self.vlm.sites.matching(name):
                layouts = batch.layouts[site.axis].samples
                with suppress(SelectorError):
                    _ = [Selector.parse(rows).positions(layout) for layout in layouts]
                    yield site, rows

    def _last_blocks(self) -> list[Site]:
        """The last block of the vision tower and of the language model."""
        stacks = ("vision.block.", "llm.block.", "text.block.")
        return [end for end in self._ends_of_stacks()[1::2] if end.name.startswith(stacks)]

    def _by_plain_hooks(self, site: Site, selector: str, ends: Sequence[Site]) -> Iterator[Trace]:
        """Passes of single samples with a hook of torch's own, which knows no batch."""
        from vlmlens.passes.activation import replaced_activation, replaced_input

        module: Any = self.vlm.module.get_submodule(site.path)
        for sample in self._two:
            batch = self.vlm.encode([sample])
            # Some adapters run the vision tower to find a layout, so this is before the hook.
            edit = partial(_halved, selector, batch.layouts[site.axis])

            def before(module: Any, *given: Any, edit: Any = edit) -> Any:
                del module
                return replaced_input(given, site, edit, self.vlm.module)

            def after(module: Any, args: Any, output: Any, edit: Any = edit) -> Any:
                del module, args
                return replaced_activation(output, site, edit)

            if site.side == "in":
                handle = module.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
            else:
                handle = module.register_forward_hook(after, prepend=True)
            try:
                yield self.vlm.trace(batch, [end.name for end in ends])
            finally:
                handle.remove()

    @contextmanager
    def _without_cache(self) -> Iterator[None]:
        """Let the model generate without a KV cache."""
        config: Any = self.vlm.module.generation_config
        before, config.use_cache = config.use_cache, False
        try:
            yield
        finally:
            config.use_cache = before


def _halved(selector: str, layouts: AxisLayout, value: torch.Tensor) -> torch.Tensor:
    """An activation of one sample with the selected rows halved, row by row."""
    flat = value.reshape(-1, value.shape[-1]).clone()
    layout = layouts.at(len(flat))
    assert layout is not None
    for row in Selector.parse(selector).rows(layout.samples[0]).tolist():
        flat[row] *= 0.5
    return flat.reshape(value.shape)
