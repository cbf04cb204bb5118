"""Raw media and a lake on a real S3-compatible server: the bytes of a disk, through kills, denials and losses."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ov_model import stage1, stage2
from ov_model.errors import LockedError, UsageError
from ov_model.lake.dataset import Dataset, DatasetSpec
from ov_model.lake.layout import Shard
from ov_model.lake.ledger import VOLATILE, read_ledger
from ov_model.lake.remote_ledger import ObjectLock, RemoteLedger, pull_ledger
from ov_model.lake.scratch import Scratch
from ov_model.lake.store import RemoteStore
from ov_model.lake.urls import StorageError, Url, filesystem, location
from ov_model.lake.workers import RunOptions
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config
from tests.conftest import require_or_skip
from tests.factories import make_record, make_video, write_dataset
from tests.lake.lanes import files, small_spec
from tests.services.s3 import Server, objects, serve, start_lane, upload, work

SHARD = Shard(0, 1)
VIDEOS, PATIENCE = 6, 900
HERE = RunOptions(num_workers=0)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The server, with its keys in the environment."""
    for module in ("s3fs", "moto", "flask"):
        if importlib.util.find_spec(module) is None:
            require_or_skip("s3", f"{module} is not installed")
    with serve() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        filesystem.cache_clear()
        yield server
        filesystem.cache_clear()


@pytest.fixture(scope="module")
def raw(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos and their raw file; the same lies at s3://raw."""
    folder = tmp_path_factory.mktemp("raw")
    records = []
    for i in range(VIDEOS):
        make_video(folder / f"v{i}.mp4", width=320, height=192, frames=40, seed=i, pattern="pan")
        records += [make_record(f"v{i}.mp4", id=f"v{i}{n}") for n in "ab"[: 1 + i % 2]]
    records += [make_record("gone.mp4", id="g"), make_record(None, id="t", kind="text")]
    write_dataset(folder / "raw.json", records)
    upload(folder, Url("s3", "raw"))
    return folder


@pytest.fixture(scope="module")
def calm(raw: Path) -> dict[str, bytes]:
    """What the lane writes on a local disk."""
    spec = small_spec(raw / "raw.json", raw / "lake", media_root=raw, paths="relative", run=HERE)
    work(Dataset(spec))
    return files(raw / "lake")


@pytest.fixture
def remote(raw: Path, tmp_path: Path) -> DatasetSpec:
    """The same dataset with all of it on the server, in a bucket of its own."""
    bucket = f"lake-{tmp_path.name.replace('_', '-')}".lower()[:60]
    filesystem("s3").mkdirs(bucket, exist_ok=True)
    return small_spec(
        location("s3://raw/raw.json"), Url("s3", f"{bucket}/d"), media_root=location("s3://raw"), paths="relative",
        scratch=Scratch(tmp_path / "scratch", 1), run=HERE,
    )  # fmt: skip


def store_of(spec: DatasetSpec) -> RemoteStore:
    store = Dataset(spec).store
    assert isinstance(store, RemoteStore)
    return store


def copies(scratch: Scratch) -> list[Path]:
    return [path for path in scratch.folder.rglob("*") if path.is_file()]


def test_stages_read_media_and_dataset_from_s3(raw: Path, tmp_path: Path) -> None:
    made = []
    for name, dataset, media in (
        ("local", raw / "raw.json", raw),
        ("s3", location("s3://raw/raw.json"), location("s3://raw")),
    ):
        out = tmp_path / name
        small = {"media_root": media, "square_size": 64, "num_workers": 0, "scratch": tmp_path / "scratch"}
        report = stage1.run(
            Stage1Config(dataset_path=dataset, out_root=out, sequence_length=8, keep_frames_equiv=2, **small)
        )
        assert not isinstance(report, list)
        assert (report.ok, report.reasons) == (9, {"missing_file": 1})
        packed, _ = stage2.run(
            Stage2Config(
                input_dataset=dataset, out_jsonl=out / "train.jsonl", visidx_root=out, T=8, num_images=2,
                out_image_root=out / "images", **small,
            )
        )  # fmt: skip
        assert packed.ok == 9
        made.append({key: data for key, data in files(out).items() if not key.endswith(".txt")})
    local, remote = made
    jsonl = remote.pop("train.jsonl").replace(str(tmp_path / "s3").encode(), str(tmp_path / "local").encode())
    assert jsonl == local.pop("train.jsonl")
    assert remote == local


def test_an_unchanged_object_is_not_fetched_again_and_a_changed_one_is_done_again(raw: Path, tmp_path: Path) -> None:
    media = Url("s3", "raw-changing")
    upload(raw, media, "v[01].mp4")
    records = [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(2)]
    scratch = Scratch(tmp_path / "scratch", 1)
    raw_file = write_dataset(tmp_path / "raw.json", records)
    spec = small_spec(raw_file, tmp_path / "lake", media_root=media, scratch=scratch, run=HERE)
    assert work(Dataset(spec))["visidx"].computed == 2
    again = replace(spec, scratch=Scratch(tmp_path / "other", 1))
    assert work(Dataset(again))["visidx"].computed == 0
    assert not copies(again.scratch)
    (raw / "v5.mp4").rename(raw / "v1-new.mp4")
    filesystem("s3").put_file(str(raw / "v1-new.mp4"), (media / "v1.mp4").path)
    (raw / "v1-new.mp4").rename(raw / "v5.mp4")
    reports = work(Dataset(again))
    assert (reports["raw_videos"].computed, reports["visidx"].computed, reports["mosaics"].computed) == (1, 1, 1)
    filesystem("s3").rm_file((media / "v0.mp4").path)
    reports = work(Dataset(again))
    assert reports["visidx"].reasons == {"missing_file": 1}
    detail = Dataset(again).ledger("raw_videos", SHARD).filter(status="failed")["detail"][0]
    assert "nothing at s3://raw-changing/v0.mp4" in detail


def test_a_lake_on_s3_holds_the_bytes_of_a_local_one(calm: dict[str, bytes], remote: DatasetSpec, raw: Path) -> None:
    first = work(Dataset(remote))
    assert first["visidx"].computed == VIDEOS
    assert objects(location(str(remote.root))) == calm  # type: ignore[arg-type]
    again = work(Dataset(replace(remote, scratch=Scratch(remote.scratch.folder / "other", 1))))
    assert [again[name].computed for name in ("raw_videos", "visidx", "mosaics")] == [0, 0, 0]
    assert {name: report.data_version for name, report in again.items()} == {
        name: report.data_version for name, report in first.items()
    }
    local = read_ledger(raw / "lake" / "ledger" / "mosaics.shard00of01.parquet").drop(*VOLATILE, "path", "detail")
    assert Dataset(remote).ledger("mosaics", SHARD).drop(*VOLATILE, "path", "detail").equals(local)


def test_the_shards_jsonl_is_absolute_by_url_where_asked(remote: DatasetSpec) -> None:
    work(Dataset(replace(remote, paths="absolute")))
    rows = [json.loads(line) for line in objects(remote.root)["train.jsonl"].splitlines()]  # type: ignore[arg-type]
    image = next(row for row in rows if "image" in row)["image"][0]
    assert filesystem("s3").cat_file(location(image).path)[:2] == b"\xff\xd8"  # type: ignore[union-attr]


def test_a_writer_killed_in_the_middle_loses_little_and_the_next_one_finishes(
    calm: dict[str, bytes], remote: DatasetSpec, server: Server
) -> None:
    process = start_lane(remote, server.environment)
    store = store_of(remote)
    deadline = time.monotonic() + PATIENCE
    while not read_ledger(pull_ledger(store, "visidx", SHARD)).filter(status="ok", kind="video").height:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline, "no sample was ever recorded"
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not store.exists("train.jsonl")
    reports = work(Dataset(remote))
    assert (reports["visidx"].ok, reports["visidx"].reasons) == (9, {"missing_file": 1})
    assert reports["raw_videos"].computed == 0
    assert reports["visidx"].computed < VIDEOS
    assert objects(location(str(remote.root))) == calm  # type: ignore[arg-type]
    segments = [name for name in filesystem("s3").find(str(remote.root).removeprefix("s3://")) if ".journal/" in name]
    assert all(filesystem("s3").size(name) == 0 for name in segments)


def test_two_writers_one_refuses(remote: DatasetSpec, server: Server) -> None:
    work(Dataset(remote))
    before = objects(location(str(remote.root)))  # type: ignore[arg-type]
    with RemoteLedger(store_of(remote), "visidx", SHARD):
        second = start_lane(remote, server.environment)
        _, errors = second.communicate(timeout=PATIENCE)
        assert second.returncode != 0
        assert f"being written by process {os.getpid()}" in errors.decode()
    assert objects(location(str(remote.root))) == before  # type: ignore[arg-type]


def test_a_suspended_writer_cannot_make_its_late_rows_count(remote: DatasetSpec) -> None:
    store = store_of(remote)
    late = RemoteLedger(store, "visidx", SHARD)
    late.__enter__()
    assert isinstance(late.lock, ObjectLock)
    late.lock._stop.set()  # a suspended process gives no sign of life
    key = f"ledger/visidx.shard00of01.locks/{late.lock.fence:08d}"
    owner = json.loads(store.read_bytes(key))
    store.write_bytes(key, json.dumps({**owner, "host": "elsewhere", "beat": 0.0}).encode())
    expected = work(Dataset(remote))["visidx"].data_version
    late._send(b'{"fence": 1, "row": 99, "key": "late", "id": "late", "media": "", "kind": "video"}\n')
    with pytest.raises(LockedError, match="taken over"):
        late.compact(keep_unseen=True)
    with pytest.raises(LockedError):
        late._send_parquet(b"late")
    late._stop.set()
    assert "late" not in Dataset(remote).ledger("visidx", SHARD)["key"].to_list()
    assert work(Dataset(remote))["visidx"].data_version == expected


def test_a_denied_bucket_is_missing_files_with_the_cause(raw: Path, tmp_path: Path) -> None:
    media = Url("s3", "denied")
    upload(raw, media, "v0.mp4")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": ["arn:aws:s3:::denied/*"]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    filesystem("s3").call_s3("put_bucket_policy", Bucket="denied", Policy=policy)
    scratch = Scratch(tmp_path / "scratch", 1)
    raw_file = write_dataset(tmp_path / "raw.json", [make_record("v0.mp4", id="a")])
    dataset = Dataset(small_spec(raw_file, tmp_path / "lake", media_root=media, scratch=scratch, run=HERE))
    dataset.index_records()
    assert dataset.raw_videos(SHARD).reasons == {"missing_file": 1}
    assert "s3://denied/v0.mp4" in dataset.ledger("raw_videos", SHARD)["detail"][0]
    with pytest.raises(StorageError, match=r"s3://denied/lake.*: access denied"):
        Dataset(replace(dataset.spec, root=Url("s3", "denied/lake"))).index_records()


def test_scratch_stays_within_its_bound_while_workers_share_it(raw: Path, tmp_path: Path) -> None:
    sizes = [(raw / f"v{i}.mp4").stat().st_size for i in range(VIDEOS)]
    scratch = Scratch(tmp_path / "scratch", 2.5 * max(sizes) / 1e9)
    records = [make_record(f"v{i}.mp4", id=f"v{i}") for i in range(VIDEOS)]
    spec = small_spec(
        write_dataset(tmp_path / "raw.json", records), tmp_path / "lake", media_root=Url("s3", "raw"),
        scratch=scratch, run=RunOptions(num_workers=3),
    )  # fmt: skip
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            found: dict[int, int] = {}
            for path in copies(scratch):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                found[stat.st_ino] = stat.st_size
            peak.append(sum(found.values()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    reports = work(Dataset(spec))
    done.set()
    watcher.join()
    assert reports["mosaics"].ok == VIDEOS
    assert max(sizes) <= max(peak) <= 2.5 * max(sizes)


def test_a_server_that_is_gone_ends_the_run_in_one_line_and_fails_no_sample(server: Server, tmp_path: Path) -> None:
    raw_file = write_dataset(tmp_path / "raw.json", [make_record("v0.mp4", id="a")])
    command = ["stage1", "--dataset_path", raw_file, "--media_root", "s3://raw", "--out_root", tmp_path / "out"]
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "ov_model.cli", *map(str, command)],
        env={**os.environ, **server.environment, **nobody},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert re.fullmatch(r"ov: s3://raw/v0\.mp4: .*127\.0\.0\.1:9.*AWS_ENDPOINT_URL.*\n", ended.stderr)
    assert read_ledger(tmp_path / "out" / "ledger" / "visidx.shard00of01.parquet").is_empty()


def test_a_url_where_only_a_folder_will_do_is_refused(tmp_path: Path) -> None:
    raw_file = write_dataset(tmp_path / "raw.json", [])
    with pytest.raises(UsageError, match="--out_root is s3://lake/x, it must be local"):
        stage1.run(Stage1Config(dataset_path=raw_file, out_root=Path("s3://lake/x")))
