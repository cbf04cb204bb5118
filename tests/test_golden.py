"""What each stage makes of fixed input, by version: other bytes under an unchanged version would be reused as if equal.

When a test here fails on purpose, raise the stage's version (lake/stages.py, lake/dataset.py) and add its line.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from ov_model.codec.assets import AssetOptions, choose_assets, select_asset_patches
from ov_model.codec.choose import ChooseOptions, choose_patches
from ov_model.codec.energy import (
    EnergyOptions,
    SquareMap,
    motion_magnitude,
    motion_scale,
    patch_scores,
    residual_histogram,
    residual_scale,
    valid_mask,
)
from ov_model.codec.select import SelectOptions, select_patches
from ov_model.codec.signals import SignalOptions, resolve
from ov_model.codec.video import open_video
from ov_model.geometry import Geometry
from ov_model.lake.asset_meta import flat_indices
from ov_model.lake.dataset import JSONL_VERSION
from ov_model.lake.files import hash_arrays
from ov_model.lake.jsonl import training_row
from ov_model.lake.records import parse_record
from ov_model.lake.stages import ASSETS_VERSION, MOSAICS_VERSION, VISIDX_VERSION
from ov_model.mosaic.pack import fit_content, pack_mosaics, pad_to_square, sort_positions

GOLDEN = {
    ("visidx", 1): "9d83184758398b7873fac9698d241998b2a74732c07c976b7dec5ed22321fb7f",
    ("mosaics", 1): "abe5b7fdc51ecb60c6ab73c165bf395a5998d7385942b6db972c1a59402424b9",
    ("assets", 1): "b136ef1041214347705b46e5094bb25b1d806a4153674200e3409fc55961c5d9",
    ("training_jsonl", 1): "e59d4b76b8baa9e26443e1371d1e8b3b196fa81f5cca05e9a6ec13a252e1a470",
}
CLIP = Path(__file__).parent / "data" / "golden.mp4"
GEOMETRY = Geometry(sequence_length=6, num_images=2, square_size=64, patch_size=16)


def positions() -> np.ndarray:
    """The choice from fixed motion and residual maps of a 50 x 96 video, for every option that changes it."""
    rng = np.random.default_rng(7)
    square = SquareMap.fit(50, 96, GEOMETRY.square_size)
    chosen = []
    for options in (EnergyOptions(), EnergyOptions(fuse_mode="geomean"), EnergyOptions(mv_compensate="mean", w_mv=3.0)):
        scores = []
        for _ in range(GEOMETRY.sequence_length):
            magnitude = motion_magnitude(rng.integers(-20, 20, (13, 24, 2)).astype(np.int16), options)
            residual = rng.integers(0, 60, (50, 96)).astype(np.uint8)
            at_1 = motion_scale(magnitude, options), residual_scale(residual_histogram(residual), options)
            scores.append(patch_scores(magnitude, residual, *at_1, square, GEOMETRY, options, shape=(50, 96)))
        mask = valid_mask(square, GEOMETRY)
        policies = SelectOptions(), SelectOptions("repeat"), SelectOptions("exclude", keep_first_full_frame=False)
        chosen += [select_patches(np.stack(scores), mask, GEOMETRY, select).pos_K3 for select in policies]
    return np.concatenate(chosen)


def choices() -> np.ndarray:
    """The choice from a small H.264 clip, by every signal that does not depend on an encoder."""
    made = []
    for signal, estimate in (("residual", False), ("residual", True), ("motion", False)):
        with open_video(CLIP) as video:
            for _, _, maps in resolve(signal, video, SignalOptions(), estimate=estimate).measure(video, range(10)):
                made += [
                    array.ravel().astype(np.int64) for array in (maps.motion_hw2, maps.residual_HW) if array is not None
                ]
    return np.concatenate([*made, choose_patches(CLIP, ChooseOptions(geometry=GEOMETRY)).pos_K3.ravel()])


def mosaics() -> np.ndarray:
    """Mosaics of fixed frames, before JPEG (whose bytes are Pillow's)."""
    rng = np.random.default_rng(8)
    square = SquareMap.fit(50, 96, GEOMETRY.square_size)
    frames = rng.integers(0, 256, (GEOMETRY.sequence_length, 50, 96, 3)).astype(np.uint8)
    squares = [(np.array([t]), pad_to_square(fit_content(frame, square), square)) for t, frame in enumerate(frames)]
    cells = rng.permutation(GEOMETRY.sequence_length * GEOMETRY.patches_per_image)[: GEOMETRY.num_patches]
    t, cell = np.divmod(cells, GEOMETRY.patches_per_image)
    pos = sort_positions(np.stack([t, *np.divmod(cell, GEOMETRY.grid)], axis=1).astype(np.int32))
    return np.concatenate([pack_mosaics(squares, pos, GEOMETRY, layout) for layout in ("time_spatial", "spatial")])


def assets() -> list[np.ndarray]:
    """The choice of an asset from fixed scores and from the clip, for each way to select and to sample."""
    rng = np.random.default_rng(9)
    scores = rng.random((GEOMETRY.sequence_length, 4, 4), np.float32)
    mask = valid_mask(SquareMap.fit(50, 96, GEOMETRY.square_size), GEOMETRY)
    choose = ChooseOptions(geometry=GEOMETRY, select=SelectOptions("repeat"))
    ways = (
        AssetOptions(choose),
        AssetOptions(choose, keep_mid_full_frame=True),
        AssetOptions(choose, topk_mode="time_bucket", time_bucket_count=3),
    )
    made = [select_asset_patches(scores, mask, options).pos_K3 for options in ways]
    for options in (
        AssetOptions(choose, topk_mode="time_bucket"),
        AssetOptions(choose, window_len=4, window_pick="energy3"),
        AssetOptions(choose, window_len=4, window_pick="mid"),
    ):
        choice, _ = choose_assets(CLIP, options)
        made += [choice.pos_K3, choice.frame_ids_T, flat_indices(choice.pos_K3, GEOMETRY)]
    return made


def row() -> str:
    """A training row of a fixed record."""
    turns = [{"from": "human", "value": "<video>\nÜber?"}, {"from": "gpt", "value": "ja"}]
    record = parse_record({"id": 3, "video": "a/b.mp4", "conversations": turns, "other": 1}, 5)
    outputs = ["x/b_000.jpg", "x/b_001.jpg", "x/positions_thw.npy"]
    return json.dumps(training_row(record, outputs, 2, str), ensure_ascii=False)


@pytest.mark.parametrize(
    ("stage", "version", "found"),
    [
        ("visidx", VISIDX_VERSION, hash_arrays(positions(), choices())),
        ("mosaics", MOSAICS_VERSION, hash_arrays(mosaics())),
        ("assets", ASSETS_VERSION, hash_arrays(*assets())),
        ("training_jsonl", JSONL_VERSION, hashlib.sha256(row().encode()).hexdigest()),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_other_bytes_need_another_version(stage: str, version: int, found: str) -> None:
    assert found == GOLDEN[stage, version], f"{stage} version {version} now makes other bytes: raise its version"
