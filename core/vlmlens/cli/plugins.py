"""`vlmlens plugins list|show`: what is installed, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from vlmlens.cli._options import installed, output_flags, shares
from vlmlens.cli._output import Output, table
from vlmlens.errors import PluginError
from vlmlens.manifest import PluginKind
from vlmlens.registry import Entry, Status

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

app = typer.Typer(help="What is installed, and what is wrong with it.", no_args_is_help=True)
Kind = Annotated[PluginKind | None, Option(help="Only plugins of this kind.")]


@app.command("list")
@shares(output=output_flags)
def list_(output: Output, kind: Kind = None) -> None:
    """List plugins with their state."""
    entries = installed().entries(kind)
    rows = [
        (_kind(entry), entry.name, _state(entry.status), _origin(entry), _help(entry))
        for entry in entries
    ]
    document = {"plugins": [entry_document(entry) for entry in entries]}
    output.data(
        document,
        table("kind", "name", "state", "from", "what it does", rows=rows),
        *(_problem(entry) for entry in entries if entry.problem),
    )


@app.command()
@shares(output=output_flags)
def show(
    name: Annotated[str, Argument(help="Name, alias, DISTRIBUTION:NAME or FILE.py:Class.")],
    output: Output,
    kind: Kind = None,
) -> None:
    """Show one plugin: what it offers, its options, its checkpoints."""
    shown = [_details(each, name) for each in installed().kinds_of(name, kind)]
    document = {"plugins": shown}
    output.data(document, *(part for details in shown for part in _rendered(details)))


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
        "error": problem.message if problem else None,
        "hint": problem.hint if problem else None,
    }


def _details(kind: PluginKind, name: str) -> dict[str, Any]:
    registry = installed()
    manifest = registry.find(kind, name)
    options = registry.load(manifest).Options.model_fields
    return {
        "kind": kind.value,
        "name": manifest.name,
        "help": manifest.help,
        "class": manifest.target,
        "api_version": manifest.api_version,
        "aliases": list(manifest.aliases),
        "offers": sorted(manifest.offers),
        "needs": sorted(manifest.needs),
        "requires": list(manifest.requires),
        "suggests": dict(manifest.suggests),
        "options": [_option(name, field) for name, field in options.items()],
        "checkpoints": [asdict(checkpoint) for checkpoint in manifest.checkpoints],
    }


def _option(name: str, field: FieldInfo) -> dict[str, Any]:
    annotation: Any = field.annotation
    plain = isinstance(annotation, type) and not getattr(annotation, "__args__", None)
    return {
        "name": name,
        "type": annotation.__name__ if plain else str(annotation).replace("typing.", ""),
        "required": field.is_required(),
        "default": None if field.is_required() else field.get_default(call_default_factory=True),
        "help": field.description or "",
    }


def _rendered(details: dict[str, Any]) -> Iterator[Any]:
    yield f"{details['kind']} {details['name']}: {details['help']}"
    facts = ("class", "api_version", "aliases", "offers", "needs", "requires", "suggests")
    yield table("", "", rows=[(key, _cell(details[key])) for key in facts if details[key]])
    options = details["options"]
    if options:
        rows = [
            (
                each["name"],
                each["type"],
                "required" if each["required"] else repr(each["default"]),
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


def _cell(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _kind(entry: Entry) -> str:
    return entry.kind.value if entry.kind else "plugin"


def _state(status: Status) -> str:
    return status.value if status is Status.OK else status.value.upper()


def _origin(entry: Entry) -> str:
    return f"{entry.distribution} {entry.version}".strip()


def _help(entry: Entry) -> str:
    return entry.manifest.help if entry.manifest else ""


def _problem(entry: Entry) -> str:
    problem = entry.problem or PluginError("")
    return f"\n{entry.name}: {problem.message}\n  {problem.hint}"
