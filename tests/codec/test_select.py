"""Selection: budgets, padding policies, the first frame, ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ov_model.codec.energy import SquareMap, valid_mask
from ov_model.codec.select import SelectOptions, sample_frames, select_patches
from ov_model.errors import UsageError
from ov_model.geometry import Geometry

GEOMETRY = Geometry(sequence_length=6, num_images=2, square_size=64, patch_size=16)
VALID = np.zeros((4, 4), bool)
VALID[:, 1:3] = True
scores = arrays(np.float32, (6, 4, 4), elements=st.floats(0, 256, width=32))


def as_set(pos: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, pos.tolist()))


@given(scores)
def test_zero_keeps_frame_0_whole_then_the_best_in_descending_order(score: np.ndarray) -> None:
    pos = select_patches(score, VALID, GEOMETRY, SelectOptions()).pos_K3
    assert pos.shape == (32, 3)
    assert pos.dtype == np.int32
    assert len(as_set(pos)) == 32
    assert pos[:16].tolist() == [[0, h, w] for h in range(4) for w in range(4)]
    rest = pos[16:]
    assert (rest[:, 0] > 0).all()
    padded = np.where(VALID, score, np.float32(-1e-4))
    taken = padded[tuple(rest.T)]
    assert (np.diff(taken) <= 0).all()
    left = {(t, h, w) for t in range(1, 6) for h in range(4) for w in range(4)} - as_set(rest)
    assert taken.min() >= max(padded[key] for key in left)


@given(scores)
def test_padding_is_chosen_only_after_all_content(score: np.ndarray) -> None:
    few = Geometry(sequence_length=6, num_images=5, square_size=64, patch_size=16)
    pos = select_patches(score, VALID, few, SelectOptions("zero", keep_first_full_frame=False)).pos_K3
    is_content = VALID[pos[:, 1], pos[:, 2]]
    assert is_content.sum() == 6 * 8
    assert is_content[: 6 * 8].all()
    assert not is_content[6 * 8 :].any()


@given(scores)
def test_exclude_never_takes_padding(score: np.ndarray) -> None:
    pos = select_patches(score, VALID, GEOMETRY, SelectOptions("exclude", keep_first_full_frame=False)).pos_K3
    assert len(pos) == 2 * 8
    assert VALID[pos[:, 1], pos[:, 2]].all()


@given(scores)
def test_repeat_fills_up_with_the_last_row_and_says_so(score: np.ndarray) -> None:
    many = Geometry(sequence_length=6, num_images=6, square_size=64, patch_size=16)
    selection = select_patches(score, VALID, many, SelectOptions("repeat"))
    assert selection.pos_K3.shape == (96, 3)
    assert selection.repeated == 96 - 16 - 5 * 8
    tail = selection.pos_K3[-selection.repeated - 1 :]
    assert (tail == tail[0]).all()
    assert len(as_set(selection.pos_K3[: -selection.repeated])) == 96 - selection.repeated


def test_uniform_first_keeps_the_content_of_frame_0() -> None:
    score = np.random.default_rng(0).random((6, 4, 4)).astype(np.float32)
    options = SelectOptions("zero", keep_first_full_frame=False, keep_uniform_first=True)
    pos = select_patches(score, VALID, GEOMETRY, options).pos_K3
    assert len(pos) == 32
    assert pos[:8].tolist() == [[0, h, w] for h in range(4) for w in (1, 2)]
    assert (pos[8:, 0] > 0).all()


def test_ties_break_by_flat_index() -> None:
    pos = select_patches(np.ones((6, 4, 4), np.float32), np.ones((4, 4), bool), GEOMETRY, SelectOptions()).pos_K3
    flat = pos[:, 0] * 16 + pos[:, 1] * 4 + pos[:, 2]
    assert flat.tolist() == list(range(32))


def test_unset_flags_follow_the_explicit_ones() -> None:
    assert SelectOptions.resolve("zero", None, None).keep_first_full_frame
    assert not SelectOptions.resolve("zero", None, True).keep_first_full_frame
    assert not SelectOptions.resolve("exclude", None, None).keep_first_full_frame
    for policy, full, uniform in (("zero", True, True), ("exclude", True, None)):
        with pytest.raises(UsageError, match="keep_first_full_frame"):
            SelectOptions.resolve(policy, full, uniform)


def test_frames_are_sampled_as_published() -> None:
    assert sample_frames(487, 64)[:10].tolist() == [0, 7, 15, 23, 30, 38, 46, 54, 61, 69]
    assert sample_frames(487, 64)[-3:].tolist() == [470, 478, 486]
    assert sample_frames(737, 64)[:10].tolist() == [0, 11, 23, 35, 46, 58, 70, 81, 93, 105]
    assert sample_frames(737, 64)[-3:].tolist() == [712, 724, 736]
    assert sample_frames(3, 8).tolist() == [0, 0, 0, 0, 1, 1, 1, 2]
    assert sample_frames(10, 4, offset=10).tolist() == sample_frames(10, 4).tolist()
    assert sample_frames(10, 3, offset=4).tolist() == [4, 6, 9]


def test_portrait_content_lies_where_published() -> None:
    square = SquareMap.fit(640, 360, 576)
    assert (square.scale, square.Wn, square.pad_left) == (0.9, 324, 126)
    assert square.valid_range(16) == (0, 36, 8, 28)
    assert valid_mask(square, Geometry()).sum() == 720


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_content_always_fits_the_square(height: int, width: int) -> None:
    square = SquareMap.fit(height, width, 576)
    assert square.pad_top + square.Hn + square.pad_bottom == 576
    assert square.pad_left + square.Wn + square.pad_right == 576
    assert min(square.pad_top, square.pad_left, square.pad_bottom, square.pad_right) >= 0
    assert max(square.Hn, square.Wn) == 576
