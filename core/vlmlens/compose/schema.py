"""The JSON schema of the run file, with the options of the installed plugins.

Editors use it to complete and check run files. A name may also be something that a schema cannot
list (`FILE.py:Class`, `DISTRIBUTION:NAME`), so such names are accepted too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlmlens.errors import PluginError
from vlmlens.manifest import Manifest, PluginKind
from vlmlens.registry import Entry, Registry
from vlmlens.spec.model import AUTO_ADAPTER, DEMO_DATA, RunSpec
from vlmlens.spec.second_names import SECOND_NAMES

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LONGER = 10.0
"""Importing a class may take this many times longer than a manifest, since adapters need torch."""

_AUTO = {"const": AUTO_ADAPTER, "description": "As the checkpoint's config.json says."}
_FILE = r"^.+\.py(:\w+)?$"
_DISTRIBUTION = r"^[\w.-]+:[\w-]+$"
_LABEL = "[A-Za-z0-9_-]+"


@dataclass(frozen=True)
class _Plugin:
    """A plugin with the schema of its options.

    Args:
        entry: Its entry.
        manifest: Its manifest.
        options: The schema of its options.
    """

    entry: Entry
    manifest: Manifest
    options: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key of its options' schema among the definitions."""
        owner = "" if self.entry.distribution == "vlmlens" else f"{self.entry.distribution}."
        return f"{self.manifest.kind.value}.{owner}{self.manifest.name}"

    @property
    def names(self) -> list[str]:
        """Its names as users write them; empty if another plugin has priority for the name."""
        return list(dict.fromkeys((self.manifest.name, *self.manifest.aliases)))

    @property
    def pattern(self) -> str:
        """A regular expression for all spellings of its names, with its distribution or without."""
        names = "|".join(_any_spelling(name) for name in self.names)
        owner = _any_spelling(self.entry.distribution, also=".")
        return f"({owner}:)?({names})"


def run_schema(registry: Registry) -> tuple[dict[str, Any], list[str]]:
    """The schema, and notes about plugins that are missing from it.

    Args:
        registry: The plugins to describe. Their classes are imported.

    Returns:
        A JSON schema (draft 2020-12), and a sentence for each plugin that was left out. A built-in
        plugin whose extra is not installed is in the schema, with any options.
    """
    notes: list[str] = []
    plugins: dict[PluginKind, list[_Plugin]] = {
        kind: list(_plugins(registry, kind, notes))
        for kind in PluginKind
        if kind is not PluginKind.INTERVENTION  # named in edits, which are text
    }
    schema = RunSpec.model_json_schema()
    definitions = schema.pop("$defs")
    for found in (plugin for each in plugins.values() for plugin in each):
        options = dict(found.options)
        for name, part in options.pop("$defs", {}).items():
            definitions[f"{found.key}.{name}"] = part
        definitions[found.key] = options
    fields = schema["properties"]
    for kind in (
        PluginKind.ADAPTER,
        PluginKind.EXTRACTOR,
        PluginKind.STORAGE,
        PluginKind.ENGINE,
    ):
        fields[kind.value].update(_names(plugins[kind], uri=kind is PluginKind.STORAGE))
    fields["adapter"]["anyOf"].insert(0, _AUTO)
    fields["engine"] = _or_null(fields["engine"])
    definitions["PluginOptions"]["properties"]["plugins"]["properties"] = {
        name: {"$ref": f"#/$defs/{key}"}
        for name, key in _lifecycle(registry, definitions, notes).items()
    }
    fields["analysis"] = _analysis(fields["analysis"], plugins[PluginKind.ANALYSIS])
    for name in ("prompt", "sites", "edits"):
        fields[name] = _one_or_several(fields[name])
    for second, first in SECOND_NAMES.items():
        fields[second] = {**fields[first], "description": f"A second name of {first}."}
    return {
        "$schema": DIALECT,
        **schema,
        "title": "A run of vlmlens",
        "allOf": [rule for kind, found in plugins.items() for rule in _rules(kind, found, fields)],
        "$defs": definitions,
    }, notes


def _lifecycle(registry: Registry, definitions: dict[str, Any], notes: list[str]) -> dict[str, str]:
    """The lifecycle plugins that have options, each with a reference to their schema."""
    keys = {}
    for entry in (entry for entry in registry.entries() if entry.kind is None):
        try:
            options = registry.hook_options(entry)
            if options is None:
                continue
            key = f"plugin.{entry.distribution}.{entry.name}"
            schema = options.model_json_schema(ref_template=f"#/$defs/{key}.{{model}}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code
            notes.append(f"The plugin {entry.name} is left out: {error!r}")
            continue
        for name, part in schema.pop("$defs", {}).items():
            definitions[f"{key}.{name}"] = part
        definitions[key] = schema
        keys[entry.name] = key
    return keys


def _plugins(registry: Registry, kind: PluginKind, notes: list[str]) -> Iterator[_Plugin]:
    for entry in registry.entries(kind):
        manifest = entry.manifest
        if manifest is not None and entry.lacks_extra:
            yield _Plugin(entry, manifest, {"type": "object"})
            continue
        if manifest is None or not entry.usable:
            notes.append(f"The {kind} {entry.name} is left out: {entry.problem}")
            continue
        try:
            yield _Plugin(entry, manifest, _options(registry, entry, manifest))
        except PluginError as error:
            notes.append(f"The {kind} {entry.name} is left out: {error}")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code
            notes.append(f"The {kind} {entry.name} is left out: {error!r}")


def _options(registry: Registry, entry: Entry, manifest: Manifest) -> Mapping[str, Any]:
    key = _Plugin(entry, manifest, {}).key
    template = f"#/$defs/{key}.{{model}}"

    def schema_of(plugin: type[Any]) -> dict[str, Any]:
        found: dict[str, Any] = plugin.Options.model_json_schema(ref_template=template)
        return {**found, "title": f"Options of the {manifest.kind} {manifest.name}"}

    schema: Mapping[str, Any] = registry.ask(
        manifest, schema_of, limit=LONGER * registry.guard.limit
    )
    return schema


def _names(plugins: Iterable[_Plugin], *, uri: bool) -> dict[str, Any]:
    """What a field that names a plugin may hold. The names come first, for completion."""
    known = list(plugins)
    choices: list[dict[str, Any]] = [
        {"const": name, "description": plugin.manifest.help}
        for plugin in known
        for name in plugin.names
    ]
    patterns = [f"^{plugin.pattern}$" for plugin in known]
    if uri:
        patterns += [rf"^{plugin.pattern}(\+[\w.+-]+)?://" for plugin in known]
    choices += [{"pattern": pattern} for pattern in (*patterns, _FILE, _DISTRIBUTION)]
    return {"type": "string", "anyOf": choices}


def _analysis(field: Mapping[str, Any], plugins: Iterable[_Plugin]) -> dict[str, Any]:
    """One name, several, or a mapping of names to options (or nothing)."""
    known = list(plugins)
    name = _names(known, uri=False)
    name["anyOf"].append({"pattern": f"{_FILE[:-1]}:{_LABEL}$"})
    name["anyOf"] += [{"pattern": f"^{plugin.pattern}:{_LABEL}$"} for plugin in known]
    options = {
        "type": "object",
        "properties": {each: _or_none(plugin) for plugin in known for each in plugin.names},
        "patternProperties": {
            **{f"^{plugin.pattern}(:{_LABEL})?$": _or_none(plugin) for plugin in known},
            f"{_FILE[:-1]}:{_LABEL}$": {"type": ["object", "null"]},
            _FILE: {"type": ["object", "null"]},
            _other_distributions(known): {"type": ["object", "null"]},
        },
        "additionalProperties": False,
    }
    kept = {key: field[key] for key in ("title", "description") if key in field}
    several = {"type": "array", "items": {"anyOf": [name, options]}}
    return {**kept, "anyOf": [options, several, name]}


def _or_none(plugin: _Plugin) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{plugin.key}"}
    return {"anyOf": [reference, {"type": "null"}], "description": plugin.manifest.help}


def _other_distributions(plugins: Iterable[_Plugin]) -> str:
    """A pattern for a DISTRIBUTION:NAME that is not a known plugin."""
    known = "|".join(plugin.pattern for plugin in plugins)
    return f"^(?!({known})$)[\\w.-]+:[\\w-]+$"


def _or_null(field: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in field.items() if key != "type"}
    return {**rest, "anyOf": [*field["anyOf"], {"type": "null"}]}


def _one_or_several(field: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in field.items() if key not in ("type", "items")}
    several = {key: field[key] for key in ("type", "items")}
    return {**rest, "anyOf": [several, {"type": "string"}]}


def _rules(
    kind: PluginKind, plugins: Iterable[_Plugin], fields: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Which options of a kind are allowed, depending on the chosen plugin."""
    if kind is PluginKind.ANALYSIS:
        return
    known = list(plugins)
    data = kind is PluginKind.DATASET
    field = "data" if data else kind.value
    default = DEMO_DATA if data else fields[field].get("default")
    for plugin in known:
        begin = f"^{plugin.pattern}" + (":" if data else r"(\+[\w.+-]+)?(://|$)")
        chosen: dict[str, Any] = {"properties": {field: {"type": "string", "pattern": begin}}}
        if not re.match(begin, str(default)):
            chosen["required"] = [field]
        then = {"$ref": f"#/$defs/{plugin.key}"}
        yield {"if": chosen, "then": _with_options(kind, then)}
    if kind is PluginKind.ADAPTER and known:
        unnamed = {"properties": {field: {"const": AUTO_ADAPTER}}}
        yield {"if": unnamed, "then": _with_options(kind, _any_options(known))}
    if data and known:
        named = "|".join(plugin.pattern for plugin in known)
        path = {"type": "string", "pattern": rf"^(?!({named}):)(?!.+\.py:\w+)"}
        readers = [plugin for plugin in known if not plugin.entry.lacks_extra]
        yield {
            "if": {"properties": {field: path}, "required": [field]},
            "then": _with_options(kind, _any_options(readers)),
        }


def _any_options(plugins: Iterable[_Plugin]) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"#/$defs/{plugin.key}"} for plugin in plugins]}


def _with_options(kind: PluginKind, options: Mapping[str, Any]) -> dict[str, Any]:
    return {"properties": {"options": {"properties": {kind.value: options}}}}


def _any_spelling(name: str, *, also: str = "") -> str:
    """A pattern for a name in upper or lower case, with `-` or `_`.

    >>> _any_spelling("a-b2")
    '[aA][-_][bB]2'
    """
    return "".join(_any_letter(letter, also) for letter in name)


def _any_letter(letter: str, also: str) -> str:
    if letter in f"-_{also}":
        return f"[-_{also}]"
    cases = sorted({letter.lower(), letter.upper()}, reverse=True)
    return f"[{''.join(cases)}]" if len(cases) > 1 else re.escape(letter)
