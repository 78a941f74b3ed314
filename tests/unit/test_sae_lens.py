"""The real SAELens loads our folders and gives the same codes, and its folders are read.

It is not among the packages that the tests need: it brings transformer-lens and 30 others. Install
the extra `sae-lens`, or name an interpreter of another environment that has it:

    VLMLENS_SAE_LENS=/path/to/python pytest tests/unit/test_sae_lens.py -s
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vlmlens_plugins.sae import About, Gated, JumpRelu, Relu, Sae, TopK, open_sae, save_sae

SCRIPT = Path(__file__).parents[1] / "_sae_lens.py"
HERE = sys.executable if importlib.util.find_spec("sae_lens") else ""
PYTHON = os.environ.get("VLMLENS_SAE_LENS", HERE)
WIDTH, FEATURES = 24, 120
CLOSE = 1e-5

pytestmark = [
    pytest.mark.skipif(
        not PYTHON, reason="sae-lens is not installed, and VLMLENS_SAE_LENS names no interpreter"
    ),
    pytest.mark.slow,
]


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.4


def made(activation=None, *, out=WIDTH, skip=False, **more):
    skipped = numbers(WIDTH, out) if skip else None
    return Sae(numbers(WIDTH, FEATURES), numbers(FEATURES), numbers(FEATURES, out), numbers(out),
               activation or Relu(), W_skip=skipped, **more)  # fmt: skip


INNER = [numbers(FEATURES) * factor for factor in (1.0, 1.1, 0.5)]
ACROSS = {"subtract": False, "out": 9, "about": About(column="a/image", target="b/image")}
OURS = {
    "standard": made(about=About(column="llm.block.3/image", model={"checkpoint": "demo"})),
    "as-they-are": made(subtract=False),
    "layer-norm": made(layer_norm=True),
    "topk": made(TopK(6)),
    "jumprelu": made(JumpRelu(INNER[0].abs())),
    "gated": made(Gated(*INNER)),
    "transcoder": made(**ACROSS),
    "skip": made(skip=True, **ACROSS),
    "jumprelu-transcoder": made(JumpRelu(INNER[0].abs()), **ACROSS),
    "jumprelu-skip": made(JumpRelu(INNER[0].abs()), skip=True, **ACROSS),
    "by-norm": made(TopK(6, by_norm=True)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lens")
    np.save(path / "rows.npy", (numbers(50, WIDTH) * 3 + 1).numpy())
    for name, sae in OURS.items():
        save_sae(path / "ours" / name, sae, sparsity=[0.1] * FEATURES)
    save_sae(path / "refused" / "negative", made(TopK(6, rectified=False)))
    save_sae(path / "refused" / "topk-transcoder", made(TopK(6), **ACROSS))
    subprocess.run([PYTHON, str(SCRIPT), str(path)], check=True)
    return path


def differences(sae: Sae, folder: Path, name: str, scale: float | torch.Tensor = 1) -> float:
    """The largest difference of codes and of rows, relative to 1 + the largest number."""
    rows, wanted = torch.from_numpy(np.load(folder / "rows.npy")), np.load(folder / f"{name}.npz")
    found = {"codes": sae.encode(rows) * scale, "rows": sae.reconstruct(rows)}
    largest = []
    for each, values in found.items():
        apart = np.abs(values.numpy() - wanted[each]).max()
        largest.append(float(apart / (1 + np.abs(wanted[each]).max())))
        print(f"{name}: {each} {apart:.1e} of {np.abs(wanted[each]).max():.3g}")
    return max(largest)


@pytest.mark.parametrize("name", OURS)
def test_it_gives_the_codes_of_ours(name, folder):
    sae = OURS[name]
    scale = sae.norms if name == "by-norm" else 1.0  # its codes are of directions of length 1
    assert differences(sae, folder, f"ours/{name}", scale) < CLOSE


def test_ours_reads_all_of_its(folder):
    names = [path.name for path in (folder / "theirs").iterdir() if path.is_dir()]
    assert len(names) == 13
    for name in names:
        sae = open_sae(folder / "theirs" / name)
        assert differences(sae, folder, f"theirs/{name}") < CLOSE


def test_another_sae_is_told_apart(folder):
    assert differences(OURS["as-they-are"], folder, "ours/standard") > 100 * CLOSE


@pytest.mark.parametrize("name", ["negative", "topk-transcoder"])
def test_what_it_cannot_express_it_refuses(name, folder):
    assert "vlmlens_topk" in (folder / "refused" / f"{name}.txt").read_text()
