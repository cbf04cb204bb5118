"""Versions of code (options) and data (content): what Dagster tells stale from fresh by."""

from __future__ import annotations

import dagster as dg

from ov_model.lake.dataset import RECORDS, Dataset
from ov_model.lake.files import hash_file, hash_json
from ov_model.lake.index import index_path
from ov_model.lake.layout import Shard
from ov_model.lake.ledger import Report
from ov_model.lake.stages import RAW

_PLACES = {RECORDS: ("dataset_path",), RAW: ("media_root", "allowed_roots")}
_TAG = "dagster/data_version"


def code_version(dataset: Dataset, stage: str) -> str:
    """Changes with every option of the stage, or upstream of it, that may change what it makes.

    Where the raw data lies counts for the stages that look there; if they find the same, the rest stays fresh.
    """
    version = dataset.code_version(stage)
    places = [str(getattr(dataset.spec, name)) for name in _PLACES.get(stage, ())]
    return hash_json([version, places])[:16] if places else version


def data_version(dataset: Dataset, report: Report, shard: Shard | None) -> str:
    """The version of what a stage made.

    That of `raw_videos` covers the content of the media and the text of the shard's records: every later stage
    depends on it directly, so a changed video or question makes them stale in this shard, and in no other.
    """
    if report.stage != RAW or shard is None:
        return report.data_version
    media = dataset.ledger(RAW, shard).sort("key").select("key", "status", "reason", "content_hash").rows()
    return hash_json([report.data_version, media, hash_file(index_path(dataset.root / RECORDS, shard))])[:16]


def last_data_version(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> str | None:
    """The version that the last materialization of an asset (of a partition) had; None when there is none."""
    partitions = None if partition is None else [partition]
    found = instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=partitions), limit=1)
    event = found.records[0].asset_materialization if found.records else None
    return (event.tags or {}).get(_TAG) if event else None


def describe_change(before: str | None, now: str) -> str:
    """What a materialization changed, in words."""
    if before is None:
        return "first materialization"
    return "content unchanged" if before == now else "content changed"
