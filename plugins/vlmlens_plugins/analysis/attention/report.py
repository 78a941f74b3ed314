"""What the analysis of attention found: sentences, overview, notes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vlmlens.results import Cell, Finding, Glance, Verdict
from vlmlens_plugins.analysis._columns import short_names
from vlmlens_plugins.analysis._sweeps.effects import ALPHA, Effects, too_few
from vlmlens_plugins.analysis._tasks import ALL
from vlmlens_plugins.analysis.attention.measured import Floats, Measured, mean
from vlmlens_plugins.analysis.attention.options import AttentionOptions


def finding(
    one: Measured, task: str, rows: Sequence[int], test: Effects | None, *, whole: bool
) -> Finding:
    """What a task's attention goes to, at the block that looks at the region most.

    Args:
        one: The numbers of a query.
        task: The task.
        rows: Numbers of its samples.
        test: See `Measured.tested`.
        whole: Whether these are all samples that the run has of the task.
    """
    if test is None:
        return _of_image(one, task, rows, whole=whole)
    own = one.with_region(rows)
    block = int((test.value - test.control).argmax())
    image = float(mean(one.over_heads("image")[block, own], 0))
    area = float(one.area[own].mean())
    sure = bool(test.p[block] <= ALPHA)
    more = float(test.value[block]) > float(test.control[block])
    values: dict[str, Cell] = {
        "block": _short(one, block),
        "image": image,
        "region": float(test.value[block]),
        "region_low": float(test.low[block]),
        "region_high": float(test.high[block]),
        "control": float(test.control[block]),
        "area": area,
        "p": float(test.p[block]),
    }
    sinks = float(mean(one.over_heads("sinks")[block, own], 0))
    if one.dimensions and np.isfinite(sinks):
        values["sinks"] = sinks
    text = f"{task}: {_sentence(one, own, block, values)}"
    if not more:
        text += " No block gives the region more than its control gets."
    few = too_few(task, test.groups, len(test.p))
    verdict = Verdict.DIFFERS if sure and more else Verdict.NO_DIFFERENCE
    if few and verdict is Verdict.NO_DIFFERENCE:
        verdict = Verdict.INCONCLUSIVE
    return Finding(text, verdict, task, values, samples=_ids(one, own, whole and own == [*rows]))


def _sentence(one: Measured, own: Sequence[int], block: int, values: Mapping[str, Cell]) -> str:
    """At llm.block.2 the last position gives 61% of its attention to the image, ..."""
    by_head = mean(one.values["region"][block][:, own], 1)
    head = int(np.nanargmax(by_head))
    parts = [
        f"at {values['block']} {_asks(one.query)} {_percent(values['image'])} of its attention to "
        f"the image, {_percent(values['region'])} to the key region (its area: "
        f"{_percent(values['area'])}; control: {_percent(values['control'])})"
    ]
    if np.isfinite(by_head).sum() > 1 and by_head[head] > 0:
        parts[0] += f", most by head {head} ({_percent(by_head[head])})"
    if "sinks" in values:
        parts.append(f"sinks hold {_percent(values['sinks'])}")
    return "; ".join(parts) + "."


def _of_image(one: Measured, task: str, rows: Sequence[int], *, whole: bool) -> Finding:
    """Without a key region: the block that looks at the image most."""
    shares = mean(one.over_heads("image")[:, rows], 1)
    best = int(shares.argmax())
    name = _short(one, best)
    values: dict[str, Cell] = {
        "block": name,
        "image": float(shares[best]),
        "image_first": float(shares[0]),
        "image_last": float(shares[-1]),
    }
    text = (
        f"{task}: {_asks(one.query)} most to the image at {name}, {_percent(shares[best])} of its "
        "attention (mean over heads and samples)"
    )
    sinks = float(mean(one.over_heads("sinks")[best, rows], 0))
    if one.dimensions and np.isfinite(sinks):
        values["sinks"] = sinks
        text += f"; sinks hold {_percent(sinks)}"
    return Finding(f"{text}.", subject=task, values=values, samples=_ids(one, rows, whole))


def _ids(one: Measured, rows: Sequence[int], whole: bool) -> list[str]:
    return [] if whole else [one.samples[i].id for i in rows]


def sinks(one: Measured) -> Finding | None:
    """Which dimensions tell sinks, and what they hold; None where it was not looked for them."""
    if one.dimensions is None:
        return None
    everywhere = {
        name: float(mean(one.values[name].ravel(), 0)) for name in ("image", "rest", "sinks")
    }
    values: dict[str, Cell] = {
        "image": everywhere["image"],
        "image_without_sinks": everywhere["rest"],
        "sinks": everywhere["sinks"],
        "dimensions": ", ".join(map(str, one.dimensions)),
    }
    if not one.dimensions:
        text = (
            "No sinks are found: in no block does the first row have a dimension that is large "
            "enough. So all attention to the image counts."
        )
        return Finding(text, Verdict.INFO, ALL, values)
    rows, hidden = one.hidden
    text = (
        f"Sinks are known by the dimensions {values['dimensions']}, which are huge in the first "
        f"row: they hold {_percent(everywhere['sinks'])} of the attention of {one.query} (mean "
        f"over blocks and heads). {hidden:.1f} of {rows:.0f} image rows are sinks in some block; "
        f"the image gets {_percent(everywhere['image'])} with them, "
        f"{_percent(everywhere['rest'])} without."
    )
    return Finding(text, Verdict.INFO, ALL, values)


def of_maps(
    task: str, shares: Mapping[str, Floats], area: float, samples: Sequence[str]
) -> Finding | None:
    """How much of each map lies in the key region; None where nothing is known.

    Args:
        task: The task.
        shares: By method, float64 `[samples]`.
        area: The mean area of the region.
        samples: Ids of the samples, where they are not all of the task.
    """
    known = {name: float(mean(values, 0)) for name, values in shares.items()}
    known = {name: value for name, value in known.items() if np.isfinite(value)}
    if not known:
        return None
    listed = ", ".join(f"{_percent(value)} of {name}" for name, value in known.items())
    text = (
        f"{task}: in the key region lies {listed} on the image, all blocks together (its area: "
        f"{_percent(area)})."
    )
    return Finding(text, Verdict.INFO, task, {**known, "area": area}, samples=samples)


def glance(one: Measured, task: str, rows: Sequence[int], test: Effects | None) -> Glance:
    """The cell of the overview."""
    if test is None:
        shares = mean(one.over_heads("image")[:, rows], 1)
        best = int(shares.argmax())
        curve = shares.tolist()
        return Glance(
            task, "looks at", f"image, {_short(one, best)}", value=float(shares[best]), curve=curve
        )
    found = finding(one, task, rows, test, whole=True)
    block = int((test.value - test.control).argmax())
    what = "key region" if found.verdict is Verdict.DIFFERS else "no more at the key region"
    return Glance(
        task,
        "looks at",
        f"{what}, {_short(one, block)}" if found.verdict is Verdict.DIFFERS else what,
        found.verdict,
        value=float(test.value[block]),
        beside=f"control {float(test.control[block]):.2f}",
        curve=test.value.tolist(),
    )


def notes(one: Measured, options: AttentionOptions, *, asked: bool) -> Iterator[str]:
    """How the numbers were made.

    Args:
        one: The numbers of a query.
        options: The analysis's options.
        asked: Whether the model was asked, not columns.
    """
    yield (
        "Attention weights as the model computes them, of one query (or pooled queries). They say "
        "where information can come from, not what is done with it: `occlusion` and `knockout` "
        "say what the answer needs."
    )
    if np.isfinite(one.area).any():
        yield (
            "The control of the key region is what as many patches get on average: of the same "
            "shape at all places of the image where it fits, or where other samples of the task "
            "have their region; the higher one counts. The test flips signs of whole groups, "
            "corrected for all blocks by Holm (1979). Patches that a region covers in part count "
            "as its own."
        )
    if not asked:
        return
    yield (
        "Sinks: a row is one in a block if a dimension that is huge in the sample's first row (at "
        f"least {options.sink:g} times the root mean square of the block's input) is so there, "
        f"too, after Kang et al. (2025, arXiv 2503.03321); that takes more than "
        f"{options.sink**2:g} dimensions. They are found for this model, not given."
    )
    told = {
        "rollout": "rollout: attention with the identity, multiplied over blocks (Abnar and "
        "Zuidema 2020, arXiv 2005.00928)",
        "relevance": "relevance: mean over heads of attention times the gradient where that is "
        "positive, added up over blocks (Chefer et al. 2021, arXiv 2103.15679)",
        "value-weighted": "value-weighted: what heads write from a row towards the answer, with "
        "the final norm frozen",
    }
    named = [told[name] for name in options.methods if name in told]
    if named:
        yield (
            f"Maps: {'; '.join(named)}. The answer is what the model says: of choices the most "
            "probable, else its next token; the logit difference is that to its strongest rival."
        )


def _asks(query: str) -> str:
    return "the last position gives" if query == "last" else f"the query {query} gives"


def _short(one: Measured, block: int) -> str:
    return short_names(one.columns)[block].removesuffix(".attn")


def _percent(share: Cell | np.floating) -> str:
    """A share as a percentage, without a minus before 0.

    >>> _percent(0.314)
    '31%'
    """
    assert isinstance(share, float | np.floating)  # noqa: S101
    return f"{round(100 * float(share)) + 0}%"
