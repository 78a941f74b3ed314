"""`vlmlens plugins list|show|check`: the installed plugins, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from vlmlens._clean import clean
from vlmlens.cli import _completion as completion
from vlmlens.cli._options import installed, output_flags, shares
from vlmlens.cli._output import Output, table
from vlmlens.cli._table import plain_table
from vlmlens.manifest import PluginKind
from vlmlens.registry import Entry, Status

if TYPE_CHECKING:
    from vlmlens.testing import CheckResult
    from vlmlens.testing.run import Report, Suite

app = typer.Typer(
    help="""List, show and check the installed plugins.

    Examples:
        vlmlens plugins list
        vlmlens plugins show probe
    """,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
_FACTS = (
    "from", "class", "api_version", "aliases", "offers", "needs", "requires", "suggests", "limits",
    "hooks",
)  # fmt: skip
Kind = Annotated[PluginKind | None, Option(help="Only plugins of this kind.")]


@app.command("list")
@shares(output=output_flags)
def list_(output: Output, kind: Kind = None) -> None:
    """List plugins with their state.

    Examples:
        vlmlens plugins list
        vlmlens plugins list --kind adapter
    """
    entries = installed().entries(kind)
    if output.json:
        output.data({"plugins": [entry_document(entry) for entry in entries]})
        return
    headers = ("kind", "name", "state", "ms", "from", "what it does")
    rows = [_row(entry) for entry in entries]
    text = plain_table(headers, rows)
    if text is None:
        output.data(None, table(*headers, rows=rows))
    else:
        typer.echo(text)
    for entry in entries:
        if remark := _remark(entry):
            typer.echo(clean(f"\n{entry.name}: {remark}"))


@app.command()
@shares(output=output_flags)
def show(
    name: Annotated[
        str,
        Argument(
            metavar="NAME",
            help="Name, alias, DISTRIBUTION:NAME or FILE.py:Class.",
            autocompletion=completion.any_name,
        ),
    ],
    output: Output,
    kind: Kind = None,
) -> None:
    """Show one plugin: what it offers, its options, its checkpoints.

    Examples:
        vlmlens plugins show probe
        vlmlens plugins show ./mine.py:Mine
    """
    shown = _shown(name, kind)
    document = {"plugins": shown}
    output.data(document, *(part for details in shown for part in _rendered(details)))


@app.command()
@shares(output=output_flags)
def check(
    name: Annotated[
        str,
        Argument(
            metavar="NAME",
            help="Name, alias, DISTRIBUTION:NAME, FILE.py:Class, or the folder of a project.",
        ),
    ],
    output: Output,
    kind: Kind = None,
    model: Annotated[
        str | None,
        Option(metavar="ID", help="Check an adapter on this checkpoint: hub id or folder."),
    ] = None,
    data: Annotated[
        str | None, Option(metavar="SOURCE", help="Check a dataset on this source.")
    ] = None,
    device: Annotated[
        str, Option(metavar="DEVICE", help="Where an adapter computes: cpu, cuda or auto.")
    ] = "cpu",
) -> None:
    """Run a plugin's conformance checks; the exit code is 1 if one fails.

    An adapter is checked on tiny checkpoints made for it, or on --model, in float32; a dataset on
    small sources, or on --data; extractors and analyses on a tiny model and planted data.

    Examples:
        vlmlens plugins check demo --kind adapter
        vlmlens plugins check ./mine.py:Mine --kind storage
        vlmlens plugins check ./vlmlens-adapter-mymodel
    """
    from vlmlens.testing.run import find_suites, run_suites

    suites = find_suites(installed(), name, kind, model=model, data=data, device=device)
    with output.observer() as observer:
        reports = run_suites(suites, observer)
    output.data(check_document(reports), *(part for each in reports for part in _checked(each)))
    if any(report.counts["failed"] for report in reports):
        raise typer.Exit(1)


def check_document(reports: Sequence[Report]) -> dict[str, Any]:
    """Reports of checks as JSON-ready data."""
    return {
        "suites": [
            {
                "kind": report.suite.manifest.kind.value,
                "plugin": report.suite.manifest.name,
                "suite": report.suite.checks.__name__,
                "on": report.suite.subject,
                "description": report.description,
                **report.counts,
                "checks": [
                    {**asdict(result), "promise": report.suite.checks.promise(result.name)}
                    for result in report.results
                ],
            }
            for report in reports
        ]
    }


def _checked(report: Report) -> Iterator[Any]:
    suite, counts = report.suite, report.counts
    where = f" on {suite.subject}" if suite.subject else ""
    yield f"{suite.manifest.kind.value} {suite.manifest.name}, {suite.checks.__name__}{where}"
    if report.description:
        yield table("", "", rows=report.description.items())
    rows = [(each.name, _outcome(each), _detail(suite, each)) for each in report.results]
    yield table("check", "outcome", "detail", rows=rows)
    yield ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + "\n"


def _detail(suite: Suite, result: CheckResult) -> str:
    """What happened; of a check that failed, after what it asks."""
    detail = " ".join(result.detail.split())
    asked = suite.checks.promise(result.name)
    return f"{asked} {detail}".strip() if result.outcome == "failed" else detail


def _outcome(result: CheckResult) -> str:
    return "FAILED" if result.outcome == "failed" else result.outcome


def entry_document(entry: Entry) -> dict[str, Any]:
    """An entry as JSON-ready data."""
    problem = entry.problem
    return {
        "kind": _kind(entry),
        "name": entry.name,
        "state": entry.status.value,
        "distribution": entry.distribution,
        "version": entry.version,
        "help": _help(entry),
        "aliases": list(entry.manifest.aliases) if entry.manifest else [],
        "seconds": round(entry.seconds, 4),
        "heavy_imports": list(entry.heavy),
        "error": problem.message if problem else None,
        "hint": problem.hint if problem else None,
    }


def _shown(name: str, kind: PluginKind | None) -> list[dict[str, Any]]:
    """What is known of every plugin of that name, lifecycle plugins last."""
    from vlmlens.cli._hook_details import hook_details
    from vlmlens.errors import UnknownPlugin
    from vlmlens.registry._target import is_file

    registry = installed()
    lifecycle = not (kind or is_file(name))
    try:
        found = [_details(each, name) for each in registry.kinds_of(name, kind)]
    except UnknownPlugin:
        hooks = hook_details(registry, name, strict=True) if lifecycle else []
        if not hooks:
            raise
        return hooks
    return [*found, *(hook_details(registry, name, strict=False) if lifecycle else ())]


def _details(kind: PluginKind, name: str) -> dict[str, Any]:
    from vlmlens.cli._types import option_rows

    registry = installed()
    manifest = registry.find(kind, name)
    options = registry.load(manifest).Options
    return {
        "kind": kind.value,
        "name": manifest.name,
        "help": manifest.help,
        "from": next((_origin(e) for e in registry.entries(kind) if e.manifest is manifest), ""),
        "class": manifest.target,
        "api_version": manifest.api_version,
        "aliases": list(manifest.aliases),
        "offers": sorted(manifest.offers),
        "needs": sorted(manifest.needs),
        "requires": list(manifest.requires),
        "suggests": dict(manifest.suggests),
        "limits": list(manifest.limits),
        "options": option_rows(options),
        "checkpoints": [asdict(checkpoint) for checkpoint in manifest.checkpoints],
    }


def _rendered(details: dict[str, Any]) -> Iterator[Any]:
    yield f"{details['kind']} {details['name']}: {details['help']}"
    facts = [(key, _cell(key, details[key])) for key in _FACTS if details.get(key)]
    yield table("", "", rows=facts)
    options = details["options"]
    if options:
        rows = [
            (
                each["name"],
                each["type"],
                "required" if each["required"] else _default(each["default"]),
                each["help"],
            )
            for each in options
        ]
        yield table("option", "type", "default", "what it does", rows=rows)
    if details["checkpoints"]:
        rows = [
            (
                each["id"],
                f"{each['parameters']:g}B" if each["parameters"] else "",
                "gated" if each["gated"] else "",
                each["licence"],
            )
            for each in details["checkpoints"]
        ]
        yield table("checkpoint", "size", "", "licence", rows=rows)
    yield ""


def _default(value: Any) -> str:
    """A default as it is written in a run file."""
    from vlmlens.cli._output import to_json

    return " ".join(to_json(value).split()).replace("[ ", "[").replace(" ]", "]")


def _cell(key: str, value: Any) -> str:
    between = "\n" if key == "limits" else ", "
    return between.join(map(str, value)) if isinstance(value, list) else str(value)


def _kind(entry: Entry) -> str:
    return entry.kind.value if entry.kind else "plugin"


def _state(entry: Entry) -> str:
    if entry.lacks_extra:
        return "not installed"
    return entry.status.value if entry.status is Status.OK else entry.status.value.upper()


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        _kind(entry),
        entry.name,
        _state(entry),
        f"{entry.seconds * 1000:.0f}" if entry.seconds else "",
        _origin(entry),
        _help(entry),
    )


def _origin(entry: Entry) -> str:
    return f"{entry.distribution} {entry.version}".strip()


def _help(entry: Entry) -> str:
    return entry.manifest.help if entry.manifest else ""


def _remark(entry: Entry) -> str:
    """What is wrong with a plugin and what to do, or ""."""
    if entry.lacks_extra:
        return ""
    if entry.problem:
        return f"{entry.problem.message}\n  {entry.problem.hint}"
    if entry.heavy:
        return (
            f"Reading its manifest imports {', '.join(entry.heavy)} ({entry.seconds:.1f} s).\n"
            "  This slows down every command. The manifest belongs in a module with light imports."
        )
    return ""
