"""Roots and media behind URLs, on fsspec's memory file system: tests/services/test_s3.py has a server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ov_model.errors import LockedError, UsageError
from ov_model.lake.dataset import Dataset
from ov_model.lake.layout import Shard
from ov_model.lake.ledger import Row, read_ledger
from ov_model.lake.media import MediaPolicy, examine
from ov_model.lake.remote_ledger import ObjectLock, RemoteLedger, pull_ledger
from ov_model.lake.scratch import Scratch, ScratchFull
from ov_model.lake.store import RemoteStore
from ov_model.lake.urls import StorageError, Url, filesystem, location, state
from tests.factories import make_record, make_video
from tests.lake.lanes import files, lane, run

SHARD = Shard(0, 1)
ROOT = Url("memory", "lake/d")


@pytest.fixture
def memory() -> Iterator[None]:
    """An empty memory file system."""
    fs = filesystem("memory")
    fs.store.clear()
    yield
    fs.store.clear()


@pytest.fixture
def store(memory: None, tmp_path: Path) -> RemoteStore:
    scratch = Scratch(tmp_path / "scratch", 1)
    return RemoteStore(ROOT, scratch.staging(ROOT), scratch)


def put(path: str, data: bytes) -> Url:
    filesystem("memory").pipe_file(path, data)
    return Url("memory", path)


def stored(path: str) -> dict[str, bytes]:
    fs = filesystem("memory")
    return {name.removeprefix(f"/{path}/"): fs.cat_file(name) for name in fs.find(f"/{path}")}


def row(key: str, number: int = 0, **more: object) -> Row:
    return Row(number, key, key, f"{key}.mp4", "video", **more)  # type: ignore[arg-type]


def expire(ledger: RemoteLedger) -> None:
    """What the lock of a process that hangs on another host looks like."""
    assert isinstance(ledger.lock, ObjectLock)
    ledger.lock._stop.set()
    key = f"ledger/{ledger.name}.locks/{ledger.lock.fence:08d}"
    owner = json.loads(ledger.store.read_bytes(key))
    ledger.store.write_bytes(key, json.dumps({**owner, "host": "elsewhere", "beat": 0.0}).encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b.mp4", Path("a/b.mp4")),
        ("file:///a/b", Path("/a/b")),
        ("s3://lake/a//b/../c.mp4", Url("s3", "lake/a/c.mp4")),
        ("s3a://lake/a/", Url("s3", "lake/a")),
    ],
)
def test_a_scheme_makes_a_url(text: str, expected: object) -> None:
    assert location(text) == expected


def test_a_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(UsageError, match="names no bucket"):
        location("s3://")


@pytest.mark.parametrize(
    ("media", "reason"),
    [("../secret.mp4", "outside_root"), ("memory://other/x.mp4", "outside_root"), ("/etc/passwd", "outside_root"),
     ("gone.mp4", "missing_file"), ("empty.mp4", "empty_file"), ("folder", "missing_file")],
)  # fmt: skip
def test_media_that_cannot_be_used_say_why(memory: None, tmp_path: Path, media: str, reason: str) -> None:
    put("raw/empty.mp4", b"")
    put("raw/folder/x.mp4", b"x")
    put("secret.mp4", b"x")
    policy = MediaPolicy(media_root=location("memory://raw"), scratch=Scratch(tmp_path, 1))
    found = examine([media], policy, {}, 1)[media]
    assert getattr(found, "reason", "") == reason


def test_an_allowed_root_may_be_a_url(memory: None, tmp_path: Path) -> None:
    put("other/x.mp4", b"x")
    policy = MediaPolicy(media_root=tmp_path, allowed_roots=(Url("memory", "other"),), scratch=Scratch(tmp_path, 1))
    found = examine(["memory://other/x.mp4"], policy, {}, 1)["memory://other/x.mp4"]
    assert getattr(found, "path", None) == Url("memory", "other/x.mp4")


def test_a_lake_behind_a_url_holds_the_bytes_of_a_local_one(memory: None, tmp_path: Path) -> None:
    for i in range(2):
        make_video(tmp_path / f"v{i}.mp4", seed=i)
        put(f"raw/v{i}.mp4", (tmp_path / f"v{i}.mp4").read_bytes())
    records = [make_record(f"v{i // 2}.mp4", id=f"r{i}") for i in range(4)]
    records += [make_record("gone.mp4", id="g"), make_record(None, id="t", kind="text")]
    local = lane(tmp_path, records, paths="relative")
    run(local)
    put("raw/raw.json", (tmp_path / "raw.json").read_bytes())
    remote = replace(
        local.spec, root=ROOT, dataset_path=Url("memory", "raw/raw.json"), media_root=Url("memory", "raw"),
        scratch=Scratch(tmp_path / "scratch", 1),
    )  # fmt: skip
    first = run(Dataset(remote))
    there = {name: data for name, data in stored("lake/d").items() if not name.startswith("ledger/")}
    assert there == files(tmp_path / "lake")
    assert first["visidx"].computed == 2
    again = run(Dataset(remote), one_pass=False)
    assert [again[stage].computed for stage in ("raw_videos", "visidx", "mosaics")] == [0, 0, 0]
    filesystem("memory").rm_file("lake/d/" + next(name for name in there if name.endswith(".jpg")))
    assert run(Dataset(remote), one_pass=False)["mosaics"].computed == 1
    there = {name: data for name, data in stored("lake/d").items() if not name.startswith("ledger/")}
    assert there == files(tmp_path / "lake")


def test_what_needs_a_folder_says_so(memory: None, tmp_path: Path) -> None:
    remote = replace(lane(tmp_path, []).spec, root=ROOT)
    with pytest.raises(UsageError, match="must be local here"):
        _ = Dataset(remote).root
    with pytest.raises(UsageError, match="local or s3"):
        _ = Dataset(replace(remote, root=Url("ftp", "host/x"))).store


def test_rows_survive_a_writer_that_never_compacted(store: RemoteStore) -> None:
    ledger = RemoteLedger(store, "visidx", SHARD)
    with ledger:
        ledger.append(row("a"))
        ledger.append(row("b", 1, status="failed", reason="timeout"))
    path = pull_ledger(store, "visidx", SHARD)
    assert not path.exists()
    assert read_ledger(path)["key"].to_list() == ["a", "b"]
    with RemoteLedger(store, "visidx", SHARD) as again:
        assert again.interrupted
        again.keep("a")
        again.append(row("b", 1))
        frame = again.compact(keep_unseen=False)
    assert frame["status"].to_list() == ["ok", "ok"]
    assert read_ledger(pull_ledger(store, "visidx", SHARD)).equals(frame)
    assert [data for name, data in stored("lake/d").items() if "journal" in name] == [b""]


def test_many_segments_are_folded(store: RemoteStore) -> None:
    with RemoteLedger(store, "visidx", SHARD) as ledger:
        for i in range(300):
            ledger.append(row(f"k{i}", i))
            ledger.flush()
        assert len([name for name in stored("lake/d") if "journal" in name]) < 100
        assert read_ledger(pull_ledger(store, "visidx", SHARD))["row"].to_list() == list(range(300))


def test_a_second_writer_is_refused_and_the_next_one_counts_on(store: RemoteStore) -> None:
    with RemoteLedger(store, "visidx", SHARD) as ledger:
        assert ledger.lock.fence == 1
        with pytest.raises(LockedError, match="being written by process"), RemoteLedger(store, "visidx", SHARD):
            pass
        with pytest.raises(LockedError, match="shard00of01"), RemoteLedger(store, "visidx", Shard(1, 2)):
            pass
    with RemoteLedger(store, "visidx", SHARD) as ledger:
        assert ledger.lock.fence == 2
    locks = [name for name in stored("lake/d") if "shard00of01.locks" in name]
    assert locks == ["ledger/visidx.shard00of01.locks/00000002"]


def test_late_lines_of_a_writer_that_lost_its_lock_do_not_count(store: RemoteStore) -> None:
    late = RemoteLedger(store, "visidx", SHARD)
    late.__enter__()
    late.append(row("a"))
    late.flush()
    expire(late)
    with RemoteLedger(store, "visidx", SHARD) as heir:
        assert heir.find("a") is not None
        late._send(late._line(row("late", 1)))
        heir.append(row("b", 2))
        heir.flush()
        assert read_ledger(pull_ledger(store, "visidx", SHARD))["key"].to_list() == ["a", "b"]
        heir.compact(keep_unseen=True)
    late._send(late._line(row("later", 3)))
    assert read_ledger(pull_ledger(store, "visidx", SHARD))["key"].to_list() == ["a", "b"]
    late.append(row("c", 4))
    with pytest.raises(LockedError, match="taken over"):
        late.compact(keep_unseen=True)
    with pytest.raises(LockedError):
        late.__exit__(None, None, None)
    assert read_ledger(pull_ledger(store, "visidx", SHARD))["key"].to_list() == ["a", "b"]


def test_of_many_that_want_a_dead_writers_lock_one_gets_it(store: RemoteStore) -> None:
    dead = RemoteLedger(store, "visidx", SHARD)
    dead.__enter__()
    expire(dead)
    ready, outcomes = threading.Barrier(8), []

    def take() -> None:
        ledger = RemoteLedger(store, "visidx", SHARD)
        ready.wait()
        try:
            ledger.lock.__enter__()
        except LockedError:
            outcomes.append("refused")
        else:
            outcomes.append("held")

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + ["refused"] * 7


def test_copies_never_grow_past_the_limit_and_the_longest_unused_goes(memory: None, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 300e-9)
    found = [state(put(f"raw/{i}.mp4", bytes([i]) * 100)) for i in range(4)]
    objects = tmp_path / "objects"
    for one in found[:3]:
        with scratch.borrow(one) as path:
            assert path.read_bytes() == bytes([found.index(one)]) * 100
    with scratch.borrow(found[0]), scratch.borrow(found[3]):
        assert {path.read_bytes()[0] for path in objects.iterdir()} == {0, 2, 3}
    assert not [path for path in (tmp_path / "in_use").glob("*/*") if path.is_file()]
    with pytest.raises(ScratchFull, match="raise --scratch_gb"), scratch.borrow(state(put("raw/big.mp4", b"x" * 301))):
        pass


def test_who_finds_the_scratch_folder_in_use_waits(memory: None, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 150e-9)
    first, second = (state(put(f"raw/{i}.mp4", bytes([i]) * 100)) for i in range(2))
    got = threading.Event()

    def later() -> None:
        with scratch.borrow(second):
            got.set()

    with scratch.borrow(first) as path:
        thread = threading.Thread(target=later)
        thread.start()
        assert not got.wait(0.5)
        assert path.read_bytes() == bytes(100)
    thread.join()
    assert got.is_set()


def test_a_scan_over_more_than_fits_keeps_the_first(memory: None, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 250e-9)
    found = [state(put(f"raw/{i}.mp4", bytes([i]) * 100)) for i in range(4)]
    assert len({scratch.digest(one, since=0.001) for one in found}) == 4
    assert {path.read_bytes()[0] for path in (tmp_path / "objects").iterdir()} == {0, 1}


def test_a_storage_that_fails_otherwise_is_no_samples_fault(
    memory: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("raw/v.mp4", b"x")

    def broken(path: str, **_: object) -> None:
        raise ConnectionError("connection refused")

    monkeypatch.setattr(filesystem("memory"), "info", broken)
    policy = MediaPolicy(media_root=location("memory://raw"), scratch=Scratch(tmp_path, 1))
    with pytest.raises(StorageError, match=r"memory://raw/v\.mp4: connection refused"):
        examine(["v.mp4"], policy, {}, 1)
