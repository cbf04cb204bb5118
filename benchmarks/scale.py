"""What a video costs in time, files and bytes, a sample in its ledgers, and a shard in Dagster's event log.

    python benchmarks/scale.py

The figures that docs/scale.md multiplies. CPU seconds of one process on the demo's real clips in the published
geometry; bytes on disk of what the same run wrote; a ledger of 10 000 samples with hashes and names of their own; the
instance's SQLite files after a run of each sharded asset, per materialization.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import dagster as dg

from ov_assets.components import VideoDataset
from ov_assets.components.lane import Lane
from ov_model.demo import write_raw_dataset
from ov_model.lake.ledger import OK, Row, read_ledger, to_frame

STAGES = ("raw_videos", "visidx", "mosaics", "training_jsonl")
ROWS = 10_000
_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


def lane_of(raw: Path, root: Path) -> Lane:
    """The demo's clips as one shard, worked in this process."""
    attributes = {"dataset_path": str(raw), "media_root": str(raw.parent), "root": str(root), "num_shards": 1}
    return VideoDataset.from_attributes_dict(attributes={**attributes, "workers": 0}).lane("demo", root)


def pixels(folder: Path) -> float:
    """Megapixels of all frames of the videos of a folder."""
    found = 0.0
    for path in folder.rglob("*.mp4"):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            found += stream.frames * stream.codec_context.width * stream.codec_context.height / 1e6
    return found


def run(lane: Lane, instance: dg.DagsterInstance, stages: Sequence[str]) -> None:
    """Materialize assets of the only shard."""
    result = dg.materialize(
        list(lane.definitions().assets or []),  # pyright: ignore[reportArgumentType]
        instance=instance,
        selection=[lane.key(stage) for stage in stages],
        partition_key=lane.dataset.shards[0].key,
        run_config=_QUIET,
    )
    assert result.success


def disk(folder: Path) -> tuple[int, int]:
    """Files below a folder and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def ledger_bytes(sample: Row, folder: Path) -> float:
    """Bytes on disk per row of a ledger whose rows differ as those of real samples do."""

    def other(number: int) -> Row:
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        values = asdict(sample)
        for name in ("content_hash", "input_hash", "output_hash", "media_key"):
            values[name] = digest[: len(values[name])]
        name = f"v{digest[:16]}"
        media = f"videos/{digest[:2]}/{name}.mp4"
        values.update(row=number, id=name, media=media, key=f"{media}|{name}|{number}", path=f"/data/{media}")
        values["outputs"] = [
            f"images/shard00/sample_{name}__{name}__{digest[:8]}/{Path(o).name}" for o in sample.outputs
        ]
        values.update(size=int(digest[:6], 16), mtime_ns=int(digest[:15], 16), bytes=int(digest[6:11], 16))
        values.update(seconds=int(digest[:4], 16) / 1e4, finished_at=f"2026-01-01T00:{number % 60:02d}:{number:012d}")
        return Row(**values)

    path = folder / "ledger.parquet"
    to_frame([other(number) for number in range(ROWS)]).write_parquet(path)
    return path.stat().st_size / ROWS


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = write_raw_dataset(folder / "raw")
        megapixels = pixels(raw.parent)
        warm = lane_of(raw, folder / "warm").dataset
        warm.index_records()
        warm.raw_videos(warm.shards[0])
        warm.visidx_and_mosaics(warm.shards[0])
        lane = lane_of(raw, folder / "lake")
        dataset, shard = lane.dataset, lane.dataset.shards[0]
        dataset.index_records()
        cpu: dict[str, float] = {}
        for stage in ("raw_videos", "visidx_and_mosaics", "training_jsonl"):
            start = time.process_time()
            getattr(dataset, stage)(shard)
            cpu[stage] = round(time.process_time() - start, 3)
        mosaics = read_ledger(dataset.root / "ledger" / f"mosaics.{shard.key}.parquet")
        done = mosaics.filter(mosaics["status"] == OK)
        videos = done.height
        print(f"{videos} videos, {megapixels:.0f} megapixels of frames, {mosaics.height} records")
        for stage, seconds in cpu.items():
            print(f"{stage:20}{seconds / videos:8.4f} s of CPU a video")
        print(f"{'':20}{1000 * cpu['visidx_and_mosaics'] / megapixels:8.3f} ms a megapixel of its frames")
        for part in ("visidx", "images", "jsonl", "records"):
            files, size = disk(dataset.root / part)
            print(f"{part:20}{size / videos:8.0f} bytes, {files / videos:.1f} files a video")
        for stage in STAGES:
            frame = read_ledger(dataset.root / "ledger" / f"{stage}.{shard.key}.parquet")
            row = Row(**frame.filter(frame["kind"] == "video").row(0, named=True))
            print(f"{'ledger of ' + stage:24}{ledger_bytes(row, folder):6.0f} bytes a sample")
        home = folder / "home"
        home.mkdir()
        with dg.DagsterInstance.local_temp(str(home)) as instance:
            run(lane, instance, STAGES)
            before = disk(home)[1]
            for _ in range(3):
                run(lane, instance, STAGES)
            grown = (disk(home)[1] - before) / 3 / len(STAGES)
        print(f"event log           {grown:8.0f} bytes a materialization, its checks included")
        print(f"peak memory         {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:8.0f} MB")


if __name__ == "__main__":
    main()
