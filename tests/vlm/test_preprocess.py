"""Pictures at the sizes, colors and positions that the encoder was trained with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ov_model.errors import UsageError, VisualMismatch
from ov_model.geometry import Geometry
from ov_model.vlm import preprocess
from ov_model.vlm.images import VisualBatch, VisualSample, text_sample
from ov_model.vlm.preprocess import ANYRES_PINPOINTS

PUBLISHED = Geometry()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def mosaic_positions(geometry: Geometry) -> np.ndarray:
    cells = np.arange(geometry.num_patches)
    grid = geometry.grid
    return np.stack([cells // grid**2, cells // grid % grid, cells % grid], axis=1).astype(np.int32)


def test_normalization_is_clips() -> None:
    found = preprocess.normalize(Image.new("RGB", (2, 1), (255, 0, 128)))
    expected = [(1 - 0.48145466) / 0.26862954, -0.4578275 / 0.26130258, (128 / 255 - 0.40821073) / 0.27577711]
    assert found.shape == (3, 1, 2)
    assert found.dtype == torch.float32
    assert torch.allclose(found[:, 0, 0], torch.tensor(expected), atol=1e-6)


def test_mosaics_are_resized_by_pil_bicubic_to_the_encoders_grid(small: Geometry) -> None:
    mosaics = [noise(64, 64, seed) for seed in range(2)]
    sample = preprocess.codec_sample(mosaics, mosaic_positions(small), small, "s1")
    assert sample.tokens_per_image == [16, 16]
    assert sample.positions_L3 is not None
    assert sample.positions_L3.dtype == torch.int64
    assert sample.positions_L3.tolist() == mosaic_positions(small).tolist()
    expected = preprocess.normalize(mosaics[1].resize((56, 56), Image.Resampling.BICUBIC))
    assert torch.equal(sample.pixels[1], expected)


def test_published_geometry_is_504_pixels_and_10368_tokens() -> None:
    sample = preprocess.codec_sample([noise(576, 576)] * 8, mosaic_positions(PUBLISHED), PUBLISHED, "s1")
    assert {tuple(picture.shape) for picture in sample.pixels} == {(3, 504, 504)}
    assert sample.num_tokens == 10_368


@pytest.mark.parametrize(
    ("mosaics", "change", "message"),
    [
        ([noise(64, 64)], {}, "1 mosaics; the geometry has 2"),
        ([noise(64, 64), noise(64, 48)], {}, "mosaic 1 is 64x48; expected 64x64"),
        ([noise(64, 64)] * 2, {"rows": slice(1, None)}, r"\(31, 3\); expected integers \(32, 3\)"),
        ([noise(64, 64)] * 2, {"dtype": np.float32}, "float32"),
        (
            [noise(64, 64)] * 2,
            {"put": (5, 0, 8)},
            r"position row 5 is \[8, 1, 1\]; \(t,h,w\) must be below \(8, 4, 4\)",
        ),
        ([noise(64, 64)] * 2, {"put": (7, 2, 4)}, r"row 7 .* below"),
        ([noise(64, 64)] * 2, {"put": (9, 1, -1)}, r"row 9 .* below"),
    ],
)
def test_mosaics_that_do_not_fit_name_the_sample(
    small: Geometry, mosaics: list[Image.Image], change: dict[str, Any], message: str
) -> None:
    positions = mosaic_positions(small)
    if "put" in change:
        row, axis, value = change["put"]
        positions[row, axis] = value
    positions = positions[change.get("rows", slice(None))].astype(change.get("dtype", np.int32))
    with pytest.raises(VisualMismatch, match=f"sample 's1': .*{message}"):
        preprocess.codec_sample(mosaics, positions, small, "s1")


def test_plain_frames_spread_over_the_time_steps() -> None:
    assert preprocess.frame_times(8, 64).tolist() == [0, 9, 18, 27, 36, 45, 54, 63]
    sample = preprocess.frames_sample([noise(100, 60)] * 8, PUBLISHED, "s1")
    assert sample.positions_L3 is not None
    times, rows, columns = sample.positions_L3.T
    assert times[:: 36 * 36].tolist() == [0, 9, 18, 27, 36, 45, 54, 63]
    assert rows[:72].tolist() == [0] * 36 + [1] * 36
    assert columns[:37].tolist() == [*range(36), 0]


@pytest.mark.parametrize(
    ("size", "pinpoint"),
    [
        ((640, 480), (1120, 574)),  # all pixels fit in several: least waste
        ((1000, 500), (1120, 574)),
        ((500, 1000), (574, 1120)),
        ((300, 900), (574, 1120)),
        ((600, 2000), (574, 1694)),
        ((2000, 600), (1694, 574)),
        ((3000, 3000), (1120, 1120)),
    ],
)
def test_anyres_takes_the_pinpoint_that_keeps_most(size: tuple[int, int], pinpoint: tuple[int, int]) -> None:
    assert preprocess.best_pinpoint(*size, ANYRES_PINPOINTS) == pinpoint
    assert preprocess.best_pinpoint(*size, ANYRES_PINPOINTS[::-1]) == pinpoint
    sample = preprocess.image_sample([Image.new("RGB", size)], PUBLISHED, "s1", "anyres")
    assert tuple(sample.pixels[0].shape) == (3, pinpoint[1], pinpoint[0])
    assert sample.tokens_per_image == [pinpoint[0] // 14 * (pinpoint[1] // 14)]
    assert sample.positions_L3 is None


def test_fit_keeps_the_aspect_and_centers_on_black() -> None:
    found = np.asarray(preprocess.fit(Image.new("RGB", (40, 10), (255, 255, 255)), 80, 60))
    assert found.shape == (60, 80, 3)
    lit = found[..., 0].max(axis=1) > 0
    assert lit.nonzero()[0].tolist() == list(range(20, 40))
    assert (found[20:40] == 255).all()


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 200), height=st.integers(1, 200))
def test_every_picture_fits_its_pinpoint(width: int, height: int) -> None:
    target = preprocess.best_pinpoint(width, height, [(28, 56), (56, 28), (42, 42)])
    fitted = preprocess.fit(Image.new("RGB", (width, height), (255, 255, 255)), *target)
    assert fitted.size == target
    assert np.asarray(fitted).max() == 255


def test_pad_is_a_black_square_and_plain_a_plain_resize(small: Geometry) -> None:
    wide = Image.new("RGB", (80, 40), (255, 255, 255))
    padded = np.asarray(preprocess.prepare_image(wide, small, "pad"))
    plain = np.asarray(preprocess.prepare_image(wide, small, "plain"))
    assert padded.shape == plain.shape == (56, 56, 3)
    assert padded[0].max() == 0
    assert padded[28].min() == 255
    assert plain.min() == 255


def test_unknown_ways_to_prepare_a_picture_are_errors(small: Geometry) -> None:
    with pytest.raises(UsageError, match="use anyres, pad or plain"):
        preprocess.prepare_image(noise(8, 8), small, "crop")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"pinpoint \(30, 28\) is not whole patches of 14 px"):
        preprocess.prepare_image(noise(8, 8), small, "anyres", [(30, 28)])
    with pytest.raises(UsageError, match="image_grid_pinpoints is empty"):
        preprocess.prepare_image(noise(8, 8), small, "anyres", [])


def zeros(*sizes: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(3, *size) for size in sizes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "movie", "pixels": zeros((14, 14))}, "kind is 'movie'"),
        ({"kind": "image"}, "0 pictures in a sample of kind 'image'"),
        ({"kind": "text", "pixels": zeros((14, 14))}, "1 pictures in a sample of kind 'text'"),
        ({"kind": "image", "pixels": zeros((14, 14), (14, 15))}, r"picture 1 has shape \(3, 14, 15\)"),
        ({"kind": "frames", "pixels": zeros((14, 14), (14, 28))}, "differ in size"),
        ({"kind": "codec", "pixels": zeros((14, 28))}, r"needs positions \[2,3\]"),
        (
            {"kind": "codec", "pixels": zeros((14, 28)), "positions_L3": torch.zeros(3, 3).long()},
            r"shape \(3, 3\); 1 pictures are 2 tokens",
        ),
        ({"kind": "codec", "pixels": zeros((14, 14)), "positions_L3": torch.zeros(1, 3)}, "float32"),
        ({"kind": "codec", "pixels": zeros((14, 14)), "positions_L3": torch.tensor([[0, -2, 0]])}, "-2 is negative"),
    ],
)
def test_samples_that_do_not_fit_name_themselves(values: dict[str, Any], message: str) -> None:
    with pytest.raises(VisualMismatch, match=f"sample 's1': .*{message}"):
        VisualSample(sample_id="s1", **values)


def test_first_pictures_of_a_sample() -> None:
    images = VisualSample("s1", "image", zeros((14, 14), (28, 14), (14, 14)), torch.arange(12).reshape(4, 3))
    kept = images.first(2)
    assert kept.tokens_per_image == [1, 2]
    assert kept.positions_L3 is not None
    assert kept.positions_L3.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert images.first(3) is images
    assert images.first(0).kind == "text"
    with pytest.raises(VisualMismatch, match="cannot keep 4 of the 3"):
        images.first(4)
    video = VisualSample("s2", "frames", zeros((14, 14), (14, 14)), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(VisualMismatch, match="cannot keep 1 of the 2"):
        video.first(1)


def test_batch_moves_pixels_and_positions_but_casts_pixels_only() -> None:
    video = VisualSample("s1", "codec", zeros((14, 14)), torch.zeros(1, 3, dtype=torch.int64))
    batch = VisualBatch.of([video, text_sample("s2")]).to("cpu", dtype=torch.bfloat16)
    assert [len(batch), batch.num_tokens, batch[1].kind] == [2, 1, "text"]
    assert batch[0].pixels[0].dtype == torch.bfloat16
    assert batch[0].positions_L3 is not None
    assert batch[0].positions_L3.dtype == torch.int64
    assert batch[0].sample_id == "s1"
