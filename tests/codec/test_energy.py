"""Energy: our one-pass kernel against a plain numpy + OpenCV re-computation, and the published choice."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ov_model.codec.energy import (
    FUSE_MODES,
    EnergyOptions,
    SquareMap,
    motion_magnitude,
    motion_scale,
    patch_scores,
    residual_gradient,
    residual_histogram,
    residual_scale,
    valid_mask,
)
from ov_model.codec.select import SelectOptions, select_patches
from ov_model.errors import UsageError
from ov_model.geometry import Geometry


def score(motion: np.ndarray, residual: np.ndarray, geometry: Geometry, options: EnergyOptions) -> np.ndarray:
    square = SquareMap.fit(residual.shape[0], residual.shape[1], geometry.square_size)
    magnitude = motion_magnitude(motion, options)
    motion_at_1, residual_at_1 = motion_scale(magnitude, options), residual_scale(residual_histogram(residual), options)
    shape = residual.shape[0], residual.shape[1]
    return patch_scores(magnitude, residual, motion_at_1, residual_at_1, square, geometry, options, shape=shape)


def plain_score(motion: np.ndarray, residual: np.ndarray, geometry: Geometry, options: EnergyOptions) -> np.ndarray:
    """The formula step by step, whole planes at a time."""
    height, width = residual.shape
    vectors = motion.astype(np.float64) / options.mv_unit_div
    center = {"median": np.median, "mean": np.mean, "none": lambda v, axis: 0.0}[options.mv_compensate]
    magnitude = np.linalg.norm(vectors - center(vectors.reshape(-1, 2), axis=0), axis=2)
    mv = np.clip(magnitude / max(np.percentile(magnitude, options.mv_pct), 1e-6), 0, 1)
    mv = mv.repeat(4, 0).repeat(4, 1)[:height, :width]
    res = np.clip(residual / max(np.percentile(residual, options.res_pct), 1.0), 0, 1)
    fused = {
        "weighted": (options.w_mv * mv + options.w_res * res) / (options.w_mv + options.w_res),
        "max": np.maximum(mv, res),
        "sum": np.clip(mv + res, 0, 1),
        "geomean": np.sqrt(mv * res),
    }[options.fuse_mode]
    square = SquareMap.fit(height, width, geometry.square_size)
    plane = np.zeros((geometry.square_size,) * 2)
    resized = cv2.resize(fused.astype(np.float32), (square.Wn, square.Hn), interpolation=cv2.INTER_LINEAR)
    plane[square.pad_top : square.pad_top + square.Hn, square.pad_left : square.pad_left + square.Wn] = resized
    g, p = geometry.grid, geometry.patch_size
    return plane.reshape(g, p, g, p).sum(axis=(1, 3))


@pytest.mark.parametrize("mode", FUSE_MODES)
@pytest.mark.parametrize("compensate", ["median", "mean", "none"])
@pytest.mark.parametrize("shape", [(96, 64), (64, 96), (33, 130), (257, 31)])
def test_kernel_equals_the_formula(small: Geometry, shape: tuple[int, int], mode: str, compensate: str) -> None:
    rng = np.random.default_rng(1)
    residual = rng.integers(0, 30, shape).astype(np.uint8)
    motion = rng.integers(-9, 9, (-(-shape[0] // 4), -(-shape[1] // 4), 2)).astype(np.int16)
    options = EnergyOptions(fuse_mode=mode, mv_compensate=compensate, w_mv=2.0, w_res=0.5)
    ours = score(motion, residual, small, options)
    np.testing.assert_allclose(ours, plain_score(motion, residual, small, options), rtol=2e-5, atol=2e-3)


@given(arrays(np.uint8, (13, 17)), st.floats(0, 100))
def test_histogram_percentile_equals_numpy(residual: np.ndarray, percentile: float) -> None:
    ours = residual_scale(residual_histogram(residual), EnergyOptions(res_pct=percentile))
    assert ours == pytest.approx(max(np.percentile(residual, percentile), 1.0), rel=1e-9)


def test_without_residual_motion_alone_decides(small: Geometry) -> None:
    motion = np.zeros((16, 16, 2), np.int16)
    motion[4:8, 4:8] = 5
    options = EnergyOptions(fuse_mode="geomean")
    magnitude = motion_magnitude(motion, options)
    square = SquareMap.fit(64, 64, 64)
    found = patch_scores(magnitude, None, 5.0, 1.0, square, small, options, shape=(64, 64))
    assert found[1, 1] > 0
    assert found.sum() == found[1, 1]


def test_without_vectors_or_residual_everything_is_zero(small: Geometry) -> None:
    square = SquareMap.fit(48, 64, 64)
    assert not patch_scores(None, None, 1.0, 1.0, square, small, EnergyOptions(), shape=(48, 64)).any()


def test_gradient_sees_edges_not_levels() -> None:
    residual = np.full((8, 8), 40, np.uint8)
    residual[:, 4:] = 60
    gradient = residual_gradient(residual)
    assert gradient[:, [3, 4]].min() == 10
    assert not gradient[:, [0, 1, 2, 5, 6, 7]].any()


@pytest.mark.parametrize(
    "options",
    [{"fuse_mode": "best"}, {"mv_pct": 101}, {"mv_unit_div": 0}, {"w_mv": 0, "w_res": 0}, {"normalize": "video"}],
)
def test_nonsense_is_refused_by_name(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        EnergyOptions(**options)  # type: ignore[arg-type]


def test_published_signals_give_the_published_choice(shared_data: Path) -> None:
    signals = np.load(shared_data / "reference" / "signals.npz")
    published = np.load(next((shared_data / "reference" / "stage1").glob("*.visidx_thw.npy")))
    geometry, options = Geometry(), EnergyOptions()
    residuals = np.abs(signals["residual"].astype(np.int16) - 128).astype(np.uint8)
    scores = np.stack([score(m, r, geometry, options) for m, r in zip(signals["motion"], residuals, strict=True)])
    mask = valid_mask(SquareMap.fit(residuals.shape[1], residuals.shape[2], geometry.square_size), geometry)
    ours = select_patches(scores, mask, geometry, SelectOptions()).pos_K3
    assert set(map(tuple, ours.tolist())) == set(map(tuple, published.tolist()))
    moved = (ours != published).any(axis=1)
    assert moved.mean() < 0.006
    a, b = scores[tuple(ours[moved].T)], scores[tuple(published[moved].T)]
    np.testing.assert_allclose(a, b, rtol=1e-5)
