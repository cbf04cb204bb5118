"""Mosaics: every tile holds the patch that its position names; the published JPEGs come out byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_model.codec.choose import read_contents
from ov_model.codec.energy import SquareMap
from ov_model.errors import UsageError
from ov_model.geometry import Geometry
from ov_model.mosaic.pack import pack_mosaics, pad_to_square, sort_positions
from ov_model.mosaic.write import PackOptions, write_pack

SMALL = Geometry(sequence_length=8, num_images=2, square_size=64, patch_size=16)
ALL = [(t, h, w) for t in range(8) for h in range(4) for w in range(4)]
positions = st.permutations(ALL).map(lambda rows: np.array(rows[:32], np.int32))


def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)


@given(positions)
@settings(max_examples=30)
def test_row_j_fills_tile_j(pos: np.ndarray) -> None:
    pos, shown = sort_positions(pos), frames()
    mosaics = pack_mosaics(((np.array([t]), frame) for t, frame in enumerate(shown)), pos, SMALL)
    for j, (t, h, w) in enumerate(pos.tolist()):
        n, cell = divmod(j, 16)
        y, x = 16 * (cell // 4), 16 * (cell % 4)
        tile = mosaics[n, y : y + 16, x : x + 16]
        assert (tile == shown[t, 16 * h : 16 * h + 16, 16 * w : 16 * w + 16]).all()


@given(positions)
@settings(max_examples=30)
def test_spatial_layout_puts_later_patches_over_earlier(pos: np.ndarray) -> None:
    pos, shown = sort_positions(pos), frames()
    given_frames = [(np.array([t]), frame) for t, frame in enumerate(shown)]
    mosaics = pack_mosaics(given_frames, pos, SMALL, "spatial")
    expected = np.zeros_like(mosaics)
    for j, (t, h, w) in enumerate(pos.tolist()):
        patch = shown[t, 16 * h : 16 * h + 16, 16 * w : 16 * w + 16]
        expected[j // 16, 16 * h : 16 * h + 16, 16 * w : 16 * w + 16] = patch
    assert (mosaics == expected).all()


def test_a_frame_sampled_twice_serves_both_times() -> None:
    shown = frames()
    pos = np.array([(t, h, w) for t in (2, 3) for h in range(4) for w in range(4)], np.int32)
    mosaics = pack_mosaics([(np.array([2, 3]), shown[0])], pos, SMALL)
    assert (mosaics[0] == shown[0]).all()
    assert (mosaics[1] == shown[0]).all()


def test_positions_that_do_not_fill_mosaics_are_refused() -> None:
    with pytest.raises(UsageError, match="31 positions do not fill 2 mosaics"):
        pack_mosaics([], np.zeros((31, 3), np.int32), SMALL)


def test_export_patches_writes_one_file_a_row(tmp_path: Path) -> None:
    square = SquareMap.fit(64, 64, 64)
    pos = np.array(ALL[:32], np.int32)
    options = PackOptions(SMALL, export_patches=True)
    contents = [(i, frame) for i, frame in enumerate(frames())]
    names, _, _ = write_pack(tmp_path, "v.mp4", contents, np.arange(8, dtype=np.int32), pos, square, options)
    assert "patches/1_3_3_1_3_3.jpg" in names
    assert len(list((tmp_path / "patches").glob("*.jpg"))) == 32


def test_padding_is_black() -> None:
    square = SquareMap.fit(64, 32, 64)
    padded = pad_to_square(np.full((64, 32, 3), 9, np.uint8), square)
    assert (padded[:, 16:48] == 9).all()
    assert padded.sum() == 9 * 64 * 32 * 3


def test_published_mosaics_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    prefix = next((shared_data / "reference" / "stage1").glob("*.visidx_thw.npy"))
    pos = np.load(prefix)
    frame_ids = np.load(str(prefix).replace(".visidx_thw", ".frame_ids"))
    video = next((shared_data / "demo" / "videos").glob("*.mp4"))
    square = SquareMap.fit(640, 360, 576)
    names, _, _ = write_pack(
        tmp_path, video.name, read_contents(video, frame_ids, square), frame_ids, pos, square, PackOptions()
    )
    assert len(names) == 9
    for name in names:
        assert (tmp_path / name).read_bytes() == (shared_data / "reference" / "stage2" / name).read_bytes(), name
