"""What a live view is as a command and as Python, ready to be copied."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmlens.view.live.edits import checked

if TYPE_CHECKING:
    from vlmlens.view.live.model import LiveModel
    from vlmlens.view.live.question import LiveQuestion

Commands = dict[str, "str | None"]

SETTINGS = (
    "adapter", "model", "revision", "device", "device_map", "dtype", "attention", "quantization",
    "trust_remote_code", "tuned", "merge_tuned",
)  # fmt: skip
"""What a command says of a model, beside its edits."""

_NONE: Commands = {"shell": None, "python": None}
_REGION = re.compile(r"image\.(region|rest)\b")
"""Rows that a sample of a run names, and a picture alone does not."""


def names_regions(edits: Sequence[str]) -> bool:
    """Whether edits change rows that only a sample of a run names: its regions."""
    return any(_REGION.search(edit) for edit in edits)


def look_commands(model: LiveModel, question: LiveQuestion) -> Commands:
    """The look that asks the same question of the same model; None where there is none.

    A look takes one picture of a file. A question without one, or with several, has no command.
    """
    picture = picture_of(model, question)
    edits = [*model.spec.edits, *checked(question.edits, model.runs)]
    if picture is None or not _can_be_said(model, edits):
        return dict(_NONE)
    return {
        "shell": _shell(model, question, picture, edits),
        "python": _python(model, question, picture, edits),
    }


def run_commands(
    model: LiveModel,
    question: LiveQuestion,
    analysis: str,
    options: Mapping[str, Any],
    sites: Sequence[str],
) -> Commands:
    """The run of an analysis on the same question; None where there is none.

    A command cannot cover a part of the picture; Python can.
    """
    picture = picture_of(model, question)
    edits = [*model.spec.edits, *checked(question.edits, model.runs)]
    if picture is None or not _can_be_said(model, edits):
        return dict(_NONE)
    shell = None
    if not question.covers:
        words = ["vlmlens", "run", "--data", picture, "--prompt", question.text]
        words += ["--analysis", analysis]
        for name, value in options.items():
            words += ["--set", f"analysis.{analysis}.{name}={json.dumps(value)}"]
        words += [word for site in sites for word in ("--sites", site)]
        words += [word for edit in edits for word in ("--edit", edit)]
        words += [word for pair in settings_of(model).items() for word in _flag(*pair)]
        shell = shlex.join(words)
    lines = [f'sample = vlmlens.Sample("picture", {question.text!r}, ({picture!r},))']
    if question.covers:
        edges = [cover.edges for cover in question.covers]
        lines.insert(0, "from vlmlens.covers import Cover, covered\n")
        lines.append(f"sample = covered(sample, [Cover.of(each) for each in {edges!r}])")
    given: dict[str, Any] = {"analysis": {analysis: dict(options)}}
    given |= {"sites": list(sites)} if sites else {}
    given |= {"edits": edits} if edits else {}
    given |= settings_of(model)
    named = ", ".join(f"{name}={value!r}" for name, value in given.items())
    lines.append(f"run = vlmlens.run(data=[sample], {named})")
    lines.append(f"for finding in run.results[{analysis!r}].findings:\n    print(finding.text)\n")
    return {"shell": shell, "python": "\n".join(["import vlmlens", *lines])}


def _can_be_said(model: LiveModel, edits: Sequence[str]) -> bool:
    """Whether the options of a look say all that is known of the model and its edits."""
    unsaid = model.spec.autocast or model.spec.options.adapter
    return not unsaid and not names_regions(edits)


def picture_of(model: LiveModel, question: LiveQuestion) -> str | None:
    """The file of the only picture of a question; None: it is no file, or not the only one."""
    if question.upload is not None:
        return model.uploads.get(question.upload).file
    if question.sample is None:
        return None
    sample = model.sample_of_run(*question.sample)
    (first, *more) = sample.images or (None,)
    if more or not isinstance(first, str) or sample.video is not None or sample.rules.changed():
        return None
    return shown_path(first) if model.tells_paths else Path(first).name


def shown_path(path: str) -> str:
    """A path as short as it can be from this process's folder."""
    near = os.path.relpath(path)
    return path if near.startswith("..") else near


def settings_of(model: LiveModel) -> Mapping[str, Any]:
    """The settings of the model that differ from the defaults."""
    usual = type(model.spec)()
    named = {name: getattr(model.given, name) for name in SETTINGS}
    return {name: value for name, value in named.items() if value != getattr(usual, name)}


def _shell(model: LiveModel, question: LiveQuestion, picture: str, edits: list[str]) -> str | None:
    if any("," in choice for choice in question.choices):
        return None
    words = ["vlmlens", "look"]
    words += [word for name, value in settings_of(model).items() for word in _flag(name, value)]
    if question.choices:
        words += ["--choices", ",".join(question.choices)]
    words += [word for cover in question.covers for word in ("--cover", str(cover))]
    words += [word for edit in edits for word in ("--edit", edit)]
    if picture.startswith("-") or question.text.startswith("-"):
        words.append("--")
    return shlex.join([*words, picture, question.text])


def _flag(name: str, value: Any) -> Iterator[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{flag}" if value else f"--no-{flag}"
    else:
        yield from (f"--{flag}", str(value))


def _python(model: LiveModel, question: LiveQuestion, picture: str, edits: list[str]) -> str:
    given: dict[str, Any] = {}
    if question.choices:
        given["choices"] = list(question.choices)
    if question.covers:
        given["covers"] = [cover.edges for cover in question.covers]
    if edits:
        given["edits"] = edits
    given |= settings_of(model)
    lines = [f"    {picture!r},", f"    {question.text!r},"]
    lines += [f"    {name}={value!r}," for name, value in given.items()]
    call = "\n".join(["look = vlmlens.look(", *lines, ")"])
    return f"import vlmlens\n\n{call}\nprint(look.answer)\n"
