"""Help pages: what a command does, examples, then its flags in groups.

Commands of plugins get the same pages as built-in ones.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

from vlmlens._clean import fit_to_say

GROUPS = (
    "Options",
    "Model",
    "Data",
    "What to record",
    "Analyses",
    "Speed",
    "Output",
)
"""The headings of flags, in order. A flag names its own as Typer's `rich_help_panel`."""

OTHER_WORDS = {
    "ls": "plugins list",
    "validate": "run --dry-run",
    "--output-path": "--out",
    "--output_path": "--out",
    "--output-dir": "--out",
    "--tasks": "--data",
}
"""Words of other tools, with ours."""

_EXAMPLES = "Examples:\n"
_OBVIOUS = (" <str>", " <path>", " <list[str]>")


def grouped(command: Any) -> None:
    """Give a command, and the commands in it, these help pages.

    Args:
        command: Of Typer. Lines under "Examples:" in its help are printed as they are.
    """
    command.rich_markup_mode = None
    command.format_help_text = partial(_format_text, command)
    command.format_options = partial(_format_options, command)
    for part in getattr(command, "commands", {}).values():
        grouped(part)


def with_our_word(error: Any, given: str = "") -> Any:
    """A usage error that says our word for one of another tool's.

    Args:
        error: Of Typer.
        given: What is unknown, where the error does not say it.
    """
    given = given or str(getattr(error, "option_name", ""))
    near = getattr(error, "possibilities", None) or ()
    if ours := OTHER_WORDS.get(given) or " or ".join(sorted(near)):
        error.possibilities = None
        error.message = f"{error.message.rstrip('.')}. Did you mean {ours}?"
    return error


def fit_to_show(error: Any) -> Any:
    """A usage error whose text cannot steer a terminal, and holds no credential."""
    error.message = fit_to_say(error.message)
    return error


def _format_text(command: Any, ctx: Any, formatter: Any) -> None:
    text, _, examples = inspect.cleandoc(command.help or "").partition(_EXAMPLES)
    if text:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text.strip())
    if examples:
        with formatter.section("Examples"):
            for line in inspect.cleandoc(examples).splitlines():
                formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def _format_options(command: Any, ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
    for param in command.get_params(ctx):
        if (record := param.get_help_record(ctx)) is not None:
            sections.setdefault(_group(param), []).append(_plain(record))
    if "Output" in sections:
        sections["Output"] += sections.pop("help", [])
    sections.setdefault("Options", []).extend(sections.pop("help", []))
    order = sorted(sections, key=lambda name: GROUPS.index(name) if name in GROUPS else -1)
    for name in order:
        if sections[name]:
            with formatter.section(name):
                formatter.write_dl(sections[name])
    if hasattr(command, "format_commands"):
        command.format_commands(ctx, formatter)


def _group(param: Any) -> str:
    if param.param_type_name == "argument":
        return "Arguments"
    return getattr(param, "rich_help_panel", None) or (
        param.name if param.name == "help" else "Options"
    )


def _plain(record: tuple[str, str]) -> tuple[str, str]:
    """A flag and its help, without what goes without saying."""
    name, text = record
    for end in _OBVIOUS:
        name = name.removesuffix(end)
    for extra, instead in (("  [required]", ""), ("  [default: ", " [default: "), ("; x>=1]", "]")):
        text = text.replace(extra, instead)
    return name, text
