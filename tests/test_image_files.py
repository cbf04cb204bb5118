"""Pictures that others made: what is too large, of another kind or damaged is refused, wherever one is read."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from ov_model.checks import check_images
from ov_model.errors import BadImage, MissingFile
from ov_model.eval.asset import AssetFault, mosaic_files, read_mosaics
from ov_model.geometry import Geometry
from ov_model.image_files import FORMATS, MAX_PIXELS, open_image, read_image
from ov_model.train.data import JsonlDataset
from ov_model.train.recipe import DataRecipe
from tests.factories import make_image, make_record, write_dataset


def make_bomb(path: Path, width: int, height: int) -> Path:
    """A PNG of a few hundred bytes whose header promises width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9600, 20_000, 65_000])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    assert side * side > MAX_PIXELS
    bomb = make_bomb(tmp_path / "bomb.png", side, side)
    with pytest.raises(BadImage, match=rf"bomb\.png: .*{MAX_PIXELS:,}"), open_image(bomb):
        raise AssertionError("it was opened")


def test_the_largest_picture_that_is_allowed_opens(tmp_path: Path) -> None:
    with open_image(make_bomb(tmp_path / "large.png", 9459, 9459)) as image:
        assert image.size == (9459, 9459)


def test_formats_that_run_other_programs_stay_closed(tmp_path: Path) -> None:
    script = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(script, "EPS")
    with Image.open(script) as opened:
        assert opened.format == "EPS"
    with pytest.raises(BadImage, match="cannot identify"):
        read_image(script)
    assert "EPS" not in FORMATS


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".ppm"])
def test_usual_pictures_are_read_whole_and_damaged_ones_named(tmp_path: Path, suffix: str) -> None:
    path = make_image(tmp_path / f"i{suffix}")
    assert (read_image(path).mode, read_image(path, "L").mode) == ("RGB", "L")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadImage, match=f"i{suffix}"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_training_evaluation_and_checks_refuse_it_alike(tmp_path: Path) -> None:
    geometry = Geometry(sequence_length=8, num_images=2, square_size=64, patch_size=16)
    names = mosaic_files(geometry)
    for name in names:
        make_bomb(tmp_path / name, 12_000, 12_000)
    with pytest.raises(AssetFault, match="12000x12000"):
        read_mosaics(tmp_path, geometry)
    problems = check_images([tmp_path / name for name in names], geometry)
    assert [problem.code for problem in problems] == ["unreadable_image"] * 2
    record = make_record(names[0], kind="image")
    rows = JsonlDataset(write_dataset(tmp_path / "train.jsonl", [record]), DataRecipe(), None)
    with pytest.raises(BadImage, match="12000x12000"):
        rows[0]
    (tmp_path / names[0]).unlink()
    with pytest.raises(MissingFile):
        rows[0]
