"""What occlusion found, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vlmlens.results import Cell, Finding, Glance, Result, Verdict
from vlmlens_plugins.analysis._sweeps.effects import ALPHA, too_few
from vlmlens_plugins.analysis.occlusion.figures import figures
from vlmlens_plugins.analysis.occlusion.measured import CENTRE, RANDOM, Measured
from vlmlens_plugins.analysis.occlusion.options import OcclusionOptions
from vlmlens_plugins.analysis.occlusion.tables import tables
from vlmlens_plugins.analysis.occlusion.worth import Faith, Peaks, Worth, worth

_CONTROLS = (RANDOM, CENTRE)


def report(
    measured: Measured,
    options: OcclusionOptions,
    seed: int,
    notes: Sequence[str],
    warn: Callable[[str], None],
    warnings: Sequence[str],
) -> Result:
    """The result.

    Args:
        measured: The maps and their curves.
        options: Of the analysis.
        seed: Of resampling.
        notes: What is followed.
        warn: Told what the user should know.
        warnings: All that was told; it grows.
    """
    found = worth(measured, seed, options.draws)
    for message in filter(None, (_few(measured, task, len(found.faith)) for task in found.faith)):
        warn(message)
    main = next(iter(measured.maps))
    return Result(
        analysis="occlusion",
        title="What of the image the answer rests on",
        findings=[
            finding for task in found.faith for finding in _findings(measured, found, task, main)
        ],
        tables=tables(measured, found),
        figures=figures(measured, options.pictures),
        options=options.model_dump(mode="json"),
        notes=[*notes, *_notes(measured, options)],
        warnings=list(warnings),
        overview=[
            _glance(found, task, main, few=bool(_few(measured, task, len(found.faith))))
            for task in found.faith
        ],
    )


def _few(measured: Measured, task: str, tasks: int) -> str:
    rows = measured.by_task()[task]
    groups = len({measured.aims[i].sample.split_group for i in rows})
    return too_few(task, groups, tasks)


def _findings(measured: Measured, found: Worth, task: str, main: str) -> list[Finding]:
    own = found.faith[task]
    made = [_faithful(measured, task, own, main, len(found.faith))]
    if task in found.peaks:
        made.insert(0, _peak(measured, task, found.peaks[task], main))
    return made


def _peak(measured: Measured, task: str, peaks: Mapping[str, Peaks], main: str) -> Finding:
    one = peaks[main]
    rows = [i for i in measured.by_task()[task] if measured.regions[i] is not None]
    text = (
        f"{task}: the peak of the map {main} lies in the region that the answer is about in "
        f"{one.share:.0%} of {_samples(len(rows))}; by chance, in {one.chance:.0%}; the middle of "
        f"the image does in {one.centre:.0%}."
    )
    values: dict[str, Cell] = {
        "method": main,
        "in_region": one.share,
        "in_region_low": one.low,
        "in_region_high": one.high,
        "chance": one.chance,
        "centre": one.centre,
        "p": one.p,
    }
    verdict = Verdict.DIFFERS if _above(one) else Verdict.INCONCLUSIVE
    ids = [measured.aims[i].sample.id for i in rows]
    return Finding(text, verdict, task, values, samples=ids)


def _faithful(
    measured: Measured, task: str, own: Mapping[str, Faith], main: str, tasks: int
) -> Finding:
    first = own[main]
    maps = [name for name in own if name not in _CONTROLS]
    best = maps[0]
    text = (
        f"{task}: hiding and showing cells in the order of the map {main} gives a gap of "
        f"{first.gap:.2f} between insertion ({first.insertion.mean():.2f}) and deletion "
        f"({first.deletion.mean():.2f}); a random order gives {own[RANDOM].gap:.2f}, the centre "
        f"first {own[CENTRE].gap:.2f}"
    )
    if len(maps) > 1:
        text += (
            f"; of {len(maps)} maps it is the most faithful"
            if best == main
            else f"; the most faithful of {len(maps)} maps is {best} ({own[best].gap:.2f})"
        )
    values: dict[str, Cell] = {
        "method": main,
        "gap": first.gap,
        "gap_low": first.low,
        "gap_high": first.high,
        "insertion": float(first.insertion.mean()),
        "deletion": float(first.deletion.mean()),
        "random": own[RANDOM].gap,
        "centre": own[CENTRE].gap,
        "best": best,
        "best_gap": own[best].gap,
        "p": first.p,
    }
    ids = [measured.aims[i].sample.id for i in measured.by_task()[task]]
    return Finding(
        f"{text}.",
        _verdict(first, few=bool(_few(measured, task, tasks))),
        task,
        values,
        samples=ids,
        notable=own[CENTRE].gap > own[best].gap and first.p <= ALPHA,
    )


def _verdict(one: Faith, *, few: bool) -> Verdict:
    if one.p <= ALPHA and one.over > 0:
        return Verdict.DIFFERS
    return Verdict.INCONCLUSIVE if few or one.p <= ALPHA else Verdict.NO_DIFFERENCE


def _above(one: Peaks) -> bool:
    return one.p <= ALPHA and one.share > one.chance


def _glance(found: Worth, task: str, main: str, *, few: bool) -> Glance:
    peaks = found.peaks.get(task)
    if peaks is not None:
        one = peaks[main]
        return Glance(
            task,
            "evidence peaks in its region",
            f"{one.share:.0%}",
            Verdict.DIFFERS if _above(one) else Verdict.INCONCLUSIVE,
            one.share,
            f"chance {one.chance:.2f}, centre {one.centre:.2f}",
        )
    faith = found.faith[task]
    return Glance(
        task,
        "evidence map is faithful",
        f"gap {faith[main].gap:.2f}",
        _verdict(faith[main], few=few),
        faith[main].gap,
        f"random {faith[RANDOM].gap:.2f}",
    )


def _samples(number: int) -> str:
    return "1 sample" if number == 1 else f"{number} samples"


def _notes(measured: Measured, options: OcclusionOptions) -> list[str]:
    notes = [
        f"Occlusion: windows of {options.window} x {options.window} of {options.grid} x "
        f"{options.grid} cells of the original image are filled ({options.fill}); where that hides "
        "too little, windows half as wide again. A cell's value is how far the score falls, mean "
        "over the windows over it. The edge and the color of what is put there are evidence "
        "themselves: compare two fills.",
        "Deletion hides cells from the highest value of a map down, insertion shows them on "
        f"another fill ({options.insertion}); the areas under the curves of the answer's "
        "probability are from 0 to 1 (RISE, arXiv 1806.07421). Maps are ranked by the gap, "
        "insertion less deletion.",
        "P-values of gaps are held against random orders, those of peaks against random pixels. "
        "They are corrected for the number of tasks (Holm), not for that of methods.",
    ]
    if measured.layers:
        notes.append(
            f"Rows: the rows of a window's patches at {', '.join(measured.layers)} are replaced by "
            "the mean row. What the vision tower has mixed into other rows stays, so these maps "
            "can miss evidence that pixels show."
        )
    return notes
