"""A HIT is an asset of these very bytes that fits the run; everything else says what is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov_model.eval.asset import AssetFault, read_mosaics
from ov_model.eval.lookup import Found, Lookup, VideoHashes, assets_hash, one_configuration
from ov_model.eval.offline import OfflineIndex
from ov_model.lake.layout import Shard, ledger_path
from ov_model.lake.ledger import Ledger, Row
from tests.eval.assets import SMALL, cfg, damage_inside, video, write_asset, write_meta
from tests.factories import picture


def lookup(*roots: Path, accept_unhashed: bool = False, cache: Path | None = None) -> Lookup:
    index = OfflineIndex.open(roots)
    return Lookup(index, SMALL, VideoHashes(index.roots, cache), accept_unhashed=accept_unhashed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clip.mp4 and its asset in assets/clip."""
    folder = tmp_path_factory.mktemp("made")
    write_asset(folder / "assets", "clip", video(folder / "clip.mp4"))
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "place"))


def test_an_asset_of_the_same_bytes_is_a_hit(place: Path) -> None:
    found = lookup(place / "assets").find("bench", str(place / "clip.mp4"))
    assert (found.status, found.key, found.signal, found.unhashed) == ("hit", "clip", "residual", False)
    assert found.identity == json.loads((place / "assets" / "clip" / "meta.json").read_text())["output_hash"]


def test_of_two_roots_with_one_stem_the_right_one_is_taken(tmp_path: Path) -> None:
    one, two = video(tmp_path / "one" / "clip.mp4", seed=1), video(tmp_path / "two" / "clip.mp4", seed=2)
    roots = (tmp_path / "a" / "assets", tmp_path / "b" / "assets")
    for root, source in zip(roots, (one, two), strict=True):
        write_asset(root, "clip", source)
    both = lookup(*roots)
    assert Path(both.find("bench", str(one)).folder).parent == roots[0]
    assert Path(both.find("bench", str(two)).folder).parent == roots[1]
    third = video(tmp_path / "three" / "clip.mp4", seed=3)
    found = both.find("bench", str(third))
    assert found.status == "invalid"
    assert "made from another video" in found.reason


def test_equal_size_does_not_make_another_video_a_hit(place: Path) -> None:
    clip = place / "clip.mp4"
    data = bytearray(clip.read_bytes())
    data[-1] ^= 1
    clip.write_bytes(bytes(data))
    found = lookup(place / "assets").find("bench", str(clip))
    assert found.status == "invalid"
    assert "SHA-256" in found.reason


def test_no_asset_is_a_miss_and_no_video_is_unreadable(place: Path) -> None:
    other = video(place / "other.mp4", seed=5)
    assert lookup(place / "assets").find("bench", str(other)).status == "miss"
    assert lookup(place / "assets").find("bench", str(place / "gone.mp4")).status == "unreadable"


def positions(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(asset: Path) -> None:
        np.save(asset / "positions_thw.npy", change(np.load(asset / "positions_thw.npy")))

    return damage


def meta(**fields: object) -> Callable[[Path], None]:
    def damage(asset: Path) -> None:
        path = asset / "meta.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


def moved(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[:-1], [[8, 0, 0]]])


def torn(name: str) -> Callable[[Path], None]:
    return lambda asset: (asset / name).write_bytes((asset / name).read_bytes()[:-40])  # type: ignore[return-value]


def small_mosaic(asset: Path) -> None:
    Image.new("RGB", (32, 32)).save(asset / "mosaic_001.jpg")


@pytest.mark.parametrize(
    ("damage", "status", "message"),
    [
        (lambda asset: (asset / "mosaic_001.jpg").unlink(), "miss", "mosaic_001.jpg is missing"),
        (lambda asset: (asset / "positions_thw.npy").unlink(), "miss", "positions_thw.npy is missing"),
        (lambda asset: (asset / "meta.json").unlink(), "miss", "meta.json: no such file"),
        (lambda asset: shutil.copy(asset / "mosaic_000.jpg", asset / "mosaic_002.jpg"), "invalid", "3 mosaics"),
        (small_mosaic, "invalid", "32x32 pixels; expected a JPEG of 64x64"),
        (torn("mosaic_000.jpg"), "invalid", "ends in the middle"),
        (lambda asset: (asset / "mosaic_000.jpg").write_bytes(b"x"), "invalid", "not a picture"),
        (torn("positions_thw.npy"), "invalid", "not an array"),
        (positions(lambda rows: rows[:-1]), "invalid", r"\(31, 3\); expected int32 \(32, 3\)"),
        (positions(lambda rows: rows.astype(np.float32)), "invalid", "float32"),
        (positions(moved), "invalid", r"row 31 is \[8, 0, 0\]; \(t, h, w\) must lie below \(8, 4, 4\)"),
        (positions(lambda rows: rows[::-1]), "invalid", "must be sorted"),
        (lambda asset: np.save(asset / "visible_indices.npy", np.arange(32)), "invalid", "name different patches"),
        (lambda asset: np.save(asset / "frame_ids.npy", np.arange(9)), "invalid", r"shape \(9,\); expected \(8,\)"),
        (meta(cfg=cfg(num_images=8)), "invalid", "num_images is 8, this run's is 2"),
        (meta(cfg=cfg(square_size=576)), "invalid", "square_size is 576, this run's is 64"),
        (meta(cfg={}), "invalid", "seq_len_frames is None, this run's is 8"),
        (lambda asset: (asset / "meta.json").write_text("{"), "invalid", "unreadable"),
        (meta(content_hash=None, size=None), "invalid", "--accept_unhashed"),
    ],
)  # fmt: skip
def test_assets_that_do_not_fit_say_why(place: Path, damage: Callable, status: str, message: str) -> None:
    damage(place / "assets" / "clip")
    found = lookup(place / "assets").find("bench", str(place / "clip.mp4"))
    assert found.status == status
    with pytest.raises(AssetFault, match=message):
        raise AssetFault(found.reason)


def test_an_asset_of_a_folder_of_frames_is_a_hit_until_a_frame_changes(tmp_path: Path) -> None:
    folder = tmp_path / "episode.s01"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(picture("square", number, 64, 48)).save(folder / f"{number:05d}.jpg")
    write_asset(tmp_path / "assets", folder.name, folder)
    assert lookup(tmp_path / "assets").find("bench", str(folder)).status == "hit"
    Image.fromarray(picture("noise", 0, 64, 48)).save(folder / "00003.jpg")
    assert lookup(tmp_path / "assets").find("bench", str(folder)).status == "invalid"
    for frame in folder.iterdir():
        frame.unlink()
    assert lookup(tmp_path / "assets").find("bench", str(folder)).status == "unreadable"


def test_files_that_are_not_those_that_were_written_are_invalid(place: Path) -> None:
    damage_inside(place / "assets" / "clip" / "mosaic_001.jpg")
    found = lookup(place / "assets").find("bench", str(place / "clip.mp4"))
    assert found.status == "invalid"
    assert "not those that were written" in found.reason


def test_a_mosaic_damaged_in_the_middle_is_found_when_it_is_read(place: Path) -> None:
    path = place / "assets" / "clip" / "mosaic_000.jpg"
    damage_inside(path)
    with pytest.raises(AssetFault, match=r"mosaic_000\.jpg: does not decode"):
        read_mosaics(path.parent, SMALL)


def test_assets_without_a_hash_are_taken_when_asked_and_counted(tmp_path: Path) -> None:
    clip, root = video(tmp_path / "clip.mp4"), tmp_path / "assets"
    write_asset(root, "clip", clip, hashed=False)
    found = lookup(root, accept_unhashed=True).find("bench", str(clip))
    assert (found.status, found.unhashed) == ("hit", True)
    assert len(found.identity) == 64
    shutil.copytree(root / "clip", tmp_path / "second" / "clip")
    found = lookup(root, tmp_path / "second", accept_unhashed=True).find("bench", str(clip))
    assert found.status == "invalid"
    assert "no content hash tells" in found.reason


def test_a_hashed_asset_is_preferred_to_one_without(place: Path, tmp_path: Path) -> None:
    write_meta(tmp_path / "first" / "clip")
    found = lookup(tmp_path / "first", place / "assets", accept_unhashed=True).find("bench", str(place / "clip.mp4"))
    assert (found.status, found.unhashed) == ("hit", False)


def test_hashes_come_from_the_ledger_then_from_the_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, cache = (place / "clip.mp4").resolve(), place / "cache.parquet"
    hashes = VideoHashes((), cache)
    content = hashes(clip)
    hashes.save()
    state = clip.stat()
    row = Row(0, "k", "k", "m", "video", path=str(clip), size=state.st_size, mtime_ns=state.st_mtime_ns)
    row.content_hash = content
    shard = Shard(0, 1)
    assert ledger_path(place, "assets", shard).parent == place / "ledger"
    with Ledger(place, "assets", shard) as ledger:
        ledger.append(row)
        ledger.compact(keep_unseen=False)
    monkeypatch.setattr("ov_model.eval.lookup.hash_media", lambda path: pytest.fail("read again"))
    assert VideoHashes((), cache)(clip) == content
    assert VideoHashes([place / "assets"])(clip) == content


def test_hits_of_one_benchmark_share_their_options() -> None:
    hit = Found("bench", "1.mp4", "1", "hit", options="x", cfg='{"mv_pct": 95.0}', identity="i")
    other = replace(hit, video="2.mp4", key="2")
    odd = replace(hit, video="3.mp4", key="3", options="y", cfg='{"mv_pct": 90.0}')
    result = one_configuration([odd, hit, other])
    assert [one.status for one in result] == ["invalid", "hit", "hit"]
    assert "mv_pct is 90.0, theirs 95.0" in result[0].reason
    assert "configuration y, theirs x" in result[0].reason
    apart = replace(odd, task="videomme")
    assert [one.status for one in one_configuration([apart, hit])] == ["hit", "hit"]


def test_the_hash_over_assets_follows_what_is_read_and_no_order() -> None:
    one = Found("t", "1.mp4", "1", "hit", identity="a")
    two = replace(one, key="2", video="2.mp4")
    assert assets_hash([one, two]) == assets_hash([two, one])
    assert assets_hash([one, two]) != assets_hash([replace(one, identity="b"), two])
    assert assets_hash([one]) == assets_hash([one, replace(two, status="miss")])
