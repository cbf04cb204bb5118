"""What `ov status` costs on a million samples, as a ratio to reading one column of the same ledgers.

python benchmarks/ledger.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ov_model.status import status
from tests.lake.ledgers import write_ledgers

ROWS, SHARDS = 1_000_000, 4


def least(work: Callable[[], object], runs: int = 3) -> float:
    """Wall seconds of the quickest of several runs."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        write_ledgers(Path(folder), rows=ROWS, shards=SHARDS)
        paths = sorted((Path(folder) / "ledger").glob("*.parquet"))
        floor = least(lambda: [pl.read_parquet(path, columns=["key"]) for path in paths])
        counted = least(lambda: status(Path(folder)))
    print(f"status of {ROWS:,} samples: {counted:.2f} s, {counted / floor:.1f} x reading their keys   (goal 2 s)")


if __name__ == "__main__":
    main()
