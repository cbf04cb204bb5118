"""Preparation: what is done stays done, what is there is not touched, and faults lose nothing.

lmms-eval's import takes ten seconds, so these tests list the videos from the data files; tests/services asks lmms-eval.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from ov_model.errors import LockedError, OvError, UsageError
from ov_model.eval import list_videos
from ov_model.eval import prepare as module
from ov_model.eval.archives import ArchiveError, DiskFull
from ov_model.eval.benchmarks import Places, find_benchmark
from ov_model.eval.hub import AccessError, HubError
from ov_model.eval.prepare import Prepared, PrepareOptions, prepare, prepare_all
from ov_model.eval.state import State, local_state
from ov_model.lake.lock import ShardLock
from tests.eval.fixtures import fixture, zipped
from tests.eval.hub import LocalHub, hub

VIDEOMME = find_benchmark("videomme")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return fixture("videomme", tmp_path_factory.mktemp("clips")).files


@pytest.fixture
def local(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr(module, "list_videos", list_from_parquet)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub() as running:
        running.put(VIDEOMME.repo, files)
        yield running


def list_from_parquet(places: Places, timeout: float) -> None:
    ids = pl.read_parquet(places.dataset / "videomme").get_column("videoID").unique(maintain_order=True)
    rows = [{"video": str(places.videos / f"data/{video}.mp4"), "key": video, "exists": True} for video in ids]
    places.videos_jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(local: LocalHub, home: Path, **options: object) -> Prepared:
    return prepare(VIDEOMME, home, PrepareOptions(endpoint=local.url, wait=0.01, retries=1, **options))  # type: ignore[arg-type]


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in found}


def test_files_lie_where_lmms_eval_and_datasets_look(local: LocalHub, tmp_path: Path) -> None:
    done = run(local, tmp_path)
    assert (done.videos, done.untouched, done.missing) == (2, False, ())
    assert {path.name for path in (tmp_path / "videomme/data").iterdir()} == {"fFjv93ACGo8.mp4", "N1cdUjctpG8.mp4"}
    assert (tmp_path / "videomme/subtitle/fFjv93ACGo8.srt").is_file()
    places = Places(VIDEOMME, tmp_path)
    assert sorted(stamps(places.dataset)) == ["README.md", "videomme/test-00000-of-00001.parquet"]
    assert len(stamps(places.archives)) == 3


def test_the_second_call_asks_nobody_and_touches_nothing(local: LocalHub, tmp_path: Path) -> None:
    first = run(local, tmp_path)
    before = stamps(tmp_path)
    local.requests.clear()
    second = run(local, tmp_path)
    assert second.untouched
    assert (second.videos, second.revision, second.downloaded) == (first.videos, first.revision, 0)
    assert stamps(tmp_path) == before
    assert not local.requests


def test_deleted_archives_are_not_fetched_again_while_their_videos_lie_there(local: LocalHub, tmp_path: Path) -> None:
    run(local, tmp_path, archives="delete")
    assert not Places(VIDEOMME, tmp_path).archives.exists()
    assert run(local, tmp_path).untouched
    (tmp_path / "videomme/data/fFjv93ACGo8.mp4").unlink()
    local.requests.clear()
    assert local_state(VIDEOMME, tmp_path).state == "damaged"
    assert not run(local, tmp_path, archives="delete").untouched
    assert local.downloads() == ["videos_chunked_01.zip"]
    assert (tmp_path / "videomme/data/fFjv93ACGo8.mp4").is_file()


def test_a_lost_video_comes_out_of_the_kept_archive(local: LocalHub, tmp_path: Path) -> None:
    run(local, tmp_path)
    (tmp_path / "videomme/data/fFjv93ACGo8.mp4").write_bytes(b"cut off")
    local.requests.clear()
    run(local, tmp_path)
    assert not local.downloads()
    assert local_state(VIDEOMME, tmp_path).state == "prepared"


def test_the_first_commit_is_kept_until_an_update_is_asked_for(
    local: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    first = run(local, tmp_path)
    video = tmp_path / "videomme/data/N1cdUjctpG8.mp4"
    untouched = (tmp_path / "videomme/data/fFjv93ACGo8.mp4").stat().st_mtime_ns
    other = zipped({"data/N1cdUjctpG8.mp4": video.read_bytes()[::-1]})
    local.put(VIDEOMME.repo, {**files, "videos_chunked_02.zip": other})
    video.unlink()
    assert run(local, tmp_path).revision == first.revision
    old = video.read_bytes()
    local.requests.clear()
    second = run(local, tmp_path, update=True)
    assert second.revision != first.revision
    assert local.downloads() == ["videos_chunked_02.zip"]
    assert video.read_bytes() == old[::-1]
    assert (tmp_path / "videomme/data/fFjv93ACGo8.mp4").stat().st_mtime_ns == untouched


def test_what_a_newer_commit_no_longer_holds_is_removed(
    local: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    local.put(VIDEOMME.repo, {**files, "extra.json": b"{}", "more.zip": zipped({"data/more.mp4": b"1"})})
    run(local, tmp_path)
    assert (tmp_path / "videomme/data/more.mp4").exists()
    local.put(VIDEOMME.repo, files)
    run(local, tmp_path, update=True)
    assert not (tmp_path / "videomme/data/more.mp4").exists()
    assert not (Places(VIDEOMME, tmp_path).dataset / "extra.json").exists()


def test_a_revision_that_was_asked_for_is_kept(local: LocalHub, files: dict[str, bytes], tmp_path: Path) -> None:
    wanted = local.repos[VIDEOMME.repo].branches["main"].sha
    local.put(VIDEOMME.repo, {**files, "extra.json": b"{}"})
    assert run(local, tmp_path, revision=wanted).revision == wanted
    assert run(local, tmp_path).untouched


def test_a_failure_in_the_middle_loses_nothing(local: LocalHub, tmp_path: Path) -> None:
    local.fail("*/videos_chunked_02.zip", 500)
    with pytest.raises(HubError, match=r"videos_chunked_02\.zip: .* answers 500"):
        run(local, tmp_path)
    assert (tmp_path / "videomme/data/fFjv93ACGo8.mp4").is_file()
    assert local_state(VIDEOMME, tmp_path).state == "part"
    local.heal()
    local.requests.clear()
    run(local, tmp_path)
    assert local.downloads() == ["videos_chunked_02.zip"]
    assert local_state(VIDEOMME, tmp_path).state == "prepared"


@pytest.mark.parametrize("evil", [{"../evil": b"1"}, {"data/x.mp4": b"\0" * (200 << 20)}])
def test_a_hostile_archive_stops_its_benchmark_and_leaves_no_file(
    local: LocalHub, files: dict[str, bytes], tmp_path: Path, evil: dict[str, bytes]
) -> None:
    import io
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in evil.items():
            archive.writestr(path, data)
    local.put(VIDEOMME.repo, {**files, "a_first.zip": stream.getvalue()})
    with pytest.raises(ArchiveError, match=r"a_first\.zip"):
        run(local, tmp_path / "home")
    assert not list((tmp_path / "home/videomme").rglob("*"))
    assert not (tmp_path / "evil").exists()


def test_an_unreadable_archive_is_fetched_again_once_it_is_deleted(
    local: LocalHub, files: dict[str, bytes], tmp_path: Path
) -> None:
    run(local, tmp_path)
    archive = Places(VIDEOMME, tmp_path).archives / "videos_chunked_01.zip"
    archive.write_bytes(b"\0" * archive.stat().st_size)
    (tmp_path / "videomme/data/fFjv93ACGo8.mp4").unlink()
    with pytest.raises(ArchiveError, match=f"rm {archive}"):
        run(local, tmp_path)
    archive.unlink()
    run(local, tmp_path)
    assert (tmp_path / "videomme/data/fFjv93ACGo8.mp4").is_file()


def test_large_files_are_fetched_one_by_one(local: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LARGE", 100)
    assert run(local, tmp_path).videos == 2
    assert run(local, tmp_path).untouched


def test_access_is_asked_for_before_anything_is_fetched(local: LocalHub, tmp_path: Path) -> None:
    repo = local.put(VIDEOMME.repo, {}, gated=True)
    with pytest.raises(AccessError, match="Accept its terms at"):
        run(local, tmp_path)
    assert not local.downloads()
    repo.accepted.add("hf_good")
    with pytest.raises(HubError, match="0 data files, 0 archives"):
        run(local, tmp_path, token="hf_good")


def test_room_is_asked_for_before_anything_is_fetched(
    local: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 20_000}))
    with pytest.raises(DiskFull, match=r"to download and about .* to unpack, .* do not fit.*--archives delete"):
        run(local, tmp_path)
    assert not local.downloads()


def test_a_link_in_the_place_of_the_videos_is_not_written_to(local: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "videomme").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link to"):
        run(local, tmp_path)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_processes_do_not_prepare_one_benchmark(local: LocalHub, tmp_path: Path) -> None:
    with ShardLock(Places(VIDEOMME, tmp_path).offline / ".prepare.lock"), pytest.raises(LockedError):
        run(local, tmp_path)


def test_one_failing_benchmark_does_not_stop_the_others(local: LocalHub, tmp_path: Path) -> None:
    names = ("tomato", "videomme", "nextqa")
    outcomes = prepare_all(
        [find_benchmark(name) for name in names], tmp_path, PrepareOptions(endpoint=local.url, retries=0)
    )
    assert [type(outcome.error).__name__ for outcome in outcomes] == ["HubError", "NoneType", "HubError"]
    assert outcomes[1].prepared is not None


def test_a_damaged_record_is_made_anew(local: LocalHub, tmp_path: Path) -> None:
    run(local, tmp_path)
    Places(VIDEOMME, tmp_path).state.write_text("{")
    local.requests.clear()
    run(local, tmp_path)
    assert not local.downloads()
    assert State.read(Places(VIDEOMME, tmp_path).state).complete


def test_a_question_whose_video_is_missing_still_says_which_one(tmp_path: Path) -> None:
    def exits(doc: str) -> list[str]:
        return [doc] if os.path.exists(doc) else sys.exit("not there")

    def gives_nothing(doc: str) -> list[str]:
        return [doc] if os.path.exists(doc) else []

    lost = str(tmp_path / "lost.mp4")
    assert list_videos._videos(exits, lost, "question 0") == [lost]
    assert list_videos._videos(gives_nothing, lost, "question 0") == [lost]
    assert not os.path.exists(lost)
    with pytest.raises(OvError, match=r"question 0: lmms-eval hands over \[3\], not paths"):
        list_videos._videos(lambda doc: [3], lost, "question 0")
