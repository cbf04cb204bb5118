"""Odd and hostile videos through stages 1 and 2, and as assets: each ends as its manifest says, alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from ov_model.codec.choose import ChooseOptions
from ov_model.geometry import Geometry
from ov_model.lake.dataset import Dataset, DatasetSpec
from ov_model.lake.ledger import read_ledger
from ov_model.lake.workers import RunOptions
from ov_model.mosaic.write import PackOptions
from ov_model.precompute import PrecomputeConfig, run
from tests.factories import make_record, write_dataset


@pytest.fixture
def manifest(shared_data: Path) -> dict[str, dict[str, str]]:
    """What is expected of each clip, by file name."""
    with (shared_data / "clips" / "manifest.tsv").open() as stream:
        found = {row["file"]: row for row in csv.DictReader(stream, delimiter="\t")}
    assert len(found) == 31
    return found


def surprises(ledger: pl.DataFrame, manifest: dict[str, dict[str, str]]) -> list[str]:
    """Clips that a stage did not end with as their manifest says."""
    wrong = []
    for row in ledger.iter_rows(named=True):
        expected = manifest[row["id"]]
        found = (row["reason"], 0)
        if row["status"] == "ok":
            facts = json.loads(row["facts"])
            found = ("ok_damaged" if facts["damaged"] else "ok", facts["n_frames"])
            signal = "residual" if expected["vectors"] == "yes" else "reencode"
            if row["signal"] != signal:
                wrong.append(f"{row['id']}: signal {row['signal']}, expected {signal}")
        if found != (expected["expect"], int(expected["frames"])):
            wrong.append(f"{row['id']}: {found}, expected {expected['expect']} {expected['frames']} ({row['detail']})")
    return wrong


def test_every_clip_ends_as_its_manifest_says(
    shared_data: Path, manifest: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    clips = shared_data / "clips"
    geometry = Geometry(sequence_length=16, num_images=2, square_size=144)
    dataset = Dataset(
        DatasetSpec(
            "clips",
            write_dataset(tmp_path / "raw.json", [make_record(name, id=name) for name in manifest]),
            tmp_path / "lake",
            num_shards=1,
            media_root=clips,
            choose=ChooseOptions(geometry=geometry),
            pack=PackOptions(geometry=geometry),
            run=RunOptions(num_workers=2),
        )
    )
    dataset.index_records()
    (shard,) = dataset.shards
    dataset.raw_videos(shard)
    visidx, mosaics = dataset.visidx_and_mosaics(shard)
    assert visidx.rows == mosaics.rows == len(manifest)
    assert surprises(dataset.ledger("visidx", shard), manifest) == []
    usable = sum(row["expect"].startswith("ok") for row in manifest.values())
    assert (visidx.ok, mosaics.ok) == (usable, usable)
    assert visidx.reasons == {"empty_file": 1, "no_video_stream": 1}


def test_every_clip_ends_so_as_an_offline_asset_too(
    shared_data: Path, manifest: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    lines = [{"video": str(shared_data / "clips" / name), "key": name} for name in manifest]
    config = PrecomputeConfig(
        jsonl=write_dataset(tmp_path / "videos.jsonl", lines), out_root=tmp_path / "out", num_workers=2,
        seq_len_frames=16, num_images=2, square_size=144, window_len=40, window_pick="energy3", topk_mode="time_bucket",
    )  # fmt: skip
    report = run(config)
    assert report.ledger is not None
    assert surprises(read_ledger(report.ledger), manifest) == []
    assert report.ok == len(list((tmp_path / "out" / "assets").glob("*/meta.json"))) == 29
