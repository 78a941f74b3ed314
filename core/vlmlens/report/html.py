"""One self-contained HTML page: what was found, the figures behind it, and how it was made.

The page loads nothing: styles and the script are inline and the only ones that its content
security policy lets run (by their SHA-256); pictures are `data:` URIs. Figures are drawn here as
small SVG with CSS classes, so that they follow light and dark screens and carry tooltips;
matplotlib, whose SVG fixes its colours, makes the files for papers (see `figures`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from vlmlens._files import write_bytes
from vlmlens.report import _theme
from vlmlens.report._browser import draw_browser
from vlmlens.report._markup import Markup, join, tag, text
from vlmlens.report._pictures import Pictures
from vlmlens.report._samples import draw_samples
from vlmlens.report._sections import (
    analysis,
    anchors,
    contents,
    facts_list,
    findings,
    glance,
    notes,
    verdicts,
)
from vlmlens.results import Result
from vlmlens.samples import Sample

_SCRIPTS = ("report.js", "charts.js", "sheets.js", "browser.js")

Facts = Mapping[str, "str | int | float | Mapping[str, str | int | float]"]
"""What is known of a run, by name; a mapping as a value is a group of its own."""


def write_report(
    path: Path,
    results: Sequence[Result],
    *,
    title: str,
    facts: Facts,
    spec_yaml: str,
    warnings: Sequence[str] = (),
    samples: Sequence[Sample] = (),
    reproduce: str = "vlmlens run -c run.yaml",
    max_rows: int | None = 100,
) -> Path:
    """Write the page of `render` to a file, whole or not at all."""
    page = render(
        results,
        title=title,
        facts=facts,
        spec_yaml=spec_yaml,
        warnings=warnings,
        samples=samples,
        reproduce=reproduce,
        max_rows=max_rows,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page.encode())
    return path


def render(
    results: Sequence[Result],
    *,
    title: str,
    facts: Facts,
    spec_yaml: str,
    warnings: Sequence[str] = (),
    samples: Sequence[Sample] = (),
    reproduce: str = "vlmlens run -c run.yaml",
    max_rows: int | None = 100,
) -> str:
    """The page.

    Args:
        results: In the order in which they are shown.
        title: The page's heading, say "demo on demo:scenes".
        facts: Model, data, versions, timings: by name, in groups or not.
        spec_yaml: The exact spec.
        warnings: Of the run; those of the results are shown with them.
        samples: Those of the run: the first few are pictured, the others can be looked up.
        reproduce: The command that repeats the run, given the spec as `run.yaml`.
        max_rows: Rows of a table that are shown; the rest stays in the files of the results. None:
            there are no such files, and all rows are shown.
    """
    style, script = _static("report.css") + _theme.css(), "".join(map(_static, _SCRIPTS))
    pictures = Pictures(samples)
    warned = [*warnings, *(f"{item.title}: {line}" for item in results for line in item.warnings)]
    names = anchors(results)
    body = tag(
        "main",
        _header(title),
        contents(results, names),
        tag("section", *_found(results, names, samples), id="found"),
        _warnings(warned),
        *(
            analysis(item, name, max_rows, pictures)
            for item, name in zip(results, names, strict=True)
        ),
        _section("Samples", "samples", _samples(samples, results, pictures)),
        _section("Method", "method", notes(results)),
        _section("This run", "run", facts_list(facts)),
        _section("Reproduce", "reproduce", _reproduce(spec_yaml, reproduce)),
        pictures.block(),
    )
    return Template(_static("report.html")).substitute(
        title=text(title),
        policy=text(_policy(style, script)),
        style=style,
        script=script,
        body=body,
    )


def _header(title: str) -> Markup:
    return tag("header", tag("p", "vlmlens report", class_="brand"), tag("h1", title))


def _found(
    results: Sequence[Result], names: Sequence[str], samples: Sequence[Sample]
) -> list[Markup]:
    heading = tag("h2", "What was found")
    return [heading, findings(results, names, samples), verdicts(results), glance(results)]


def _samples(samples: Sequence[Sample], results: Sequence[Result], pictures: Pictures) -> Markup:
    """A few pictured ones, which the page's script replaces by all, to be searched."""
    if not samples:
        return Markup("")
    still = tag("div", draw_samples(samples), class_="still")
    return join([still, draw_browser(samples, results, pictures)])


def _section(title: str, name: str, content: Markup) -> Markup:
    return tag("section", tag("h2", title), content, id=name) if content else Markup("")


def _warnings(warned: Sequence[str]) -> Markup:
    if not warned:
        return Markup("")
    items = [tag("li", line) for line in dict.fromkeys(warned)]
    heading = tag("h2", "Read this before you trust it")
    return tag("section", heading, tag("ul", *items), class_="warnings", id="warnings")


def _reproduce(spec_yaml: str, command: str) -> Markup:
    save = tag("p", "Save this spec as ", tag("code", "run.yaml"), " and run the command below it.")
    return join([save, _code(spec_yaml, "The exact spec"), _code(command, "The command")])


def _code(content: str, label: str) -> Markup:
    return tag("pre", tag("code", content), tabindex="0", role="region", aria_label=label)


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _static(name: str) -> str:
    return resources.files("vlmlens.report").joinpath("static", name).read_text(encoding="utf-8")
