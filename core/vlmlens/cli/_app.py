"""The Typer application: the commands, those of plugins, and one place where errors end."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from vlmlens.cli._extras import extra_commands
from vlmlens.cli._messages import report as tell
from vlmlens.cli._output import Output, current
from vlmlens.cli.analyze import analyze
from vlmlens.cli.compare import compare
from vlmlens.cli.doctor import doctor
from vlmlens.cli.estimate import estimate
from vlmlens.cli.export import export
from vlmlens.cli.extract import extract
from vlmlens.cli.import_ import import_
from vlmlens.cli.merge import merge
from vlmlens.cli.new import new
from vlmlens.cli.plugins import app as plugins
from vlmlens.cli.report import report
from vlmlens.cli.run import run
from vlmlens.cli.show import show
from vlmlens.cli.sites import sites
from vlmlens.cli.verify import verify
from vlmlens.cli.version import version

# Usage errors, `--help` and the like are Typer's own to print. The base of its usage errors has no
# public name in every Typer, and is not click's: Typer carries a copy of click.
_USAGE: type[Exception] = next(
    cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException"
)
_CONTROL = (typer.Exit, typer.Abort, BrokenPipeError, _USAGE)


_BUILT_IN = (
    "run", "extract", "analyze", "report", "compare", "sites", "show", "export", "import", "merge",
    "verify", "plugins", "new", "estimate", "doctor", "version",
)  # fmt: skip


class Commands(TyperGroup):
    """The built-in commands; those of plugins are loaded when listed or when nothing else fits."""

    _extended = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        self._extend()
        names = super().list_commands(ctx)
        return sorted(names, key=_rank)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, or None."""
        if cmd_name not in self.commands:
            self._extend()
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; errors become messages and exit codes here."""
        current.set(Output())
        try:
            return super().invoke(ctx)
        except _CONTROL:
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(tell(error, current.get())) from error

    def _extend(self) -> None:
        if not self._extended:
            self._extended = True
            self.commands.update(extra_commands(set(self.commands)))


def _rank(name: str) -> tuple[int, str]:
    """Built-in commands in their own order, then those of plugins by name."""
    return (_BUILT_IN.index(name) if name in _BUILT_IN else len(_BUILT_IN), name)


app = typer.Typer(
    name="vlmlens",
    cls=Commands,
    help="Look inside vision-language models: activations, probes, logit lens, blind test.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run,
    extract,
    analyze,
    report,
    compare,
    sites,
    show,
    export,
    merge,
    verify,
    new,
    estimate,
    doctor,
    version,
):
    app.command()(command)
app.command("import")(import_)
app.add_typer(plugins, name="plugins")
