"""What the weights say, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmlens.results import Cell, Figure, Finding, Table, Verdict
from vlmlens_plugins.analysis._results import slug, table
from vlmlens_plugins.analysis.weights.found import Found, Module, Pair
from vlmlens_plugins.analysis.weights.options import WeightsOptions
from vlmlens_plugins.analysis.weights.work import LISTED

_ALPHA = 0.05
_COPIES = 0.5
_NAMED = 3
_THROUGH = {"Q": "its queries", "K": "its keys", "V": "its values"}
_KEYS = ("site", "head")


def findings(found: Found) -> list[Finding]:
    """Per stack: copying heads, then the strongest composition; words; the projector."""
    made: list[Finding] = []
    for stack, modules in found.stacks.items():
        made += _induction(found, stack, modules)
        made += _copying(stack, modules)
        made += _compositions(found, stack)
    made += _words(found)
    made += _projector(found)
    return made


def tables(found: Found) -> list[Table]:
    """The complete numbers of heads, the strongest pairs, words and the projector."""
    pairs = [_pair_row(pair) for pair in found.pairs]
    made = [
        table("weights-heads", "What each head reads and writes", list(_head_rows(found)), _KEYS),
        table(
            "weights-compositions",
            "The earlier heads that each head reads most",
            pairs,
            ("site", "head", "kind", "from", "from_head"),
        ),
        table("weights-words", "What each head writes for a word", list(_word_rows(found)),
              ("site", "head", "word")),
        table("weights-projector", "What the projector's last layer writes",
              list(_projector_rows(found)), ("direction",)),
    ]  # fmt: skip
    return [each for each in made if len(each)]


def figures(found: Found) -> list[Figure]:
    """Heat maps per stack: of each head, and of composition."""
    made = []
    for stack, modules in found.stacks.items():
        made.append(_by_head(stack, modules))
        for kind in _THROUGH:
            own = [pair for pair in found.pairs if (pair.stack, pair.kind) == (stack, kind)]
            if own:
                made.append(_composition_map(found, stack, kind, own))
    return made


def notes(options: WeightsOptions, found: Found) -> list[str]:
    """How the numbers were made."""
    folded = (
        "The weight of the norm before attention is folded into queries, keys and values, that of "
        "the final norm into the unembedding; LayerNorm's subtraction of the mean, too."
        if options.fold
        else "Norms are left out."
    )
    made = [
        "The matrices are read by running each attention module alone on unit vectors, called as a "
        "pass calls it, less what it gives on zeros; queries, keys and values are those of each "
        "query head, so heads that share keys and values have the same ones. Each reading is "
        "checked on random rows.",
        folded,
        "Scores of queries and keys (QK) are those of two rows at one position, without biases and "
        "the factor 1/sqrt(size): with rotary positions they hold at distance 0.",
        "Composition (Elhage et al. 2021): |A B| / (|A| |B|) in Frobenius norms, where B is what "
        "the earlier head writes and A how the later one reads. The control is the same two, "
        "turned against each other by a random rotation: 1 / sqrt(width); p_all is p times the "
        "number of pairs of the stack (Bonferroni).",
        "Trace: over the sum of singular values; 1 says that what is read is written back as it is "
        "(OV), or that rows attend to rows like themselves (QK); -1 the opposite.",
        "Weights say what a head could do. Which of it happens depends on attention and "
        "activations; MLPs in between are left out.",
    ]
    if found.tokens:
        made.append(
            "Copying score: the sum of the eigenvalues of unembedding @ OV @ embedding over the "
            f"sum of their sizes (Elhage et al. 2021), for {found.tokens} tokens that spell "
            "something, beside the same with the tokens of the two ends shuffled. What is added to "
            "all logits alike is left out."
        )
    return made


def _induction(found: Found, stack: str, modules: Sequence[Module]) -> Iterator[Finding]:
    """Heads that copy and read an earlier head through their keys."""
    copying = {
        (module.block, head): one
        for module in modules
        for head, one in enumerate(module.told["heads"])
        if _copies(one)
    }
    pairs = [
        pair
        for pair in found.pairs
        if pair.stack == stack and pair.kind == "K" and pair.p_all <= _ALPHA
        if (pair.reader, pair.head) in copying
    ]
    for pair in sorted(pairs, key=lambda pair: -pair.score)[:1]:
        score = copying[pair.reader, pair.head]["copying"]
        yield Finding(
            f"{pair.reader} head {pair.head} copies the tokens that it reads ({score:.2f}) and "
            f"reads {pair.writer} head {pair.earlier} through its keys (K composition "
            f"{pair.score:.2f}, random {pair.random:.2f}): so do induction heads.",
            subject=stack,
            values={**_pair_row(pair), "copying": score},
            notable=True,
        )


def _copies(head: Mapping[str, Any]) -> bool:
    score, p = head.get("copying"), head.get("copying_p")
    return score is not None and p is not None and score >= _COPIES and p <= _ALPHA


def _copying(stack: str, modules: Sequence[Module]) -> Iterator[Finding]:
    heads = [
        (one, f"{module.block} head {number}")
        for module in modules
        for number, one in enumerate(module.told["heads"])
        if "copying" in one
    ]
    if not heads:
        return
    known = [each for each in heads if each[0]["copying"] is not None]
    best = sorted((each for each in known if _copies(each[0])), key=lambda e: -e[0]["copying"])
    named = ", ".join(
        f"{name} ({one['copying']:.2f}, with tokens shuffled {one['copying_shuffled']:.2f})"
        for one, name in best[:_NAMED]
    )
    more = f" and {len(best) - _NAMED} more" if len(best) > _NAMED else ""
    said = f": {named}{more}" if named else ""
    idle = len(heads) - len(known)
    resting = f" {idle} write nothing that changes a probability." if idle else ""
    yield Finding(
        f"{stack}: {len(best)} of {len(heads)} heads raise the logits of the tokens that they read "
        f"(copying score of {_COPIES} or more){said}.{resting}",
        subject=stack,
        values={"copying": len(best), "heads": len(heads), "idle": idle},
    )


def _compositions(found: Found, stack: str) -> Iterator[Finding]:
    """The strongest pair of each kind."""
    for kind, through in _THROUGH.items():
        own = [pair for pair in found.pairs if (pair.stack, pair.kind) == (stack, kind)]
        if not own:
            continue
        sure = [pair for pair in own if pair.p_all <= _ALPHA and pair.score > pair.random]
        best = max(sure or own, key=lambda pair: pair.score)
        numbers = (
            f"{kind} composition {best.score:.2f}, mean of all pairs "
            f"{found.mean(stack, kind):.2f}, random {best.random:.2f}, p {_p(best.p_all)} among "
            f"{found.tests(stack)} pairs"
        )
        if sure:
            text = (
                f"{best.reader} head {best.head} reads what {best.writer} head {best.earlier} "
                f"writes through {through} ({numbers})."
            )
        else:
            text = (
                f"{stack}: no head reads another through {through} more than random directions "
                f"({numbers})."
            )
        verdict = Verdict.DIFFERS if sure else Verdict.NO_DIFFERENCE
        yield Finding(text, verdict, stack, _pair_row(best))


def _words(found: Found) -> Iterator[Finding]:
    """The head that gives most of the followed words back."""
    heads = [
        (sum(one.get("rank") == 1 for one in words), module.block, number, words)
        for module in found.read
        for number, words in enumerate(module.told["words"])
    ]
    if not heads:
        return
    count, block, number, words = max(heads, key=lambda each: each[0])
    total = len(found.words)
    said = ", ".join(map(repr, found.words))
    if not count:
        yield Finding(
            f"No head writes a followed word ({said}) most where it reads it.",
            subject="words",
            values={"words": total, "returned": 0},
        )
        return
    first = next(i for i, one in enumerate(words) if one.get("rank") == 1)
    yield Finding(
        f"{block} head {number} writes {count} of {total} followed words ({said}) most where it "
        f"reads them, for example {list(found.words)[first]!r} ({words[first]['own']:.1f} standard "
        "deviations above the mean token).",
        subject="words",
        values={"site": block, "head": number, "words": total, "returned": count},
    )


def _projector(found: Found) -> Iterator[Finding]:
    for row in list(_projector_rows(found))[:1]:
        yield Finding(
            f"The strongest direction of the projector's last layer ({row['share']:.0%} of its sum "
            f"of squares) raises {row['raises']} and lowers {row['lowers']}: {row['reach']:.1f} "
            f"standard deviations at most, a random direction {row['random']:.1f}.",
            subject="projector",
            values=row,
        )


def _head_rows(found: Found) -> Iterator[dict[str, Cell]]:
    for module in found.read:
        for number, one in enumerate(module.told["heads"]):
            row: dict[str, Cell] = {"site": module.block, "head": number}
            for name in ("ov", "qk"):
                values = one.get(name, ())
                for k in range(_NAMED):
                    row[f"{name}_{k + 1}"] = values[k] if k < len(values) else None
                for part in ("norm", "directions", "trace"):
                    row[f"{name}_{part}"] = one.get(f"{name}_{part}")
            for name in ("copying", "copying_shuffled", "copying_p"):
                row[name] = one.get(name)
            yield row


def _pair_row(pair: Pair) -> dict[str, Cell]:
    return {
        "site": pair.reader,
        "head": pair.head,
        "kind": pair.kind,
        "from": pair.writer,
        "from_head": pair.earlier,
        "score": pair.score,
        "random": pair.random,
        "p": pair.p,
        "p_all": pair.p_all,
    }


def _word_rows(found: Found) -> Iterator[dict[str, Cell]]:
    for module in found.read:
        for number, words in enumerate(module.told["words"]):
            for word, one in zip(found.words, words, strict=True):
                if one:
                    yield {
                        "site": module.block,
                        "head": number,
                        "word": word,
                        "token": found.text(found.words[word]),
                        "own": one["own"],
                        "rank": one["rank"],
                        "writes": _texts(found, one["top"]),
                    }


def _projector_rows(found: Found) -> Iterator[dict[str, Cell]]:
    for number, one in enumerate(found.projector.get("directions", ())):
        yield {
            "direction": number + 1,
            "value": one["value"],
            "share": one["share"],
            "raises": _texts(found, one["raises"]),
            "lowers": _texts(found, one["lowers"]),
            "reach": one["reach"],
            "random": one["random"],
        }


def _texts(found: Found, tokens: Sequence[int]) -> str:
    return ", ".join(f"'{found.text(token)}'" for token in tokens)


def _by_head(stack: str, modules: Sequence[Module]) -> Figure:
    """Copying scores by block and head; signs of OV where there is no unembedding."""
    copying = any("copying" in one for module in modules for one in module.told["heads"])
    name, label = ("copying", "copying score") if copying else ("ov_trace", "trace of OV")
    most = max(len(module.told["heads"]) for module in modules)
    cells = [[one.get(name) for one in module.told["heads"]] for module in modules]
    padded = [row + [None] * (most - len(row)) for row in cells]
    return Figure(
        slug(f"weights {stack} {name}"),
        f"{stack}: {label} of each head",
        "heatmap",
        x=[str(head) for head in range(most)],
        x_label="head",
        y_label=label,
        y=[module.block for module in modules],
        cells=padded,
        texts=_numbers(padded),
        y_range=(-1.0, 1.0),
    )


def _composition_map(found: Found, stack: str, kind: str, own: Sequence[Pair]) -> Figure:
    """Readers from top to bottom, earlier heads from left to right; or blocks, of many heads."""
    modules = found.stacks[stack]
    heads = sum(len(module.told["heads"]) for module in modules)
    if heads <= LISTED:
        values = {
            (f"{p.reader} {p.head}", f"{p.writer} {p.earlier}"): p.score for p in own
        }  # fmt: skip
        names = [
            f"{module.block} {head}"
            for module in modules
            for head in range(len(module.told["heads"]))
        ]
        said = "head by head"
    else:
        values = {
            (module.block, name.removesuffix(".attn")): score
            for module in modules
            for name, score in module.told["peaks"][kind].items()
            if score is not None
        }
        names = [module.block for module in modules]
        said = "the highest of each two blocks"
    readers = [name for name in names if any(key[0] == name for key in values)]
    writers = [name for name in names if any(key[1] == name for key in values)]
    cells = [[values.get((reader, writer)) for writer in writers] for reader in readers]
    return Figure(
        slug(f"weights {stack} {kind}"),
        f"{stack}: {kind} composition, {said}",
        "heatmap",
        x=writers,
        x_label="written by",
        y_label=f"{kind} composition",
        y=readers,
        cells=cells,
        texts=_numbers(cells),
        y_range=(0.0, max(values.values())),
    )


def _numbers(cells: Sequence[Sequence[float | None]]) -> list[list[str]]:
    return [["" if value is None else f"{value:.2f}" for value in row] for row in cells]


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"
