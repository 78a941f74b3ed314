"""Traceable: reading what a model computes in one pass: activations, attention, gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from vlmlens.abc.editable import Editable, Edits
from vlmlens.errors import DataError, SiteNotFound
from vlmlens.passes.batch import Batch, Logits
from vlmlens.samples import Sample
from vlmlens.sites import Site

if TYPE_CHECKING:
    from PIL.Image import Image

    from vlmlens.passes.attending import Attention
    from vlmlens.passes.editing import Donors
    from vlmlens.passes.gradients import Gradients, Metric
    from vlmlens.passes.tracing import Trace

Picture: TypeAlias = "str | os.PathLike[str] | Image"
"""An image as a path or a Pillow image."""

Sites: TypeAlias = "str | Site | Iterable[str | Site]"
"""One site or several, as names, patterns or sites."""


class Traceable(Editable):
    """The base of `ModelAdapter` that is about reading a pass."""

    @overload
    def trace(
        self,
        batch: Batch,
        sites: Sites,
        /,
        *,
        logits: Logits = "none",
        edits: Edits = (),
        others: Sequence[Sample] = (),
        donors: Donors = (),
    ) -> Trace: ...

    @overload
    def trace(
        self,
        image: Picture | Sequence[Picture] | None,
        prompt: str,
        sites: Sites,
        *,
        logits: Logits = "none",
        edits: Edits = (),
        others: Sequence[Sample] = (),
        donors: Donors = (),
    ) -> Trace: ...

    def trace(
        self,
        image: Batch | Picture | Sequence[Picture] | None,
        prompt: str | Sites | None = None,
        sites: Sites | None = None,
        *,
        logits: Logits = "none",
        edits: Edits = (),
        others: Sequence[Sample] = (),
        donors: Donors = (),
    ) -> Trace:
        """One pass that keeps the raw activations of some sites.

        `vlm.trace(image, prompt, sites)` for one question, `vlm.trace(batch, sites)` for a batch
        from `encode`.

        Args:
            image: A path, a Pillow image, a list of them, or None; or a batch, without a prompt.
            prompt: The user's text, without any chat template.
            sites: Sites or patterns, one or several.
            logits: Which logits to compute too.
            edits: What to replace; the activations that are kept are the edited ones. See
                `edited`, also for `others` and `donors`.
            others: The samples to which edits compare.
            donors: The samples from which edits take rows.

        Returns:
            Activations by site name, as the modules gave them, and the logits.

        Raises:
            DataError: There is no prompt, or the image cannot be used.
            SiteNotFound: A pattern matches nothing.
            SiteSilent: A site gave no activation in this pass.
        """
        from vlmlens.passes.tracing import trace_forward

        model: Any = self
        if isinstance(image, Batch):
            batch, wanted = image, prompt if sites is None else sites
        else:
            batch, wanted = model.encode([_asked(image, prompt)]), sites
        if wanted is None:
            raise SiteNotFound("No site was given to `trace`.", hint='Give ["llm.block.*"], say.')
        with self.edited(edits, others=others, donors=donors):
            return trace_forward(model, batch, _listed(wanted), logits=logits)

    def attention(self, batch: Batch, sites: Sites) -> dict[str, Attention]:
        """The attention of some modules in one pass, per head, whatever implementation computes it.

        Args:
            batch: From `encode`.
            sites: Attention modules, as `llm.block.*.attn`.

        Returns:
            By site name, weights `[samples, heads, queries, keys]` and the values that they weigh.

        Raises:
            SiteNotFound: A pattern matches nothing.
            SiteSilent: A module computes attention in a way that is not known.
        """
        from vlmlens.passes.attending import attention_of

        model: Any = self
        return attention_of(model, batch, _listed(sites))

    def gradients(
        self,
        batch: Batch,
        sites: Sites,
        metric: Metric,
        *,
        inputs: Sequence[str] = (),
        logits: Logits = "last",
        at: str | Site | None = None,
        without: Sequence[Sequence[str | Site]] = (),
    ) -> Gradients:
        """The gradients of a number that a pass gives, at some sites and inputs, per sample.

        Each sample has the gradients that it has alone: the numbers are differentiated as a sum.
        Under `edited`, they are those of the edited pass. The graph begins at the first asked site;
        what lies before it costs what it costs in a plain pass, and everything behind it keeps its
        intermediate tensors until the pass ends, as in a plain backward pass.

        Args:
            batch: From `encode`.
            sites: Sites or patterns, one or several; may be empty if inputs are asked for.
            metric: What is differentiated: a function from logits to one number per sample, such
                as those of `vlmlens.passes.gradients`.
            inputs: Inputs of the model, as "pixel_values": names of `Batch.inputs`.
            logits: Which logits the metric gets.
            at: A site whose activation, as its module gives it, the metric gets instead of logits.
            without: Groups of sites. For each, the gradients are taken once more, with none flowing
                through these sites; see `Gradients.without`.

        Returns:
            By site name, gradients in the shape of the activations; the metric's values.

        Raises:
            CompositionError: No gradient can be taken: quantized weights, no logits, or parts that
                run in inference mode.
            SiteNotFound: A pattern matches nothing.
            SiteSilent: A site gave no activation, or the metric depends on none of them.
            SpecError: The metric does not give a number per sample, or there is no such input.
        """
        from vlmlens.passes.gradients import gradients_of

        model: Any = self
        return gradients_of(
            model,
            batch,
            _listed(sites),
            metric,
            inputs=inputs,
            logits=logits,
            at=at,
            without=without,
        )


def _listed(sites: Sites) -> Iterable[str | Site]:
    return [sites] if isinstance(sites, str | Site) else sites


def _asked(image: Any, prompt: Any) -> Sample:
    """The sample of one question about one image, several or none."""
    if not isinstance(prompt, str):
        raise DataError(
            f"`trace` was given {repr(prompt)[:80]} as the prompt, and expected text.",
            subject=prompt,
            hint="Call trace(image, prompt, sites), or trace(batch, sites) with a batch of encode.",
        )
    images = image if isinstance(image, list | tuple) else () if image is None else (image,)
    return Sample("traced", prompt, tuple(images))
