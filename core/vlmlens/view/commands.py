"""What is shown as a command or as Python, with a button that copies it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlmlens.report._markup import Markup, tag

if TYPE_CHECKING:
    from vlmlens.results import Result
    from vlmlens.view.shown_run import ShownRun

_TUNED = "tuned "
"""How a change begins that put something tuned into the model; it is kept by its digest alone."""


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


@dataclass(frozen=True)
class Asked:
    """What an analysis of a stored run was asked for.

    Args:
        run: The run's folder.
        name: The analysis, with its label.
        options: Its options.
        settings: Others, by their names in Python: `samples`, `seed`, `edits`, `tuned`.
    """

    run: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: ShownRun, result: Result) -> Asked:
        """What a result was asked for.

        Of an analysis that the run's spec does not name, all options are given: which of them are
        the defaults is not kept.
        """
        name, info = result.analysis, run.run.info
        given = run.run.spec.analysis.get(name)
        changes = [str(each) for each in info.get("edited", {}).get(name, ())]
        seed = info.get("seeds", {}).get(name)
        settings = {
            "samples": info.get("drawn", {}).get(name),
            "seed": None if seed == run.run.spec.seed else seed,
            "edits": [each for each in changes if not each.startswith(_TUNED)] or None,
            "tuned": "CHECKPOINT" if any(each.startswith(_TUNED) for each in changes) else None,
        }
        known = {key: value for key, value in settings.items() if value is not None}
        return cls(str(run.run.path), name, result.options if given is None else given, known)

    def shell(self) -> str:
        """The command.

        >>> print(Asked("runs/a b", "probe", {"folds": 3}, {"samples": 9}).shell())
        vlmlens analyze 'runs/a b' --analysis probe --set analysis.probe.folds=3 --samples 9
        """
        parts = ["vlmlens", "analyze", self.run, "--analysis", self.name]
        for key, value in self.options.items():
            parts += ["--set", f"analysis.{self.name}.{key}={_yaml(value)}"]
        for key, value in self.settings.items():
            for each in value if isinstance(value, list) else [value]:
                parts += ["--edit" if key == "edits" else f"--{key}", str(each)]
        return shlex.join(parts)

    def python(self) -> str:
        """The same in Python.

        >>> print(Asked("runs/a", "probe", {"folds": 3}, {"samples": 9}).python())
        import vlmlens
        <BLANKLINE>
        results = vlmlens.analyze("runs/a", {"probe": {"folds": 3}}, samples=9)
        """
        asked = _literal({self.name: dict(self.options)} if self.options else self.name)
        more = [f"{key}={_literal(value)}" for key, value in self.settings.items()]
        called = ", ".join([_text(self.run), asked, *more])
        return f"import vlmlens\n\nresults = vlmlens.analyze({called})"


def repeat_analysis(run: ShownRun, result: Result) -> Markup:
    """How an analysis is repeated, as a command and as Python."""
    asked = Asked.of(run, result)
    return tag(
        "div",
        copied(asked.shell(), "The command", "Copy as command"),
        copied(asked.python(), "The same in Python", "Copy as Python"),
        class_="commands",
    )


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
