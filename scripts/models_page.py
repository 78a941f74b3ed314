"""Print the tables of docs/models.md from the manifests in this checkout.

Use: python -m scripts.models_page > tables.md, or with --write to put it into the page.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/models.md"
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
        "table": _table(("adapter", "checkpoint", "parameters", "gated", "licence"), checkpoints),
    }


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
