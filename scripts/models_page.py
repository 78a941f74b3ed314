"""Print the tables of docs/models.md from the manifests in this checkout.

Use: python -m scripts.models_page > tables.md, or with --write to put it into the page.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/models.md"
CHECKED = ROOT / "docs/checked-checkpoints.json"
"""What `scripts.check_checkpoints --write` found on full checkpoints."""
BEGIN, END = "<!-- {}: scripts/models_page.py -->", "<!-- end of table -->"


def manifests() -> list[Manifest]:
    """The adapter manifests of every distribution under adapters/, and the generic one, by name."""
    found = {manifest.name: manifest for path in _files() for manifest in _in_file(path)}
    return [found[name] for name in sorted(found)]


def tables() -> dict[str, str]:
    """The tables, by what their beginning is marked with."""
    known = [f"| `{m.name}` | {limit} |" for m in manifests() for limit in m.limits]
    checkpoints = [_row(m.name, each) for m in manifests() for each in m.checkpoints]
    return {
        "limits": _table(("adapter", "what cannot be done, and why"), known),
        "checked": checked(),
        "table": _table(("adapter", "checkpoint", "parameters", "gated", "licence"), checkpoints),
    }


def checked() -> str:
    """The table of full checkpoints that were run; where none was, a sentence that says so."""
    if not CHECKED.is_file():
        return "**No full checkpoint has been run yet.**"
    found = json.loads(CHECKED.read_text(encoding="utf-8"))
    headers = ("checkpoint", "adapter", "kit", "analyses", "answer to the question", "under")
    return _table(headers, [_checked_row(name, about) for name, about in found.items()])


def page() -> str:
    """The page with its tables replaced."""
    text = PAGE.read_text(encoding="utf-8")
    for mark, table in tables().items():
        begin = BEGIN.format(mark)
        head, rest = text.split(begin)
        _, tail = rest.split(END, 1)
        text = f"{head}{begin}\n\n{table}\n\n{END}{tail}"
    return text


def _table(headers: Sequence[str], rows: Sequence[str]) -> str:
    return "\n".join([f"| {' | '.join(headers)} |", f"|{'---|' * len(headers)}", *rows])


def _files() -> Iterator[Path]:
    yield from sorted((ROOT / "adapters").glob("*/vlmlens_adapter_*/**/manifest.py"))
    yield ROOT / "plugins/vlmlens_plugins/hf/manifests.py"


def _in_file(path: Path) -> list[Manifest]:
    spec = importlib.util.spec_from_file_location(f"_{path.parent.name}_manifest", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = (value for value in vars(module).values() if isinstance(value, Manifest))
    return [value for value in values if value.kind is PluginKind.ADAPTER]


def _row(adapter: str, checkpoint: Checkpoint) -> str:
    size = "" if checkpoint.parameters is None else f"{checkpoint.parameters:g} B"
    gated = "yes" if checkpoint.gated else "no"
    return f"| `{adapter}` | {checkpoint.id} | {size} | {gated} | {checkpoint.licence or ''} |"


def _checked_row(name: str, about: Mapping[str, Any]) -> str:
    by_outcome = about["analyses"]
    analyses = "; ".join(
        f"{outcome}: {', '.join(steps)}" for outcome, steps in by_outcome.items() if steps
    )
    versions = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
    at = f" at {about['commit']}" if about["commit"] else ""
    under = f"{about['date']}, {about['device']}, {versions}{at}"
    cells = map(_cell, (about["kit"], analyses, about["question"], under))
    return f"| {name} | `{about['adapter']}` | {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text from outside as a cell of a table: on one line, and no HTML, links or more cells."""
    return re.sub(r"([|\\<>\[\]*_`])", r"\\\1", " ".join(text.split()))


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print("\n\n".join(tables().values()))


if __name__ == "__main__":
    main()
