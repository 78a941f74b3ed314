"""What attribution costs beside bare passes: the part of `causal` that is about gradients."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks._compare import Target, Times, in_turn, ratios, table
from vlmlens.abc import AnalysisContext
from vlmlens.passes.gradients import logit_difference
from vlmlens_plugins.analysis._attribution import edge_scores, node_scores, nodes_of
from vlmlens_plugins.analysis._sweeps import Item
from vlmlens_plugins.analysis._sweeps.sweeping import answer_tokens

NODE_ROWS = ("image", "question", "last")
EDGE_ROWS = ("image", "text")
STEPS = 5
PASSES, EDGE_PASSES = 4.0, 16.0


def attributions(vlm: Any, items: Sequence[Item], rounds: int) -> list[Target]:
    """Attribution patching and edge attribution, from samples to numbers, beside a bare pass.

    Args:
        vlm: The model.
        items: Samples with donors, which all fit in one batch.
        rounds: Of timing.
    """
    context = AnalysisContext([], None, cache(lambda: vlm), batch_size=len(items))  # type: ignore[arg-type]
    kept, prefixes, tokens, _ = answer_tokens(vlm, items)
    nodes = nodes_of(vlm, NODE_ROWS)
    batch = vlm.encode([item.target for item in kept], answers=prefixes)
    bare, by_nodes, by_edges = "a bare pass", "all nodes", f"all edges, {STEPS} steps"
    variants: dict[str, Callable[[], object]] = {
        bare: lambda: vlm.forward(batch, logits="last"),
        by_nodes: lambda: node_scores(context, kept, (prefixes, tokens), nodes),
        by_edges: lambda: edge_scores(context, kept, (prefixes, tokens), EDGE_ROWS, STEPS),
    }
    seconds = in_turn(variants, rounds)
    print(f"attribution of {len(nodes)} nodes on {len(kept)} pairs, encoding included")
    print(table(seconds, bare, per=len(kept), unit="pair"), end="\n\n")
    return [
        _passes("attribution of nodes, in bare passes", seconds, by_nodes, bare, PASSES),
        _passes("attribution of edges, in bare passes", seconds, by_edges, bare, EDGE_PASSES),
    ]


def _passes(what: str, seconds: dict[str, Times], name: str, base: str, limit: float) -> Target:
    wall, cpu = (median(ratios(seconds[name], seconds[base], kind)) for kind in ("wall", "cpu"))
    return Target(what, wall, limit, cpu=cpu)


def peaks(folder: Path) -> None:
    """Print the most memory that one pass, a plain backward and `gradients` take above the model.

    Args:
        folder: The checkpoint. Each is measured in a process of its own.
    """
    found = {}
    for way in ("pass", "backward", "gradients"):
        command = [sys.executable, "-m", "benchmarks._attribution", str(folder), way]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[way] = int(said)
    named = ", ".join(f"{way} {kib / 1024:.0f} MiB" for way, kib in found.items())
    print(f"peak memory above the loaded model: {named}", end="\n\n")


def _peak(folder: str, way: str) -> int:
    """KiB by which the process grew."""
    from PIL import Image

    from vlmlens.abc import LoadRequest
    from vlmlens.samples import Sample
    from vlmlens_adapter_llava.adapter import LlavaAdapter

    torch.set_num_threads(1)
    vlm = LlavaAdapter.load(LoadRequest(model=folder, device="cpu", dtype="float32"))
    batch = vlm.encode([Sample("a", "What is this?", (Image.new("RGB", (336, 336)),))])
    metric = logit_difference([5], [9])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if way == "pass":
        vlm.forward(batch, logits="last")
    elif way == "gradients":
        vlm.gradients(batch, ["llm.block.*.attn.heads", "llm.block.*.mlp_out"], metric)
    else:
        embeddings = vlm.trace(batch, ["llm.block.0:in"])["llm.block.0:in"].clone()
        embeddings.requires_grad_()
        logits = vlm.module.model.language_model(inputs_embeds=embeddings, use_cache=False)[0]
        metric(vlm.module.lm_head(logits[:, -1])).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


if __name__ == "__main__":
    print(_peak(*sys.argv[1:]))
