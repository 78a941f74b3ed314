"""Print the table of docs/models.md from the manifests in this checkout.

Use: python -m scripts.models_page > table.md, or with --write to put it into the page.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from vlmlens.manifest import Checkpoint, Manifest, PluginKind

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/models.md"
BEGIN, END = "<!-- table: scripts/models_page.py -->", "<!-- end of table -->"


def manifests() -> list[Manifest]:
    """The adapter manifests of every distribution under adapters/, by name."""
    found = {manifest.name: manifest for path in _files() for manifest in _in_file(path)}
    return [found[name] for name in sorted(found)]


def table() -> str:
    """A row per checkpoint."""
    lines = [
        "| adapter | checkpoint | parameters | gated | licence |",
        "|---|---|---|---|---|",
    ]
    for manifest in manifests():
        lines += [_row(manifest.name, checkpoint) for checkpoint in manifest.checkpoints]
    return "\n".join(lines)


def page_with(text: str) -> str:
    """The page with its table replaced."""
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}"


def _files() -> Iterator[Path]:
    yield from sorted((ROOT / "adapters").glob("*/vlmlens_adapter_*/**/manifest.py"))


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
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        PAGE.write_text(page_with(table()), encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
