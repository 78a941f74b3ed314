"""Whether an SAE belongs to a site of a model: to its own only, unless its user says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmlens.errors import CompositionError, SelectorError
from vlmlens.tokens import Selector
from vlmlens_plugins.sae.sae import Sae


def check_belongs(
    sae: Sae,
    model: Mapping[str, Any],
    site: str,
    selector: str | None,
    width: int | None = None,
    *,
    anyway: bool = False,
) -> list[str]:
    """Refuse an SAE that was trained elsewhere.

    Models are compared by what tells their weights: class, and digest or commit of the checkpoint.
    Type of numbers, device and versions may differ.

    Args:
        sae: The SAE.
        model: What tells the model that it is to be used with (`ModelAdapter.describe`).
        site: The name of the site, as the model resolves it.
        selector: Which rows of it; None: any.
        width: How many numbers a row has there; None: not known yet.
        anyway: Whether another site, other rows and another model are only doubtful.

    Returns:
        What is doubtful, in sentences: what its file does not say, and what `anyway` allowed.

    Raises:
        CompositionError: It reads rows of another width, or belongs elsewhere.
    """
    _check_width(sae, site, width)
    doubts, elsewhere = _of_place(sae, site, selector)
    same = same_model(sae.about.model, model)
    if not sae.about.model:
        doubts.append("Its file does not say which model it was trained on.")
    elif same is None:
        doubts.append(
            f"Whether it was trained on this model cannot be told: {_named(sae.about.model)} and "
            f"{_named(model)} say too little."
        )
    elif not same:
        elsewhere.append(
            f"It was trained on {_named(sae.about.model)}, and this is {_named(model)}."
        )
    if sae.about.model.get("edits") not in (None, [], model.get("edits")):
        doubts.append("It was trained while other edits changed the model.")
    if elsewhere and not anyway:
        raise CompositionError(
            f"The SAE does not belong here. {' '.join(elsewhere)}",
            subject=sae.about.column or site,
            hint="Use it where it was trained, or say `anyway`: features may mean nothing here.",
        )
    return [*elsewhere, *doubts]


def same_model(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool | None:
    """Whether two descriptions of models are of the same weights; None if they do not tell."""
    if before.get("class") != now.get("class"):
        return False if before.get("class") and now.get("class") else None
    for mark, also in (("digest", ()), ("revision", ("checkpoint",))):
        marks = before.get(mark), now.get(mark)
        if all(marks):
            return marks[0] == marks[1] and all(before.get(n) == now.get(n) for n in also)
    if before.get("digest") or now.get("digest"):  # a folder and a name of the hub
        return None
    return None if before.get("checkpoint") == now.get("checkpoint") else False


def _check_width(sae: Sae, site: str, width: int | None) -> None:
    if width in (None, sae.inputs):
        return
    column = sae.about.column
    raise CompositionError(
        f"The SAE reads rows of {sae.inputs} numbers; those of {site!r} have {width}.",
        subject=column or site,
        hint=f"It belongs to {column!r}." if column else "Use an SAE of rows of this width.",
    )


def _of_place(sae: Sae, site: str, selector: str | None) -> tuple[list[str], list[str]]:
    """What is not known about its place, and what is another one."""
    about = sae.about
    if not about.column:
        return [
            f"Its file does not say at which site of vlmlens it was trained; used at {site}."
        ], []
    if about.scales:
        return [], [f"It is a crosscoder of {about.column!r}, and {site!r} is one site."]
    found = []
    if about.site != site:
        found.append(f"It was trained at {about.site!r}, and this is {site!r}.")
    if selector is not None and not _same_rows(about.rows, selector):
        found.append(f"It was trained on the rows {about.rows!r}, and these are {selector!r}.")
    return [], found


def _same_rows(before: str, now: str) -> bool:
    try:
        return Selector.parse(before) == Selector.parse(now)
    except SelectorError:
        return before == now


def _named(model: Mapping[str, Any]) -> str:
    """A model in few words."""
    mark = model.get("revision") or model.get("digest")
    short = f" ({str(mark)[:12]})" if mark else ""
    return f"{model.get('checkpoint', 'a model without a name')!r}{short}"
