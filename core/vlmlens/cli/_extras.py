"""Commands that plugins add by the hook `vlmlens_commands`: Typer apps and plain click commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlmlens.cli._help import grouped
from vlmlens.cli._installed import installed

if TYPE_CHECKING:
    import click


_UNPARSED = typer.Argument(metavar="[ARGUMENTS]...")


def extra_commands(taken: Collection[str]) -> dict[str, Any]:
    """The commands of plugins by name. Those that cannot be used are left out, with a warning.

    Args:
        taken: Names of built-in commands. No plugin can replace these.
    """
    from vlmlens.registry import call_hook, warnings_begin

    warnings_begin(_show_warnings)
    registry = installed()
    if not registry.has_hooks:
        return {}
    commands: dict[str, Any] = {}
    for offered in call_hook(registry.hooks(), "vlmlens_commands", registry.guard):
        for name, command in _items(offered):
            if name in taken or name in commands:
                _warn("The command %r of a plugin is left out: the name is taken.", name)
            elif made := _made(name, command):
                commands[name] = made
    return commands


def _show_warnings() -> None:
    from vlmlens.cli._messages import show_warnings

    show_warnings()


def _warn(message: str, *details: Any) -> None:
    import logging

    _show_warnings()
    logging.getLogger("vlmlens").warning(message, *details)


def _items(offered: Any) -> list[tuple[str, Any]]:
    if isinstance(offered, Mapping):
        return list(offered.items())
    _warn("vlmlens_commands must return commands by name, not %r.", offered)
    return []


def _made(name: str, command: Any) -> Any:
    import click

    try:
        if isinstance(command, typer.Typer):
            made: Any = typer.main.get_command(command)
            made.name = name
        elif isinstance(command, click.Command):
            made = _bridge(name, command)
        else:
            kind = type(command).__name__
            _warn(
                "The command %r of a plugin is a %s, not a Typer app or click command.", name, kind
            )
            return None
        grouped(made)
        return made
    except Exception as error:  # noqa: BLE001 - a third party's code
        _warn("The command %r of a plugin is left out: %r", name, error)
        return None


def _bridge(name: str, command: click.Command) -> Any:
    """A Typer command that passes all its arguments to a click command."""
    bridge = typer.Typer(add_completion=False, rich_markup_mode=None)

    @bridge.command(
        name,
        help=command.help,
        short_help=command.get_short_help_str(80),
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
    )
    def forward(arguments: Annotated[list[str] | None, _UNPARSED] = None) -> None:
        _invoke(name, command, list(arguments or ()))

    return typer.main.get_command(bridge)


def _invoke(name: str, command: click.Command, arguments: list[str]) -> None:
    """Run a click command; its exit codes become Typer's.

    It does not call `Command.main`, which takes a returned number for an exit code.
    """
    import click

    try:
        with command.make_context(f"vlmlens {name}", arguments) as context:
            command.invoke(context)
    except click.exceptions.Exit as error:
        raise typer.Exit(error.exit_code) from error
    except click.ClickException as error:
        error.show()
        raise typer.Exit(error.exit_code) from error
    except click.Abort as error:
        raise typer.Abort from error
