"""Extraction killed at random moments and resumed: the same bits as without a kill.

This is `benchmarks.crash` with fewer rounds, for each storage backend.

    python -m benchmarks.attacks.extraction_kills
    python -m benchmarks.attacks.extraction_kills --rounds 50 --seed 1
"""

from __future__ import annotations

import argparse

from benchmarks import crash
from benchmarks.attacks._processes import table


def main() -> None:
    """Print how many killed runs ended as if they had not been killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="runs per backend")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rows = []
    for storage in ("lmdb", "sqlite", "zarr"):
        try:
            crash.main(
                ["--runs", str(chosen.rounds), "--seed", str(chosen.seed), "--storage", storage]
            )
        except SystemExit as end:
            rows.append((f"kills, {storage}", chosen.rounds, int(bool(end.code))))
    table(rows, sum(wrong for _, _, wrong in rows))


if __name__ == "__main__":
    main()
