"""Signals: known motion in, expected maps out; which signal a file gets; the decoder's true values."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ov_model.codec.choose import ChooseOptions, choose_patches
from ov_model.codec.maps import SignalMaps, SignalOptions
from ov_model.codec.predict import PredictedResidual
from ov_model.codec.signals import SIGNALS, Signal, resolve
from ov_model.codec.video import Video, open_video
from ov_model.errors import SampleError, UnsupportedCodec, UsageError
from tests.factories import make_video, square_box

CODECS = {
    "h264": ("v.mp4", "libx264", "residual", "coefficients"),
    "mpeg4": ("v.mp4", "mpeg4", "residual", "prediction error"),
    "mpeg2": ("v.mkv", "mpeg2video", "residual", "prediction error"),
    "vp9": ("v.webm", "libvpx-vp9", "reencode", "x264 veryfast"),
    "hevc": ("v.mp4", "libx265", "reencode", "x264 veryfast"),
    "av1": ("v.mkv", "libsvtav1", "reencode", "x264 veryfast"),
}


def measure(signal: Signal, video: Video, ids: list[int]) -> dict[int, SignalMaps]:
    return {i: maps for i, _, maps in signal.measure(video, ids)}


def box_of(frame: int, width: int, height: int, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the moving square in a frame, grown by where it was and by a margin."""
    x0, y0, x1, y1 = square_box(frame, width, height)
    return slice(max(y0 - margin, 0), y1 + margin), slice(max(x0 - margin, 0), x1 + margin)


@pytest.mark.parametrize("codec", CODECS)
def test_auto_takes_what_the_codec_gives_and_finds_the_moving_square(codec: str, tmp_path: Path) -> None:
    name, encoder, expected, method = CODECS[codec]
    path = make_video(tmp_path / name, codec=encoder, width=128, height=96, frames=8)
    with open_video(path) as video:
        signal = resolve("auto", video)
        assert (signal.name, signal.method) == (expected, method)
        maps = measure(signal, video, [1, 2, 3, 4])
    for i, frame_maps in maps.items():
        assert frame_maps.residual_HW is not None
        assert frame_maps.residual_HW.shape == (96, 128)
        if frame_maps.picture == "I":
            continue
        inside = np.zeros((96, 128), bool)
        inside[box_of(i, 128, 96, 12)] = True
        residual = frame_maps.residual_HW.astype(np.float64)
        assert residual[inside].mean() > 4 * residual[~inside].mean(), f"{codec} frame {i}"


@pytest.mark.parametrize("codec", ["h264", "mpeg4", "mpeg2", "vp9"])
def test_a_pan_is_the_motion_everywhere(codec: str, tmp_path: Path) -> None:
    name, encoder, _, _ = CODECS[codec]
    options = {"x264-params": "bframes=0:ref=1:mbtree=0:weightp=0"} if codec == "h264" else None
    path = make_video(
        tmp_path / name, codec=encoder, pattern="pan", velocity=(4, 0), width=128, height=96, frames=6, options=options
    )
    with open_video(path) as video:
        maps = measure(resolve("auto", video), video, [2, 3, 4])
    if codec == "mpeg2":
        assert maps.pop(4).motion_hw2 is None, (
            "FFmpeg has learned to export the last frame's vectors: say so in predict"
        )
    for frame_maps in maps.values():
        assert frame_maps.motion_hw2 is not None
        assert frame_maps.motion_hw2.shape == (24, 32, 2)
        middle = frame_maps.motion_hw2[4:20, 8:24]
        assert np.median(middle[..., 0]) == -4
        assert np.median(middle[..., 1]) == 0


@pytest.mark.parametrize("codec", ["h264", "mpeg4", "mpeg2", "vp9"])
def test_a_still_picture_has_neither(codec: str, tmp_path: Path) -> None:
    name, encoder, _, _ = CODECS[codec]
    path = make_video(tmp_path / name, codec=encoder, pattern="still", frames=6)
    with open_video(path) as video:
        for frame_maps in measure(resolve("auto", video), video, [2, 3, 4]).values():
            if frame_maps.picture != "I":
                assert frame_maps.motion_hw2 is None or not frame_maps.motion_hw2.any()
                assert residual_of(frame_maps).mean() < 0.2


def test_motion_gives_vectors_and_nothing_else(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4")
    with open_video(path) as video:
        motion = measure(resolve("motion", video), video, [0, 3, 5])
        residual = measure(resolve("residual", video), video, [0, 3, 5])
    assert motion[0].motion_hw2 is None
    for i, maps in motion.items():
        assert maps.residual_HW is None
        assert maps.picture == residual[i].picture
        np.testing.assert_array_equal(maps.motion_hw2, residual[i].motion_hw2)


@pytest.mark.parametrize("signal", ["residual", "motion"])
def test_a_signal_that_a_file_cannot_give_is_refused_by_name(signal: str, tmp_path: Path) -> None:
    intra = make_video(tmp_path / "intra.mp4", options={"x264-params": "keyint=1"})
    single = make_video(tmp_path / "single.mp4", frames=1)
    vp9 = make_video(tmp_path / "v.webm", codec="libvpx-vp9")
    for path in (intra, single, vp9):
        with open_video(path) as video:
            assert resolve("auto", video).name == "reencode"
            with pytest.raises(UnsupportedCodec, match=f"{path.name}.*{signal}.*reencode"):
                resolve(signal, video)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with open_video(make_video(tmp_path / "v.mp4")) as video, pytest.raises(UsageError, match="auto, residual"):
        resolve("residuals", video)
    with pytest.raises(UsageError, match="contrast"):
        SignalOptions(intra="plain")
    with pytest.raises(UsageError, match="at least 1"):
        SignalOptions(references=0)


@pytest.mark.parametrize(
    ("pix_fmt", "width", "height"),
    [("yuv420p", 97, 65), ("yuv444p", 97, 65), ("yuv422p10le", 96, 64), ("gray", 97, 65), ("bgr0", 50, 38)],
)
def test_reencode_takes_any_picture(pix_fmt: str, width: int, height: int, tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mkv", codec="ffv1", pix_fmt=pix_fmt, width=width, height=height, frames=4)
    with open_video(path) as video:
        for i, frame, maps in resolve("reencode", video).measure(video, [0, 2, 3]):
            assert isinstance(frame, VideoFrame)
            assert maps.residual_HW is not None
            assert maps.residual_HW.shape == (height, width)
            assert maps.picture == ("P" if i else "I")
            assert (maps.motion_hw2 is None) == (i == 0)
            if maps.motion_hw2 is not None:
                assert maps.motion_hw2.shape == (-(-height // 4), -(-width // 4), 2)


def test_reencode_of_a_frame_depends_on_that_frame_and_the_one_before(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.webm", codec="libvpx-vp9", frames=8)
    with open_video(path) as video:
        alone = measure(resolve("reencode", video), video, [5])[5]
        among = measure(resolve("reencode", video), video, [0, 2, 4, 5, 6])[5]
    np.testing.assert_array_equal(alone.residual_HW, among.residual_HW)
    np.testing.assert_array_equal(alone.motion_hw2, among.motion_hw2)


@pytest.mark.parametrize("signal", SIGNALS)
def test_measuring_again_gives_the_same(signal: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames=10, options={"x264-params": "bframes=3:mbtree=0"})
    runs = []
    for _ in range(3):
        with open_video(path) as video:
            runs.append(measure(resolve(signal, video), video, list(range(10))))
        np.linalg.svd(np.random.default_rng(len(runs)).normal(size=(64, 64)))
    for again in runs[1:]:
        for i, maps in runs[0].items():
            np.testing.assert_array_equal(maps.residual_HW, again[i].residual_HW)
            np.testing.assert_array_equal(maps.motion_hw2, again[i].motion_hw2)


def test_frames_come_once_in_display_order_whatever_was_asked(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", frames=10, options={"x264-params": "bframes=3:mbtree=0"})
    with open_video(path) as video:
        for signal in (resolve("residual", video), PredictedResidual(SignalOptions()), resolve("reencode", video)):
            assert [i for i, _, _ in signal.measure(video, [7, 2, 2, 0, 7, 9])] == [0, 2, 7, 9]


def test_estimate_of_what_is_not_read_stays_close_to_what_is(tmp_path: Path) -> None:
    """4:4:4 is estimated, 4:2:0 read: the same pictures, the same place of change."""
    path = make_video(tmp_path / "v.mp4", pix_fmt="yuv444p", width=128, height=96, frames=8)
    with open_video(path) as video:
        signal = resolve("residual", video)
        assert signal.method == "prediction error"
        for i, maps in measure(signal, video, [3, 5]).items():
            inside = np.zeros((96, 128), bool)
            inside[box_of(i, 128, 96, 12)] = True
            assert maps.residual_HW is not None
            assert maps.residual_HW[inside].sum() > 4 * maps.residual_HW[~inside].sum()


def test_dead_zone_only_takes_away(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", pattern="pan", velocity=(3, 1), frames=8, options={"crf": "30"})
    maps = {}
    with open_video(path) as video:
        for zone in ("none", "fixed", "qp"):
            maps[zone] = measure(PredictedResidual(SignalOptions(dead_zone=zone)), video, [2, 3, 4, 5])
    for zone in ("fixed", "qp"):
        every = np.stack([residual_of(frame_maps) for frame_maps in maps["none"].values()])
        kept = np.stack([residual_of(frame_maps) for frame_maps in maps[zone].values()])
        assert 0 < (kept > 0).sum() < (every > 0).sum()
        np.testing.assert_array_equal(kept[kept > 0], every[kept > 0])


def residual_of(maps: SignalMaps) -> NDArray[np.uint8]:
    assert maps.residual_HW is not None
    return maps.residual_HW


TRUTH = {
    "ytb_XwB-dkS5BVM": "demo/videos/ytb_XwB-dkS5BVM.mp4",
    "h264_main_cabac_b3": "clips/h264_main_cabac_b3.mp4",
    "h264_scenecut": "clips/h264_scenecut.mp4",
}
# What estimating from pixels must reach on them; reading the stream is exact.
ESTIMATE = {"ytb_XwB-dkS5BVM": 0.84, "h264_main_cabac_b3": 0.93, "h264_scenecut": 0.93}


@pytest.mark.parametrize("clip", TRUTH)
def test_maps_are_the_decoders_own(clip: str, shared_data: Path) -> None:
    truth = np.load(shared_data / "truth" / f"{clip}.npz")
    ids, residual_THW, motion_Thw2 = truth["frame_ids"].tolist(), truth["residual"], truth["motion"]
    with open_video(shared_data / TRUTH[clip]) as video:
        for i, maps in measure(resolve("auto", video), video, ids).items():
            k = ids.index(i)
            assert maps.picture == truth["pict_type"][k]
            np.testing.assert_array_equal(residual_of(maps), np.abs(residual_THW[k].astype(np.int16) - 128))
            if maps.motion_hw2 is None:
                assert not motion_Thw2[k].any()
            else:
                np.testing.assert_array_equal(maps.motion_hw2, motion_Thw2[k])


@pytest.mark.parametrize("clip", TRUTH)
def test_chosen_patches_are_those_of_the_true_residual(
    clip: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = {tuple(row) for row in np.load(shared_data / "truth" / f"{clip}.npz")["visidx_thw"].tolist() if row[0]}
    path = shared_data / TRUTH[clip]

    def agreement() -> float:
        chosen = {tuple(row) for row in choose_patches(path, ChooseOptions()).pos_K3.tolist() if row[0]}
        return len(chosen & truth) / len(chosen | truth)

    assert agreement() > 0.999
    monkeypatch.setattr("ov_model.codec.choose.resolve", lambda name, video, options, **_: PredictedResidual(options))
    assert agreement() >= ESTIMATE[clip]


def test_every_hostile_clip_is_measured_or_refused_with_its_reason(shared_data: Path) -> None:
    with (shared_data / "clips" / "manifest.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 31
    for row in rows:
        path = shared_data / "clips" / row["file"]
        if row["expect"] not in ("ok", "ok_damaged"):
            with pytest.raises(SampleError) as caught:
                choose_patches(path, ChooseOptions())
            assert caught.value.reason == row["expect"]
            continue
        choice = choose_patches(path, ChooseOptions())
        assert choice.signal == ("residual" if row["vectors"] == "yes" else "reencode")
        assert (choice.n_frames, choice.damaged) == (int(row["frames"]), row["expect"] == "ok_damaged")
        assert np.isfinite(choice.score_THW).all()
        assert choice.score_THW.max() > 0
