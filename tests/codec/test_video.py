"""Videos of every kind are read exactly: frame numbers, pixels, facts, side data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from av.video.frame import PictureType, VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from ov_model.codec import decode, video
from ov_model.codec.pixels import side_data
from ov_model.codec.video import luma, open_video, rgb, rotate
from tests.codec.reading import PYRAMID, decode_ours, decode_plainly, gray_levels, pixels, x264
from tests.factories import (
    TICKS,
    make_video,
    picture,
    set_edit_list,
    set_rotation,
)

X265 = "pools=none:frame-threads=1:log-level=none:keyint=10:min-keyint=10:bframes=4:b-adapt=0:scenecut=0"
NOISE = {"pattern": "noise", "width": 64, "height": 48}


# name -> (suffix, options of make_video). Noise where a codec's smallest packets would make the reader cautious.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264 pyramid": (".mp4", x264(PYRAMID)),
    "h264 pyramid mkv": (".mkv", x264(PYRAMID)),
    "h264 pyramid ts": (".ts", x264(PYRAMID)),
    "h264 pyramid flv": (".flv", x264(PYRAMID)),
    "h264 avi, decoding times only": (".avi", x264(PYRAMID)),
    "h264 elementary stream": (".h264", x264(PYRAMID)),
    "h264 open gop": (".mp4", x264(PYRAMID + ":open-gop=1")),
    "h264 open gop mkv": (".mkv", x264(PYRAMID + ":open-gop=1")),
    "h264 open gop ts": (".ts", x264(PYRAMID + ":open-gop=1")),
    "h264 intra refresh": (".mp4", x264("intra-refresh=1:keyint=10:bframes=2")),
    "h264 temporal direct": (".mp4", x264("bframes=3:b-adapt=0:direct=temporal:keyint=10")),
    "h264 slices": (".mp4", x264("slices=3:bframes=2:b-adapt=0:keyint=10")),
    "h264 interlaced": (".mp4", x264("tff=1:bframes=2:b-adapt=0:keyint=10")),
    "h264 interlaced ts": (".ts", x264("tff=1:bframes=2:b-adapt=0:keyint=10")),
    "h264 intra only": (".mp4", x264("keyint=1")),
    "h264 10 bit": (".mp4", {"pix_fmt": "yuv420p10le", **x264(PYRAMID)}),
    "h264 4:4:4 odd": (".mp4", {"pix_fmt": "yuv444p", "width": 97, "height": 63, **x264(PYRAMID)}),
    "h264 gray": (".mp4", {"pix_fmt": "gray", **x264(PYRAMID)}),
    "hevc": (".mp4", {"codec": "libx265", "options": {"x265-params": X265 + ":no-open-gop=1"}}),
    "hevc open gop": (".mp4", {"codec": "libx265", "options": {"x265-params": X265 + ":open-gop=1"}}),
    "hevc open gop ts": (".ts", {"codec": "libx265", "options": {"x265-params": X265 + ":open-gop=1"}}),
    "hevc elementary stream": (".hevc", {"codec": "libx265", "options": {"x265-params": X265}}),
    "vp8": (".webm", {"codec": "libvpx", "options": {"g": "10"}}),
    "vp9": (".webm", {"codec": "libvpx-vp9", "options": {"g": "10", "lag-in-frames": "10"}}),
    "av1": (".mp4", {"codec": "libsvtav1", "options": {"g": "16"}}),
    "mpeg4": (".mp4", {"codec": "mpeg4", "options": {"bf": "2", "g": "10"}, **NOISE}),
    "mpeg4 avi": (".avi", {"codec": "mpeg4", "options": {"bf": "2", "g": "10"}, **NOISE}),
    "mpeg4, tiny packets": (".mp4", {"codec": "mpeg4", "options": {"bf": "2"}, "pattern": "gray"}),
    "mpeg2 ts": (".ts", {"codec": "mpeg2video", "options": {"bf": "2", "g": "10"}, **NOISE}),
    "mpeg2 ps": (".mpg", {"codec": "mpeg2video", "options": {"bf": "2", "g": "10"}, **NOISE}),
    "mpeg1 ps": (".mpg", {"codec": "mpeg1video", "options": {"bf": "2", "g": "10"}, **NOISE}),
    "mjpeg": (".avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "ffv1": (".mkv", {"codec": "ffv1"}),
}
FRAMES = 32


@pytest.fixture(scope="module")
def clip_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A clip of a kind, made once."""
    folder = tmp_path_factory.mktemp("kinds")
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            suffix, options = KINDS[kind]
            made[kind] = make_video(folder / f"{len(made)}{suffix}", frames=FRAMES, **options)
        return made[kind]

    return make


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Fills with one entry per decoding pass: whether it was the quick one (True) or the plain fallback."""
    seen: list[bool] = []

    def record(*args: Any, drop: bool) -> Any:
        seen.append(drop)
        return decode.decode_runs(*args, drop=drop)

    monkeypatch.setattr(video, "decode_runs", record)
    return seen


class Feeding:
    """Stands for a decoder and counts the packets that it is given."""

    def __init__(self, context: Any) -> None:
        self.context, self.packets = context, 0

    def decode(self, packet: Any) -> list[VideoFrame]:
        self.packets += packet is not None
        return self.context.decode(packet)

    def flush_buffers(self) -> None:
        self.context.flush_buffers()


@pytest.fixture
def feedings(monkeypatch: pytest.MonkeyPatch) -> list[Feeding]:
    """Fills with every decoder that `frames` opens."""
    made: list[Feeding] = []

    def configure(stream: Any, options: dict[str, str]) -> Feeding:
        made.append(Feeding(video.configure(stream, options)))
        return made[-1]

    monkeypatch.setattr(decode, "configure", configure)
    return made


@pytest.mark.parametrize("seek_over", [0, 512], ids=["seeking", "reading on"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_frames_equal_sequential_decoding(
    kind: str, seek_over: int, clip_of: Callable[[str], Path], passes: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_SEEK_OVER_PACKETS", seek_over)
    path = clip_of(kind)
    expected = decode_plainly(path)
    clip = open_video(path)

    @settings(max_examples=8, deadline=None, derandomize=True, database=None)
    @given(st.sets(st.integers(0, FRAMES - 1), min_size=1, max_size=8))
    def check(wanted: set[int]) -> None:
        ids = sorted(wanted)
        assert decode_ours(clip, ids) == [(i, expected[i]) for i in ids]

    assert len(clip) == len(expected) == FRAMES
    assert not clip.damaged
    assert decode_ours(clip, range(FRAMES)) == list(enumerate(expected))
    check()
    assert all(passes), "the quick pass had to be repeated plainly"


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("h264 10 bit", "mpeg4, tiny packets")])
def test_the_index_describes_every_frame(kind: str, clip_of: Callable[[str], Path]) -> None:
    index = open_video(clip_of(kind)).index
    assert (np.diff(index.pts_N) > 0).all()
    assert sorted(index.decode_N) == list(range(FRAMES))
    assert index.key_N[0]
    assert (index.size_N > 0).all()
    assert (index.pts_N.dtype, index.decode_N.dtype, index.size_N.dtype) == (np.int64, np.int32, np.int64)
    # Decoding begins at a frame that others refer to, except where every frame stands alone.
    assert index.reference_N[0] or not index.reference_N.any()


def test_frames_that_nothing_refers_to_are_b_frames(clip_of: Callable[[str], Path]) -> None:
    clip = open_video(clip_of("h264 pyramid"))
    free = {i for i, reference in enumerate(clip.index.reference_N) if not reference}
    types = {i: frame.pict_type for i, frame in clip.frames(range(len(clip)))}
    assert len(free) > FRAMES // 3
    assert {types[i] for i in free} == {PictureType.B}


def test_frame_numbers_count_frames_in_the_order_they_are_shown(tmp_path: Path) -> None:
    path = make_video(tmp_path / "b.mp4", pattern="gray", frames=40, **x264(PYRAMID))
    clip = open_video(path)
    assert not (np.diff(clip.index.decode_N) > 0).all(), "the clip has no reordering to test"
    assert gray_levels(clip, range(40)) == list(range(40))
    assert gray_levels(clip, [3, 4, 17, 39]) == [3, 4, 17, 39]


def test_uneven_timestamps_do_not_shift_frame_numbers(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).choice([128, 512, 4000], 30)
    pts = np.concatenate([[0], np.cumsum(steps[:-1])]).tolist()
    clip = open_video(make_video(tmp_path / "vfr.mp4", pattern="gray", frames=30, pts=pts, **x264(PYRAMID)))
    assert gray_levels(clip, range(30)) == list(range(30))
    assert (clip.index.pts_N - clip.index.pts_N[0]).tolist() == pts


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_a_late_start_does_not_shift_frame_numbers(tmp_path: Path, suffix: str) -> None:
    pts = [5 * TICKS + 512 * t for t in range(20)]
    clip = open_video(make_video(tmp_path / f"late{suffix}", pattern="gray", frames=20, pts=pts))
    assert gray_levels(clip, range(20)) == list(range(20))
    times = [frame.time for _, frame in clip.frames([0, 19])]
    assert times[1] - times[0] == pytest.approx(19 / 25, abs=0.002)
    assert times[0] >= 5


def test_what_an_edit_list_hides_is_not_counted(tmp_path: Path) -> None:
    path = make_video(tmp_path / "edit.mp4", pattern="gray", frames=24, **x264(PYRAMID))
    clip = open_video(set_edit_list(path, 6 * 512))
    assert len(clip) == clip.info.n_demuxed == 18
    assert gray_levels(clip, range(18)) == list(range(6, 24))
    assert gray_levels(clip, [1, 9]) == [7, 15]


def test_frames_carry_the_times_of_the_file(tmp_path: Path) -> None:
    clip = open_video(make_video(tmp_path / "t.mp4", frames=10))
    frames = dict(clip.frames([2, 9]))
    assert [frames[i].pts for i in (2, 9)] == clip.index.pts_N[[2, 9]].tolist()
    assert frames[9].time == pytest.approx(9 / 25)


def test_few_frames_of_a_long_video_cost_a_small_share_of_it(tmp_path: Path, feedings: list[Feeding]) -> None:
    params = "bframes=2:b-adapt=0:b-pyramid=none:keyint=30:min-keyint=30:scenecut=0"
    clip = open_video(make_video(tmp_path / "long.mp4", width=64, height=48, frames=900, **x264(params)))
    wanted = [1, 331, 661, 899]
    assert [i for i, _ in clip.frames(wanted)] == wanted
    assert sum(feeding.packets for feeding in feedings) <= 60


def test_unneeded_b_frames_are_not_decoded(clip_of: Callable[[str], Path], feedings: list[Feeding]) -> None:
    clip = open_video(clip_of("mpeg2 ts"))
    keys = np.flatnonzero(clip.index.key_N).tolist()
    assert [i for i, _ in clip.frames(keys)] == keys
    assert sum(feeding.packets for feeding in feedings) <= int(clip.index.reference_N.sum())


def test_the_decoder_runs_on_one_thread(tmp_path: Path, feedings: list[Feeding]) -> None:
    clip = open_video(make_video(tmp_path / "a.mp4"))
    assert len(list(clip.frames([0, 5]))) == 2
    assert [feeding.context.thread_count for feeding in feedings] == [1]


def test_an_elementary_stream_has_no_times_but_an_order(tmp_path: Path) -> None:
    clip = open_video(make_video(tmp_path / "raw.h264", pattern="gray", frames=20, **x264(PYRAMID)))
    assert clip.info.duration is None
    assert clip.index.pts_N.tolist() == list(range(20))
    assert gray_levels(clip, range(20)) == list(range(20))


def test_probing_reports_what_was_encoded(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "facts.mp4", width=98, height=54, fps=20, frames=10, sar=(4, 3), color_space=1, color_range=1
    )
    info = open_video(path).info
    assert (info.codec, info.width, info.height, info.n_demuxed) == ("h264", 98, 54, 10)
    assert (info.fps, info.duration) == (20.0, 0.5)
    assert (info.pix_fmt, info.bit_depth, info.sar) == ("yuv420p", 8, (4, 3))
    assert (info.color_space, info.color_range, info.rotation) == ("bt709", "tv", 0)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_rotation_is_read_and_applied_as_other_players_do(tmp_path: Path, turn: int) -> None:
    path = set_rotation(make_video(tmp_path / "turned.mp4", frames=2), turn)
    clip = open_video(path)
    assert clip.info.rotation == turn
    assert (clip.info.width, clip.info.height) == (96, 64)
    assert (clip.info.display_width, clip.info.display_height) == ((64, 96) if turn % 180 else (96, 64))
    ((_, frame),) = clip.frames([0])
    _, shown = cv2.VideoCapture(str(path)).read()
    ours = rotate(rgb(frame), clip.info.rotation)
    assert ours.shape == shown.shape
    assert np.abs(ours.astype(int) - shown[:, :, ::-1]).mean() < 2


def test_rotate_turns_clockwise() -> None:
    corners = np.array([[1, 2, 3], [4, 5, 6]])
    assert rotate(corners, 90).tolist() == [[4, 1], [5, 2], [6, 3]]
    assert rotate(corners, 270).tolist() == [[3, 6], [2, 5], [1, 4]]
    assert rotate(corners, 180).tolist() == [[6, 5, 4], [3, 2, 1]]
    with pytest.raises(ValueError, match="45"):
        rotate(corners, 45)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_cover_picture_is_not_the_video(tmp_path: Path, suffix: str) -> None:
    clip = open_video(make_video(tmp_path / f"cover{suffix}", cover=True, audio=True))
    assert (clip.info.codec, clip.info.width, len(clip)) == ("h264", 96, 12)


@pytest.mark.parametrize(("pix_fmt", "bits"), [("yuv420p10le", 10), ("yuv422p", 8), ("yuv444p", 8)])
def test_luma_is_the_stored_plane(tmp_path: Path, pix_fmt: str, bits: int) -> None:
    path = make_video(tmp_path / "l.mp4", width=98, height=54, pix_fmt=pix_fmt, frames=2)
    ((_, frame),) = open_video(path).frames([1])
    dtype = np.dtype("<u2" if bits == 10 else "u1")
    stored = np.frombuffer(pixels(frame)[0], dtype).reshape(54, 98).astype(np.uint32)
    expected = np.minimum((stored + 2) >> 2, 255) if bits == 10 else stored
    found = luma(frame)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("color_range", [1, 2], ids=["limited", "full"])
def test_luma_keeps_the_range_that_is_stored(tmp_path: Path, color_range: int) -> None:
    black = [np.zeros((64, 96, 3), np.uint8)]
    path = make_video(tmp_path / "black.mp4", images=black, color_range=color_range)
    clip = open_video(path)
    ((_, frame),) = clip.frames([0])
    assert np.unique(luma(frame)).tolist() == [16 if color_range == 1 else 0]
    assert int(rgb(frame).max()) <= 2


def test_gray_and_rgb_videos_have_luma_too(tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "gray": {"pix_fmt": "gray"},
        "rgb": {"codec": "libx264rgb", "pix_fmt": "rgb24"},
        "odd": {"pix_fmt": "yuv444p"},
    }
    for name, options in kinds.items():
        path = make_video(tmp_path / f"{name}.mp4", width=97, height=63, frames=3, **options)
        ((_, frame),) = open_video(path).frames([2])
        expected = cv2.cvtColor(picture("square", 2, 97, 63), cv2.COLOR_RGB2GRAY).astype(int)
        found = luma(frame).astype(int)
        assert found.shape == (63, 97)
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97, name


def test_rgb_ignores_the_color_tag(tmp_path: Path) -> None:
    """The published mosaics are made with the BT.601 matrix whatever the file says."""
    found = []
    for tag in (1, 6):
        path = make_video(tmp_path / f"{tag}.mp4", frames=1, color_space=tag)
        ((_, frame),) = open_video(path).frames([0])
        found.append((luma(frame), rgb(frame)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_motion_vectors_come_when_asked_for(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "pan.mp4", pattern="pan", velocity=(4, 2), width=192, height=108, **x264("bframes=0:keyint=50")
    )
    clip = open_video(path)
    without = [side_data(frame, "MOTION_VECTORS") for _, frame in clip.frames([0, 5])]
    assert without == [None, None]
    (_, first), (_, later) = clip.frames([0, 5], motion_vectors=True)
    assert side_data(first, "MOTION_VECTORS") is None
    found = side_data(later, "MOTION_VECTORS")
    assert found is not None
    vectors = found.to_ndarray()
    scale = vectors["motion_scale"]
    shift = np.stack([vectors["motion_x"] / scale, vectors["motion_y"] / scale], 1)
    assert np.median(shift, 0).tolist() == [-4, -2]


def test_quantizers_come_when_asked_for(tmp_path: Path) -> None:
    encparams = pytest.importorskip("av.sidedata.encparams", reason="PyAV below 16 has no class for them")
    clip = open_video(make_video(tmp_path / "q.mp4", options={"qp": "30"}, frames=4))
    ((_, frame),) = clip.frames([2], quantizers=True)
    params = side_data(frame, "VIDEO_ENC_PARAMS")
    assert params is not None
    assert isinstance(params, encparams.VideoEncParams)
    assert params.nb_blocks == 6 * 4
    ((_, frame),) = clip.frames([2])
    assert side_data(frame, "VIDEO_ENC_PARAMS") is None
