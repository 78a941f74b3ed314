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
from vlmlens.report._browser import MOST_SAMPLES, draw_browser
from vlmlens.report._markup import Markup, join, tag, text
from vlmlens.report._overview import draw_overview, verdicts
from vlmlens.report._pictures import Pictures
from vlmlens.report._samples import draw_samples
from vlmlens.report._sections import analysis, anchors, contents, facts_list, notes
from vlmlens.report._text import one_line
from vlmlens.results import Result
from vlmlens.sample_table import SampleTable
from vlmlens.samples import Sample

_SCRIPTS = (
    "report.js",
    "charts.js",
    "sheets.js",
    "scatter.js",
    "features.js",
    "browser.js",
    "start.js",
)
_SHORT = {"warnings": "Warnings"}
"""Titles of sections in the contents, where they differ from the headings."""

Facts = Mapping[str, "str | int | float | Mapping[str, str | int | float]"]
"""What is known of a run, by name; a mapping as a value is a group of its own."""


def write_report(path: Path, page: str) -> Path:
    """Write a page of `render` to a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page.encode())
    return path


def render(
    results: Sequence[Result],
    *,
    title: str,
    facts: Facts,
    spec_yaml: str,
    lead: Sequence[str] = (),
    warnings: Sequence[str] = (),
    samples: Sequence[Sample] = (),
    reproduce: str = "vlmlens run -c run.yaml",
    max_rows: int | None = 100,
) -> str:
    """The page.

    Args:
        results: In the order in which they are shown.
        title: The page's heading.
        facts: Model, data, versions, timings: by name, in groups or not.
        spec_yaml: The spec that repeats the run.
        lead: What to know before reading, below the heading: the model, the data, the date.
        warnings: Of the run; those of the results are shown with them.
        samples: Those of the run: the first few are pictured, the others can be looked up.
        reproduce: The command that repeats the run, given the spec as `run.yaml`.
        max_rows: Rows of a table that are shown; the rest stays in the files of the results. None:
            there are no such files, and all rows are shown.
    """
    style, script = style_sheet(), scripts()
    samples = SampleTable.of(samples)
    pictures = Pictures(samples)
    own = {line for item in results for line in item.warnings}
    warned = [
        *(line for line in warnings if line not in own),
        *(f"{item.title}: {line}" for item in results for line in item.warnings),
    ]
    names = anchors(results)
    overview = draw_overview(results, [f"#{name}" for name in names], samples)
    sections = [
        ("overview", "Overview", overview or _nothing(results)),
        ("warnings", "Read this before you trust it", _warnings(warned)),
        *(
            (name, item.title, analysis(item, name, max_rows, pictures, samples))
            for item, name in zip(results, names, strict=True)
        ),
        ("samples", "Samples", _samples(samples, results, pictures)),
        ("method", "Method", join([notes(results), "" if overview else verdicts(results)])),
        ("run", "This run", facts_list(facts)),
        ("reproduce", "Reproduce", _reproduce(spec_yaml, reproduce)),
    ]
    shown = [(name, title, content) for name, title, content in sections if content]
    links = contents([(name, _SHORT.get(name, title)) for name, title, _ in shown])
    main = tag(
        "main",
        tag("header", tag("h1", title), tag("p", " · ".join(lead), class_="lead") if lead else ""),
        *(_section(*each) for each in shown),
        pictures.block(),
    )
    return Template(_static("report.html")).substitute(
        title=text(title),
        policy=text(_policy(style, script)),
        style=style,
        script=script,
        body=join([links, main]),
    )


def _nothing(results: Sequence[Result]) -> Markup:
    """What is said where there is nothing to show."""
    if any(item.findings for item in results):
        return Markup("")
    return tag("p", "No analysis found anything to report.", class_="muted")


def _samples(samples: Sequence[Sample], results: Sequence[Result], pictures: Pictures) -> Markup:
    """A few pictured ones, which the page's script replaces by all, to be searched."""
    if not samples:
        return Markup("")
    still = tag("div", draw_samples(samples[:MOST_SAMPLES]), class_="still")
    return join([still, draw_browser(samples, results, pictures)])


def _section(name: str, title: str, content: Markup) -> Markup:
    return tag("section", tag("h2", one_line(title)), content, id=name)


def _warnings(warned: Sequence[str]) -> Markup:
    items = [tag("li", line) for line in dict.fromkeys(warned)]
    return tag("ul", *items) if items else Markup("")


def _reproduce(spec_yaml: str, command: str) -> Markup:
    save = tag("p", "Save this spec as ", tag("code", "run.yaml"), " and run the command below it.")
    return join([save, _code(spec_yaml, "The spec"), _code(command, "The command")])


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


def style_sheet() -> str:
    """The styles of all components."""
    return _static("report.css") + _theme.css()


def scripts() -> str:
    """The scripts of all components, which wait for nothing."""
    return "".join(map(_static, _SCRIPTS))


def _static(name: str) -> str:
    return resources.files("vlmlens.report").joinpath("static", name).read_text(encoding="utf-8")
