"""The index of offline assets: built once, read again only where something changed, looked up by task and key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_model.errors import UsageError
from ov_model.eval.keys import video_keys
from ov_model.eval.offline import OfflineIndex, candidate_keys, family, find_roots, same_benchmark
from tests.eval.assets import cfg, write_meta


def reads(index: OfflineIndex) -> int:
    return sum(report.read for report in index.reports)


def test_an_index_reads_again_only_what_changed(tmp_path: Path) -> None:
    root, cache = tmp_path / "assets", tmp_path / "cache"
    for key in "abc":
        write_meta(root / key, task="bench", content_hash=key * 64, size=3)
    assert reads(OfflineIndex.open([root], cache=cache)) == 3
    assert reads(OfflineIndex.open([root], cache=cache)) == 0
    write_meta(root / "b", task="bench", content_hash="d" * 64, size=44)
    write_meta(root / "new", task="bench")
    (root / "c" / "meta.json").unlink()
    (root / "c").rmdir()
    index = OfflineIndex.open([root], cache=cache)
    assert reads(index) == 2
    assert len(index) == 3
    assert [asset.size for asset in index.find("bench", ["b"])] == [44]
    assert index.find("bench", ["c"]) == ()


def test_a_meta_of_equal_size_and_later_time_is_read_again(tmp_path: Path) -> None:
    folder = write_meta(tmp_path / "assets" / "a", signal="motion__")
    OfflineIndex.open([folder.parent], cache=tmp_path / "cache")
    write_meta(folder, signal="residual")
    os.utime(folder / "meta.json", ns=(1, 1))
    (asset,) = OfflineIndex.open([folder.parent], cache=tmp_path / "cache").find("bench", ["a"])
    assert asset.signal == "residual"


def test_a_read_only_root_is_indexed_and_nothing_is_written_to_it(tmp_path: Path) -> None:
    folder = write_meta(tmp_path / "assets" / "a")
    before = sorted(folder.parent.rglob("*"))
    folder.parent.chmod(0o555)
    try:
        assert len(OfflineIndex.open([folder.parent], cache=tmp_path / "cache")) == 1
    finally:
        folder.parent.chmod(0o755)
    assert sorted(folder.parent.rglob("*")) == before


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    folder, cache = write_meta(tmp_path / "assets" / "a"), tmp_path / "cache"
    OfflineIndex.open([folder.parent], cache=cache)
    next(cache.glob("*.parquet")).write_bytes(b"no parquet")
    assert reads(OfflineIndex.open([folder.parent], cache=cache)) == 1
    (tmp_path / "file").write_bytes(b"")
    assert len(OfflineIndex.open([folder.parent], cache=tmp_path / "file" / "cache")) == 1


def test_metas_that_cannot_be_used_are_counted_and_found_with_their_fault(tmp_path: Path) -> None:
    root = tmp_path / "assets"
    write_meta(root / "good")
    for key, text in (("torn", '{"key": "to'), ("list", "[1]"), ("cfg", '{"cfg": 3}')):
        (root / key).mkdir()
        (root / key / "meta.json").write_text(text)
    (root / "empty").mkdir()
    index = OfflineIndex.open([root])
    assert index.reports[0].faulty == 4
    states = {key: index.find("bench", [key])[0].status for key in ("good", "torn", "list", "cfg", "empty")}
    assert states == {"good": "", "torn": "invalid", "list": "invalid", "cfg": "invalid", "empty": "miss"}
    assert "meta.json" in index.find("bench", ["torn"])[0].fault


def test_earlier_roots_come_first_and_duplicated_keys_are_named(tmp_path: Path) -> None:
    one, two = write_meta(tmp_path / "one" / "a"), write_meta(tmp_path / "two" / "a")
    write_meta(tmp_path / "two" / "copy", key="a")
    index = OfflineIndex.open([two.parent, one.parent])
    assert [asset.path for asset in index.find("bench", ["a"])] == [two, tmp_path / "two" / "copy", one]
    assert index.duplicates() == {("", "a"): [two, tmp_path / "two" / "copy"]}


def test_a_leaf_task_finds_assets_of_its_benchmark_and_of_no_other(tmp_path: Path) -> None:
    root = tmp_path / "mvbench_offline" / "assets"
    write_meta(root / "a", task="mvbench")
    write_meta(root / "b")
    write_meta(root / "c", task="videomme")
    index = OfflineIndex.open([root])
    assert index.find("mvbench_action_sequence", ["a"])[0].task == "mvbench"
    assert index.find("mvbench_action_sequence", ["b"])[0].task == "mvbench"
    assert index.find("mvbench_action_sequence", ["c"]) == ()
    assert same_benchmark("mybench_part", "mybench")
    assert not same_benchmark("mybenchmark", "mybench")
    assert family("something_else") == "something_else"


def test_keys_are_the_flattened_path_and_the_stem(tmp_path: Path) -> None:
    keys = candidate_keys(Path("/data/mvbench_video/star/Charades_segment/abc.mp4"))
    assert keys[-1] == "abc"
    assert "star__Charades_segment__abc" in keys
    assert keys.index("star__Charades_segment__abc") < keys.index("abc")
    folder = tmp_path / "tvqa" / "clip.v2"
    folder.mkdir(parents=True)
    assert "tvqa__clip.v2" in candidate_keys(folder)


@settings(max_examples=200, deadline=None)
@given(st.sets(st.lists(st.sampled_from(["a", "B", "b", "x.y"]), min_size=1, max_size=4).map(tuple), min_size=1))
def test_every_key_that_is_made_is_looked_for(names: set[tuple[str, ...]]) -> None:
    root = Path("/data/videos")
    paths = [str(root.joinpath(*parts).with_suffix(suffix)) for parts in names for suffix in (".mp4", ".mkv")]
    for path, key in video_keys(paths, root).items():
        assert key in candidate_keys(Path(path))


def test_a_video_outside_the_videos_folder_is_looked_for() -> None:
    paths = ["/elsewhere/a.mp4", "/data/a.mp4"]
    for path, key in video_keys(paths, Path("/data")).items():
        assert key in candidate_keys(Path(path))


def test_roots_are_found_by_the_tasks_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    (home / "bench_offline" / "assets").mkdir(parents=True)
    (tmp_path / ".huggingface_cache" / "other_offline" / "assets").mkdir(parents=True)
    found = find_roots(home, ["bench", "other", "absent"])
    assert [root.parent.name for root in found.taken] == ["bench_offline", "other_offline"]
    assert home / "absent_offline" / "assets" in found.looked


def test_two_roots_of_one_task_are_a_choice_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for home in ("home", ".huggingface_cache"):
        (tmp_path / home / "bench_offline" / "assets").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"bench: assets in .*home.* and in .*huggingface_cache.*--offline_root"):
        find_roots(tmp_path / "home", ["bench"])


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        OfflineIndex.open([tmp_path / "nowhere"])


def test_options_come_back_from_the_cache(tmp_path: Path) -> None:
    folder = write_meta(tmp_path / "assets" / "a", cfg=cfg(topk_mode="time_bucket"))
    for _ in range(2):
        (asset,) = OfflineIndex.open([folder.parent], cache=tmp_path / "cache").find("bench", ["a"])
        assert asset.options["topk_mode"] == "time_bucket"
