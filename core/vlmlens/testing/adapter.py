"""AdapterTests: the kit of adapters, on a tiny checkpoint of the family's real classes.

Over 400 lines: who writes an adapter reads all its checks here; what they share is in the modules
with an underscore.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vlmlens.abc.adapter import LoadRequest
from vlmlens.samples import Sample
from vlmlens.sites import Axis
from vlmlens.testing._adapter_suite import (
    PROBES,
    SIZES,
    distance,
    forward_replaced,
    halved,
    replaced,
)
from vlmlens.testing._checks import CheckFailed, expect, expect_error, skip
from vlmlens.testing._name_checks import check_texts
from vlmlens.testing._painting import changed_on_axes, painted_is_changed, still
from vlmlens.testing._tuning_checks import TuningChecks
from vlmlens.testing._virtual_checks import VirtualChecks
from vlmlens.testing.tiny import picture
from vlmlens.tokens import TokenKind

__all__ = ["AdapterTests", "distance", "replaced"]


class AdapterTests(TuningChecks, VirtualChecks):
    """The conformance kit of adapters.

    Subclass it as `Test...`, set `manifest`, and implement `build`, which makes a tiny checkpoint
    (see `vlmlens.testing.tiny`). A family with several architectures has one subclass for each.

    Attributes:
        manifest: The adapter's manifest. The kit checks that its `offers` are true.
        tolerance: Largest allowed difference between a padded batch and a single sample, relative
            to the largest activation of the site (at least 1). The default is 168 eps of float32.
        mask_matters: Smallest difference, on the same scale, that ignoring the attention mask must
            make. It shows that the tolerance is meaningful.
        model: A checkpoint (hub id or folder) to check instead of the tiny one.
        device: The device to compute on.
        attention: transformers' attention implementation; None: the default one.
        images: Whether the family reads images; False for text-only models.
        text: Whether the family reads prompts; False for vision backbones alone.
    """

    # ------------------------------------------------------------------ loading and sites

    def check_skeleton_is_the_loaded_tree(self, folder: Path) -> None:
        """The skeleton has the same modules and sites as the model, and no weights in memory."""
        del folder
        skeleton = self.adapter.skeleton(LoadRequest(model=str(self.checkpoint), device="cpu"))
        expect(skeleton.sites.modules == self.vlm.sites.modules, "the module trees differ")
        same = dict(skeleton.sites.canonical) == dict(self.vlm.sites.canonical)
        expect(same, "the canonical sites differ")
        real = [n for n, p in skeleton.module.named_parameters() if p.device.type != "meta"]
        expect(not real, f"the skeleton holds weights: {real[:3]}")

    def check_sites_resolve_and_fire(self, folder: Path) -> None:
        """Every canonical site gives an activation with the rows of its axis."""
        del folder
        names = list(self.vlm.sites.canonical)
        for wanted in ("vision.block.0", "projector", "llm.block.0")[0 if self.images else 2 :]:
            needed = self.offers("readout") or wanted == "vision.block.0"
            if needed and wanted not in names:
                raise CheckFailed(self._missing_site(wanted))
        batch = self.vlm.encode(self.samples)
        trace = self.vlm.trace(batch, names, logits="all" if self.offers("readout") else "none")
        for name in names:
            site, tensor = trace.sites[name], trace[name]
            rows = tensor.reshape(-1, tensor.shape[-1]).shape[0]
            layout = batch.layouts[site.axis]
            known = layout.at(rows) is not None
            expect(known, f"{name} gives {rows} rows, but its axis has {layout.total}")

    def check_widths_are_true(self, folder: Path) -> None:
        """`widths` gives the width of every canonical site, from the config alone."""
        del folder
        skeleton = self.adapter.skeleton(LoadRequest(model=str(self.checkpoint), device="cpu"))
        widths = skeleton.widths()
        sites = list(self.vlm.sites.canonical.values())
        logits = "all" if self.offers("readout") else "none"
        trace = self.vlm.trace(self.vlm.encode(self.samples[:1]), sites, logits=logits)  # type: ignore[call-overload]
        for site in sites:
            found = trace[site.name].shape[-1]
            expect(widths.get(site.path) == found, f"{site}: {widths.get(site.path)}, not {found}")

    def check_determinism(self, folder: Path) -> None:
        """The same batch gives the same bits twice, and after loading again."""
        del folder
        first = self._activations(self.vlm, self.samples)
        for again in (self.vlm, self.load()):
            second = self._activations(again, self.samples)
            for name, tensor in first.items():
                expect(bool((tensor == second[name]).all()), f"{name} differs between two passes")

    def check_bfloat16(self, folder: Path) -> None:
        """The model loads and computes in bfloat16."""
        del folder
        half = self.load(dtype="bfloat16")
        expect(half.dtype == "bfloat16", f"it computes in {half.dtype}")
        for name, tensor in self._activations(half, self.samples[:1]).items():
            expect(str(tensor.dtype) == "torch.bfloat16", f"{name} is {tensor.dtype}")
            expect(bool(tensor.isfinite().all()), f"{name} is not finite")

    def check_description(self, folder: Path) -> None:
        """`describe` returns JSON data that distinguishes checkpoints."""
        del folder
        import json

        said = self.vlm.describe()
        json.dumps(said)
        for key in ("dtype", "transformers", "torch", "image_backend"):
            expect(bool(said.get(key)), f"describe() lacks {key!r}")
        told_apart = said.get("digest") or said.get("revision")
        expect(bool(told_apart), "describe() has neither 'digest' nor 'revision'")

    # ------------------------------------------------------------------ numbers

    def check_batch_equals_single(self, folder: Path) -> None:
        """Samples of different shapes and lengths give the same in a batch as alone."""
        del folder
        self._compare_with_single(self.samples)

    def check_the_mask_matters(self, folder: Path) -> None:
        """Control: the comparison above fails if the attention mask is ignored.

        Without the mask, the last position of each row counts as the sample's last one. Padding
        before a sample, or visible from before, also changes the sample.
        """
        del folder
        self._needs("readout")
        import torch

        batch = self.vlm.encode(self.samples)
        mask = batch.inputs["attention_mask"]
        expect(not bool(mask.all()), "no sample of the batch is padded")
        right = self.vlm.forward(batch, logits="last").logits
        blind = replaced(batch, attention_mask=torch.ones_like(mask))
        wrong = self.vlm.forward(blind, logits="all").logits
        assert right is not None
        assert wrong is not None
        moved = distance(right, wrong[:, -1])
        expect(moved > self.mask_matters, f"ignoring the mask changes the logits by {moved:.1e}")

    def check_columns_equal_hidden_states(self, folder: Path) -> None:
        """Language blocks equal transformers' own `hidden_states` of a single sample.

        The last entry of `hidden_states` has passed the final norm, so it is not compared.
        """
        del folder
        self._needs("readout")
        import torch

        for sample in self.samples:
            batch = self.vlm.encode([sample])
            expect(bool(batch.inputs["attention_mask"].all()), "a single sample is padded")
            with torch.inference_mode():
                output = self.vlm.module(**batch.inputs, output_hidden_states=True)
            blocks = self._blocks()
            trace = self.vlm.trace(batch, blocks)
            for i, site in enumerate(blocks[:-1]):
                far = distance(self.hidden_states(output)[i + 1], trace[site.name])
                expect(far <= self.tolerance, f"{site} differs from hidden_states by {far:.1e}")

    def check_edits_reach_everything(self, folder: Path) -> None:
        """An edit changes the logits exactly like a module that returns the edited tensor."""
        del folder
        self._needs("readout")
        batch = self.vlm.encode(self.samples[:1])
        plain = self.vlm.forward(batch, logits="last").logits
        moved = 0.0
        for site in self._edited_blocks():
            edited = self.vlm.trace(batch, [], logits="last", edits={site.name: halved}).logits
            with forward_replaced(self.vlm.module.get_submodule(site.path), site, halved):
                rebuilt = self.vlm.forward(batch, logits="last").logits
            far = distance(rebuilt, edited)
            expect(far <= self.tolerance, f"with an edit at {site}, logits are wrong by {far:.1e}")
            moved = max(moved, distance(plain, edited))
        expect(moved > self.mask_matters, "no edit changes the logits")

    def check_lens_identity(self, folder: Path) -> None:
        """Final norm and unembedding at the last block give the model's own logits."""
        del folder
        self._needs("readout")
        readout = self.vlm.readout()
        expect(readout is not None, "the manifest offers 'readout', but `readout()` returns None")
        assert readout is not None
        trace = self.vlm.trace(self.vlm.encode(self.samples), [readout.site], logits="last")
        hidden = trace.select(f"{readout.site}/last")
        assert not isinstance(hidden, list)
        far = distance(trace.logits, readout(hidden))
        expect(
            far <= self.tolerance,
            f"the lens differs from the logits by {far:.1e}",
        )
        far = distance(trace.logits, readout(hidden, norm=False))
        expect(far > self.mask_matters, "leaving the norm out changes nothing")

    # ------------------------------------------------------------------ images

    def check_layout_is_where_the_image_is(self, folder: Path) -> None:
        """Painting a cell of the image changes the tokens whose boxes hold it, and no distant ones.

        The vision and language blocks are replaced by the identity, so that each token sees only
        its own patch.
        """
        del folder
        self._needs_images()
        vlm = still(self.load())
        fine = vlm.encode(self.samples[:1]).layouts[Axis.VISION].samples[0].patches
        has = {Axis.VISION: fine is not None}
        known = [axis for axis in PROBES if has.get(axis, self.offers("patch-grid"))]
        sites = {axis: site for axis in known if (site := self._probe_site(vlm, axis))}
        if not sites:
            raise skip("no axis has a patch grid")
        for width, height in SIZES:
            found = changed_on_axes(vlm, picture(width, height), sites)
            for axis, (grid, painted) in found.items():
                for cell, changed in painted:
                    problem = painted_is_changed(grid, cell, changed)
                    expect(not problem, f"{width} x {height}, {axis.value} axis: {problem}")

    def check_the_image_matters(self, folder: Path) -> None:
        """Another picture gives different logits (or different image features)."""
        del folder
        self._needs_images()
        one, other = (
            self.samples[0],
            Sample("o", self.samples[0].prompt, (picture(64, 48, seed=2),)),
        )
        first = self._activations(self.vlm, [one])
        second = self._activations(self.vlm, [other])
        name = list(first)[-1] if self.offers("readout") else "vision.block.0/image.mean"
        moved = distance(first[name], second[name])
        expect(moved > self.mask_matters, f"another picture changes {name} by only {moved:.1e}")

    def check_several_images(self, folder: Path) -> None:
        """A sample with two images gives the same in a batch as alone, or is clearly refused."""
        del folder
        two = Sample("two", "Compare them:", (picture(64, 48), picture(40, 88, seed=1)))
        if not self.offers("several-images"):
            expect_error(Exception, lambda: self.vlm.encode([two]), "two images in a sample")
            return
        layouts = self.vlm.encode([two]).layouts
        layout = layouts[Axis.LLM if self.text else Axis.VISION].samples[0]
        if layout.patches is not None:
            expect(
                set(layout.patches.image.tolist()) == {0, 1},
                "the grid lacks an image",
            )
        self._compare_with_single([self.samples[1], two])

    def check_shared_beginnings(self, folder: Path) -> None:
        """Questions on the same images give the same with their common beginning run once."""
        del folder
        groups = [self._questions(picture(*SIZES[0])), self._questions(picture(*SIZES[0], seed=1))]
        batch = self.vlm.encode_shared(groups)
        if batch is None:
            raise skip("samples on the same images do not share what is computed")
        expect(len(batch) == 6, f"6 samples became {len(batch)}")
        together = self._in_passes(batch, stop=False)
        again = self._in_passes(self.vlm.encode_shared(groups), stop=True)
        samples = [sample for group in groups for sample in group]
        for i, sample in enumerate(samples):
            single = self._activations(self.vlm, [sample])
            for name, alone in single.items():
                shared, stopped = together[name][i], again[name][i]
                far = distance(alone, shared.reshape(alone.shape))
                expect(
                    far <= self.tolerance,
                    f"{name}, {sample.id}: alone differs by {far:.1e}",
                )
                expect(bool((shared == stopped).all()), f"{name} differs if the pass is stopped")

    def check_unread_blocks(self, folder: Path) -> None:
        """Without the blocks that nothing reads, all other activations keep their bits."""
        del folder
        from vlmlens.passes.skipping import needless, passing_on

        if not self.vlm.unread:
            raise skip("the model reads the output of every block")
        canonical = self.vlm.sites.canonical
        strange = [name for name in self.vlm.unread if name not in canonical]
        expect(not strange, f"`unread` names {strange}, which are not canonical sites")
        sites = [site for site in canonical.values() if needless(self.vlm, [site])]
        logits: Any = "last" if self.offers("readout") else "none"
        batch = self.vlm.encode(self.samples)
        whole = self.vlm.trace(batch, sites, logits=logits)
        with passing_on(self.vlm.module, [canonical[name].path for name in self.vlm.unread]):
            less = self.vlm.trace(batch, sites, logits=logits)
        for name, activation in whole.items():
            expect(bool((activation == less[name]).all()), f"{name} depends on {self.vlm.unread}")
        if whole.logits is not None and less.logits is not None:
            expect(bool((whole.logits == less.logits).all()), f"logits depend on {self.vlm.unread}")

    def check_text_only(self, folder: Path) -> None:
        """A sample without an image gives the same in a batch as alone, or is clearly refused."""
        del folder
        none = Sample("none", "Hello, who are you?")
        if not self.offers("text-only"):
            expect_error(Exception, lambda: self.vlm.encode([none]), "a sample without image")
            return
        self._compare_with_single([self.samples[0], none], self._blocks())
        self._compare_with_single([none, Sample("n2", "Hm?")], self._blocks())

    # ------------------------------------------------------------------ language

    def check_layout_names_the_tokens(self, folder: Path) -> None:
        """Each sample has its own rows in order; its text has the prompt; padding is in none."""
        del folder
        self._needs_text()
        batch = self.vlm.encode(self.samples)
        axis = Axis.ENCODER if Axis.ENCODER in batch.layouts else Axis.LLM
        ids = batch.inputs["input_ids"]
        flat, mask = ids.flatten().tolist(), batch.inputs["attention_mask"].flatten().tolist()
        seen: set[int] = set()
        for i, sample in enumerate(self.samples):
            layout = batch.layout(i, axis)
            expect(not seen & set(layout.rows.tolist()), "two samples share rows")
            seen |= set(layout.rows.tolist())
            assert layout.token_ids is not None
            if batch.layouts[axis].total == len(flat):
                expect(all(mask[row] for row in layout.rows), "a padding row belongs to a sample")
                own = [flat[row] for row in layout.rows]
                expect(own == layout.token_ids.tolist(), "token_ids are not those of the rows")
            text = self.vlm.decode(layout.token_ids[layout.kinds == TokenKind.TEXT].tolist())
            expect(sample.prompt in text, f"{sample.prompt!r} is not in {text!r}")
            check_texts(layout, sample.prompt)

    def check_no_doubled_specials(self, folder: Path) -> None:
        """The beginning-of-text token occurs at most once."""
        del folder
        self._needs_text()
        tokenizer: Any = getattr(self.vlm, "tokenizer", None)
        bos = getattr(tokenizer, "bos_token_id", None)
        if bos is None:
            raise skip("the tokenizer has no beginning-of-text token")
        layout = self.vlm.encode(self.samples[:1]).layout(0)
        assert layout.token_ids is not None
        found = int((layout.token_ids == bos).sum())
        allowed = 2 if bos == tokenizer.eos_token_id else 1
        expect(found <= allowed, f"it occurs {found} times")

    def check_generate(self, folder: Path) -> None:
        """Greedy text begins with the most probable next token, in a batch and alone."""
        del folder
        self._needs("generate")
        batch = self.vlm.encode(self.samples)
        texts = [one.text for one in self.vlm.generate(batch, max_new_tokens=4)]
        expect(len(texts) == len(self.samples), "there are not as many texts as samples")
        batches = [self.vlm.encode([sample]) for sample in self.samples]
        alone = [self.vlm.generate(single, max_new_tokens=4)[0].text for single in batches]
        expect(texts == alone, f"batched {texts}, alone {alone}")

    def check_answers(self, folder: Path) -> None:
        """An appended answer, or none, follows the prompt; the position before it predicts it."""
        del folder
        self._needs("readout")
        batch = self.vlm.encode(self.samples, answers=["yes", "perhaps", []])
        plain = self.vlm.forward(self.vlm.encode(self.samples), logits="last").logits
        logits = self.vlm.forward(batch, logits="all").logits
        assert plain is not None
        assert logits is not None
        flat = logits.flatten(0, 1)
        for i, answer in enumerate(("yes", "perhaps", "")):
            layout = batch.layout(i)
            where = layout.positions(TokenKind.ANSWER)
            assert layout.token_ids is not None
            written = layout.token_ids[where].tolist()
            expected = self.vlm.answer_ids(answer) if answer else []
            expect(written == expected, f"{answer!r} became {written}")
            before = len(layout) - len(written) - 1
            expect(all(where == np.arange(before + 1, len(layout))), "the answer is not at the end")
            far = distance(flat[int(layout.rows[before])], plain[i])
            expect(far <= self.tolerance, f"the prediction of {answer!r} is wrong by {far:.1e}")

    def check_choice_scores(self, folder: Path) -> None:
        """Scores of choices are probabilities, the same in a batch, and depend on the image."""
        del folder
        self._needs_text()
        choices = ("red", "a green thing", "blue")
        samples = [replace(sample, choices=choices) for sample in self.samples]
        if not self.offers("choice-scores"):
            compared = self.vlm.choice_scores(samples)
            expect(compared is None, "it compares choices, but does not offer 'choice-scores'")
            return
        expect(self.vlm.choice_scores(()) == [], "for no samples it must return an empty list")
        together = self._scores(samples)
        expect(bool(np.allclose(np.exp(together).sum(1), 1)), "probabilities do not sum to 1")
        far = np.abs(together - np.concatenate([self._scores([one]) for one in samples])).max()
        expect(
            far <= self.tolerance * 10,
            f"the scores alone differ by {far:.1e}",
        )
        turned = [
            replace(one, images=samples[i - 1].images, id=one.id) for i, one in enumerate(samples)
        ]
        moved = np.abs(together - self._scores(turned)).max()
        expect(moved > self.mask_matters, f"another picture changes the scores by only {moved:.1e}")
