"""Damaged and changed files of SAEs, in every format: one clear error, in bounded memory.

The hand-made files of the tests are flipped, cut and overwritten at random, and configurations get
values of other kinds. Each opening has a minute and 3 GiB of address space. It is good if it gives
an SAE that encodes rows, or ends with an error of vlmlens. Seeded; a minute.

    python -m benchmarks.attacks.damaged_saes
    python -m benchmarks.attacks.damaged_saes --rounds 5000 --seed 1
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tests.unit.test_sae_formats import CASES

from benchmarks.attacks.damaged_imports import bounded, noise
from vlmlens.errors import VlmlensError
from vlmlens_plugins.sae import open_sae, save_sae

STRANGE = (None, [], {}, [[]], {"a": 1}, ["a"], -1, 0, 1, 2.5, 10**40, 1e308, float("nan"), True,
           False, "", "x", "../..", "topk", "relu", "layer_norm", "6.0.0", "7")  # fmt: skip
KEYS = ("metadata", "k", "architecture", "normalize_activations", "activation_fn_str", "schema",
        "cls", "cfg", "trainer", "signed", "transcode", "skip_connection", "threshold",
        "rescale_acts_by_decoder_norm", "apply_b_dec_to_input")  # fmt: skip


def changed(value: Any, dice: random.Random) -> Any:
    """A configuration with one value of another kind, one less, or one more."""
    if not isinstance(value, dict) or not value:
        return json.loads(json.dumps(dice.choice(STRANGE)))
    key, turn = dice.choice(sorted(value)), dice.random()
    if turn < 0.15:
        value.pop(key)
    elif turn < 0.3:
        value[dice.choice(KEYS)] = changed(None, dice)
    else:
        value[key] = changed(value[key] if dice.random() < 0.5 else None, dice)
    return value


def lie(path: Path, dice: random.Random) -> None:
    """Change the configuration of an SAE; that of saev is the first line of its file."""
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    file = dice.choice(files)
    line, _, rest = file.read_bytes().partition(b"\n") if path.is_file() else (b"", b"", b"")
    text = line if path.is_file() else file.read_bytes()
    if not text.startswith(b"{"):
        return
    said = json.dumps(changed(json.loads(text), dice)).encode()
    file.write_bytes(said + b"\n" + rest if path.is_file() else said)


def tried(path: Path) -> str:
    """What opening an SAE gives: "refused", "read", or what went wrong."""
    try:
        with bounded():
            sae = open_sae(path)
            sae.reconstruct(torch.ones(3, sae.inputs))
    except VlmlensError:
        return "refused"
    except Exception as error:  # noqa: BLE001  whatever a command would call a bug
        return f"{type(error).__name__}: {str(error)[:90]}"
    return "read"


def main() -> int:
    """Run all attacks; 1 if one of them got through."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice, outcomes = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        sources = {case.name: case.write(Path(place, case.name)) for case in CASES}
        sources["ours"] = save_sae(Path(place, "ours"), open_sae(sources["lens-topk"]))
        for _ in range(options.rounds):
            source = sources[dice.choice(sorted(sources))]
            path = Path(place, "attacked", source.name)
            shutil.rmtree(path.parent, ignore_errors=True)
            path.parent.mkdir()
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, path)
            noise(dice)(path) if dice.random() < 0.4 else lie(path, dice)
            outcomes[tried(path)] += 1
    bad = {what: count for what, count in outcomes.items() if what not in ("read", "refused")}
    print(f"tried {options.rounds}: refused {outcomes['refused']}, read {outcomes['read']}")
    for what, count in bad.items():
        print(f"  {count} x {what}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
