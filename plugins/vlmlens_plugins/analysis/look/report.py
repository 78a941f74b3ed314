"""What a look found, in words: the answer first, then what changes it most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vlmlens.covers import COVERED
from vlmlens.results import Cell, Figure, Finding, Table
from vlmlens.samples import Sample
from vlmlens_plugins.analysis.look import figures as drawn
from vlmlens_plugins.analysis.look import tables as listed
from vlmlens_plugins.analysis.look.against import KEY_ROWS
from vlmlens_plugins.analysis.look.answers import chance
from vlmlens_plugins.analysis.look.evidence import kept
from vlmlens_plugins.analysis.look.looked import Looked

_NAMED = 3
_ROWS = {"image": "image rows", "question": "the question's rows", "last": "the last row"}

Ranked = tuple[float, Finding]


def findings(found: Sequence[Looked]) -> list[Finding]:
    """Per question the answer, and then the rest by how much it changes the answer."""
    made = []
    for one in found:
        about = f"{one.sample.id}: " if len(found) > 1 else ""
        parts = filter(None, (_evidence(one), _blank(one), _formed(one), _carried(one)))
        ranked = sorted(parts, key=lambda part: -part[0])
        texts = [_answer(one), *_against(one), *(finding for _, finding in ranked)]
        made += [_named(finding, about, one.sample.id) for finding in texts]
    return made


def tables(found: Sequence[Looked]) -> list[Table]:
    """All numbers."""
    return listed.tables(found)


def figures(found: Sequence[Looked]) -> list[Figure]:
    """The map over the picture, the lens, heads and layers."""
    return drawn.figures(found)


def covered(samples: Sequence[Sample]) -> list[str]:
    """Which parts of the pictures were hidden before they were looked at, each once."""
    said = (each.attributes.get(COVERED) for each in samples)
    return list(dict.fromkeys(str(part) for part in said if part))


def notes(found: Sequence[Looked]) -> list[str]:
    """How the numbers were made."""
    said = [
        "Findings are ranked by how much they change the log-odds of the answer, ln(p / (1 - p)): "
        "against all else that the model might say; of choices, against the others. Unlike a "
        "probability they do not saturate where the model is sure.",
        "The map: windows of two by two cells are covered with the picture's mean color, one after "
        "the other (occlusion, Zeiler and Fergus 2014, arXiv 1311.2901), and shown alone. A "
        "window's value is the mean of what it adds to the rest and to nothing, a cell's the mean "
        "over its windows. Then the cells with the highest values are covered together, ever more "
        "of them up to half of the picture, with the mean color and with noise; the smaller effect "
        "counts. The part is the fewest cells without which the answer has half of its "
        "probability. Rectangles of the same size elsewhere are the comparison.",
        "Without the picture: all of it is gray, white or noise; the smallest effect counts.",
        "Heads and MLPs: the other run is that of a gray picture. All are estimated at once by "
        "attribution patching (Nanda 2023); the strongest are really exchanged.",
        "The lens reads each block as if the model stopped there (nostalgebraist 2020); what it "
        "says is a reading, and no cause.",
        "One question is no sample: what holds here may not hold for the next picture.",
    ]
    long = [one for one in found if one.answer.begins]
    if long:
        said.append(
            "An answer of several tokens is scored whole for parts of the picture, and by its "
            "first token for layers, heads and MLPs. Choices make this exact."
        )
    return said


def _named(finding: Finding, about: str, sample: str) -> Finding:
    return Finding(about + finding.text, finding.verdict, sample, finding.values, samples=[sample])


def _answer(one: Looked) -> Finding:
    answer = one.answer
    rivals = [(_word(text), p) for text, p in answer.rivals]
    values: dict[str, Cell] = {"answer": answer.text, "probability": answer.probability}
    if rivals:
        values |= {"next": rivals[0][0], "next_probability": rivals[0][1]}
    others = ", ".join(f'"{text}" {percent(p)}' for text, p in rivals[:_NAMED])
    sure = percent(answer.probability)
    if not answer.text:
        text = f"The model writes nothing; the most probable first tokens are {others}"
    elif answer.begins:
        begins = _word(answer.begins)
        text = f'The answer is "{answer.text}"; it begins with "{begins}" ({sure}; next: {others})'
    else:
        among = " of the choices" if answer.chosen else ""
        text = f'The answer is "{answer.text}" ({sure}{among}'
        text += f"; next: {others})" if others else ")"
    return Finding(f"{text}.", values=values)


def _evidence(one: Looked) -> Ranked | None:
    found = one.evidence
    if found is None:
        return None
    part, word = found.part, _followed(one)
    place = f"{part.where} ({percent(part.share)} of it)"
    hidden, alone = chance(found.base - found.drop), chance(min(found.alone.values()))
    elsewhere = chance(found.base - float(np.mean(found.elsewhere))) if found.elsewhere else None
    values: dict[str, Cell] = {
        "effect": found.drop, "x": part.middle[0], "y": part.middle[1], "image": part.image,
        "share": part.share, "covered": hidden, "alone": alone, "elsewhere": elsewhere,
        "local": found.local, "needed": found.needed,
    }  # fmt: skip
    beside = "" if elsewhere is None else f", with others of this size covered {percent(elsewhere)}"
    if found.needed:
        text = (
            f"It rests on a part of the picture, {place}: covered, {word} falls to "
            f"{percent(hidden)}{beside}; with this part alone it has {percent(alone)}"
        )
    elif found.local:
        text = (
            f"One part of the picture matters most, {place}, but the answer does not need it: "
            f"covered, {word} still has {percent(hidden)}{beside}"
        )
    else:
        text = (
            "It rests on no single part of the picture: with the half that matters most covered, "
            f"{word} has {percent(hidden)}{beside}"
        )
    return found.drop, Finding(f"{text}.", values=values)


def _blank(one: Looked) -> Ranked | None:
    found = one.evidence
    if found is None:
        return None
    said = [blind.text for blind in found.blind.values()]
    same = set(said) == {one.answer.text}
    left = [chance(odds) for odds in found.blank.values()]
    values: dict[str, Cell] = {"effect": found.blank_drop, "survives": same}
    for (fill, blind), p in zip(found.blind.items(), left, strict=True):
        values |= {f"{fill}_answer": blind.text, f"{fill}_probability": p}
    shown = f"with a {_or(list(found.blank))} picture"
    low, high = percent(min(left)), percent(max(left))
    has = f"{_followed(one)} has {low if low == high else f'{low} to {high}'}"
    if not same:
        others = _or([f'"{text}"' for text in dict.fromkeys(said)])
        text = f"It needs the picture: {shown} {has}, and the answer is {others}"
    elif kept(found.base, min(found.blank.values())):
        text = f"It survives without the picture: {shown} the answer is the same, and {has}"
    else:
        text = (
            f"Without the picture the answer is the same, but it is a weaker one: {shown} {has} "
            f"instead of {percent(chance(found.base))}"
        )
    return found.blank_drop, Finding(f"{text}.", values=values)


def _formed(one: Looked) -> Ranked | None:
    found = one.layers
    if found is None:
        return None
    word = f'"{_word(one.answer.begins or one.answer.text)}"'
    if found.formed is None:
        text = f"The lens does not read {word} at the last block: it forms only at the very end"
        return -1.0, Finding(f"{text}.", values={"block": None})
    block = found.names[found.formed]
    values: dict[str, Cell] = {"block": block, "effect": found.jump}
    if found.jump is None:
        text = f"It is there from the first block on: the lens reads {word} first in all blocks"
        return -1.0, Finding(f"{text}.", values=values)
    before, after = (percent(chance(found.scores[found.formed - k])) for k in (1, 0))
    text = (
        f"It is formed at {block}: from there on the lens reads {word} first ({after}; one block "
        f"before {before})"
    )
    return found.jump, Finding(f"{text}.", values=values)


def _carried(one: Looked) -> Ranked | None:
    found = one.components
    if found is None:
        return None
    best = found.nodes[found.strongest[found.best]]
    drop, count = found.drops[found.best], len(found.strongest)
    sites = len({node.site for node in found.nodes})
    together = percent(chance(found.base - found.together))
    alone = percent(chance(found.base - drop))
    values: dict[str, Cell] = {
        "effect": found.together, "site": best.site, "rows": best.rows, "best_effect": drop,
        "components": sites,
    }  # fmt: skip
    word = f'"{_word(one.answer.begins or one.answer.text)}"'
    if kept(found.base, found.base - max(found.together, drop)):
        text = (
            f"None of {sites} heads and MLPs carries it: with what they compute from a gray "
            f"picture, the {count} strongest together leave {word} at {together}"
        )
    else:
        text = (
            f"Of {sites} heads and MLPs, {best.site} at {_ROWS[best.rows]} carries most of it: "
            f"with what it computes from a gray picture, {word} has {alone}, and with the "
            f"{count} strongest {together}"
        )
    return found.together, Finding(f"{text}.", values=values)


def _against(one: Looked) -> Iterator[Finding]:
    if one.other is None:
        return
    found = one.traced
    if found is None:
        yield Finding("The difference to the other run cannot be traced in this model.")
        return
    said = f'The other run answers "{found.other.text}" ({percent(found.other.probability)})'
    values: dict[str, Cell] = {
        "other": found.other.text, "own_margin": found.own_margin,
        "other_margin": found.other_margin,
    }  # fmt: skip
    if not found.shares:
        yield Finding(f"{said}, so there is no difference to trace.", values=values)
        return
    crossing = found.handover()
    if crossing is None:
        (site, rows), share = max(found.shares.items(), key=lambda pair: pair[1])
        text = f"{said}; of the difference, {rows} rows carry most at {site} ({percent(share)})"
    else:
        rows, last, first = crossing
        text = f"{said}. From {first} on, the last row carries the difference"
        if last is not None:
            key = found.shares.get((last, KEY_ROWS))
            part = "" if key is None else f", {percent(key)} by the part it rests on"
            text = (
                f"{said}. Up to {last}, {rows} rows carry the difference "
                f"({percent(found.shares[last, rows])}{part}); from {first} on, the last row does"
            )
        values |= {"rows": rows, "last_site": last, "first_site": first}
    if found.left_out:
        text += f" ({', '.join(found.left_out)} rows are left out: not as many in both)"
    yield Finding(f"{text}.", values=values)


def _followed(one: Looked) -> str:
    """The answer whose probability is given; a long one is not repeated."""
    return "the whole answer" if one.answer.begins else f'"{one.answer.text}"'


def _word(token: str) -> str:
    """A token without the space before it.

    >>> _word("\u2423red"), _word("\u2423")
    ('red', '\u2423')
    """
    return token.strip("\u2423") or token


def _or(words: Sequence[str]) -> str:
    """Words in a row: "gray, white or noise"."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def percent(share: float) -> str:
    """A share for people.

    >>> percent(0.984), percent(0.0004), percent(0.9996)
    ('98 %', '0.04 %', '99.96 %')
    """
    value = 100 * share
    if 1 <= value <= 99 or value in (0, 100):
        return f"{value:.0f} %"
    return f"{value:.2g} %" if value < 1 else f"{value:.4g} %"
