"""The card of a run on the hub: what was found, of which model and data, and how to repeat it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from vlmlens._clean import clean
from vlmlens._display import size
from vlmlens.report.overview import headline
from vlmlens.results import Finding, Glance, Result, Verdict
from vlmlens.sharing._copy import Choice, SentRun
from vlmlens.tuned.record import in_words

_SPECIAL = re.compile(r"([\\`*_{}\[\]#!|~$@])")
_FINDINGS = 6
_LONGEST = 600
_VERSIONS = ("vlmlens", "python")
_LIBRARIES = ("torch", "transformers")


def card_of(run: SentRun, repo: str, files: Mapping[str, int], choice: Choice) -> str:
    """The card.

    Args:
        run: The copy that is sent.
        repo: The repository.
        files: The other files with their sizes in bytes.
        choice: What is sent beside settings and results.
    """
    results = list(run.results.values())
    model = run.spec.model or run.spec.adapter
    found = [_grid(run.overview), *_findings(run.overview.findings, _FINDINGS)]
    found = [part for part in found if part]
    sections = {
        "What was found": found,
        "Each analysis" if found else "What was found": [
            line for result in results for line in _analysis(result)
        ],
        "Read this before you trust it": _listed(_warnings(run, results)),
        "Model, data and versions": _facts(run),
        "How to look at it, and how to reproduce it": _commands(run, repo),
        "What is here": _here(files),
        "What is not here": _not_here(choice),
    }
    parts = [
        f"---\n{_metadata(model, files)}---\n",
        f"# A look inside {text(model)}\n",
        f"{text(headline(run))}\n",
        *(f"## {title}\n\n{body}\n" for title, lines in sections.items() if (body := _body(lines))),
    ]
    return "\n".join(parts)


def text(value: object) -> str:
    r"""A text from data as one line of Markdown: it is shown as it is, and is no markup.

    >>> print(text("a | <b>*x*</b>"))
    a \| &lt;b&gt;\*x\*&lt;/b&gt;
    """
    line = " ".join(clean(value).split())
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    return _SPECIAL.sub(r"\\\1", html.escape(line, quote=False)).replace("://", ":&#47;&#47;")


def _metadata(model: str, files: Iterable[str]) -> str:
    """What the hub reads of a card: names of tables for its viewer, and words to be found by."""
    tables = [name for name in files if name.endswith(".parquet")]
    tables.sort(key=lambda name: not name.startswith("results/overview."))
    configs = [
        {
            "config_name": name.removeprefix("results/").removesuffix(".parquet"),
            "data_files": name,
            **({"default": True} if place == 0 else {}),
        }
        for place, name in enumerate(tables)
    ]
    made: dict[str, Any] = {
        "pretty_name": f"A look inside {clean(model)}"[:_LONGEST],
        "tags": ["vlmlens", "interpretability", "vision-language-model"],
        **({"configs": configs} if configs else {}),
    }
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True)


def _grid(overview: Result) -> str:
    cells = overview.overview
    if not cells:
        return ""
    questions = list(dict.fromkeys(cell.question for cell in cells))
    known = {(cell.subject, cell.question): cell for cell in cells}
    rows = [
        [text(subject), *(_cell(known.get((subject, question))) for question in questions)]
        for subject in dict.fromkeys(cell.subject for cell in cells)
    ]
    return _table(["", *map(text, questions)], rows)


def _cell(cell: Glance | None) -> str:
    if cell is None:
        return ""
    number = "" if cell.value is None else f"{cell.value:.2f}"
    beside = ", ".join(part for part in (number, text(cell.beside)) if part)
    return " ".join(
        part for part in (f"**{text(cell.text)}**" if cell.text else "", beside) if part
    )


def _findings(findings: Sequence[Finding], most: int) -> list[str]:
    lines = [f"- {_verdict(each)}{text(each.text)}" for each in findings[:most]]
    if len(findings) > most:
        lines.append(f"- and {len(findings) - most} more in the report")
    return ["\n".join(lines)] if lines else []


def _verdict(finding: Finding) -> str:
    return "" if finding.verdict is Verdict.INFO else f"**{text(finding.verdict)}**: "


def _analysis(result: Result) -> list[str]:
    found = _findings(result.findings, _FINDINGS)
    return [f"### {text(result.title)}", *found] if found else []


def _warnings(run: SentRun, results: Sequence[Result]) -> list[str]:
    own = [f"{result.title}: {line}" for result in results for line in result.warnings]
    said = {line for result in results for line in result.warnings}
    return [*(line for line in run.info.get("warnings", ()) if line not in said), *own]


def _listed(lines: Iterable[str]) -> list[str]:
    made = "\n".join(f"- {text(line)}" for line in dict.fromkeys(lines))
    return [made] if made else []


def _facts(run: SentRun) -> list[str]:
    info, spec = run.info, run.spec
    model = dict(info.get("model", {}))
    tuned = in_words(model.pop("tuned", None))
    versions = {name: info.get(name) for name in _VERSIONS}
    versions |= {name: model.pop(name, None) for name in _LIBRARIES}
    facts = {
        "model": f"{spec.adapter} {spec.model or ''}".strip() if run.has_model else "none",
        "tuned": tuned or spec.tuned,
        **{f"model: {name}": value for name, value in model.items()},
        "data": spec.data,
        "samples": run.sample_count,
        "columns": len(info.get("columns", ())) or None,
        "analyses": ", ".join(run.results),
        "seed": spec.seed,
        "started": info.get("started"),
        **versions,
    }
    shown = [[text(name), text(value)] for name, value in facts.items() if value not in (None, "")]
    return [_table(["", ""], shown)]


def _commands(run: SentRun, repo: str) -> list[str]:
    look = f"```\nvlmlens pull {repo} --to run\nvlmlens show run\nvlmlens report run --open\n```"
    if not run.has_model:
        return [look]
    again = "```\nvlmlens run -c run/spec.yaml --out again\n```"
    need = "With the same versions, and the model and the data that `spec.yaml` names:"
    return [look, need, again]


def _here(files: Mapping[str, int]) -> list[str]:
    groups = {
        "results, tables and figures": "results/",
        "the report, `report.html`: download it to open it": "report.html",
        "samples with their questions and answers, and what was generated": "samples.jsonl",
        "pictures": "images/",
        "activations, as safetensors files": "columns/parts/",
    }
    rows = []
    for said, start in groups.items():
        sizes = [number for name, number in files.items() if name.startswith(start)]
        if sizes:
            rows.append(f"- {said}: {len(sizes):,} files, {size(sum(sizes))}")
    return ["\n".join(rows).replace(": 1 files", ": 1 file")]


def _not_here(choice: Choice) -> list[str]:
    lines = [
        "the weights of the model, and what was tuned of it",
        "" if choice.images else "the pictures of the samples, also in the report",
        "" if choice.activations else "the activations",
        "files of analyses beside their results (directions, dictionaries, checkpoints), logs",
        "paths of the machine that made the run, and texts that looked like credentials",
    ]
    return ["\n".join(f"- {line}" for line in lines if line)]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _body(lines: Iterable[str]) -> str:
    return "\n\n".join(line for line in lines if line)
