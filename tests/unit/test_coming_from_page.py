"""docs/coming-from.md: our code runs, theirs is Python, and both give the same numbers.

Theirs runs only where it is installed: VLMLENS_TRANSFORMER_LENS, VLMLENS_NNSIGHT and
VLMLENS_SAE_LENS each name a Python that has the tool.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageOps

from vlmlens.spec.vlm_lens import is_vlm_lens, translated
from vlmlens_plugins.sae import Relu, Sae, save_sae

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## The same task, side by side")[1].split("\n## ")[0]
TOOLS = {
    "TransformerLens": "VLMLENS_TRANSFORMER_LENS",
    "nnsight": "VLMLENS_NNSIGHT",
    "SAELens": "VLMLENS_SAE_LENS",
}
TASKS = ("cache", "lens", "patch", "ablate", "sae")
RESULTS = {
    "cache": "hidden",
    "lens": "read",
    "patch": "logits",
    "ablate": "logits",
    "sae": "logits",
}
WIDTH = 128


def blocks(language: str, tool: str) -> list[str]:
    """The code for one tool: its beginning, then a block for each task."""
    found = re.findall(rf"^```{language}\n(# {tool}\b.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    return [str(block) for block in found]


def numbers(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(torch.as_tensor(value).detach().float())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures with different answers, and an SAE in SAELens's format."""
    path = tmp_path_factory.mktemp("coming")
    shutil.copy(ROOT / "docs" / "images" / "scene.png", path / "photo.png")
    ImageOps.invert(Image.open(path / "photo.png").convert("RGB")).save(path / "other.png")
    drawn = torch.Generator().manual_seed(0)
    directions = torch.randn(64, WIDTH, generator=drawn)
    directions /= directions.norm(dim=1, keepdim=True)
    sae = Sae(directions.T.contiguous(), torch.zeros(64), directions, torch.zeros(WIDTH), Relu())
    save_sae(path / "my-sae", sae)
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> dict[str, dict[str, Any]]:
    """By task: the names of the page's Python after it ran."""
    begin, *tasks = blocks("python", "vlmlens")
    names: dict[str, Any] = {}
    after = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(begin, "begin", "exec"), names)
        for task, block in zip(TASKS, tasks, strict=True):
            exec(compile(block, task, "exec"), names)
            after[task] = dict(names)
    return after


def test_our_code_gives_what_the_page_says(ours: dict[str, dict[str, Any]]) -> None:
    vlm, photo, other = (ours["cache"][name] for name in ("vlm", "photo", "other"))
    plain = vlm.forward(photo, logits="last").logits[0]
    answer = vlm.decode([int(plain.argmax())])
    assert ours["cache"]["hidden"].shape[-1] == WIDTH
    assert len(ours["cache"]["image_rows"]) == 64
    assert ours["lens"]["read"][-1] == answer == " blue"
    assert int(vlm.forward(other, logits="last").logits.argmax()) != int(plain.argmax())
    assert int(ours["patch"]["logits"].argmax()) == int(plain.argmax())
    assert not torch.allclose(ours["ablate"]["logits"], plain, atol=1e-3)
    assert not torch.allclose(ours["sae"]["logits"], plain, atol=1e-3)
    assert ours["sae"]["codes"].shape[-1] == 64


def test_a_head_is_the_slice_of_the_projections_input(ours: dict[str, dict[str, Any]]) -> None:
    """Ablating by a plain hook of torch, as a check on what the page's edit does."""
    vlm, photo = ours["cache"]["vlm"], ours["cache"]["photo"]
    modules = dict(vlm.module.named_modules())
    (path,) = [
        path for path in modules if path.endswith("language_model.layers.2.self_attn.o_proj")
    ]

    def without(_: Any, given: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        rows = given[0].clone()
        rows[..., 96:128] = 0
        return (rows,)

    hook = modules[path].register_forward_pre_hook(without)
    try:
        expected = vlm.forward(photo, logits="last").logits[0]
    finally:
        hook.remove()
    torch.testing.assert_close(ours["ablate"]["logits"], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tool", TOOLS)
def test_their_code_is_python_for_every_task(tool: str) -> None:
    found = blocks("py", tool)
    assert len(found) == (1 if tool == "SAELens" else 5)
    for block in found:
        compile(block, tool, "exec")
        assert re.match(rf"# {tool} \d+\.\d+\.\d+", block), "the version that was looked up"


@pytest.mark.parametrize("tool", TOOLS)
def test_their_code_gives_the_same(
    tool: str, folder: Path, ours: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    if not (python := os.environ.get(TOOLS[tool])):
        pytest.skip(f"{TOOLS[tool]} names no Python with {tool}")
    tasks = TASKS[-1:] if tool == "SAELens" else TASKS[:-1]
    code = blocks("py", tool)
    if tool != "SAELens":
        code[:2] = ["\n".join(code[:2])]
    checkpoint = str(files("vlmlens_plugins.demo") / "checkpoint")
    kept = []
    for task, block in zip(tasks, code, strict=True):
        keep = f"numpy.save({str(tmp_path / task)!r}, as_numbers({RESULTS[task]}))"
        kept.append(f"{block}\n{keep}")
    script = THEIRS + "\n".join(kept).replace("llava-hf/llava-1.5-7b-hf", checkpoint)
    script = script.replace("dispatch=True", "dispatch=True, dtype=torch.float32")
    subprocess.run([python, "-W", "ignore", "-c", script], cwd=folder, check=True)
    for task in tasks:
        theirs = np.load(tmp_path / f"{task}.npy")
        mine = ours[task][RESULTS[task]]
        if task == "lens":
            assert list(theirs)[-len(mine) :] == mine
        else:
            np.testing.assert_allclose(theirs.ravel(), numbers(mine).ravel(), atol=5e-3)


THEIRS = """
import numpy
import torch


def as_numbers(value):
    return value.detach().float().numpy() if isinstance(value, torch.Tensor) else numpy.array(value)


"""


def test_the_config_of_vlm_lens_is_read() -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    values = yaml.safe_load(shown)
    assert is_vlm_lens(values)
    spec, notes = translated(values)
    assert spec["adapter"] == "llava"
    assert any("language_model.model.layers.16" in str(site) for site in spec["sites"])
    assert notes
    with pytest.raises(Exception, match="modulez"):
        translated({**values, "modulez": []})
