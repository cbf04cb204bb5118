"""What a ledger of a million samples costs: writing a shard, status, going on, in seconds and memory.

python benchmarks/ledger.py [shards, 100]
"""

from __future__ import annotations

import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ov_model.lake.layout import Shard, ledger_path
from ov_model.lake.ledger import COUNTED, SCHEMA, Ledger, Row, library_versions, read_ledger
from ov_model.lake.media import KNOWN, known_hashes
from ov_model.status import status

SAMPLES, STAGE, CONFIG = 1_000_000, "mosaics", "0123456789abcdef"
FACTS = {"K": 10368, "codec": "h264", "signal_method": "coefficients", "width": 1280, "height": 720,
         "n_demuxed": 487, "n_frames": 487, "damaged": False, "pictures": {"B": 40, "I": 4, "P": 20},
         "intra_share": 0.0713, "repeated": 0, "first_full": True}  # fmt: skip


def million(root: Path, shards: int) -> None:
    """A stage's ledgers as it would leave them: names, paths and hashes all different, nine outputs a sample."""
    for index in range(shards):
        first, count = SAMPLES * index // shards, SAMPLES // shards
        number = (pl.int_range(count) + first).cast(pl.String).str.zfill(7)
        identity, media = pl.concat_str(pl.lit("sample"), number), pl.concat_str(pl.lit("videos/"), number)
        digest = number.hash(1).cast(pl.String).str.zfill(20)
        long = pl.concat_str(digest, number.hash(2).cast(pl.String).str.zfill(20), number.hash(3).cast(pl.String))
        folder = pl.concat_str(pl.lit(f"images/shard{index:02d}/sample_"), identity, pl.lit("__"), digest)
        values: dict[str, pl.Expr] = {
            "row": pl.int_range(count) + first,
            "key": pl.concat_str(media, pl.lit(".mp4|"), identity, pl.lit("|"), number),
            "id": identity,
            "media": pl.concat_str(media, pl.lit(".mp4")),
            "path": pl.concat_str(pl.lit("/data/lake/media/"), media, pl.lit(".mp4")),
            "size": number.cast(pl.Int64) + 1_000_000,
            "mtime_ns": number.cast(pl.Int64) * 1_000_000_007,
            "content_hash": long,
            "input_hash": long.str.slice(0, 32),
            "media_key": long.str.slice(8, 32),
            "output_hash": long.str.reverse(),
            "outputs": pl.concat_list(
                [pl.concat_str(folder, pl.lit(f"/{number}_{i:03d}.jpg")) for i in range(8)]
                + [pl.concat_str(folder, pl.lit("/positions_thw.npy"))]
            ),
            "bytes": number.cast(pl.Int64) + 800_000,
            "finished_at": pl.concat_str(pl.lit("2026-11-01T10:00:00."), number.str.slice(1), pl.lit("+00:00")),
        }
        same = {"kind": "video", "status": "ok", "config_hash": CONFIG, "stage_version": 1, "signal": "residual",
                "computed": True, "facts": json.dumps(FACTS), "attempts": 1, "seconds": 1.2345, "host": "node",
                "versions": library_versions(), "reason": "", "detail": ""}  # fmt: skip
        columns = [values.get(name, pl.lit(same.get(name))).cast(kind).alias(name) for name, kind in SCHEMA.items()]
        path = ledger_path(root, STAGE, Shard(index, shards))
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.select(number.alias("n")).select(columns).write_parquet(path)


def append_shard(root: Path, shards: int) -> float:
    """Seconds to fold a whole shard's fresh rows into its ledger, as a run does at its end."""
    shard = Shard(0, shards)
    rows = [Row(**values) for values in read_ledger(ledger_path(root, STAGE, shard)).iter_rows(named=True)]
    with Ledger(root, STAGE, shard) as ledger:
        for row in rows:
            row.attempts = 2
            ledger._fresh[row.key] = row
        start = time.perf_counter()
        ledger.compact(keep_unseen=True)
        return time.perf_counter() - start


def resume(root: Path, shards: int) -> float:
    """Seconds that the ledgers take of a run which finds everything done: open, look every sample up, keep, close."""
    start = time.perf_counter()
    for index in range(shards):
        with Ledger(root, STAGE, Shard(index, shards)) as ledger:
            known_hashes([ledger.previous(*KNOWN)])
            for key in ledger.previous("key")["key"]:
                found = ledger.find(key)
                assert found is not None
                assert (found.config_hash, len(found.input_hash), found.status) == (CONFIG, 32, "ok")
                ledger.keep(key)
            ledger.compact(keep_unseen=False, columns=COUNTED)
    return time.perf_counter() - start


def count(root: Path, shards: int) -> float:
    """Seconds of `ov status`."""
    start = time.perf_counter()
    assert sum(row.rows for row in status(root)) == SAMPLES
    return time.perf_counter() - start


def measure(work: Callable[[Path, int], float], root: Path, shards: int) -> tuple[float, float, float]:
    """Least wall and processor seconds of three runs, each in its own process; peak MB over that of the imports."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        found = [pool.apply(_child, (work, root, shards)) for _ in range(3)]
    return min(one[0] for one in found), min(one[1] for one in found), max(one[2] for one in found)


def _child(work: Callable[[Path, int], float], root: Path, shards: int) -> tuple[float, float, float]:
    before, start = _peak(), time.process_time()
    seconds = work(root, shards)
    return seconds, time.process_time() - start, (_peak() - before) / 1000


def _peak() -> int:
    """Peak memory of this process so far, kB."""
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def main() -> None:
    """Print the figures, and each as a multiple of reading one column of the same ledgers."""
    shards = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        million(root, shards)
        start = time.perf_counter()
        paths = sorted((root / "ledger").glob("*.parquet"))
        keys = [pl.read_parquet(path, columns=["key"]) for path in paths]
        floor = time.perf_counter() - start
        del keys
        size = sum(path.stat().st_size for path in paths)
        print(f"{SAMPLES:,} samples in {shards} shards, {size / 1e6:.0f} MB; reading their keys {floor:.2f} s")
        for name, work, goal in (("status", count, 2), ("resume scan", resume, 5), ("append a shard", append_shard, 1)):
            seconds, busy, memory = measure(work, root, shards)
            print(
                f"{name:15} {seconds:6.2f} s (goal {goal} s; processor {busy:.2f} s), {seconds / floor:5.1f} x, "
                f"{memory:4.0f} MB (goal 500 MB)"
            )


if __name__ == "__main__":
    main()
