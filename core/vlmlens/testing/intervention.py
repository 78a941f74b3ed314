"""InterventionTests: the kit of interventions, on rows and on a tiny LLaVA."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.samples import Sample
from vlmlens.testing._checks import expect
from vlmlens.testing._plugin_checks import PluginChecks
from vlmlens.testing.model import TinyLlava, tiny_model
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Selector

if TYPE_CHECKING:
    import torch

    from vlmlens.abc.intervention import Intervention
    from vlmlens.passes.edits import Edit, EditedRows

SITE, ROWS = "llm.block.0", "image"


class InterventionTests(PluginChecks):
    """The conformance kit of interventions.

    Subclass it as `Test...` and set `manifest`. An intervention that needs values of its options
    (a file, say) gets them from `values`.
    """

    def values(self, folder: Path) -> Mapping[str, Any]:
        """The values of options with which the intervention is made.

        Args:
            folder: An empty folder for files that the options name.
        """
        del folder
        return self.options

    # ------------------------------------------------------------------ rows

    def check_rows_keep_their_shape_and_type(self, folder: Path) -> None:
        """As many rows of the same width and type come back, and the given ones stay."""
        import torch

        made = self.make(folder)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            rows = self._rows.to(dtype)
            before = rows.clone()
            after = made.change(rows, self.about(made))
            expect(after.shape == rows.shape, f"{tuple(rows.shape)} became {tuple(after.shape)}")
            expect(after.dtype == dtype, f"{dtype} became {after.dtype}")
            expect(bool((rows == before).all()), "it writes into the rows that it is given")
            expect(bool(after.isfinite().all()), f"in {dtype} it gives values that are not finite")

    def check_it_does_the_same_again(self, folder: Path) -> None:
        """The same rows give the same, also from an intervention that is made anew."""
        made, again = self.make(folder), self.make(folder)
        first = made.change(self._rows, self.about(made))
        for other in (made, again):
            second = other.change(self._rows, self.about(other))
            expect(bool((first == second).all()), "the same rows give something else later")

    def check_description(self, folder: Path) -> None:
        """`describe` gives JSON data with the options, and the same for the same options."""
        said = json.dumps(dict(self.make(folder).describe()), sort_keys=True)
        again = json.dumps(dict(self.make(folder).describe()), sort_keys=True)
        expect(said == again, "two descriptions of the same intervention differ")
        expect("options" in json.loads(said), "`describe` lacks the options")

    # ------------------------------------------------------------------ passes

    def check_it_changes_the_rows_alone(self, folder: Path) -> None:
        """In a pass, the selected rows of every sample change, and no other row of the site."""
        edit = self._edit(folder)
        batch = self._vlm.encode(self.samples)
        plain = self._vlm.trace(batch, [SITE])
        with self._edited(edit):
            edited = self._vlm.trace(batch, [SITE])
        for i, sample in enumerate(self.samples):
            before, after = plain.select(f"{SITE}/all")[i], edited.select(f"{SITE}/all")[i]
            inside = Selector.parse(ROWS).positions(batch.layout(i))
            changed = set((before != after).any(-1).nonzero().flatten().tolist())
            expect(changed <= set(inside.tolist()), f"{sample.id}: rows outside {ROWS} change")
            expect(bool(changed), f"{sample.id}: no row changes")

    def check_a_batch_is_like_single_samples(self, folder: Path) -> None:
        """A sample is edited in a batch as it is alone, up to rounding."""
        edit = self._edit(folder)
        with self._edited(edit):
            batch = self._vlm.trace(self._vlm.encode(self.samples), [SITE]).select(f"{SITE}/{ROWS}")
            for i, sample in enumerate(self.samples):
                alone = self._vlm.trace(self._vlm.encode([sample]), [SITE]).select(f"{SITE}/{ROWS}")
                far = float((batch[i] - alone[0]).abs().max() / (1 + alone[0].abs().max()))
                expect(far < 1e-5, f"{sample.id} is {far:.1e} away from itself in a batch")

    def check_it_works_while_writing(self, folder: Path) -> None:
        """The model generates under it, and the prompt's edit is the same with a later token."""
        edit = self._edit(folder)
        batch = self._vlm.encode(self.samples)
        with self._edited(edit):
            short = self._vlm.generate(batch, max_new_tokens=1)
            long = self._vlm.generate(batch, max_new_tokens=3)
        for one, more in zip(short, long, strict=True):
            same = one.token_ids[:1] == more.token_ids[:1]
            expect(same, "the first token depends on how many follow")

    # ------------------------------------------------------------------ parts

    @cached_property
    def samples(self) -> list[Sample]:
        """Samples with pictures of one size and prompts of one length."""
        prompts = ("What is that?", "What is here?", "What is this?")
        return [
            Sample(f"s{i}", prompt, (picture(32, 32, seed=i),)) for i, prompt in enumerate(prompts)
        ]

    def make(self, folder: Path) -> Intervention:
        """The intervention with its options."""
        made: Intervention = self.plugin(self.chosen(self.values(folder)))
        return made

    @property
    def _vlm(self) -> TinyLlava:
        return tiny_model()

    def _edit(self, folder: Path) -> Edit:
        return self.make(folder).at(SITE, ROWS)

    def _edited(self, edit: Edit) -> Any:
        turned = [*self.samples[1:], self.samples[0]]
        donors = {one.id: other for one, other in zip(self.samples, turned, strict=True)}
        return self._vlm.edited([edit], others=self.samples, donors=donors)

    @cached_property
    def _rows(self) -> torch.Tensor:
        import torch

        return torch.linspace(-2, 3, 5 * 32).reshape(5, 32).sin()

    def about(self, made: Intervention) -> EditedRows:
        """What an intervention is told about five rows of width 32."""
        import numpy as np

        from vlmlens.passes.edits import EditedRows, Spread

        (site,) = self._vlm.sites.resolve(SITE)
        rows = self._rows
        return EditedRows(
            site, Selector.parse(ROWS), self.samples[0], np.arange(5),
            Spread(5, rows.mean(0), rows.std(0)) if made.needs == "spread" else None,
            rows.flip(0) if made.needs == "donor" else None,
        )  # fmt: skip
