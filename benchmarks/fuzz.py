"""Mutated videos through stage 1 in worker processes: what became of each, and how long the slowest took.

python benchmarks/fuzz.py [--files 500] [--seed 0] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ov_model.lake.ledger import read_ledger
from tests.factories import make_record, write_dataset
from tests.mutations import make_clips, mutate

GEOMETRY = ("--square_size", "64", "--sequence_length", "8", "--keep_frames_equiv", "2")
WORKERS = 2


def write_mutants(folder: Path, files: int, seed: int) -> dict[str, str]:
    """Mutants of every clip in turn, below `folder`: name -> kind of damage. Their records are in raw.json."""
    clips = make_clips(folder / "whole")
    kinds = {}
    for number in range(files):
        clip = clips[number % len(clips)]
        data, kind = mutate(clip.read_bytes(), clip.suffix, 1_000_000 * seed + number)
        name = f"{number:05d}_{clip.stem}{clip.suffix}"
        (folder / name).write_bytes(data)
        kinds[name] = kind
    write_dataset(folder / "raw.json", [make_record(name, id=name) for name in kinds])
    return kinds


def run_stage1(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`ov stage1` on the mutants, in a process of its own; its output is `folder`/visidx."""
    command = [sys.executable, "-m", "ov_model.cli", "stage1", "--dataset_path", str(folder / "raw.json")]
    command += ["--out_root", str(folder / "visidx"), "--media_root", str(folder), "--num_workers", str(WORKERS)]
    return subprocess.run([*command, *GEOMETRY, *options], capture_output=True, text=True, check=False)


def outcomes(folder: Path) -> pl.DataFrame:
    """The ledger of the mutants; `outcome` is ok, or the reason."""
    frame = read_ledger(folder / "visidx" / "ledger" / "visidx.shard00of01.parquet")
    return frame.with_columns(outcome=pl.when(pl.col("status") == "ok").then(pl.lit("ok")).otherwise("reason"))


def main() -> None:
    """Print the table of outcomes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="write the mutants here and leave them")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        kinds = write_mutants(folder, arguments.files, arguments.seed)
        start = time.perf_counter()
        done = run_stage1(folder)
        seconds = time.perf_counter() - start
        if done.returncode not in (0, 3):
            sys.exit(f"the run ended with {done.returncode}:\n{done.stderr[-4000:]}")
        frame = outcomes(folder)
    print(
        f"{frame.height} of {arguments.files} mutants in {seconds:.0f} s with {WORKERS} workers, exit {done.returncode}"
    )
    columns = sorted(set(frame["outcome"]), key=lambda name: (name != "ok", name))
    counts = Counter(zip((kinds[name] for name in frame["id"]), frame["outcome"], strict=True))
    print(" ".join(f"{name:>14.14}" for name in ["", *columns]))
    for kind in sorted(set(kinds.values())):
        print(" ".join([f"{kind:>14}", *(f"{counts[kind, name]:14d}" for name in columns)]))
    print(" ".join([f"{'all':>14}", *(f"{(frame['outcome'] == name).sum():14d}" for name in columns)]))
    slow = frame.sort("seconds", descending=True).head(5)
    for name, taken, outcome, detail in slow.select("id", "seconds", "outcome", "detail").iter_rows():
        print(f"slow: {taken:6.1f} s {name} ({kinds[name]}): {outcome} {detail[:100]}")
    for name, reason, detail in (
        frame.filter(pl.col("outcome").is_in(["crashed", "internal_error", "out_of_memory", "timeout"]))
        .select("id", "reason", "detail")
        .iter_rows()
    ):
        print(f"{reason}: {name} ({kinds[name]}): {detail[:200]}")


if __name__ == "__main__":
    main()
