"""Previews: within their budget, and showing what was chosen where."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ov_assets.previews import BUDGET_BYTES, Pack, contact_sheet, encode_within, heat_map, lay_out, preview_markdown
from ov_model.geometry import Geometry

GRID = 36


@pytest.fixture
def noisy_pack(tmp_path: Path) -> Pack:
    """Mosaics of noise, the worst there is to compress, at the published geometry."""
    rng = np.random.default_rng(0)
    geometry = Geometry()
    paths = []
    for i in range(geometry.num_images):
        path = tmp_path / f"x_{i:03d}.jpg"
        Image.fromarray(rng.integers(0, 256, (576, 576, 3), dtype=np.uint8)).save(path, quality=95)
        paths.append(path)
    flat = np.concatenate(
        [np.arange(GRID**2), np.sort(rng.choice(np.arange(GRID**2, 64 * GRID**2), 7 * GRID**2, replace=False))]
    )
    t, cell = np.divmod(flat, GRID**2)
    np.save(tmp_path / "positions_thw.npy", np.stack([t, cell // GRID, cell % GRID], axis=1).astype(np.int32))
    return Pack("a [title] with *marks*", tuple(paths), tmp_path / "positions_thw.npy")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_whole_preview_stays_within_64_kb(noisy_pack: Pack, count: int):
    text = preview_markdown([noisy_pack] * count, Geometry())
    assert len(text.encode()) <= BUDGET_BYTES == 64 * 1024
    pictures = re.findall(r"!\[\]\(data:image/jpeg;base64,([A-Za-z0-9+/=]+)\)", text)
    assert len(pictures) == count
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture))).load()
    assert r"a \[title\] with \*marks\*" in text


def test_the_sheet_shows_four_mosaics_the_heat_map_and_three_frames(noisy_pack: Pack):
    sheet = contact_sheet(noisy_pack, Geometry())
    assert sheet.shape == (2 * (144 + 4), 4 * (144 + 4), 3)


def test_tiles_are_laid_out_at_their_position():
    tiles = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (50, 200)])
    picture = lay_out(tiles, np.array([[1, 0, 2], [1, 3, 1]], np.int32), 4)
    assert (picture[0:4, 8:12] == 50).all()
    assert (picture[12:16, 4:8] == 200).all()
    assert picture.sum() == 3 * 16 * (50 + 200)


def test_the_heat_map_is_warm_where_patches_were_chosen_after_the_first_frame():
    pos = np.array([[0, 0, 0], [0, 1, 1], *[[t, 2, 3] for t in range(1, 9)], [1, 3, 0]], np.int32)
    heat = heat_map(pos, np.full((16, 16, 3), 100, np.uint8), 4).astype(int)
    often, once, never = heat[8:12, 12:16].mean(), heat[12:16, 0:4, 0].mean(), heat[0:4, 0:4]
    assert often > once
    assert (never == 80).all()


def test_a_picture_that_cannot_fit_is_left_out():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert encode_within(noise, 50) is None
    found = encode_within(noise, 1500)
    assert found is not None
    assert len(found) <= 1500
