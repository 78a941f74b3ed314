"""What reading positions with the logit lens costs beside the bare matrix products.

Both are given the same synthetic residual streams and the same unembedding, in turn, in one
process. The bare products give every logit and keep none; the lens gives, per layer and position,
top tokens, entropy, KL to the final layer, rank and probability of the answer and of a label.
Each runs in a process of its own once more, to see how far its memory grows.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._compare import in_turn, table
from vlmlens.abc import Readout
from vlmlens_plugins.analysis.logit_lens.readings import Reader
from vlmlens_plugins.analysis.logit_lens.vocabulary import Vocabulary

WIDTH, VOCABULARY, LAYERS, POSITIONS = 2048, 152_064, 25, 600
_PIECE = 4096


def main() -> None:
    """Print times and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.2, help="part of the positions; 1 is full")
    parser.add_argument("--top", type=int, default=10)
    parser.add_argument(
        "--chunk", type=int, default=256, help="megabytes, as the analysis's option"
    )
    parser.add_argument("--skip-memory", action="store_true")
    chosen = parser.parse_args()
    work = Work(round(POSITIONS * chosen.scale), chosen.top, chosen.chunk)
    flops = 2 * work.positions * LAYERS * VOCABULARY * WIDTH
    print(
        f"{work.positions} positions x {LAYERS} layers x {VOCABULARY} tokens x {WIDTH} wide: "
        f"{flops / 1e12:.2f} TFLOP, {torch.get_num_threads()} thread(s)"
    )
    times = in_turn({"bare products": work.bare, "lens": work.lens}, chosen.rounds)
    print(table(times, "bare products", per=work.positions, unit="position"))
    if not chosen.skip_memory:
        for name in ("bare", "lens"):
            print(f"{name}: memory grew by {_in_own_process(name, work):.0f} MiB at most")


class Work:
    """Synthetic streams and unembedding, and the two ways through them.

    Args:
        positions: How many.
        top: How many top tokens the lens keeps.
        chunk: The lens's memory, in megabytes.
    """

    def __init__(self, positions: int, top: int, chunk: int) -> None:
        self.positions, self.top, self.chunk = positions, top, chunk
        rng = np.random.default_rng(0)
        shape = (positions, WIDTH)
        self.hidden = [rng.standard_normal(shape, dtype=np.float32) for _ in range(LAYERS)]
        self.labels = rng.integers(0, VOCABULARY, positions)
        weight = rng.standard_normal((VOCABULARY, WIDTH), dtype=np.float32) / WIDTH**0.5
        self.weight = torch.from_numpy(weight)

    def bare(self) -> None:
        """Every product, all layers at once, by pieces of the vocabulary into one buffer."""
        rows = torch.from_numpy(np.concatenate(self.hidden))
        block = 4096
        for start in range(0, len(rows), block):
            some = rows[start : start + block]
            out = torch.empty((len(some), _PIECE))
            for first in range(0, VOCABULARY, _PIECE):
                weight = self.weight[first : first + _PIECE]
                torch.mm(some, weight.T, out=out[:, : len(weight)])

    def lens(self) -> Any:
        """What the analysis does."""
        readout = Readout(
            norm=lambda h: torch.nn.functional.rms_norm(h, (WIDTH,)),
            unembed=lambda h: h @ self.weight.T,
            some=lambda h, tokens: h @ self.weight[tokens].T,
            site="llm.block.24",
        )
        reader = Reader(Vocabulary(readout, self.hidden[-1][0]), k=self.top, megabytes=self.chunk)
        return reader.read(self.hidden, self.hidden[-1], self.labels, same=LAYERS - 1)


def _in_own_process(name: str, work: Work) -> float:
    """MiB by which the peak of a fresh process rises while it runs one of the two."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, name, work.positions, work.top, work.chunk)
    process = context.Process(target=_measure, args=arguments)
    process.start()
    grown: float = ours.recv()
    process.join()
    return grown


def _measure(pipe: Any, name: str, positions: int, top: int, chunk: int) -> None:
    work = Work(positions, top, chunk)
    warm = Work(2, top, chunk)
    run: Callable[[Work], object] = Work.bare if name == "bare" else Work.lens
    run(warm)
    del warm
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run(work)
    pipe.send((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    """KiB, as Linux tells them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise KeyError(field)


if __name__ == "__main__":
    main()
