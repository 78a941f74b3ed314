"""What is shown as a command or as Python, with a button that copies it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlmlens.report._markup import Markup, tag

if TYPE_CHECKING:
    from vlmlens.results import Result
    from vlmlens.view.shown_run import ShownRun


def copied(content: str, label: str, button: str) -> Markup:
    """Text with a button that copies it.

    Args:
        content: The text.
        label: What it is, for screen readers.
        button: What the button says.
    """
    shown = tag("pre", tag("code", content), tabindex="0", role="region", aria_label=label)
    press = tag("button", button, type="button", class_="more", data_copy="")
    return tag("div", shown, press, class_="copied")


def repeat_analysis(run: ShownRun, result: Result) -> Markup:
    """How an analysis is repeated, as a command and as Python."""
    options = options_of(run, result)
    shell = analysis_command(str(run.run.path), result.analysis, options)
    python = analysis_python(str(run.run.path), result.analysis, options)
    return tag(
        "div",
        copied(shell, "The command", "Copy as command"),
        copied(python, "The same in Python", "Copy as Python"),
        class_="commands",
    )


def options_of(run: ShownRun, result: Result) -> Mapping[str, Any]:
    """The options that were given; of an analysis that the spec does not name, all that it had."""
    given = run.run.spec.analysis.get(result.analysis)
    return result.options if given is None else given


def analysis_command(run: str, name: str, options: Mapping[str, Any]) -> str:
    """The command that analyzes a stored run.

    >>> print(analysis_command("runs/a b", "probe", {"targets": ["label"]}))
    vlmlens analyze 'runs/a b' --analysis probe --set 'analysis.probe.targets=["label"]'
    """
    parts = ["vlmlens", "analyze", run, "--analysis", name]
    for key, value in options.items():
        parts += ["--set", f"analysis.{name}.{key}={_yaml(value)}"]
    return shlex.join(parts)


def analysis_python(run: str, name: str, options: Mapping[str, Any]) -> str:
    """The same in Python.

    >>> print(analysis_python("runs/a", "probe", {"folds": 3}))
    import vlmlens
    <BLANKLINE>
    results = vlmlens.analyze("runs/a", {"probe": {"folds": 3}})
    """
    asked = _text(name) if not options else f"{{{_text(name)}: {_literal(dict(options))}}}"
    return f"import vlmlens\n\nresults = vlmlens.analyze({_text(run)}, {asked})"


def _yaml(value: Any) -> str:
    """A value as JSON, which is YAML, too."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_text(str(key))}: {_literal(each)}" for key, each in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return _text(value) if isinstance(value, str) else repr(value)


def _text(value: str) -> str:
    """A text as a Python literal in double quotes."""
    return json.dumps(value, ensure_ascii=False)
