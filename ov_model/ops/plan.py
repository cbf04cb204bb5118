"""What a run will take before it begins: samples, hours and bytes, from some done for real in a temporary folder.

`ov plan stage1|stage2|precompute` takes the options of that command, and writes nothing where that one writes.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from ov_model import precompute, stage1, stage2
from ov_model.errors import UsageError
from ov_model.lake.ledger import OK, read_ledger
from ov_model.lake.records import ROW_FIELD, Record
from ov_model.lake.stages import ASSETS, MOSAICS, VISIDX, AssetsStage, VisidxStage
from ov_model.precompute import PrecomputeConfig, read_lines
from ov_model.stage1 import Stage1Config, shard_records
from ov_model.stage2 import Stage2Config, mosaics_stage, stage2_records

SAMPLES = 20
_T95 = (
    12.71,
    4.30,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
    2.23,
    2.20,
    2.18,
    2.16,
    2.14,
    2.13,
    2.12,
    2.11,
    2.10,
    2.09,
)
_Z95 = 1.96


@dataclass(frozen=True)
class Estimate:
    """A total and the interval that holds it in 95 of 100 such samples (Student's t)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Plan:
    """What is left to do and what it takes.

    records, media: of the shard, and the distinct media among its videos. done: media that the ledger has of these
    options. tried, failed: of the trial. hours: with `workers`. bytes: of outputs.
    """

    stage: str
    records: int
    media: int
    done: int
    todo: int
    tried: int
    failed: int
    workers: int
    seconds_each: Estimate
    hours: Estimate
    bytes: Estimate


def plan_stage1(config: Stage1Config, samples: int = SAMPLES) -> Plan:
    """Plan a run of stage 1 on one shard.

    Raises:
        UsageError: options that contradict each other, an unreadable dataset, or no video in it.
    """
    records = list(shard_records(config.dataset_path, config.shard))
    stage = VisidxStage(config.out_root, config.out_root, config.choose_options())
    ledger = config.out_root / "ledger" / f"{VISIDX}.{config.shard.key}.parquet"

    def trial(dataset: Path, folder: Path) -> Path:
        report = stage1.run(replace(_alone(config), dataset_path=dataset, out_root=folder, fail_txt=None))
        assert not isinstance(report, list)
        return stage1.stage_ledger(report)

    return _plan(VISIDX, records, ledger, stage.config_hash, config.num_workers, samples, trial)


def plan_stage2(config: Stage2Config, samples: int = SAMPLES) -> Plan:
    """Plan a run of stage 2 (mode pack) on one shard, whose stage 1 is done.

    Raises:
        UsageError: as `plan_stage1`, or mode rewrite.
    """
    if config.mode != "pack":
        raise UsageError("mode rewrite decodes nothing; there is nothing to plan")
    stage, _ = mosaics_stage(config)
    ledger = config.out_image_root / "ledger" / f"{MOSAICS}.{config.shard.key}.parquet"

    def trial(dataset: Path, folder: Path) -> Path:
        places = {"input_dataset": dataset, "out_image_root": folder, "out_jsonl": folder / "train.jsonl"}
        report, _ = stage2.run(replace(_alone(config), **places, fail_txt=None))
        return stage1.stage_ledger(report)

    return _plan(MOSAICS, stage2_records(config), ledger, stage.config_hash, config.num_workers, samples, trial)


def plan_precompute(config: PrecomputeConfig, samples: int = SAMPLES) -> Plan:
    """Plan a run of precompute on one shard.

    Raises:
        UsageError: as `plan_stage1`.
    """
    lines = read_lines(config.jsonl, only_exists=config.only_exists, media_root=config.local_media_root)
    records = [record for record in lines if record.row % config.num_shards == config.shard_id]
    stage = AssetsStage(config.out_root, config.asset_options())
    ledger = config.out_root / "ledger" / f"{ASSETS}.{config.shard.key}.parquet"

    def trial(dataset: Path, folder: Path) -> Path:
        return stage1.stage_ledger(precompute.run(replace(_alone(config), jsonl=dataset, out_root=folder)))

    return _plan(ASSETS, records, ledger, stage.config_hash, config.num_workers, samples, trial)


def _alone(config: Any) -> Any:
    """The options of a trial: one shard, every sample."""
    return replace(config, num_shards=1, shard_id=0, max_samples=0, overwrite=False, retry_failed=False)


def _plan(
    stage: str,
    records: Iterable[Record],
    ledger: Path,
    config_hash: str,
    workers: int,
    samples: int,
    trial: Callable[[Path, Path], Path],
) -> Plan:
    count, media = 0, dict[str, Record]()
    for record in records:
        count += 1
        if record.kind == "video" and record.error is None:
            media.setdefault(record.media, record)
    if not media:
        raise UsageError(f"{count} records and no video among them; nothing to plan")
    rows = read_ledger(ledger, ("media", "status", "config_hash")).filter(
        (pl.col("status") == OK) & (pl.col("config_hash") == config_hash)
    )
    done = media.keys() & set(rows["media"].to_list())
    left = [record for name, record in media.items() if name not in done]
    if not left:
        none = Estimate(0.0, 0.0, 0.0)
        return Plan(stage, count, len(media), len(done), 0, 0, 0, workers, none, none, none)
    chosen = heapq.nsmallest(samples, left, key=lambda record: hashlib.sha256(record.key.encode()).digest())
    with tempfile.TemporaryDirectory(prefix="ov-plan-") as name:
        folder = Path(name)
        dataset = folder / "trial.jsonl"
        lines = (json.dumps({**record.data, ROW_FIELD: record.row}, ensure_ascii=True) for record in chosen)
        dataset.write_text("".join(f"{line}\n" for line in lines))
        made = read_ledger(trial(dataset, folder / "out"))
        root = folder / "out"
        sizes = [
            sum((root / output).stat().st_size for output in outputs if (root / output).exists())
            for outputs in made["outputs"]
        ]
    seconds = made["seconds"].to_list()
    parallel = max(1, workers)
    return Plan(
        stage=stage,
        records=count,
        media=len(media),
        done=len(done),
        todo=len(left),
        tried=made.height,
        failed=made.filter(pl.col("status") != OK).height,
        workers=parallel,
        seconds_each=estimate(seconds, 1, len(left)),
        hours=estimate([second / 3600 / parallel for second in seconds], len(left), len(left)),
        bytes=estimate([float(size) for size in sizes], len(left), len(left)),
    )


def estimate(values: list[float], times: int, population: int) -> Estimate:
    """`times` x the mean of values drawn without replacement from a population, and its 95 % interval.

    Source: Student's t with the finite population correction sqrt((N - n) / (N - 1)), so that a whole count has none.
    """
    mean, n = statistics.fmean(values), len(values)
    if n < 2:
        return Estimate(
            mean * times, 0.0 if population > n else mean * times, math.inf if population > n else mean * times
        )
    t = _T95[n - 2] if n - 2 < len(_T95) else _Z95
    correction = math.sqrt(max(0, population - n) / max(1, population - 1))
    spread = t * statistics.stdev(values) / math.sqrt(n) * correction
    return Estimate(mean * times, max(0.0, mean - spread) * times, (mean + spread) * times)
