"""A training that is interrupted goes on bit for bit; other files are refused."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests import _program
from vlmlens.errors import DataError, FileError
from vlmlens_plugins.sae import Recipe, TensorFeed, Trained, train
from vlmlens_plugins.sae.training.learner import KINDS

STEPS, BATCH = 24, 16
RECIPES = [Recipe(24, kind, 3, lr=0.02) for kind in KINDS]
KILLED = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parents[i]) for i in (0, 2)]!r}
from test_sae_checkpoints import run
from vlmlens_plugins.sae.training import learner
learner._SHORT = 2
def stop(done, total):
    if done == 16 * {BATCH}:
        os.kill(os.getpid(), signal.SIGKILL)
from pathlib import Path
run(Path(sys.argv[1]), progress=stop)
"""


def feed(seed: int = 0) -> TensorFeed:
    rows = torch.randn(100, 8, generator=torch.Generator().manual_seed(0)).abs()
    return TensorFeed(rows, batch=BATCH, seed=seed)


def run(checkpoint: Path | None = None, **options: object) -> list[Trained]:
    """Batches of 16 of 100 rows: no round of them ends with a checkpoint."""
    settings = {"recipes": RECIPES, "feed": feed(), "rows": STEPS * BATCH, "every": 7} | options
    return train(**settings, checkpoint=checkpoint)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _impatient() -> object:
    """Features count as dead early, so that both ways of reviving them have a part in it."""
    from vlmlens_plugins.sae.training import learner

    patch = pytest.MonkeyPatch()
    patch.setattr(learner, "_SHORT", 2)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def whole(_impatient: object) -> list[Trained]:
    return run()


def same(one: list[Trained], other: list[Trained]) -> bool:
    return all(
        a.sae.digest == b.sae.digest
        and a.losses == b.losses
        and torch.equal(a.density, b.density)
        and a.sae.about == b.sae.about
        for a, b in zip(one, other, strict=True)
    )


class Stop(Exception):
    pass


def stopping(at: int) -> object:
    def progress(done: int, total: int) -> None:
        if done == at * BATCH:
            raise Stop

    return progress


@pytest.mark.parametrize("at", [3, 17, 23])
def test_it_goes_on_bit_for_bit(at: int, whole: list[Trained], tmp_path: Path) -> None:
    path = tmp_path / "folder" / "state.safetensors"
    with pytest.raises(Stop):
        run(path, progress=stopping(at))
    assert path.exists() == (at > 7)
    seen: list[int] = []
    again = run(path, progress=lambda done, total: seen.append(done // BATCH))
    assert seen == list(range((at - 1) // 7 * 7 + 1, STEPS + 1))
    assert same(again, whole)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_another_order_of_rows_would_be_seen(whole: list[Trained]) -> None:
    assert not same(run(feed=feed(seed=1)), whole)


def test_what_is_done_is_not_done_again(whole: list[Trained], tmp_path: Path) -> None:
    path = tmp_path / "state"
    run(path)
    seen: list[int] = []
    assert same(run(path, progress=lambda done, total: seen.append(done)), whole)
    assert seen == []


def test_a_killed_process(whole: list[Trained], tmp_path: Path) -> None:
    path = tmp_path / "state"
    ended = _program.python(KILLED, str(path))
    assert ended.returncode == -signal.SIGKILL
    seen: list[int] = []
    assert same(run(path, progress=lambda done, total: seen.append(done // BATCH)), whole)
    assert seen[0] == 15


@pytest.fixture(scope="module")
def kept(_impatient: object, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint after seven steps."""
    path = tmp_path_factory.mktemp("kept") / "state"
    with pytest.raises(Stop):
        run(path, progress=stopping(8))
    return path.read_bytes()


def damaged(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "short":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":
        data[-5] ^= 1
        path.write_bytes(data)
    elif how == "flipped header":
        at = data.index(b'\\"steps\\": 24') + len(b'\\"steps\\": ')
        data[at : at + 2] = b"25"
        path.write_bytes(data)
    elif how == "text":
        path.write_text(json.dumps({"plan": {}}))
    else:
        save_file({"weights": torch.zeros(3)}, path)


@pytest.mark.parametrize("how", ["short", "empty", "flipped", "flipped header", "text", "foreign"])
def test_damaged_files_are_refused(how: str, kept: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(kept)
    damaged(path, how)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"The checkpoint 'state' is (damaged|no checkpoint)"):
        run(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"recipes": RECIPES[:1]}, "recipes"),
        ({"recipes": [*RECIPES[:-1], Recipe(24, "gated", 4)]}, "recipes"),
        ({"rows": 2 * STEPS * BATCH}, "steps: 24, here 48"),
        ({"feed": TensorFeed(torch.randn(99, 8), batch=BATCH)}, "squares"),
        ({"feed": TensorFeed(torch.randn(99, 9), batch=BATCH)}, "widths"),
    ],
)
def test_another_training_is_refused(
    options: dict[str, object], named: str, kept: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    path.write_bytes(kept)
    with pytest.raises(DataError, match="is of another training") as error:
        run(path, **options)
    assert named in str(error.value)


def test_a_file_that_cannot_grow_is_said(tmp_path: Path) -> None:
    path = tmp_path / "state"
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, most[1]))
    try:
        with pytest.raises(FileError, match="is larger than the file system allows"):
            run(path, recipes=RECIPES[:1], rows=BATCH)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder"):
        run(tmp_path)
