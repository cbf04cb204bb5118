"""`ov verify` names what is gone or changed; marked, the next run makes exactly that anew. `ov du` counts it all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ov_model.lake.dataset import Dataset
from ov_model.ops.du import OTHER, usage
from ov_model.ops.verify import verify
from tests.factories import make_record, make_video
from tests.lake.lanes import files, lane, run


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    for seed, name in enumerate("abc"):
        make_video(tmp_path / f"{name}.mp4", seed=seed)
    made = lane(tmp_path, [make_record(f"{name}.mp4", id=name) for name in "abc"])
    run(made)
    return made


def test_a_sound_lake_has_no_faults(dataset: Dataset) -> None:
    for hashes in (False, True):
        found = verify(dataset.root, hashes=hashes)
        assert (found.rows, found.files, found.faults, found.exit_code) == (9, 9 + 9, [], 0)


def test_faults_are_named_and_repaired_by_the_next_run(dataset: Dataset, tmp_path: Path) -> None:
    before = files(dataset.root)
    next(dataset.root.glob("visidx/sample_a__*.frame_ids.npy")).unlink()
    positions = next(dataset.root.glob("images/shard00/sample_b__*/positions_thw.npy"))
    data = bytearray(positions.read_bytes())
    data[-1] ^= 1
    positions.write_bytes(data)
    image = next(dataset.root.glob("images/shard00/sample_c__*/c_000.jpg"))
    image.write_bytes(image.read_bytes()[:-9])
    quick = verify(dataset.root)
    assert {(f.stage, f.id, f.code) for f in quick.faults} == {
        ("visidx", "a", "missing_output"),
        ("mosaics", "c", "wrong_size"),
    }
    found = verify(dataset.root, hashes=True, repair=True)
    assert {(f.stage, f.id, f.code) for f in found.faults} == {
        ("visidx", "a", "missing_output"),
        ("mosaics", "b", "wrong_hash"),
        ("mosaics", "c", "wrong_size"),
    }
    assert (found.exit_code, found.marked) == (3, 3)
    ledger = dataset.ledger("mosaics", dataset.shards[0])
    assert sorted(ledger.filter(reason="damaged_output")["id"]) == ["b", "c"]
    reports = run(dataset)
    assert (reports["visidx"].computed, reports["mosaics"].computed) == (1, 3), (
        "a video that is decoded again is packed again"
    )
    assert files(dataset.root) == before
    assert verify(dataset.root, hashes=True).exit_code == 0


def test_raw_media_that_changed_are_named(dataset: Dataset, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", frames=20)
    (tmp_path / "b.mp4").unlink()
    data = bytearray((tmp_path / "c.mp4").read_bytes())
    data[-1] ^= 1
    (tmp_path / "c.mp4").write_bytes(data)
    codes = {(f.id, f.code) for f in verify(dataset.root, hashes=True).faults}
    assert codes == {("a", "changed_media"), ("b", "missing_media"), ("c", "changed_media")}


def test_du_counts_every_byte_once(dataset: Dataset, tmp_path: Path) -> None:
    rows = usage(tmp_path)
    assert {row.dataset for row in rows} == {"lake"}
    assert [row.stage for row in rows] == ["raw_videos", "visidx", "mosaics", OTHER]
    everything = [path for path in dataset.root.rglob("*") if path.is_file()]
    assert sum(row.bytes for row in rows) == sum(path.stat().st_size for path in everything)
    assert sum(row.files for row in rows) == len(everything)


def test_du_tells_shared_and_missing_files(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    made = lane(tmp_path, [make_record(f"{name}.mp4", id=name) for name in "ab"])
    run(made)
    next(made.root.glob("images/shard00/sample_a__*/a_001.jpg")).unlink()
    visidx, mosaics = (next(row for row in usage(made.root) if row.stage == name) for name in ("visidx", "mosaics"))
    assert visidx.shared == sum(path.stat().st_size for path in made.root.glob("visidx/sample_a__*.npy"))
    assert (mosaics.files, mosaics.missing) == (5, 1)
