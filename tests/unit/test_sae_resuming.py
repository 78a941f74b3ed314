"""Training from a store that is killed goes on bit for bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import torch
from tests._program import python
from tests.sae_toys import toy

from vlmlens.abc.storage import ColumnBlock, Values
from vlmlens.registry import Registry
from vlmlens.stores.opening import open_named
from vlmlens_plugins.sae import Recipe, Shuffled, StoredRows, Trained, train

ROWS = 4_000


def trained(folder: Path, checkpoint: str, die_at: int | None = None) -> Trained:
    """An SAE of the stored rows; the process kills itself after so many rows."""

    def progress(done: int, total: int) -> None:
        del total
        if die_at is not None and done >= die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    with open_named(Registry.default(), "lmdb", str(folder / "store"), mode="r") as store:
        rows = StoredRows(store, "x/all", store.ids("x/all"))
        feed = Shuffled(rows, batch=48, buffer=400, seed=5)
        recipe = Recipe(24, "batchtopk", 2.0, lr=1e-3)
        (found,) = train(
            [recipe], feed, rows=ROWS, device="cpu", checkpoint=folder / checkpoint, every=11,
            progress=progress,
        )  # fmt: skip
    return found


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    lengths = np.random.default_rng(0).integers(0, 40, 60).tolist()
    rows = toy(sum(lengths), 16, 24).rows.numpy()
    ids = tuple(f"s{i}" for i in range(len(lengths)))
    with open_named(Registry.default(), "lmdb", str(tmp_path / "store"), mode="a") as store:
        store.write(ColumnBlock(ids, {"x/all": Values(rows, "float32", tuple(lengths))}))
    whole = trained(tmp_path, "whole")
    code = (
        "import sys; from pathlib import Path; from tests.unit.test_sae_resuming import trained; "
        "trained(Path(sys.argv[1]), 'killed', int(sys.argv[2]))"
    )
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    killed = python(code, str(tmp_path), str(ROWS // 2), PYTHONPATH=path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "killed").stat().st_size > 0
    again = trained(tmp_path, "killed")
    assert again.sae.digest == whole.sae.digest
    assert again.losses == whole.losses
