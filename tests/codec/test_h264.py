"""Reading H.264 residuals: against the decoder's own arithmetic, with every tool of the codec that is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ov_model.codec.coded import coded_picture, coded_residual, is_readable, packet_inspector
from ov_model.codec.h264 import headers, tables
from ov_model.codec.h264.headers import Unreadable
from ov_model.codec.h264.memory import FLAGS, INTRA, PCM, QP, SKIPPED
from ov_model.codec.h264.picture import CodedPicture
from ov_model.codec.kernels import CELL, LIST, MOTION_X, MOTION_Y, paint_cells
from ov_model.codec.maps import SignalOptions, frame_vectors, picture_type
from ov_model.codec.predict import quantizer_steps
from ov_model.codec.video import open_video
from tests.factories import make_video, texture

# One reference, no weights, no deblocking: what a P macroblock with a zero vector adds is Y - Y of the frame before.
PLAIN = "no-deblock=1:ref=1:bframes=0:weightp=0:me=dia:merange=4:subme=0:partitions=none:scenecut=0:mbtree=0"
TOOLS = {
    "cabac 4x4": ("yuv420p", "8x8dct=0"),
    "cabac 8x8": ("yuv420p", "8x8dct=1"),
    "cavlc 4x4": ("yuv420p", "8x8dct=0:cabac=0"),
    "cavlc 8x8": ("yuv420p", "8x8dct=1:cabac=0"),
    "scaling matrices": ("yuv420p", "8x8dct=1:cqm=jvt"),
    "scaling matrices, cavlc": ("yuv420p", "8x8dct=1:cqm=jvt:cabac=0"),
    "slices": ("yuv420p", "slices=3"),
    "10 bits": ("yuv420p10le", "8x8dct=1"),
    "10 bits, cavlc": ("yuv420p10le", "8x8dct=0:cabac=0"),
    "monochrome": ("gray", "8x8dct=1"),
    "monochrome, cavlc": ("gray", "8x8dct=0:cabac=0"),
    "coarse": ("yuv420p", "8x8dct=1:qp=44"),
    "fine": ("yuv420p", "8x8dct=1:qp=4"),
    "lossless": ("yuv420p", "8x8dct=1:qp=0"),
}
# Streams whose syntax is broad; here the QP of every macroblock, which FFmpeg exports, must come out.
STREAMS = {
    "high, B pyramid": "bframes=3:b-adapt=0:ref=6:direct=temporal",
    "all partitions": "bframes=3:partitions=all:8x8dct=1:subme=7:me=umh",
    "all partitions, cavlc": "bframes=3:partitions=all:cabac=0:subme=7:me=umh",
    "weighted": "weightp=2:weightb=1:bframes=2",
    "slices, cavlc": "slices=4:cabac=0:bframes=2",
    "open gop": "open-gop=1:keyint=6:bframes=2",
    "hrd, access unit delimiters": "aud=1:nal-hrd=vbr:vbv-maxrate=400:vbv-bufsize=400",
}


def noisy(frames: int, noise: int, height: int = 80, width: int = 112) -> list[NDArray[np.uint8]]:
    """A still picture under fresh noise, stronger in its lower half."""
    still = texture(height, width, 3).astype(np.int16)
    random = np.random.default_rng(5)
    pictures = []
    for _ in range(frames):
        grain = random.integers(-noise, noise + 1, (height, width, 1))
        grain[: height // 2] //= 4
        pictures.append(np.clip(still + grain, 0, 255).astype(np.uint8))
    return pictures


@pytest.mark.parametrize("tool", TOOLS)
def test_residual_is_what_the_decoder_adds_to_its_prediction(tool: str, tmp_path: Path) -> None:
    pix_fmt, extra = TOOLS[tool]
    path = make_video(
        tmp_path / "v.mp4",
        images=noisy(5, 24),
        pix_fmt=pix_fmt,
        options={"preset": "medium", "x264-params": f"{PLAIN}:{extra}"},
    )
    exact = compared = 0
    with open_video(path) as video:
        before: NDArray[np.int64] | None = None
        for _, frame in video.frames(range(5), motion_vectors=True, inspect=packet_inspector):
            rows_B8 = frame_vectors(frame)
            wide = pix_fmt.endswith("10le")
            plane = np.asarray(frame.to_ndarray())[: frame.height, : frame.width].astype(np.int64)
            if rows_B8 is not None and before is not None:
                difference = np.abs(plane - before)
                expected = np.minimum((difference + 2) >> 2 if wide else difference, 127)
                cells = paint_cells(rows_B8[(rows_B8[:, MOTION_X] == 0) & (rows_B8[:, MOTION_Y] == 0)], *plane.shape)
                still = (cells[:, :, 0, 2] > 0).repeat(CELL, 0).repeat(CELL, 1)
                assert not rows_B8[:, LIST].any()
                residual = coded_residual(frame, SignalOptions())
                same = np.minimum(residual, 127) == expected
                exact += int(same[still].sum())
                compared += int(still.sum())
            before = plane
    assert compared > 0.5 * 4 * 80 * 112, "the encoder chose other vectors than the test needs"
    assert exact == compared


@pytest.mark.parametrize("stream", STREAMS)
def test_the_whole_syntax_is_followed(stream: str, tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "v.mp4",
        images=[np.roll(p, (t, 2 * t), (0, 1)) for t, p in enumerate(noisy(14, 10))],
        options={"preset": "medium", "x264-params": f"mbtree=0:aq-mode=1:{STREAMS[stream]}"},
    )
    assert_quantizers_agree(path)


def test_raw_samples_are_skipped(tmp_path: Path) -> None:
    for cabac in (0, 1):
        path = make_video(
            tmp_path / f"v{cabac}.mp4",
            pattern="noise",
            frames=4,
            options={"preset": "medium", "x264-params": f"qp=1:no-psy=1:cabac={cabac}:mbtree=0"},
        )
        assert assert_quantizers_agree(path) & PCM


def assert_quantizers_agree(path: Path) -> int:
    """Every macroblock's QP as FFmpeg exports it; all flags met."""
    flags = 0
    with open_video(path) as video:
        for _, frame in video.frames(range(len(video)), quantizers=True, inspect=packet_inspector):
            picture, sps = coded_picture(frame).read()
            steps = quantizer_steps(frame, 2 * sps.height_mbs, 2 * sps.width_mbs)
            assert steps is not None
            qp_M = np.round(np.log2(steps[::2, ::2]) * 6 + 4).astype(int).ravel()
            sampled = picture.macro_MF[:, FLAGS] & PCM == 0
            np.testing.assert_array_equal(picture.macro_MF[sampled, QP], qp_M[sampled])
            flags |= int(np.bitwise_or.reduce(picture.macro_MF[:, FLAGS]))
    return flags


def test_a_still_background_has_no_residual(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", pattern="still", frames=6)
    with open_video(path) as video:
        for _, frame in video.frames([2, 5], inspect=packet_inspector):
            picture, _ = coded_picture(frame).read()
            assert picture_type(frame) != "I"
            assert (picture.macro_MF[:, FLAGS] & SKIPPED > 0).mean() > 0.9
            assert coded_residual(frame, SignalOptions()).mean() < 0.05


def test_intra_options_touch_intra_blocks_alone(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", pattern="noise", frames=3)
    with open_video(path) as video:
        for _, frame in video.frames([0, 2], inspect=packet_inspector):
            picture, _ = coded_picture(frame).read()
            intra = (picture.macro_MF[:, FLAGS] & INTRA > 0).reshape(4, 6).repeat(16, 0).repeat(16, 1)
            maps = {mode: coded_residual(frame, SignalOptions(intra=mode)) for mode in ("coded", "contrast", "zero")}
            assert intra.any()
            assert not maps["zero"][intra].any()
            assert maps["contrast"][intra].any()
            np.testing.assert_array_equal(maps["zero"][~intra], maps["coded"][~intra])
            np.testing.assert_array_equal(maps["contrast"][~intra], maps["coded"][~intra])


@pytest.mark.parametrize(
    ("pix_fmt", "extra"),
    [("yuv444p", ""), ("yuv422p", ""), ("yuv420p", "interlaced=1")],
    ids=["444", "422", "interlaced"],
)
def test_what_is_not_read_says_so(pix_fmt: str, extra: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", pix_fmt=pix_fmt, frames=3, options={"x264-params": extra} if extra else None)
    with open_video(path) as video:
        for _, frame in video.frames([0, 1, 2], inspect=packet_inspector):
            assert not is_readable(frame)
            with pytest.raises(Unreadable, match=r"4:2:2"):
                coded_picture(frame).read()


def test_broken_data_end_in_an_error_not_in_a_crash(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", pattern="noise", frames=2, width=112, height=80)
    random = np.random.default_rng(0)
    unreadable = 0
    with open_video(path) as video:
        coded = [coded_picture(frame) for _, frame in video.frames([0, 1], inspect=packet_inspector)]
    for picture in coded:
        for trial in range(300):
            data = bytearray(picture.packet)
            if trial % 3 == 0:
                data = data[: int(random.integers(1, len(data)))]
            for at in random.integers(len(picture.packet) // 2, len(picture.packet), 4):
                if at < len(data):
                    data[at] = int(random.integers(0, 256))
            try:
                CodedPicture(bytes(data), picture.length_size, picture.pps_by_id).read()
            except Unreadable:
                unreadable += 1
    assert unreadable > 590


def test_tables_are_whole() -> None:
    tokens, zeros, runs = tables.code_tables()
    for table in (*tokens, *zeros, *runs):
        lengths = {int(entry) >> 5: int(entry) & 31 for entry in table if entry}
        share = sum(2.0**-length for length in lengths.values())
        assert abs(share - (table != 0).mean()) < 1e-9, "codes overlap"
    assert sorted(tables.ZIGZAG_8) == list(range(64))
    assert tables.initial_states().shape == (4, 52, tables.CONTEXTS)
    assert tables.initial_states().max() <= 125


def test_units_are_split_in_both_framings() -> None:
    units = [b"\x67\x01\x02", b"\x68\x03", b"\x65\x88\x84"]
    prefixed = b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    started = b"".join(b"\0\0\0\1" + unit for unit in units)
    assert list(headers.split_units(prefixed, 4)) == units
    assert list(headers.split_units(started, 0)) == units
    assert headers.unescape(b"\x65\0\0\3\1\0\0\3\0\0\3") == b"\x65\0\0\1\0\0\0\0"
