"""Offline assets, the arithmetic: which window, which frames whole, which patches of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ov_model.codec.assets import AssetOptions, Window, choose_assets, pick_window, select_asset_patches
from ov_model.codec.choose import ChooseOptions
from ov_model.codec.select import SelectOptions, select_patches
from ov_model.codec.video import open_video
from ov_model.errors import UsageError
from ov_model.geometry import Geometry
from tests.factories import make_video, picture


def options(frames: int = 8, mosaics: int = 3, grid: int = 3, **more: Any) -> AssetOptions:
    choose = ChooseOptions(geometry=Geometry(frames, mosaics, grid * 16, 16), select=SelectOptions("repeat"))
    return AssetOptions(choose, **more)


def flat(pos_K3: NDArray[np.int32], grid: int) -> list[int]:
    t, h, w = pos_K3.T
    return (t * grid * grid + h * grid + w).tolist()


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_], AssetOptions]:
    frames, grid = draw(st.integers(1, 10)), draw(st.integers(1, 4))
    mosaics = draw(st.integers(1, frames))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    score_THW = rng.integers(0, draw(st.integers(1, 1000)), (frames, grid, grid)).astype(np.float32)
    valid_HW = rng.random((grid, grid)) < draw(st.floats(0, 1))
    middle = draw(st.booleans()) and mosaics > 1
    more = {
        "keep_mid_full_frame": middle,
        "mid_full_frame_index": draw(st.integers(-1, frames - 1)),
        "topk_mode": draw(st.sampled_from(["global", "time_bucket"])),
        "time_bucket_count": draw(st.integers(-1, 20)),
    }
    return score_THW, valid_HW, options(frames, mosaics, grid, **more)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_no_row_is_repeated_while_content_is_left(
    case: tuple[NDArray[np.float32], NDArray[np.bool_], AssetOptions],
) -> None:
    score_THW, valid_HW, asked = case
    geometry = asked.choose.geometry
    found = select_asset_patches(score_THW, valid_HW, asked)
    rows = flat(found.pos_K3, geometry.grid)
    kept = rows[: len(rows) - found.repeated]
    content = {
        t * geometry.patches_per_image + cell
        for t in range(len(score_THW))
        for cell in (range(geometry.patches_per_image) if t in asked.whole_frames else np.flatnonzero(valid_HW))
    }
    assert len(rows) == geometry.num_patches
    assert len(set(kept)) == len(kept) == min(len(content), len(rows))
    assert set(kept) <= content
    assert rows[len(kept) :] == [kept[-1]] * found.repeated
    for t in asked.whole_frames:
        assert set(range(t * geometry.patches_per_image, (t + 1) * geometry.patches_per_image)) <= set(kept)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_each_stretch_of_time_gets_its_share_or_all_it_has(
    case: tuple[NDArray[np.float32], NDArray[np.bool_], AssetOptions],
) -> None:
    score_THW, valid_HW, asked = case
    geometry, whole = asked.choose.geometry, asked.whole_frames
    others = [t for t in range(geometry.sequence_length) if t not in whole]
    left = geometry.num_patches - len(whole) * geometry.patches_per_image
    if asked.topk_mode != "time_bucket" or not others or not left:
        return
    found = select_asset_patches(score_THW, valid_HW, asked)
    t_K = found.pos_K3[: len(found.pos_K3) - found.repeated, 0]
    count = asked.time_bucket_count if asked.time_bucket_count > 0 else geometry.num_images - len(whole)
    buckets = np.array_split(others, min(count, len(others)))
    for number, bucket in enumerate(buckets):
        share = left // len(buckets) + (number < left % len(buckets))
        assert np.isin(t_K, bucket).sum() >= min(share, len(bucket) * int(valid_HW.sum()))


@settings(max_examples=200, deadline=None)
@given(cases())
def test_global_is_the_policy_repeat_and_so_is_any_mode_that_runs_out(
    case: tuple[NDArray[np.float32], NDArray[np.bool_], AssetOptions],
) -> None:
    score_THW, valid_HW, asked = case
    if asked.whole_frames != (0,):
        return
    geometry = asked.choose.geometry
    expected = select_patches(score_THW, valid_HW, geometry, SelectOptions("repeat", keep_first_full_frame=True))
    found = select_asset_patches(score_THW, valid_HW, asked)
    if asked.topk_mode == "global" or expected.repeated:
        assert np.array_equal(found.pos_K3, expected.pos_K3)
        assert found.repeated == expected.repeated


def test_one_bucket_for_each_mosaic_is_the_published_choice() -> None:
    """Each mosaic after the first shows the best patches of its own stretch, as the published tool has it."""
    rng = np.random.default_rng(3)
    asked = options(9, 3, 4, topk_mode="time_bucket")
    score_THW, valid_HW = rng.random((9, 4, 4), np.float32), np.ones((4, 4), bool)
    rows = sorted(flat(select_asset_patches(score_THW, valid_HW, asked).pos_K3, 4))
    score_TS = score_THW.reshape(9, 16)
    for mosaic, frames in ((1, range(1, 5)), (2, range(5, 9))):
        flat_S = np.concatenate([score_TS[t] for t in frames])
        best = np.argsort(-flat_S)[:16] + frames[0] * 16
        assert rows[mosaic * 16 : (mosaic + 1) * 16] == sorted(best.tolist())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_the_end_of_a_video_is_kept_whatever_the_number_of_buckets(count: int) -> None:
    score_THW = np.ones((8, 3, 3), np.float32)
    score_THW[:4] = 2
    found = select_asset_patches(
        score_THW, np.ones((3, 3), bool), options(topk_mode="time_bucket", time_bucket_count=count)
    )
    last = int(found.pos_K3[:, 0].max())
    assert last == {1: 2, 2: 5, 3: 6}.get(count, 7)
    assert found.repeated == 0


@pytest.mark.parametrize(
    ("index", "frames", "whole"), [(-1, 8, (0, 4)), (-1, 1, (0,)), (0, 8, (0,)), (7, 8, (0, 7)), (-1, 9, (0, 4))]
)
def test_the_middle_frame(index: int, frames: int, whole: tuple[int, ...]) -> None:
    asked = options(frames, min(frames, 3), keep_mid_full_frame=True, mid_full_frame_index=index)
    assert asked.whole_frames == whole


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"keep_mid_full_frame": True, "mid_full_frame_index": 8}, "mid_full_frame_index is 8"),
        ({"keep_mid_full_frame": True, "mosaics": 1}, "raise num_images"),
        ({"topk_mode": "best"}, "topk_mode is 'best'"),
        ({"window_pick": "last"}, "window_pick is 'last'"),
    ],
)
def test_options_that_cannot_be_honored_are_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        options(**more)
    with pytest.raises(UsageError, match="leave padding_policy"):
        AssetOptions(ChooseOptions())


def test_windows() -> None:
    size_N = np.full(100, 10, np.int64)
    whole = Window(0, 99)
    assert [pick_window(size_N, length, "mid") for length in (0, 100, 101)] == [whole] * 3
    assert pick_window(size_N, 31, "begin") == pick_window(size_N, 31, "none") == Window(0, 30)
    assert pick_window(size_N, 31, "mid") == Window(34, 64)
    assert pick_window(size_N, 31, "end") == Window(69, 99)


def test_energy3_takes_the_most_bytes_then_the_first_then_the_middle() -> None:
    size_N = np.zeros(30, np.int64)
    assert pick_window(size_N, 10, "energy3") == Window(10, 19, {"begin": 0, "mid": 0, "end": 0}, "mid")
    size_N[[0, 29]] = 5
    assert pick_window(size_N, 10, "energy3").best == "begin"
    size_N[[0, 29]] = 5, 6
    assert pick_window(size_N, 10, "energy3") == Window(20, 29, {"begin": 5, "mid": 0, "end": 6}, "end")


def test_energy3_finds_the_busy_part_of_a_clip(tmp_path: Path) -> None:
    images = [picture("noise" if 20 <= t < 40 else "still", t, 64, 64) for t in range(60)]
    clip = make_video(tmp_path / "v.mp4", width=64, height=64, images=images)
    asked = options(window_len=20, window_pick="energy3")
    choice, window = choose_assets(clip, asked)
    assert (window.start, window.last, window.best) == (20, 39, "mid")
    assert choice.frame_ids_T.tolist() == np.linspace(20, 39, 8).astype(int).tolist()
    with open_video(clip) as video:
        assert window.sums is not None
        assert window.sums["mid"] == video.index.size_N[20:40].sum()
