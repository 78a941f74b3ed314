"""ExtractorTests: the kit of extractors, on a tiny model of real classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vlmlens.abc.extractor import Extractor
from vlmlens.abc.storage import DTYPES, Values
from vlmlens.errors import SelectorError, SiteError
from vlmlens.samples import Sample
from vlmlens.testing._checks import expect, expect_error, skip
from vlmlens.testing._plugin_checks import PluginChecks
from vlmlens.testing._stores import expect_same, select
from vlmlens.testing.tiny import picture
from vlmlens.tokens import Column

if TYPE_CHECKING:
    import torch

    from vlmlens.abc.adapter import ModelAdapter

Found = Mapping[str, Values]


class ExtractorTests(PluginChecks):
    """The conformance kit of extractors.

    Subclass it as `Test...` and set `manifest`. The model is a tiny LLaVA with random weights.

    Attributes:
        manifest: The extractor's manifest.
        options: Values of its options.
        sites: The sites to ask for, as with `--sites`; empty: the extractor's default.
        attention: The attention implementation that it needs; None: the model's own.
        tolerance: Largest allowed difference between a padded batch and a single sample, relative
            to the largest value of the column.
        told_apart: Smallest difference, on the same scale, that another sample must make in some
            column. It shows that the checks of order are meaningful.
    """

    sites: ClassVar[Sequence[str]] = ()
    attention: ClassVar[str | None] = None
    tolerance: ClassVar[float] = 2e-5
    told_apart: ClassVar[float] = 1e-3

    @property
    def vlm(self) -> ModelAdapter:
        """The loaded tiny model."""
        from vlmlens.testing.model import tiny_model

        return tiny_model(self.attention)

    @cached_property
    def samples(self) -> list[Sample]:
        """Samples with one picture each, of one size, and prompts of different lengths."""
        prompts = (
            "What is this?",
            "Name the colour of the largest thing, please:",
            "Hm?",
            "Why so?",
        )
        return [
            Sample(f"s{i}", prompt, (picture(64, 64, seed=i),)) for i, prompt in enumerate(prompts)
        ]

    def make(
        self, vlm: ModelAdapter | None = None, sites: Sequence[str] | None = None
    ) -> Extractor:
        """A new extractor."""
        wanted = self.sites if sites is None else sites
        made: Extractor = self.plugin(vlm or self.vlm, tuple(wanted), self.chosen())
        return made

    def extract(self, samples: Sequence[Sample], extractor: Extractor | None = None) -> Found:
        """The columns of some samples, from one batch."""
        return (extractor or self.make()).extract(self.vlm.encode(samples))

    # ------------------------------------------------------------------ columns

    def check_columns_are_as_promised(self, folder: Path) -> None:
        """`extract` returns exactly the names of `columns()`, in that order, as SITE/SELECTOR."""
        del folder
        extractor = self.make()
        names = extractor.columns()
        expect(bool(names), "it promises no column")
        expect(len(set(names)) == len(names), "it promises a column twice")
        expect(names == self.make().columns(), "another instance promises other columns")
        for name in names:
            expect(str(Column.parse(name)) == name, f"{name!r} is not in its canonical spelling")
        found = list(self.extract(self.samples, extractor))
        expect(found == names, f"promised {names[:3]}..., given {found[:3]}...")

    def check_columns_are_known_without_weights(self, folder: Path) -> None:
        """The skeleton gives the same columns, and samples can be checked with it."""
        del folder
        from vlmlens.testing.model import TinyLlava, request

        skeleton = TinyLlava.skeleton(request(attention=self.attention))
        extractor = self.make(skeleton)
        expect(
            extractor.columns() == self.make().columns(),
            "without weights, other columns",
        )
        extractor.check(self.samples)

    def check_values_can_be_stored(self, folder: Path) -> None:
        """Every column has a value per sample, in a form that a store can keep."""
        del folder
        for name, values in self.extract(self.samples).items():
            _expect_storable(name, values, len(self.samples))

    def check_form_is_kept(self, folder: Path) -> None:
        """A column has the same dtype, width and raggedness in every batch."""
        del folder
        extractor = self.make()
        first = self.extract(self.samples, extractor)
        for some in (self.samples[:1], self.samples[2:], self.samples[::-1]):
            for name, values in self.extract(some, extractor).items():
                now, then = _form(values), _form(first[name])
                expect(now == then, f"{name}: {then} in one batch, {now} in another")

    # ------------------------------------------------------------------ rows

    def check_rows_are_in_batch_order(self, folder: Path) -> None:
        """Samples in another order give the same values, in that order."""
        del folder
        extractor = self.make()
        order = [2, 0, 3, 1]
        straight = self.extract(self.samples, extractor)
        mixed = self.extract([self.samples[i] for i in order], extractor)
        for name, values in mixed.items():
            self._expect_close(name, values, select(straight[name], order), "in another order")

    def check_batch_equals_single(self, folder: Path) -> None:
        """Samples of different lengths give the same in a batch as alone."""
        del folder
        extractor = self.make()
        together = self.extract(self.samples, extractor)
        for i, sample in enumerate(self.samples):
            for name, values in self.extract([sample], extractor).items():
                self._expect_close(name, select(together[name], [i]), values, f"{sample.id} alone")

    def check_samples_are_told_apart(self, folder: Path) -> None:
        """Control: each sample differs from the others in some column."""
        del folder
        found = self.extract(self.samples)
        for i in range(len(self.samples)):
            other = (i + 1) % len(self.samples)
            far = max(distance(select(v, [i]), select(v, [other])) for v in found.values())
            expect(far > self.told_apart, f"samples {i} and {other} differ by only {far:.1e}")

    def check_batches_do_not_meddle(self, folder: Path) -> None:
        """The same batch gives the same bits after other batches, and from a new instance."""
        del folder
        extractor = self.make()
        first = self.extract(self.samples[:2], extractor)
        kept = {name: Values(v.array.copy(), v.dtype, v.lengths) for name, v in first.items()}
        self.extract(self.samples[2:], extractor)
        for name, values in first.items():
            expect_same(values, kept[name], f"{name}, after another batch,")
        for again, what in ((extractor, "again"), (self.make(), "by another instance")):
            for name, values in self.extract(self.samples[:2], again).items():
                expect_same(values, kept[name], f"{name}, {what}")

    def check_shared_beginnings(self, folder: Path) -> None:
        """If it accepts batches of several passes: what is computed once gives the same values."""
        del folder
        if not self.plugin.takes_passes:
            raise skip("it does not accept batches of several passes")
        image = self.samples[0].images
        asked = [Sample(f"q{i}", s.prompt, image) for i, s in enumerate(self.samples)]
        extractor = self.make()
        for _ in range(2):
            batch = self.vlm.encode_shared([asked])
            assert batch is not None
            shared = extractor.extract(batch)
            for i, sample in enumerate(asked):
                for name, values in self.extract([sample]).items():
                    own = select(shared[name], [i])
                    self._expect_close(name, own, values, f"{sample.id} alone")

    # ------------------------------------------------------------------ manners

    def check_the_model_is_left_as_it_was(self, folder: Path) -> None:
        """No hook is left behind, no weight changes, and the logits are the same afterwards."""
        del folder
        batch = self.vlm.encode(self.samples)
        before = self.vlm.forward(batch, logits="last").logits
        hooks = _hooks(self.vlm.module)
        state = {name: t.clone() for name, t in self.vlm.module.state_dict().items()}
        extractor = self.make()
        for _ in range(2):
            extractor.extract(batch)
        after = self.vlm.forward(batch, logits="last").logits
        assert before is not None
        assert after is not None
        stay = [name for name in _hooks(self.vlm.module) if name not in hooks]
        expect(not stay, f"hooks are left behind: {', '.join(stay[:3])}")
        expect(bool((before == after).all()), "the model's logits differ afterwards")
        now = self.vlm.module.state_dict()
        changed = [name for name, tensor in state.items() if bool((tensor != now[name]).any())]
        expect(not changed, f"it changed the weights {', '.join(changed[:3])}")
        expect(not self.vlm.module.training, "it left the model in training mode")

    def check_unknown_sites_are_refused(self, folder: Path) -> None:
        """Unknown sites and wrong selectors are refused before any pass."""
        del folder
        site = self.make().columns()[0].partition("/")[0]
        for wrong, kind in (("no.such.place/last", SiteError), (f"{site}/sideways", SelectorError)):
            error = expect_error(kind, partial(self._columns_of, wrong), f"Asking for {wrong!r}")
            named = wrong.split("/")[0] in str(error) or wrong.split("/")[1] in str(error)
            expect(named, f"The error does not name {wrong!r}: {error}")

    def _columns_of(self, site: str) -> list[str]:
        return self.make(sites=[site]).columns()

    def _expect_close(self, name: str, found: Values, wanted: Values, what: str) -> None:
        same = found.array.shape == wanted.array.shape and found.lengths == wanted.lengths
        expect(same, f"{name}, {what}: shape {found.array.shape}, not {wanted.array.shape}")
        far = distance(found, wanted)
        expect(far <= self.tolerance, f"{name}, {what}: {far:.1e} away")


def distance(one: Values, other: Values) -> float:
    """Largest difference, relative to the largest value (at least 1); inf if shapes differ."""
    a, b = one.numpy().astype(np.float64), other.numpy().astype(np.float64)
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(b).max(initial=0)))


def _expect_storable(name: str, values: Values, samples: int) -> None:
    expect(isinstance(values, Values), f"{name}: {type(values).__name__} is not a Values object")
    expect(values.dtype in DTYPES, f"{name}: {values.dtype!r} is none of {', '.join(DTYPES)}")
    found, wanted = values.array.dtype, DTYPES[values.dtype]
    expect(found == wanted, f"{name}: {values.dtype} must be given as {wanted}, not as {found}")
    expect(values.array.ndim == 2, f"{name}: shape {values.array.shape}, not [rows, width]")
    expect(len(values) == samples, f"{name}: {len(values)} values for {samples} samples")
    rows = len(values.array) if values.lengths is None else sum(values.lengths)
    expect(rows == len(values.array), f"{name}: lengths add up to {rows} of {len(values.array)}")
    expect(bool(np.isfinite(values.numpy()).all()), f"{name} is not finite")


def _form(values: Values) -> tuple[str, int, bool]:
    return values.dtype, values.width, values.ragged


def _hooks(module: torch.nn.Module) -> list[str]:
    """Every hook by its module and number. transformers has some of its own."""
    return [
        f"{name}#{number}"
        for name, each in module.named_modules()
        for number in (*each._forward_pre_hooks, *each._forward_hooks)
    ]
