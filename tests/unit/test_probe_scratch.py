"""Scratch files of probes: where they lie, what is left of them, and full disks."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.test_probe_families import target_of

from vlmlens.errors import CompositionError
from vlmlens_plugins.analysis.probe.cross_validation import silent
from vlmlens_plugins.analysis.probe.large.probes import LargeProbes
from vlmlens_plugins.analysis.probe.large.scratch import Scratch
from vlmlens_plugins.analysis.probe.options import ProbeOptions
from vlmlens_plugins.analysis.probe.splits import folded


def test_scratch_files_have_no_name(tmp_path: Path) -> None:
    made = Scratch(tmp_path).array((4, 5), "<f4")
    made[:] = 1
    assert list(tmp_path.iterdir()) == []
    assert made.sum() == 20


def test_a_scratch_file_that_fits_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CompositionError, match="GB of scratch space"):
        Scratch(tmp_path).array((2**40, 2**10), "<f4")


def test_room_is_reserved_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file without its blocks would end the process by a signal once the disk is full."""

    def refuse(code: int) -> None:
        def allocate(file: int, start: int, size: int) -> None:
            raise OSError(code, "refused")

        monkeypatch.setattr(os, "posix_fallocate", allocate)

    refuse(errno.ENOSPC)
    with pytest.raises(CompositionError, match="scratch space"):
        Scratch(tmp_path).array((10,), "<f4")
    refuse(errno.EOPNOTSUPP)
    assert Scratch(tmp_path).array((10,), "<f4").sum() == 0
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**27))
    y = np.arange(40) % 2
    large = LargeProbes(ProbeOptions(), target_of(y), 0, torch.device("cpu"), Scratch(tmp_path))
    unread: Any = SimpleNamespace(count=10**6, width=4096)
    with pytest.raises(CompositionError, match=r"needs 16\.4 GB"):
        large.evaluate(unread, y[None], folded(np.arange(40) % 5), None, silent)


def test_scratch_files_lie_in_the_run_before_its_folder_of_results_is_there(tmp_path: Path) -> None:
    made: list[Any] = []
    plain = tempfile.TemporaryFile

    def temporary(**given: Any) -> Any:
        made.append(given["dir"])
        return plain(**given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", temporary)
        Scratch(tmp_path / "results" / "probe-some").array((2,), "<f4")
    assert made == [str(tmp_path)]
