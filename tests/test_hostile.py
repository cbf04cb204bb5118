"""Odd and hostile videos through the whole of stage 1 and 2: each ends as its manifest says, none stops the others."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from ov_model.codec.choose import ChooseOptions
from ov_model.geometry import Geometry
from ov_model.lake.dataset import Dataset, DatasetSpec
from ov_model.lake.workers import RunOptions
from ov_model.mosaic.write import PackOptions
from tests.factories import make_record, write_dataset


def test_every_clip_ends_as_its_manifest_says(shared_data: Path, tmp_path: Path) -> None:
    clips = shared_data / "clips"
    with (clips / "manifest.tsv").open() as stream:
        manifest = {row["file"]: row for row in csv.DictReader(stream, delimiter="\t")}
    assert len(manifest) == 31
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
    wrong = []
    for row in dataset.ledger("visidx", shard).iter_rows(named=True):
        expected = manifest[row["media"]]
        facts = json.loads(row["facts"])
        if row["status"] == "ok":
            found = ("ok_damaged" if facts["damaged"] else "ok", facts["n_frames"])
            signal = "residual" if expected["vectors"] == "yes" else "reencode"
            if row["signal"] != signal:
                wrong.append(f"{row['media']}: signal {row['signal']}, expected {signal}")
        else:
            found = (row["reason"], 0)
        if found != (expected["expect"], int(expected["frames"])):
            wrong.append(
                f"{row['media']}: {found}, expected {expected['expect']} {expected['frames']} ({row['detail']})"
            )
    assert not wrong
    usable = sum(row["expect"].startswith("ok") for row in manifest.values())
    assert (visidx.ok, mosaics.ok) == (usable, usable)
    assert visidx.reasons == {"empty_file": 1, "no_video_stream": 1}
