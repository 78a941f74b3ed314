"""What is known of something that was tuned, before it is put into a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["lora", "weights", "prompt"]
KINDS: tuple[Kind, ...] = ("lora", "weights", "prompt")

ANALYSIS = "tune"
"""The analysis that trains."""
FOLDER = f"results/{ANALYSIS}.tuned"
"""Inside a run's folder, where the analysis `tune` writes (without a label)."""
ABOUT = "tuned.json"
"""What `vlmlens tune` says of its files, beside them; LoRA of others has none."""


_SHOWN = 12


def in_words(said: object) -> str:
    """What a model's `describe` says of something tuned that it holds, in a few words.

    >>> in_words({"kind": "lora", "component": "llm", "digest": "1234567890abcdef", "merged": True})
    'lora of llm, merged, 1234567890ab'
    """
    if isinstance(said, list):
        return "; ".join(map(in_words, said))
    if not isinstance(said, Mapping):
        return ""
    of = f" of {said['component']}" if said.get("component") else ""
    merged = "" if said.get("kind") != "lora" else "merged" if said.get("merged") else "not merged"
    facts = [f"{said.get('kind')}{of}", merged, str(said.get("digest") or "")[:_SHOWN]]
    return ", ".join(fact for fact in facts if fact)


@dataclass(frozen=True, slots=True)
class Tuned:
    """A folder with something that was tuned.

    Args:
        path: The folder.
        kind: What it holds.
        component: What was tuned: one of `COMPONENTS`, a pattern of sites, or "" if nothing is said
            of it.
        base: What the model said of itself that was tuned (`ModelAdapter.describe`); empty if it is
            not known.
        digest: SHA-256 over all files that determine the numbers: part of the fingerprint.
        about: What else `tuned.json` says: how it was trained, on what.
    """

    path: Path
    kind: Kind
    component: str
    base: Mapping[str, Any]
    digest: str
    about: Mapping[str, Any] = field(default_factory=dict)
