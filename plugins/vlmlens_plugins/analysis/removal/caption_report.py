"""What removal says of captions: findings, tables, the overview."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlmlens.results import Cell, Finding, Glance, Table
from vlmlens_plugins.analysis._results import table
from vlmlens_plugins.analysis.removal.captions import Cleaned, Rewritten

_TASK = "captions"
_WORDS = {"random": "random directions", "other": "other objects' directions"}


def findings(found: Cleaned) -> list[Finding]:
    """What becomes of hallucinated and of true objects."""
    best, own = found.best, found.own
    if best is None:
        wrong, mentions = found.before.totals[:2]
        return [
            Finding(
                f"There is nothing to remove and to measure: {wrong} of {mentions} named objects "
                "are hallucinated in the reported half, and both halves need some that have a "
                "direction.",
                found.verdict,
                subject=_TASK,
                values={"hallucinated": wrong, "mentions": mentions},
            )
        ]
    total = own.counts.sum(0).astype(int).tolist()
    read = "" if best.source == best.site else f" (words read at {best.source})"
    beside = "; ".join(
        f"with {_WORDS[kind]} {_percent(_share(draws, 1, 0))} and {_percent(_share(draws, 4, 3))}"
        for kind, draws in found.controls.items()
    )
    text = (
        f"Removed at {best.site}{read} with strength {best.strength:g}: of {total[0]} hallucinated "
        f"objects {total[1]} are no longer named, and {total[2]} others are; of {total[3]} true "
        f"ones {total[4]} are no longer named ({_percent(own.share(1, 0))} and "
        f"{_percent(own.share(4, 3))}; {beside})."
    )
    values: dict[str, Cell] = {
        "site": best.site,
        "source": best.source,
        "strength": best.strength,
        "hallucinated": total[0],
        "gone": own.share(1, 0),
        "new": total[2],
        "true": total[3],
        "lost": own.share(4, 3),
        "gain": found.gain,
        "p": found.p,
    }
    before, after = found.before.shares, found.after.shares
    return [
        Finding(text, found.verdict, subject=_TASK, values=values),
        Finding(
            f"Over all {found.before.totals[3]} captions of that half, CHAIR_i goes from "
            f"{_percent(before['chair_i'].value)} to {_percent(after['chair_i'].value)}, CHAIR_s "
            f"from {_percent(before['chair_s'].value)} to {_percent(after['chair_s'].value)}, and "
            f"recall from {_percent(before['recall'].value)} to "
            f"{_percent(after['recall'].value)}.",
            subject=_TASK,
            values={
                f"{name}_{when}": None if np.isnan(one.value) else one.value
                for when, shares in (("before", before), ("after", after))
                for name, one in shares.items()
            },
        ),
    ]


def tables(found: Cleaned) -> list[Table]:
    """The chosen edit beside its controls, all that was tried, and the captions."""
    if found.best is None:
        return []
    kinds = {"own objects": [found.own], **{_WORDS[k]: v for k, v in found.controls.items()}}
    tried = [
        {
            "site": place.site,
            "source": place.source,
            "strength": place.strength,
            "chosen": place == found.best,
            **_row([one]),
        }
        for place, one in found.tried.items()
    ]
    samples: list[dict[str, Cell]] = [
        {
            "sample": one.sample.id,
            "before": one.text,
            "after": other.text,
            "hallucinated": ", ".join(mention.words for mention in one.hallucinated),
            "still": ", ".join(mention.words for mention in other.hallucinated),
            "lost": ", ".join(sorted(one.named - other.named)),
        }
        for one, other in zip(found.own.before, found.own.after, strict=True)
    ]
    return [
        table(
            "removal-captions",
            "The chosen edit and its controls",
            [{"what": what, "draws": len(draws), **_row(draws)} for what, draws in kinds.items()],
            ("what",),
        ),
        table(
            "removal-captions-tried",
            "All that was tried, on the half of the groups on which the edit was chosen",
            tried,
            ("site", "source", "strength"),
        ),
        table("removal-texts", "Captions without and with the edit, in the reported half", samples),
    ]


def overview(found: Cleaned) -> list[Glance]:
    """CHAIR_i before and after."""
    before, after = (one.shares["chair_i"].value for one in (found.before, found.after))
    if found.best is None or np.isnan(before) or np.isnan(after):
        return []
    return [
        Glance(
            subject=_TASK,
            question="absent objects can be removed",
            text=f"CHAIR_i from {before:.0%} to {after:.0%}",
            verdict=found.verdict,
            value=after,
            beside=f"true ones lost {_percent(found.own.share(4, 3))}",
        )
    ]


def notes(found: Cleaned) -> list[str]:
    """How the numbers were made."""
    return [
        "Each caption is written again while the objects that it hallucinates are taken out of the "
        f"image rows, one after the other; at most {found.options.max_new_tokens} tokens are "
        "written. Captions without hallucinated objects stay as they are.",
        f"The edit was chosen among {len(found.tried)} on half of the groups; the findings are "
        "about the other half.",
        "gain is the number of hallucinated objects that go, less new ones and true ones that are "
        "lost, per rewritten caption.",
        f"Controls, {found.options.controls} draws each: as many random directions, and the "
        "directions of as many objects that are neither named nor there.",
        "Which objects are hallucinated is known from the annotation, as in Jiang et al. (2024, "
        "arXiv 2410.02762); without one, removal would have to guess.",
    ]


def _row(draws: Sequence[Rewritten]) -> dict[str, Cell]:
    return {
        "captions": len(draws[0].before),
        "hallucinated": int(draws[0].counts[:, 0].sum()),
        "gone": _share(draws, 1, 0),
        "new": float(np.mean([each.counts[:, 2].sum() for each in draws])),
        "true": int(draws[0].counts[:, 3].sum()),
        "lost": _share(draws, 4, 3),
        "gain": float(np.mean([each.gains.mean() for each in draws])),
    }


def _share(draws: Sequence[Rewritten], top: int, bottom: int) -> float | None:
    found = [each.share(top, bottom) for each in draws]
    known = [one for one in found if one is not None]
    return float(np.mean(known)) if known else None


def _percent(value: float | None) -> str:
    return "none" if value is None or np.isnan(value) else f"{value:.0%}"
