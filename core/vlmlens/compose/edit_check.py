"""Checks of a run's edits, before weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlmlens.abc.intervention import Intervention
from vlmlens.errors import CompositionError, EditError, MissingAnnotation
from vlmlens.passes.edits import EdgeCut, EditPlace
from vlmlens.sites import Axis
from vlmlens.tokens import Selector, TokenKind

if TYPE_CHECKING:
    from vlmlens.abc.adapter import ModelAdapter
    from vlmlens.passes.edits import Edit
    from vlmlens.registry import Registry
    from vlmlens.samples import Sample
    from vlmlens.sites import Site
    from vlmlens.spec.model import RunSpec

_OF_IMAGES = (Axis.VISION, Axis.PROJECTOR)


def opened_edits(spec: RunSpec, registry: Registry) -> list[Edit | EdgeCut]:
    """The edits of a spec.

    Raises:
        EditError, SelectorError: One does not parse.
        PluginError, SpecError: Its intervention is not installed, or has no such option.
    """
    return [registry.edit(text) for text in spec.edits]


def others_for(edits: Sequence[Edit | EdgeCut], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The samples to which edits compare a sample, as data; none if no edit does so."""
    if all(isinstance(edit, EdgeCut) or edit.operation.needs == "nothing" for edit in edits):
        return []
    return [sample.to_dict() for sample in samples]


def check_edits(
    edits: Sequence[Edit | EdgeCut],
    skeleton: ModelAdapter,
    samples: Sequence[Sample],
    generate: int | None,
) -> None:
    """Raise an error for what is known to be wrong with edits without running the model.

    Args:
        edits: The edits.
        skeleton: The model without weights.
        samples: The run's samples.
        generate: How many tokens the model writes.

    Raises:
        SiteError: A site does not exist.
        MissingAnnotation: Samples without an image lack the rows of an edit.
        EditError: A sample has no donor, or an operation is for rows of another width, or it
            belongs to another place.
        CompositionError: The rows of an edit exist only in written text, and there is none.
    """
    for edit in edits:
        if isinstance(edit, EdgeCut):
            skeleton.sites.attentions(edit.site)
            continue
        sites = [edit.site] if not isinstance(edit.site, str) else skeleton.sites.resolve(edit.site)
        selector = edit.selector or Selector()
        of_image = selector.kind == TokenKind.IMAGE or any(s.axis in _OF_IMAGES for s in sites)
        without = [sample.id for sample in samples if not sample.images]
        if of_image and without:
            raise MissingAnnotation(
                f"{edit.text!r} needs images, and {len(without)} of {len(samples)} samples have "
                f"none, for example {without[0]!r}.",
                subject=edit.text,
                hint="Leave them out, or edit other rows.",
            )
        written = selector.steps or selector.kind == TokenKind.ANSWER
        if written and generate is None:
            raise CompositionError(
                f"{edit.text!r} is about generated text, but the model writes nothing.",
                subject=edit.text,
                hint="Let the model write with --generate N.",
            )
        if edit.operation.needs == "donor":
            _check_donors(edit, samples)
        _check_width(edit, sites, skeleton)
        if isinstance(edit.operation, Intervention):
            for site in sites:
                place = EditPlace(site, selector, edit.text, skeleton.describe)
                edit.operation.check_place(place)


def _check_width(edit: Edit, sites: Sequence[Site], skeleton: ModelAdapter) -> None:
    """Compare widths where they are sure: of heads, and of what LLM blocks give."""
    width = edit.operation.width if isinstance(edit.operation, Intervention) else None
    if width is None:
        return
    known = skeleton.widths()
    for site in sites:
        start, end = site.columns or (0, 0)
        block = (
            site.axis is Axis.LLM and site.side == "out" and site == skeleton.sites.owner(site.path)
        )
        found = end - start or (known.get(site.path) if block else None)
        if found not in (None, width):
            raise EditError(
                f"{edit.text!r} changes rows of {width} numbers; those at {site.name!r} have "
                f"{found}.",
                subject=edit.text,
                hint="Use what was learned, or stored, at a site of this width.",
            )


def _check_donors(edit: Edit, samples: Sequence[Sample]) -> None:
    for sample in samples:
        if edit.operation.donor(sample, samples) is None:
            raise EditError(
                f"{edit.text!r} has no donor for the sample {sample.id!r}.",
                subject=edit.text,
                hint="Name a sample of the run: patch(SAMPLE).",
            )
