"""Small lanes worked in this process, for the tests of the lake."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ov_model.codec.choose import ChooseOptions
from ov_model.geometry import Geometry
from ov_model.lake.dataset import Dataset, DatasetSpec
from ov_model.lake.ledger import Report
from ov_model.lake.urls import Location
from ov_model.lake.workers import RunOptions
from ov_model.mosaic.write import PackOptions
from tests.factories import make_record, make_video, write_dataset

SMALL = Geometry(sequence_length=8, num_images=2, square_size=64, patch_size=16)


def lane(tmp_path: Path, records: Sequence[Any], *, num_shards: int = 1, **options: Any) -> Dataset:
    """A dataset over `records` whose videos lie in tmp_path, worked in this process."""
    raw = write_dataset(tmp_path / "raw.json", records)
    here = {"root": tmp_path / "lake", "media_root": tmp_path, "run": RunOptions(num_workers=0)}
    given = {**here, "num_shards": num_shards, **options}
    return Dataset(small_spec(raw, given.pop("root"), **given))


def small_spec(raw: Location, root: Location, **options: Any) -> DatasetSpec:
    """A dataset of the small geometry."""
    pack, choose = PackOptions(geometry=SMALL), ChooseOptions(geometry=SMALL)
    return replace(DatasetSpec("d", raw, root, num_shards=1, choose=choose, pack=pack), **options)


def run(dataset: Dataset, *, one_pass: bool = True) -> dict[str, Report]:
    """The whole lane of a one-shard dataset."""
    (shard,) = dataset.shards
    reports = {"records": dataset.index_records(), "raw_videos": dataset.raw_videos(shard)}
    if one_pass:
        reports["visidx"], reports["mosaics"] = dataset.visidx_and_mosaics(shard)
    else:
        reports["visidx"] = dataset.visidx(shard)
        reports["mosaics"] = dataset.mosaics(shard)
    reports["training_jsonl"] = dataset.training_jsonl(shard)
    reports["train_jsonl"] = dataset.train_jsonl()
    return reports


def rows(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (dataset.root / "train.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    """Every output of a lake, without the ledgers."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "ledger" not in path.parts
    }


def make_lake(folder: Path, *, hostile: str = "") -> Path:
    """A lake whose dataset `clips` has four videos and two records that failed, an empty file and a missing one.

    Args:
        hostile: id of a third record that fails.
    """
    names = [make_video(folder / f"clip{i}.mp4", frames=12, seed=i).name for i in range(4)]
    (folder / "empty.mp4").touch()
    records = [make_record(name, id=Path(name).stem) for name in [*names, "empty.mp4", "gone.mp4"]]
    if hostile:
        records.append(make_record("lost.mp4", id=hostile))
    run(lane(folder, records, root=folder / "lake" / "clips", name="clips"))
    return folder / "lake"
