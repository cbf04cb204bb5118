"""How well each signal chooses the patches that the decoder's true residual chooses, and what it costs.

    OV_SHARED_DATA=... python benchmarks/fidelity.py

Per clip: IoU of the chosen sets (t > 0, published options) by signal; `read` takes H.264 coefficients from the stream,
`estimate` measures prediction errors, with the dead zone from the per-block QP, fixed, or none. Then on how many frames
the vectors equal the decoder's, and the cost: CPU milliseconds for each sampled frame, decoding included, and its ratio
to decoding the whole file once with PyAV on one thread.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ov_model.codec.coded import CodedResidual
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
from ov_model.codec.maps import SignalMaps, SignalOptions
from ov_model.codec.predict import PredictedResidual
from ov_model.codec.reencode import ReencodeSignal
from ov_model.codec.select import SelectOptions, select_patches
from ov_model.codec.signals import MotionSignal, Signal
from ov_model.codec.video import Video, open_video, quiet
from ov_model.geometry import Geometry

CLIPS = {
    "ytb_XwB-dkS5BVM": "demo/videos/ytb_XwB-dkS5BVM.mp4",
    "h264_main_cabac_b3": "clips/h264_main_cabac_b3.mp4",
    "h264_scenecut": "clips/h264_scenecut.mp4",
}
SIGNALS: dict[str, Callable[[], Signal]] = {
    "residual, read": lambda: CodedResidual(SignalOptions()),
    "residual, read, intra contrast": lambda: CodedResidual(SignalOptions(intra="contrast")),
    "residual, read, intra zero": lambda: CodedResidual(SignalOptions(intra="zero")),
    "residual, estimate, dead zone by QP": lambda: PredictedResidual(SignalOptions(dead_zone="qp")),
    "residual, estimate, dead zone fixed": lambda: PredictedResidual(SignalOptions(dead_zone="fixed")),
    "residual, estimate, no dead zone": lambda: PredictedResidual(SignalOptions(dead_zone="none")),
    "motion": lambda: MotionSignal(SignalOptions()),
    "reencode": lambda: ReencodeSignal(SignalOptions()),
}
RUNS = 3


def decode_seconds(path: Path) -> float:
    """CPU seconds of decoding every frame once, one thread; the least of several runs."""
    taken = []
    for _ in range(RUNS):
        start = time.process_time()
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.thread_count = 1
            for _frame in container.decode(stream):
                pass
        taken.append(time.process_time() - start)
    return min(taken)


def measure(signal: Signal, video: Video, ids: list[int]) -> tuple[list[SignalMaps], float]:
    """The sampled frames' maps, and CPU seconds: the least of several runs, after one that warms up."""
    maps: list[SignalMaps] = []
    taken = []
    for _ in range(RUNS + 1):
        start = time.process_time()
        maps = [frame_maps for _, _, frame_maps in signal.measure(video, ids)]
        taken.append(time.process_time() - start)
    return maps, min(taken[1:])


def choose(maps: list[SignalMaps], shape: tuple[int, int]) -> set[tuple[int, int, int]]:
    """The chosen positions with t > 0 for one set of maps, by the published arithmetic."""
    geometry, energy = Geometry(), EnergyOptions()
    square = SquareMap.fit(*shape, geometry.square_size)
    scores: list[NDArray[np.float32]] = []
    for frame in maps:
        magnitude = None if frame.motion_hw2 is None else motion_magnitude(frame.motion_hw2, energy)
        motion_at_1 = 1.0 if magnitude is None else motion_scale(magnitude, energy)
        residual = frame.residual_HW
        residual_at_1 = 1.0 if residual is None else residual_scale(residual_histogram(residual), energy)
        scores.append(
            patch_scores(magnitude, residual, motion_at_1, residual_at_1, square, geometry, energy, shape=shape)
        )
    selection = select_patches(np.stack(scores), valid_mask(square, geometry), geometry, SelectOptions())
    return {(int(t), int(h), int(w)) for t, h, w in selection.pos_K3 if t > 0}


def main() -> int:
    folder = os.environ.get("OV_SHARED_DATA")
    if not folder:
        print("skipped: OV_SHARED_DATA is not set, so there are no true residuals to compare with")
        return 0
    quiet()
    for name, where in CLIPS.items():
        path = Path(folder) / where
        truth = np.load(Path(folder) / "truth" / f"{name}.npz")
        ids = truth["frame_ids"].tolist()
        true_set = {(int(t), int(h), int(w)) for t, h, w in truth["visidx_thw"] if t > 0}
        floor = decode_seconds(path)
        print(f"\n{name}: {floor:.3f} s of CPU to decode once")
        print(f"  {'signal':36} {'IoU':>6} {'vectors':>8} {'ms/frame':>9} {'decodes':>8}")
        with open_video(path) as video:
            for label, make in SIGNALS.items():
                maps, seconds = measure(make(), video, ids)
                chosen = choose(maps, (video.info.height, video.info.width))
                iou = len(chosen & true_set) / len(chosen | true_set)
                equal = sum(
                    not truth["motion"][k].any() if m.motion_hw2 is None else (m.motion_hw2 == truth["motion"][k]).all()
                    for k, m in enumerate(maps)
                )
                vectors = f"{equal}/{len(ids)}"
                print(f"  {label:36} {iou:6.3f} {vectors:>8} {1e3 * seconds / len(ids):9.2f} {seconds / floor:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
