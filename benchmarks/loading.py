"""How much memory loading takes beside the weights, for a sharded checkpoint of a gigabyte.

Writes a MolmoE in the original layout (64 experts a layer, which are stacked while they are
loaded), in shards; loads it in a process of its own; prints the peak over the weights; removes it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from vlmlens.abc.adapter import LoadRequest

_SHARD = 300 * 2**20


def main() -> None:
    """Print one line per dtype to load with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.load:
        _load(chosen.load, chosen.dtype)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_large(folder)
        shards = len(list(folder.glob("*.safetensors")))
        print(f"{size / 2**30:.2f} GiB on the disk in {shards} shards, bfloat16")
        for dtype in ("bfloat16", "float32"):
            command = [sys.executable, "-m", "benchmarks.loading", "--load", name]
            subprocess.run([*command, "--dtype", dtype], check=True)


def write_large(folder: Path) -> int:
    """A MolmoE of about a gigabyte in bfloat16; gives its bytes."""
    from vlmlens_adapter_molmo.v1.tiny import molmo_json, molmo_shapes, write_checkpoint

    write_checkpoint(folder, "olmoe")
    vocabulary = json.loads((folder / "config.json").read_text())["embedding_size"]
    (folder / "model.safetensors").unlink()
    config = molmo_json("olmoe", vocabulary) | {
        "d_model": 1024, "n_layers": 5, "n_heads": 16, "mlp_hidden_size": 1024,
        "moe_num_experts": 64, "torch_dtype": "bfloat16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    index: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    total = filled = number = 0
    for name, shape in molmo_shapes(config).items():
        shard[name] = (torch.rand(shape) * 0.02).to(torch.bfloat16)
        filled += shard[name].nbytes
        total += shard[name].nbytes
        if filled > _SHARD:
            index |= _write(folder, number, shard)
            number, shard, filled = number + 1, {}, 0
    index |= _write(folder, number, shard)
    listed = json.dumps({"weight_map": index})
    (folder / "model.safetensors.index.json").write_text(listed, encoding="utf-8")
    return total


def _write(folder: Path, number: int, shard: dict[str, torch.Tensor]) -> dict[str, str]:
    name = f"model-{number:05}.safetensors"
    save_file(shard, folder / name)
    return dict.fromkeys(shard, name)


def _load(folder: Path, dtype: str) -> None:
    from vlmlens_adapter_molmo.v1.adapter import MolmoAdapter
    from vlmlens_adapter_molmo.v1.tiny import write_checkpoint

    with tempfile.TemporaryDirectory() as small:
        write_checkpoint(Path(small), "olmoe")
        MolmoAdapter.load(LoadRequest(model=small, device="cpu", dtype=dtype))
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    vlm = MolmoAdapter.load(LoadRequest(model=str(folder), device="cpu", dtype=dtype))
    peak = _resident("VmHWM") - before
    weights = sum(p.numel() * p.element_size() for p in vlm.module.parameters()) / 2**20
    print(f"loaded as {dtype:9} {weights:7.0f} MiB of weights, peak {peak / weights:.3f} of them")


def _resident(what: str) -> float:
    """MiB of memory that the kernel says this process holds, or held at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


if __name__ == "__main__":
    main()
