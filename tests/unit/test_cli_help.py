"""Help pages: grouped flags, true defaults, examples that can be typed, one look for all."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vlmlens.cli._app import COMMANDS, app
from vlmlens.cli._help import EXPLAINED, GROUPS, OTHER_WORDS, grouped
from vlmlens.spec.model import DEFAULT_ANALYSES, DEMO_DATA, RunSpec

PAGES = [*COMMANDS, "plugins list", "plugins show", "plugins check"]


def page(line: str = "") -> str:
    done = CliRunner(env={"COLUMNS": "100"}).invoke(app, [*line.split(), "--help"])
    assert done.exit_code == 0
    return done.stdout


def said_default(text: str, flag: str) -> str:
    own = re.search(rf"^  (-\w, )?{flag}\b(.*?)^( {{2}}-|\n)", text, re.MULTILINE | re.DOTALL)
    assert own, flag
    found = re.search(r"\[default: (.*?)\]", " ".join(own[2].split()))
    return found[1] if found else ""


def test_flags_come_in_groups_and_each_once() -> None:
    text = page("run")
    found = [line.rstrip(":") for line in text.splitlines() if re.fullmatch(r"\w[\w ]*:", line)]
    assert found == ["Examples", *GROUPS[1:]]
    flags = re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)
    assert len(flags) == len(set(flags)) > 30


def test_defaults_are_those_of_the_spec() -> None:
    text, spec = page("run"), RunSpec()
    for name in ("adapter", "device", "dtype", "extractor", "storage", "batch_size",
                 "on_bad_sample", "seed"):  # fmt: skip
        flag = f"--{name.replace('_', '-')}"
        assert said_default(text, flag) == str(getattr(spec, name)), name
    assert said_default(text, "--analysis") == ", ".join(DEFAULT_ANALYSES)
    assert (
        said_default(text, "--share-prefix") == "share-prefix" == "share-prefix" * spec.share_prefix
    )
    assert said_default(text, "--compile") == "no-compile" == "no-compile" * (not spec.compile)
    assert DEMO_DATA in text


@pytest.mark.parametrize("name", PAGES)
def test_two_examples_that_can_be_typed(name: str) -> None:
    section = re.search(r"^Examples:\n((?:  .*\n)+)", page(name), re.MULTILINE)
    assert section
    lines = section[1].splitlines()
    assert len(lines) >= 2
    root: Any = typer.main.get_command(app)
    for line in lines:
        program, *words = shlex.split(line.partition(" > ")[0], comments=True)
        assert program == "vlmlens"
        assert " ".join(words).startswith(name)
        command, context = root, root.make_context("vlmlens", words[:1])
        while hasattr(command, "resolve_command"):
            own, command, words = command.resolve_command(context, words)
            arguments = list(words)
            context = command.make_context(own, arguments, parent=context)


def test_a_plugin_s_typer_command_looks_like_ours() -> None:
    theirs = typer.Typer(help="Counts.\n\nExamples:\n    vlmlens count up 3")

    @theirs.command()
    def up(
        to: int, loud: bool = typer.Option(False, help="Shout.", rich_help_panel="Speed")
    ) -> None:
        """Counts up."""

    @theirs.command()
    def down() -> None:
        """Counts down."""

    command: Any = typer.main.get_command(theirs)
    grouped(command)
    for words in ([], ["up"]):
        text = CliRunner().invoke(theirs, [*words, "--help"]).stdout
        assert "╭" in text, "Typer's own look has boxes"
    context = command.make_context("count", ["up", "3"])
    assert "\nExamples:\n  vlmlens count up 3\n" in command.get_help(context)
    own = command.commands["up"].get_help(command.commands["up"].make_context("up", ["3"]))
    assert "╭" not in own
    assert re.search(r"Speed:\n  --loud / --no-loud +Shout\.", own)


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str) -> None:
    from vlmlens import __version__

    assert CliRunner().invoke(app, [flag]).stdout == f"vlmlens {__version__}\n"


def test_words_of_other_tools_are_answered_with_ours() -> None:
    for given, ours in OTHER_WORDS.items():
        words = ["run", given, "x"] if given.startswith("-") else [given]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2
        assert f"{given}" in done.stderr
        assert f"Did you mean {ours}?" in done.stderr
        assert page(ours.split()[0]) if not given.startswith("-") else ours in page("run")
    assert (
        "Did you mean --batch-size?" in CliRunner().invoke(app, ["run", "--batch_size", "4"]).stderr
    )


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["run", "--output_path", "x"], "Did you mean --out?"),
        (["run", "--output_path=x"], "Did you mean --out?"),
        (["run", "--Output-Path", "x"], "Did you mean --out?"),
        (["report", "--output_path", "x", "a"], "Did you mean --to?"),
        (["compare", "-o", "x", "a", "b"], "Did you mean --to?"),
        (["run", "--task", "x"], "Did you mean --data? --analysis chooses what to find out."),
        (["analyze", "--tasks", "x", "a"], "--tasks. --analysis chooses what to find out."),
        (["show", "--tasks", "x", "a"], "--tasks. --analysis chooses what to find out."),
        (["run", "--model_args", "pretrained=x"], "--model_args. Use --model, --dtype"),
        (["run", "--model-args=x"], "Use --model, --dtype"),
        (["extract", "--log_samples"], "--log_samples. A run always keeps its samples"),
        (["validate", "x.yaml"], "Did you mean run --dry-run?"),
        (["ls"], "Did you mean plugins list?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_command_answers_with_a_word_that_it_has(words: list[str], answer: str) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert answer in done.stderr


def test_old_words_that_are_explained_name_what_there_is() -> None:
    every = page("run") + page("extract") + page("show")
    for text in EXPLAINED.values():
        for flag in re.findall(r"--[a-z-]+", text):
            assert flag in every, text
