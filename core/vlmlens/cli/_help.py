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
    "Processes and machines",
    "Output",
)
"""The headings of flags, in order. A flag names its own as Typer's `rich_help_panel`."""

OTHER_WORDS = {
    "ls": "plugins list",
    "list": "plugins list",
    "validate": "run --dry-run",
    "eval": "run",
    "--output-path": "--out",
    "--output-dir": "--out",
    "--output": "--out",
    "-o": "--out",
    "--tasks": "--data",
    "--task": "--data",
    "--layers": "--sites",
    "--seeds": "--seed",
}
"""Words of other tools, with ours. An option is looked up with - for _."""

EXPLAINED = {
    "--tasks": "--analysis chooses what to find out.",
    "--task": "--analysis chooses what to find out.",
    "--model-args": "Use --model, --dtype, --device, or --set options.adapter.KEY=VALUE.",
    "--gen-kwargs": "Use --generate N; answers are greedy.",
    "--log-samples": "A run always keeps its samples; `vlmlens show RUN --generated` prints texts.",
    "--include-path": "Install the plugin, or name its file: --analysis FILE.py:Class.",
    "--num-fewshot": "Write the examples into --prompt.",
    "--use-cache": "Use --resume to go on with a run.",
    "--predict-only": "Use `vlmlens extract`.",
}
"""Words of other tools, and what to do instead."""

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
    option = given.partition("=")[0].replace("_", "-").lower() if given.startswith("-") else given
    near = () if option in EXPLAINED else getattr(error, "possibilities", None) or ()
    ours = _known_here(error, OTHER_WORDS.get(option, "")) or " or ".join(sorted(near))
    advice = [f"Did you mean {ours}?"] if ours else []
    if said := [*advice, *([EXPLAINED[option]] if option in EXPLAINED else [])]:
        error.possibilities = None
        error.message = f"{error.message.rstrip('.')}. {' '.join(said)}"
    return error


def _known_here(error: Any, ours: str) -> str:
    """Our word; --to where a command writes files of another kind, "" where it has neither."""
    command = getattr(getattr(error, "ctx", None), "command", None)
    if command is None or not ours.startswith("--") or hasattr(command, "commands"):
        return ours
    there = {word for parameter in command.params for word in parameter.opts}
    return next((word for word in (ours, "--to" if ours == "--out" else "") if word in there), "")


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
