"""The Typer application: built-in commands, commands of plugins, and the handling of errors.

A command is imported only when it is chosen, to keep `vlmlens --help` and tab completion fast;
`COMMANDS` holds what is shown before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer
from typer import Option
from typer.core import TyperCommand, TyperGroup

from vlmlens._version import __version__
from vlmlens.cli._help import fit_to_show, grouped, with_our_word

# Typer prints usage errors, `--help` and the like by itself. The base class of its usage errors has
# no public name, and is not that of click: Typer contains a copy of click.
_USAGE: type[Exception] = next(
    cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException"
)
_CONTROL = (typer.Exit, typer.Abort, BrokenPipeError, _USAGE)

COMMANDS = {
    "look": "Ask about a picture: the answer, where it forms, what it rests on.",
    "run": "Do the whole job: extract, analyse, report.",
    "bottleneck": "Tune each component in turn and measure again: which one closes the gap?",
    "extract": "Run a model and store its activations.",
    "analyze": "Analyse what a run has stored, or a database of VLM-Lens.",
    "tune": "Train one component on labelled questions, and measure again.",
    "view": "Show runs in the browser: overview, samples, figures, features, side by side.",
    "report": "Write a run's report again, from its stored results.",
    "compare": "Compare runs, with tests on the differences.",
    "sites": "List the sites of a model.",
    "show": "Show what a run found, and what is in it or in a store.",
    "export": "Write columns to another store, safetensors, npz, npy, Parquet or HDF5.",
    "import": "Make a store from another store or an exported file.",
    "push": "Send a run to the Hugging Face hub, with a card that says what was found.",
    "pull": "Fetch a run from the Hugging Face hub.",
    "merge": "Copy what several processes wrote into one store.",
    "verify": "Read every stored chunk, compare checksums, and look for what is missing.",
    "plugins": "List, show and check the installed plugins.",
    "new": "Write a new plugin as a package, with tests.",
    "schema": "Print the JSON schema of the run file, for editors.",
    "estimate": "Estimate the size of a run, and its time with --time.",
    "doctor": "Check this environment.",
    "version": "Print the versions of vlmlens, its plugin API, and Python.",
}
"""The built-in commands in the order of `--help`, each with the first line of its help.

A command is a function in the module of its name, or a Typer `app` if it has sub-commands.
"""


class Deferred(TyperCommand):
    """A command that is imported only when it is chosen."""

    def made(self) -> Any:
        """The command itself."""
        name = str(self.name)
        own = name if name.isidentifier() and name != "import" else f"{name}_"
        module = import_module(f"vlmlens.cli.{own}")
        app = getattr(module, "app", None) or _app_of(name, getattr(module, own))
        command = typer.main.get_command(app)
        command.name = name
        spare_conversions(command)
        grouped(command)
        return command


class Commands(TyperGroup):
    """The built-in commands. Plugins' commands are loaded for a list or an unknown name."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._extended = False
        for name, text in COMMANDS.items():
            self.add_command(Deferred(name, help=text))

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands: the built-in ones in their own order, then those of plugins."""
        self._extend()
        return [*COMMANDS, *sorted(set(self.commands) - set(COMMANDS))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, perhaps not yet imported; None if there is none."""
        if cmd_name not in self.commands:
            self._extend()
        return super().get_command(ctx, cmd_name)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """The context of a command line."""
        spare_conversions(self)
        grouped(self)
        return super().make_context(*args, **extra)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The chosen command, imported."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except _USAGE as error:
            raise fit_to_show(with_our_word(error, args[0])) from None
        return name, command.made() if isinstance(command, Deferred) else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command; errors become messages and exit codes here."""
        from vlmlens.cli._messages import report, show_warnings
        from vlmlens.cli._output import Output, current, spell_out

        show_warnings()
        spell_out()
        current.set(Output())
        try:
            return super().invoke(ctx)
        except _USAGE as error:
            raise fit_to_show(with_our_word(error)) from None
        except _CONTROL:
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(report(error, current.get())) from error

    def _extend(self) -> None:
        if not self._extended:
            self._extended = True
            from vlmlens.cli._extras import extra_commands

            self.commands.update(extra_commands(set(self.commands)))


def spare_conversions(command: Any) -> None:
    """Skip Typer's conversion of values that were not given.

    It imports pydantic for every option, which would take most of the time of a light command.
    """
    command.get_params = partial(_parameters, command)
    for part in getattr(command, "commands", {}).values():
        spare_conversions(part)


def _parameters(command: Any, ctx: Any) -> list[Any]:
    parameters: list[Any] = type(command).get_params(command, ctx)
    for parameter in parameters:
        parameter.process_value = partial(_process_value, parameter, type(parameter).process_value)
    return parameters


def _process_value(parameter: Any, convert: Callable[..., Any], ctx: Any, value: Any) -> Any:
    if ctx.resilient_parsing:
        return value
    if value is not None or parameter.required:
        return convert(parameter, ctx, value)
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)


def _app_of(name: str, function: Any) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(function)
    return app


app = typer.Typer(
    name="vlmlens",
    cls=Commands,
    help="""Look inside vision-language models: what each layer encodes, where the answer forms, and
    whether the model looks at the image.

    Examples:
        vlmlens look photo.jpg "What is it?"   # one picture, one question
        vlmlens run                         # demo model and demo images, offline, about a minute
        vlmlens show runs/demo-001          # what was found
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vlmlens {__version__}")
        raise typer.Exit


@app.callback()
def vlmlens(
    version: Annotated[
        bool,
        Option(
            "--version", "-V", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Holds the flags of the program itself."""
