"""Commands that need no model: they are quick, import nothing heavy, and fail politely."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import _program

HEAVY = (
    "torch",
    "transformers",
    "sklearn",
    "scipy",
    "matplotlib",
    "pyarrow",
    "lmdb",
    "numpy",
    "pydantic",
    "yaml",
)
UNNEEDED = (*HEAVY, "rich.console", "importlib.metadata", "email")
COMMANDS = (
    "look",
    "run",
    "bottleneck",
    "extract",
    "analyze",
    "tune",
    "view",
    "report",
    "compare",
    "sites",
    "show",
    "export",
    "import",
    "push",
    "pull",
    "merge",
    "verify",
    "plugins",
    "new",
    "schema",
    "estimate",
    "doctor",
    "version",
)
PROBE = """
import atexit, os, sys
def heavy():
    watched = os.environ["WATCHED"].split()
    print("HEAVY", [name for name in watched if name in sys.modules], file=sys.__stderr__)
atexit.register(heavy)
from vlmlens.cli import main
main()
"""


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *args],
        env={**os.environ, "COLUMNS": "200", **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def vlmlens(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return _program.vlmlens(*args, COLUMNS="200", **env)


@pytest.mark.parametrize(
    ("args", "env"),
    [
        (("--help",), {}),
        (("run", "--help"), {}),
        (("plugins", "--help"), {}),
        (("plugins", "list"), {}),
        (("plugins", "list", "--json"), {}),
        (("version",), {}),
        ((), {"_VLMLENS_COMPLETE": "complete_bash", "COMP_WORDS": "vlmlens run --adapter d",
              "COMP_CWORD": "3"}),
    ],
)  # fmt: skip
def test_nothing_heavy_is_imported(args: tuple[str, ...], env: dict[str, str]) -> None:
    done = python("-c", PROBE, *args, WATCHED=" ".join(HEAVY), **env)
    assert done.stderr.splitlines()[-1] == "HEAVY []", done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("args", [("--help",), ("plugins", "list"), ("plugins", "list", "--json")])
def test_not_even_what_prints_tables_is_imported(args: tuple[str, ...]) -> None:
    done = python("-c", PROBE, *args, WATCHED=" ".join(UNNEEDED))
    assert done.stderr.splitlines()[-1] == "HEAVY []", done.stderr


def test_what_help_shows_is_what_the_commands_say() -> None:
    from importlib import import_module

    from vlmlens.cli import _app

    for name, text in _app.COMMANDS.items():
        module = import_module(f"vlmlens.cli.{'import_' if name == 'import' else name}")
        if hasattr(module, "app"):
            said = module.app.info.help
        else:
            said = getattr(module, "import_" if name == "import" else name).__doc__
        assert said.splitlines()[0] == text, name


def test_the_watch_for_heavy_imports_works() -> None:
    done = python("-c", "import scipy\n" + PROBE, "version", WATCHED="torch scipy")
    assert "HEAVY ['scipy']" in done.stderr


def test_help_lists_every_command() -> None:
    done = vlmlens("--help")
    listed = [
        line.split()[0]
        for line in done.stdout.partition("Commands:")[2].splitlines()
        if line.strip()
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert tuple(listed) == COMMANDS


@pytest.mark.parametrize("command", [*COMMANDS, "plugins list", "plugins show"])
def test_every_command_has_help(command: str) -> None:
    done = vlmlens(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: vlmlens {command} ")


def test_version() -> None:
    from vlmlens import __version__

    assert __version__ in vlmlens("version").stdout
    assert json.loads(vlmlens("version", "--json").stdout)["vlmlens"] == __version__


def test_plugins_list_and_show() -> None:
    rows = json.loads(vlmlens("plugins", "list", "--json").stdout)["plugins"]
    assert {row["state"] for row in rows if row["distribution"] == "vlmlens"} == {"ok"}
    only = json.loads(vlmlens("plugins", "list", "--kind", "storage", "--json").stdout)["plugins"]
    assert {row["kind"] for row in only} == {"storage"}
    (images,) = json.loads(vlmlens("plugins", "show", "images", "--json").stdout)["plugins"]
    assert images["kind"] == "dataset"
    assert {
        "name": "recursive",
        "type": "bool",
        "required": False,
        "default": True,
        "help": "Look into sub-folders.",
    } in images["options"]
    text = vlmlens("plugins", "show", "images").stdout
    assert "recursive" in text
    assert "Look into sub-folders." in text


def test_limits_are_shown_a_line_each() -> None:
    show = ("plugins", "show", "hf", "--kind", "adapter")
    (hf,) = json.loads(vlmlens(*show, "--json").stdout)["plugins"]
    lines = [" ".join(line.split()) for line in vlmlens(*show).stdout.splitlines()]
    first = lines.index(f"limits {hf['limits'][0]}")
    more = hf["limits"][1:]
    assert lines[first + 1 : first + 1 + len(more)] == more != []


def test_a_lifecycle_plugin_is_shown() -> None:
    (shown,) = json.loads(vlmlens("plugins", "show", "run-log", "--json").stdout)["plugins"]
    assert (shown["kind"], shown["from"].split()[0]) == ("plugin", "vlmlens")
    assert "vlmlens_run_started" in shown["hooks"]
    assert "to" in {option["name"] for option in shown["options"]}
    text = vlmlens("plugins", "show", "vlmlens:timing").stdout
    assert text.startswith("plugin timing: Writes plugins/timing.json")


def test_options_are_shown_with_readable_types() -> None:
    named = json.loads(vlmlens("plugins", "show", "attention", "--json").stdout)["plugins"]
    (attention,) = (each for each in named if each["kind"] == "extractor")
    types = {option["name"]: option["type"] for option in attention["options"]}
    assert types["heads"] == "list of int | none"
    assert types["regions"].startswith('list of ("image" | "text" | ')
    text = vlmlens("plugins", "show", "lmdb").stdout
    assert "int >= 65536 and <= " in text
    assert text.splitlines()[1].split()[:2] == ["from", "vlmlens"]


@pytest.mark.parametrize(
    ("args", "kind", "says"),
    [
        (("run", "--adapter", "dmeo"), "UnknownPlugin", "Did you mean demo"),
        (("run", "--storage", "lmbd"), "UnknownPlugin", "Did you mean lmdb?"),
        (("run", "--batch-size", "0"), "SpecError", "batch_size = 0"),
        (("run", "--set", "batchsize=4"), "SpecError", "Did you mean batch_size"),
        (("run", "--set", "options.storge={}"), "SpecError", "Did you mean storage"),
        (("run", "--set", "limit"), "SpecError", "--set analysis.probe.folds=10"),
        (("run", "-c", "no-such.yaml"), "SpecError", "no-such.yaml"),
        (("run", "--data", "no-such-folder"), "DataNotFound", "no-such-folder"),
        (("run", "--dtype", "int8"), "SpecError", "dtype = 'int8'"),
        (("show", "no-such-run"), "RunNotFound", "no-such-run"),
        (("analyze", "no-such-run"), "RunNotFound", "no-such-run"),
        (("plugins", "show", "porbe"), "UnknownPlugin", "Did you mean probe"),
    ],
)
def test_mistakes(args: tuple[str, ...], kind: str, says: str) -> None:
    done = vlmlens(*args, "--json")
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert error["type"] == kind
    assert says in error["message"] + error["hint"]
    lines = done.stderr.splitlines()
    assert lines[0] == f"error: {error['message']}"
    assert lines[1:] == ([f"hint: {error['hint']}"] if error["hint"] else [])


def test_debug_shows_where_it_happened() -> None:
    done = vlmlens("run", "--adapter", "dmeo", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "args",
    [
        ("run", "--nonsense"),
        ("runn",),
        ("plugins", "show"),
        ("run", "--limit", "x"),
        ("plugins", "list", "--kind", "x"),
    ],
)
def test_usage_errors(args: tuple[str, ...]) -> None:
    done = vlmlens(*args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_bug() -> None:
    command = f"{sys.executable} -m vlmlens plugins list --json | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "bug" not in done.stderr


# ---------------------------------------------------------------------- plugins of others

HOOK = "from vlmlens.abc.hookspecs import hookimpl\n@hookimpl\ndef vlmlens_commands():\n"
CLICK = """
import click

@click.group()
@click.option("--loud", is_flag=True, help="Shout.")
@click.pass_context
def greet(ctx, loud):
    "Greets people."
    ctx.obj = loud

@greet.command()
@click.argument("names", nargs=-1)
@click.option("--times", "-t", default=1)
@click.pass_context
def hello(ctx, names, times):
    "Says hello."
    line = "hello " + " ".join(names)
    for _ in range(times):
        click.echo(line.upper() if ctx.obj else line)

@greet.command()
@click.argument("code", type=int)
@click.pass_context
def leave(ctx, code):
    ctx.exit(code)

@greet.command()
def number():
    return 5

@greet.command()
def trouble():
    raise click.ClickException("no luck")

@greet.command()
def ours():
    from vlmlens.errors import DataNotFound
    raise DataNotFound("No such thing.", hint="Look again.")

@greet.command()
def bug():
    raise ZeroDivisionError("oops")

@greet.command()
def wait():
    raise KeyboardInterrupt

@click.command(help="One command.")
@click.option("--size", type=int, required=True)
def single(size):
    click.echo(size * 2)
"""
TYPER = """
import typer

app = typer.Typer(help="Counts things.")

@app.command()
def up(to: int, step: int = 1):
    "Counts up."
    typer.echo(" ".join(str(i) for i in range(0, to, step)))

@app.command()
def leave(code: int):
    raise typer.Exit(code)

one = typer.Typer()

@one.command()
def alone(word: str, twice: bool = False):
    "Just one."
    typer.echo(word * (2 if twice else 1))
"""


def install(folder: Path, name: str, group: str, value: str, **modules: str) -> None:
    """A real distribution in a folder, as pip would leave it."""
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
    info = folder / f"{name.replace('-', '_')}-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A path with packages of third parties, some of them bad."""
    folder = tmp_path_factory.mktemp("site")
    source = CLICK + HOOK + "    return {'greet': greet, 'single': single}\n"
    install(folder, "x-click", "vlmlens.plugins", "x_click", x_click=source)
    source = TYPER + HOOK + "    return {'count': app, 'alone': one, 'run': app}\n"
    install(folder, "x-typer", "vlmlens.plugins", "x_typer", x_typer=source)
    install(folder, "x-odd", "vlmlens.plugins", "x_odd", x_odd=HOOK + "    return {'odd': 3}\n")
    install(folder, "x-none", "vlmlens.plugins", "x_none", x_none=HOOK + "    return 3\n")
    install(folder, "x-fails", "vlmlens.plugins", "x_fails", x_fails=HOOK + "    1 / 0\n")
    install(folder, "x-broken", "vlmlens.plugins", "x_broken", x_broken="import no_such_thing\n")
    install(folder, "x-probe", "vlmlens.analyses", "x_probe:CARD", x_probe="1 / 0\n")
    return str(folder)


def test_help_survives_bad_plugins(others: str) -> None:
    done = vlmlens("--help", PYTHONPATH=others)
    commands = done.stdout.partition("Commands:")[2]
    assert done.returncode == 0
    assert "Greets people." in commands
    assert "Counts things." in commands
    assert "  odd" not in commands
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == len(done.stderr.splitlines()) == 5
    for word in ("x-broken", "x-fails", "'run'", "'odd'", "by name, not 3"):
        assert any(word in line for line in warnings), word


@pytest.mark.parametrize(
    ("args", "code", "out", "err"),
    [
        ("greet hello a b -t 2", 0, "hello a b\nhello a b\n", ""),
        ("greet --loud hello a", 0, "HELLO A\n", ""),
        ("greet leave 7", 7, "", ""),
        ("greet number", 0, "", ""),
        ("greet trouble", 1, "", "no luck"),
        ("greet hello --tims 2", 2, "", "No such option"),
        ("greet ours", 2, "", "error: No such thing.\nhint: Look again.\n"),
        ("greet bug", 1, "", "This is a bug"),
        ("greet wait", 130, "", "interrupted"),
        ("single --size 4", 0, "8\n", ""),
        ("single", 2, "", "--size"),
        ("count up 4 --step 2", 0, "0 2\n", ""),
        ("count leave 9", 9, "", ""),
        ("count up x", 2, "", "Invalid value for 'to'"),
        ("alone ab --twice", 0, "abab\n", ""),
    ],
)
def test_commands_of_others(others: str, args: str, code: int, out: str, err: str) -> None:
    done = vlmlens(*args.split(), PYTHONPATH=others)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
    assert err in done.stderr


@pytest.mark.parametrize(
    ("args", "usage", "text"),
    [
        ("greet --help", "Usage: vlmlens greet [OPTIONS] COMMAND", "Shout."),
        ("greet hello --help", "Usage: vlmlens greet hello [OPTIONS] [NAMES]", "--times"),
        ("single --help", "Usage: vlmlens single [OPTIONS]", "One command."),
        ("count up --help", "Usage: vlmlens count up", "Counts up."),
        ("alone --help", "Usage: vlmlens alone", "--twice"),
    ],
)
def test_help_of_commands_of_others(others: str, args: str, usage: str, text: str) -> None:
    done = vlmlens(*args.split(), PYTHONPATH=others)
    assert done.returncode == 0
    assert usage in done.stdout
    assert text in done.stdout


def test_broken_plugins_are_listed_with_their_errors(others: str) -> None:
    done = vlmlens("plugins", "list", PYTHONPATH=others)
    assert done.returncode == 0
    assert "BROKEN" in done.stdout
    assert "ZeroDivisionError" in done.stdout
    rows = json.loads(vlmlens("plugins", "list", "--json", PYTHONPATH=others).stdout)["plugins"]
    states = {row["name"]: (row["state"], row["distribution"]) for row in rows}
    assert states["x-probe"] == ("broken", "x-probe")
    assert states["x-broken"] == ("broken", "x-broken")
    assert states["x-click"] == ("ok", "x-click")
    shown = vlmlens("plugins", "show", "x-probe", PYTHONPATH=others)
    assert shown.returncode == 2
    assert "ZeroDivisionError" in shown.stderr


def test_a_plugin_of_others_does_not_replace_run(others: str) -> None:
    done = vlmlens("run", "--help", PYTHONPATH=others)
    assert "--adapter" in done.stdout
