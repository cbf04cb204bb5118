"""One video file: open, probe, index and decode frames with PyAV; typed errors.

    with open_video("clip.mp4") as video:
        for i, frame in video.frames([0, 7, 15]):
            ...

Frame numbers count decoded frames in display order, never pts * fps. The index comes from demuxing; where a frame that
it promises does not decode, `frames` raises DamagedVideo and the caller asks for `reindex`, which decodes the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.logging
import numpy as np

from ov_model.codec.bitstream import packet_reader
from ov_model.codec.decode import (
    FrameLost,
    PacketSource,
    Run,
    configure,
    decode_everything,
    decode_runs,
    open_stream,
    plan_runs,
    restore_time,
)
from ov_model.codec.index import FrameIndex, PacketTable, scan_packets
from ov_model.codec.pixels import luma, rgb, rotate
from ov_model.errors import (
    DamagedVideo,
    DecodeError,
    EmptyFile,
    MissingFile,
    NoVideoStream,
    OutOfMemory,
    UnreadableContainer,
    UnsupportedCodec,
)

__all__ = ["FrameIndex", "Video", "VideoInfo", "luma", "open_video", "quiet", "rgb", "rotate"]

# Demuxers that read other files or make pictures of text: no video file, whatever its name says.
_NOT_VIDEO_FILES = {"hls", "dash", "concat", "concatf", "tty", "imf", "webm_dash_manifest"}
_ATTACHED_PICTURE = 0x400
_PROBED_KEYS = 4
# ITU-T H.273, tables 4 and the AVColorRange enumeration.
_COLOR_SPACES = {
    0: "gbr",
    1: "bt709",
    4: "fcc",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "ycgco",
    9: "bt2020nc",
    10: "bt2020c",
}
_COLOR_RANGES = {1: "tv", 2: "pc"}


@dataclass(frozen=True)
class VideoInfo:
    """What a video is.

    width, height: pixels of a decoded frame, after cropping, before rotation. rotation: degrees to turn a frame
    clockwise for display (0, 90, 180, 270). fps: average frames a second; duration: seconds; None where the file does
    not say. color_space, color_range: FFmpeg's names, "unknown" where untagged. n_demuxed: presentable packets.
    """

    codec: str
    width: int
    height: int
    rotation: int
    fps: float | None
    duration: float | None
    pix_fmt: str
    bit_depth: int
    color_space: str
    color_range: str
    sar: tuple[int, int]
    n_demuxed: int

    @property
    def display_width(self) -> int:
        return self.height if self.rotation % 180 else self.width

    @property
    def display_height(self) -> int:
        return self.width if self.rotation % 180 else self.height


class Video:
    """An indexed video file; holds no open file between calls.

    path: Path. info: VideoInfo. index: FrameIndex. damaged: True once `reindex` has replaced the demuxed index by what
    really decodes.
    """

    def __init__(self, path: Path, stream: int, table: PacketTable, info: VideoInfo) -> None:
        self.path = path
        self.info = info
        self.damaged = False
        self._stream, self._table = stream, table
        self._packet_N = table.display_order()
        self._by_output = False
        self.index = table.frame_index(self._packet_N)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def __len__(self) -> int:
        return len(self.index)

    def frames(
        self, wanted: Sequence[int], *, motion_vectors: bool = False, quantizers: bool = False
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode exactly the wanted frames: (display number, frame) in display order.

        Args:
            wanted: display numbers, ascending and distinct, 0..len(index)-1.
            motion_vectors: frames carry the codec's vectors in `side_data` where FFmpeg exports them.
            quantizers: frames carry per-block quantizers (VIDEO_ENC_PARAMS) where FFmpeg exports them.

        Raises:
            DamagedVideo: a wanted frame fails, is missing or is flagged corrupt; call `reindex` and sample anew.
            DecodeError: the same after `reindex` (the file changed), or the file cannot be read.
        """
        ids = [int(i) for i in wanted]
        if any(a >= b for a, b in zip(ids, ids[1:], strict=False)):
            raise ValueError(f"{self.path}: wanted frames must be ascending and distinct, found {ids}")
        if ids and not (ids[0] >= 0 and ids[-1] < len(self.index)):
            raise ValueError(
                f"{self.path}: wanted frames {ids[0]}..{ids[-1]} lie outside 0..{len(self.index) - 1}"
            )
        options: dict[str, str] = {}
        if motion_vectors:
            options["flags2"] = "+export_mvs"
        if quantizers:
            options["export_side_data"] = "+venc_params"
        return (
            self._frames_by_output(ids, options) if self._by_output else self._frames_by_packet(ids, options)
        )

    def reindex(self) -> None:
        """Decode the whole file once; the index becomes what decoded, `damaged` True. Memory does not grow with length.

        Raises:
            DecodeError: no frame decodes.
        """
        self._index_by_decoding()
        self.damaged = True

    def _frames_by_packet(
        self, ids: list[int], options: dict[str, str]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        if not ids:
            return
        done = 0
        try:
            runs = plan_runs(self._table, self._packet_N, ids)
            for i, frame in self._run(runs, options, drop=True):
                done += 1
                yield i, frame
            return
        except FrameLost:
            rest = ids[done:]
        # Sequential decoding from the start has the last word on whether the file is damaged.
        try:
            last = int(self._packet_N[rest].max())
            yield from self._run([Run(0, last, rest)], options, drop=False)
        except FrameLost as error:
            raise DamagedVideo(f"{self.path}: {error}") from error

    def _run(
        self, runs: list[Run], options: dict[str, str], *, drop: bool
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        with self._source(options) as source:
            yield from decode_runs(source, self._table, self._packet_N, runs, drop=drop)

    def _frames_by_output(
        self, ids: list[int], options: dict[str, str]
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        if not ids:
            return
        left = iter(ids)
        following = next(left)
        with self._source(options) as source:
            decoded = decode_everything(source, self._table, lambda error: None)
            for i, (packet, frame) in enumerate(decoded):
                if i != following:
                    continue
                yield i, restore_time(frame, int(self._table.pts_M[packet]), source.time_base)
                following = next(left, None)
                if following is None:
                    return
        raise DecodeError(
            f"{self.path}: frame {following} decoded before and does not now; did the file change?"
        )

    def _index_by_decoding(self) -> None:
        packets: list[int] = []
        troubles: list[str] = []
        with self._source({}) as source:
            decoded = decode_everything(
                source, self._table, lambda error: troubles.append(str(error.strerror))
            )
            for packet, frame in decoded:
                packets.append(packet)
                if frame.is_corrupt:
                    troubles.append("a frame is flagged corrupt")
        if not packets:
            raise DecodeError(
                f"{self.path}: none of {len(self._table)} packets decodes as {self.info.codec}"
                + (f" ({troubles[0]})" if troubles else "")
            )
        self._packet_N = np.array(packets, np.int64)
        self._by_output = True
        self.damaged = self.damaged or bool(troubles)
        self.index = self._table.frame_index(self._packet_N)

    @contextlib.contextmanager
    def _source(self, options: dict[str, str]) -> Iterator[PacketSource]:
        with _typed_errors(self.path):
            source = PacketSource(self.path, self._stream, self._table, options)
            try:
                yield source
            finally:
                source.close()


def open_video(path: str | Path) -> Video:
    """Probe and index a video file by demuxing it once.

    A stream whose packets do not tell the display order (no timestamps, field pictures) is decoded once instead.

    Raises:
        MissingFile, EmptyFile, UnreadableContainer, NoVideoStream, UnsupportedCodec, DecodeError (no frame at all).
    """
    path = Path(path)
    _check_file(path)
    with _typed_errors(path, opening=True):
        container = open_stream(path.absolute())
    with container, _typed_errors(path):
        if set(container.format.name.split(",")) & _NOT_VIDEO_FILES:
            raise UnreadableContainer(
                f"{path} is a {container.format.name} file, which holds no video of its own; expected a video file"
            )
        stream = _video_stream(container, path)
        context = configure(stream, {})
        reader = packet_reader(context.name, context.extradata, bool(context.codec.intra_only))
        keys: list[av.Packet] = []
        table = scan_packets(_remember_keys(container.demux(stream), keys), reader)
        if not table.shown_M.any():
            raise DecodeError(f"{path}: its {context.name} stream holds no presentable packet")
        info = _probe(container, stream, _first_frame(context, keys), table)
        video = Video(path, stream.index, table, info)
    if not table.sure:
        video._index_by_decoding()
    return video


def quiet() -> None:
    """Turn FFmpeg's log off in this process: its callback can deadlock threads. For worker initializers."""
    av.logging.set_level(None)


def _check_file(path: Path) -> None:
    try:
        if not path.is_file():
            found = "a directory" if path.is_dir() else "no such file"
            raise MissingFile(f"{path}: {found}; expected a video file")
        if path.stat().st_size == 0:
            raise EmptyFile(f"{path}: 0 bytes; expected a video file")
    except OSError as error:
        raise MissingFile(f"{path}: {error.strerror}; expected a readable video file") from error


@contextlib.contextmanager
def _typed_errors(path: Path, opening: bool = False) -> Iterator[None]:
    """FFmpeg's errors as ours: while opening the container is at fault, afterwards the stream."""
    try:
        yield
    except av.error.MemoryError as error:
        raise OutOfMemory(f"{path}: FFmpeg ran out of memory") from error
    except (av.error.PermissionError, av.error.FileNotFoundError, av.error.IsADirectoryError) as error:
        raise MissingFile(f"{path}: {error.strerror}; expected a readable video file") from error
    except av.error.DecoderNotFoundError as error:
        raise UnsupportedCodec(f"{path}: this FFmpeg has no decoder for its video stream") from error
    except av.FFmpegError as error:
        if opening:
            raise UnreadableContainer(
                f"{path}: {error.strerror}; expected a whole container such as MP4, Matroska or AVI "
                "(a download that was cut off loses the header)"
            ) from error
        raise DecodeError(f"{path}: {error.strerror}") from error


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    candidates = [s for s in container.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
    if not candidates:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        pictures = " (its video streams are attached pictures)" if container.streams.video else ""
        raise NoVideoStream(f"{path}: no video stream, found {kinds}{pictures}")
    best = container.streams.best("video")
    stream = next((s for s in candidates if best is not None and s.index == best.index), candidates[0])
    if stream.codec_context is None:
        raise UnsupportedCodec(
            f"{path}: this FFmpeg has no decoder for its video stream; re-encode it, say as H.264"
        )
    return stream


def _remember_keys(packets: Iterator[av.Packet], keys: list[av.Packet]) -> Iterator[av.Packet]:
    for packet in packets:
        if packet.is_keyframe and packet.size and len(keys) < _PROBED_KEYS:
            keys.append(packet)
        yield packet


def _first_frame(context: av.VideoCodecContext, keys: list[av.Packet]) -> av.VideoFrame | None:
    """The first key packet that decodes by itself: it alone tells rotation and the true pixel format."""
    for packet in keys:
        for step in (packet, None):
            with contextlib.suppress(av.FFmpegError):
                frames = context.decode(step)
                if frames:
                    return frames[0]
        context.flush_buffers()
    return None


def _probe(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    frame: av.VideoFrame | None,
    table: PacketTable,
) -> VideoInfo:
    context = stream.codec_context
    pix_fmt = frame.format.name if frame is not None else context.pix_fmt or "unknown"
    rate = stream.average_rate or stream.guessed_rate
    aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio
    colors = frame if frame is not None else context
    return VideoInfo(
        codec=stream.codec.canonical_name,
        width=frame.width if frame is not None else context.width,
        height=frame.height if frame is not None else context.height,
        rotation=_clockwise(frame),
        fps=float(rate) if rate else None,
        duration=_duration(container, stream),
        pix_fmt=pix_fmt,
        bit_depth=av.VideoFormat(pix_fmt).components[0].bits if pix_fmt != "unknown" else 0,
        color_space=_COLOR_SPACES.get(int(colors.colorspace), "unknown"),
        color_range=_COLOR_RANGES.get(int(colors.color_range), "unknown"),
        sar=(aspect.numerator, aspect.denominator) if aspect else (1, 1),
        n_demuxed=int(table.shown_M.sum()),
    )


def _clockwise(frame: av.VideoFrame | None) -> int:
    """The display matrix's rotation to the nearest quarter turn; FFmpeg counts counterclockwise."""
    return 0 if frame is None else round(-frame.rotation / 90) % 4 * 90


def _duration(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration is not None else None
