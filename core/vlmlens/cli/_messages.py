"""Warnings, errors and hints on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback

import typer

from vlmlens._clean import fit_to_say, redacted
from vlmlens._disk import disk_error
from vlmlens.cli._output import Output
from vlmlens.errors import VlmlensError

INTERRUPTED = 130


class WarningLines(logging.Handler):
    """Prints log records of vlmlens as lines on the current stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        say("warning", record.getMessage(), "yellow")


def show_warnings() -> None:
    """Send the log of vlmlens to stderr; calling it again changes nothing."""
    log = logging.getLogger("vlmlens")
    log.propagate = False
    if not any(isinstance(handler, WarningLines) for handler in log.handlers):
        log.addHandler(WarningLines(logging.WARNING))


def say(word: str, message: str, colour: str) -> None:
    """One line on stderr that begins with a coloured word."""
    plain = "NO_COLOR" in os.environ
    head = f"{word}:" if plain else typer.style(f"{word}:", fg=colour, bold=True)
    typer.echo(f"{head} {fit_to_say(message)}", err=True)


def report(error: BaseException, output: Output) -> int:
    """Tell the user about an error.

    Returns:
        The exit code: 2 if the user can repair it, 130 after Ctrl-C, 128 + N after another signal
        N, 1 for a bug.
    """
    if isinstance(error, KeyboardInterrupt):
        say("interrupted", output.resume_hint or "No file is left half written.", "yellow")
        return getattr(error, "exit_code", INTERRUPTED)
    if isinstance(error, OSError):
        error = disk_error(error) or error
    if isinstance(error, VlmlensError):
        _expected(error, output)
        return error.exit_code
    _print_traceback(error)
    say("error", f"{type(error).__name__}: {error}", "red")
    say("hint", "This is a bug in vlmlens or in a plugin: please report the lines above.", "cyan")
    _document(error, str(error), "", output)
    return 1


def _expected(error: VlmlensError, output: Output) -> None:
    if output.debug:
        _print_traceback(error)
    say("error", error.message, "red")
    if error.hint:
        say("hint", error.hint, "cyan")
    _document(error, error.message, error.hint, output)


def _print_traceback(error: BaseException) -> None:
    sys.stderr.write(fit_to_say("".join(traceback.format_exception(error))))


def _document(error: BaseException, message: str, hint: str, output: Output) -> None:
    if output.json:
        said = {"message": redacted(message), "hint": redacted(hint)}
        typer.echo(json.dumps({"error": {"type": type(error).__name__, **said}}, indent=2))
