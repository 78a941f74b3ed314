"""Which files a run has on the hub; everything else stays where it is."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from vlmlens._files import is_temporary

CARD = "README.md"
_PLAIN = ("run.json", "spec.yaml", "samples.jsonl", "skipped.jsonl", "generated.jsonl")
_RESULT = r"results/[\w@-]{1,200}\.json"
_PICTURE = r"images/[0-9a-f]{64}\.png"
_COLUMNS = r"columns/(?:meta\.json|index\.json\.gz|parts/\d{1,20}\.safetensors)"
_READ = re.compile("|".join([*map(re.escape, _PLAIN), _RESULT, _PICTURE, _COLUMNS]), re.ASCII)
_SHOWN = re.compile(
    rf"{re.escape(CARD)}|report\.html|results/[\w@-]{{1,200}}\.[\w@-]{{1,200}}\.(?:parquet|svg)",
    re.ASCII,
)
_OF_THE_HUB = (".gitattributes",)

_REASONS = {
    "units.": "what the model did for analyses, kept for going on with the run",
    "leases": "what several processes wrote; texts and columns are read from it",
    "shards": "what several processes wrote; texts and columns are read from it",
    "plugins": "files of lifecycle plugins, which may hold logs and addresses",
    "tuned": "what was tuned",
    "papers": "files for papers, which may hold pictures",
    "images": "pictures; --images sends those that samples have",
    "columns": "activations; --activations sends them",
}
_SILENT = ("run.lock", "report.html", *_PLAIN)


def is_read(name: str) -> bool:
    """Whether `pull` reads a file of that name: data, in a form that cannot do anything."""
    return _READ.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Whether `push` writes files of that name, or the hub does."""
    return is_read(name) or _SHOWN.fullmatch(name) is not None or name in _OF_THE_HUB


def left_out(folder: Path, sent: Collection[str]) -> dict[str, str]:
    """What of a run's folder is not sent, each with the reason.

    Args:
        folder: The run's folder.
        sent: Names of the files that are sent.
    """
    tops = {name.partition("/")[0] for name in sent if not name.startswith("columns/")}
    tops |= {"columns" for name in sent if name.startswith("columns/parts/")}
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name not in {*_SILENT, *tops, "results"} and not is_temporary(path.name):
            found[path.name] = _reason(path.name)
    results = folder / "results"
    others: dict[str, list[str]] = {}
    for path in sorted(results.iterdir()) if results.is_dir() else ():
        if f"results/{path.name}" not in sent and not is_temporary(path.name):
            others.setdefault(path.name.partition(".")[0], []).append(path.name)
    for start, names in others.items():
        name = names[0] if len(names) == 1 else f"{start}.* ({len(names)} files)"
        found[f"results/{name}"] = "no result, or a file of an analysis beside its result"
    return found


def _reason(name: str) -> str:
    known = (why for start, why in _REASONS.items() if name.startswith(start))
    return next(known, "not a file of vlmlens")
