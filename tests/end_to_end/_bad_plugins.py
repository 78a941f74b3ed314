"""Distributions of third parties, each bad in its own way, as pip would leave them in a folder."""

from __future__ import annotations

from pathlib import Path

CARD = """
from vlmlens.manifest import Manifest, PluginKind
CARD = Manifest(PluginKind.{kind}, {name!r}, {target!r}, "Help.", **{more})
"""
GROUPS = {
    "ADAPTER": "vlmlens.adapters",
    "EXTRACTOR": "vlmlens.extractors",
    "STORAGE": "vlmlens.storage",
    "DATASET": "vlmlens.datasets",
    "ANALYSIS": "vlmlens.analyses",
    "INTERVENTION": "vlmlens.interventions",
}
FOREVER = "import time\nwhile True: time.sleep(0.05)\n"
NOISE = "import os\nprint('NOISE of python')\nos.write(1, b'NOISE of the system\\n')\n"
CHATTER = "import time\nwhile True:\n    time.sleep(0.2)\n    print('NOISE later')\n"
HOOK = "from vlmlens.abc.hookspecs import hookimpl\n@hookimpl\ndef vlmlens_commands():\n"


def card(kind: str, name: str, target: str = "no_such_code:X", **more: object) -> str:
    """The source of a module with one manifest."""
    return CARD.format(kind=kind, name=name, target=target, more=more)


def install(folder: Path, name: str, group: str, source: str, point: str = "", **more: str) -> None:
    """One distribution: a module with the source, more modules, and an entry point."""
    module = f"{name.replace('-', '_')}_card"
    for stem, text in {module: source, **more}.items():
        (folder / f"{stem}.py").write_text(text)
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    value = module if group == "vlmlens.plugins" else f"{module}:CARD"
    (info / "entry_points.txt").write_text(f"[{group}]\n{point or name} = {value}\n")


def install_all(folder: Path) -> dict[str, str]:
    """Every kind of bad plugin.

    Returns:
        The state in which each is listed, by distribution.
    """
    analyses = {
        "bad-import": "1 / 0\n",
        "bad-syntax": "def (\n",
        "bad-exit": "import sys\nsys.exit(3)\n",
        "bad-interrupt": "raise KeyboardInterrupt\n",
        "bad-base": "class Odd(BaseException): ...\nraise Odd('no Exception')\n",
        "bad-module": "import no_such_module_at_all\n",
        "bad-card": "CARD = 1\n",
        "bad-nothing": "",
        "bad-name": card("ANALYSIS", "bad-name").replace("'bad-name'", "7"),
        "bad-kind": card("STORAGE", "bad-kind"),
        "bad-aliases": card("ANALYSIS", "bad-aliases", aliases="probe"),
        "bad-version": card("ANALYSIS", "bad-version", api_version="1"),
        "bad-target": card("ANALYSIS", "bad-target", target="no colon"),
    }
    states = dict.fromkeys(analyses, "broken")
    for name, source in analyses.items():
        install(folder, name, GROUPS["ANALYSIS"], source)
    install(folder, "new-api", GROUPS["STORAGE"], card("STORAGE", "new-api", api_version=99))
    install(
        folder, "lacking", GROUPS["ADAPTER"], card("ADAPTER", "lacking", requires=("no_such_one",))
    )
    install(folder, "twin-a", GROUPS["ANALYSIS"], card("ANALYSIS", "twin"), "twin")
    install(folder, "twin-b", GROUPS["ANALYSIS"], card("ANALYSIS", "twin"), "twin")
    for kind, own in (
        ("ADAPTER", "demo"),
        ("EXTRACTOR", "activations"),
        ("STORAGE", "lmdb"),
        ("DATASET", "demo"),
        ("ANALYSIS", "logit-lens"),
    ):
        install(folder, f"thief-{kind.lower()}", GROUPS[kind], card(kind, own), own)
        states[f"thief-{kind.lower()}"] = "ambiguous"
    install(folder, "hangs", GROUPS["ADAPTER"], CHATTER)
    install(folder, "hook-hangs", "vlmlens.plugins", FOREVER)
    install(folder, "hook-fails", "vlmlens.plugins", "1 / 0\n")
    install(folder, "hook-unknown", "vlmlens.plugins", HOOK.replace("commands", "no_such") + "    ")
    (folder / "hook_unknown_card.py").write_text(HOOK.replace("commands", "no_such") + "    pass\n")
    install(folder, "hook-raises", "vlmlens.plugins", HOOK + "    1 / 0\n")
    install(folder, "prints", GROUPS["STORAGE"], NOISE + card("STORAGE", "prints"))
    install(folder, "slow-card", GROUPS["ANALYSIS"], "import jax\n" + card("ANALYSIS", "slow-card"))
    (folder / "jax.py").write_text("import time\ntime.sleep(0.2)\n")
    target = "bad_reader_code:Reader"
    for name, source in {
        "bad-reader": NOISE + "1 / 0\n",
        "late-reader": FOREVER,
        "bad-store": "import sys\nsys.exit()\n",
    }.items():
        kind = "STORAGE" if name == "bad-store" else "DATASET"
        stem = name.replace("-", "_")
        target = f"{stem}_code:Found"
        install(folder, name, GROUPS[kind], card(kind, name, target), **{f"{stem}_code": source})
        states[name] = "ok"
    return states | {
        "new-api": "wrong-api-version",
        "lacking": "missing-dependency",
        "twin-a": "ambiguous",
        "twin-b": "ambiguous",
        "hangs": "slow",
        "hook-hangs": "slow",
        "hook-fails": "broken",
        "hook-unknown": "broken",
        "hook-raises": "ok",
        "prints": "ok",
        "slow-card": "ok",
    }
