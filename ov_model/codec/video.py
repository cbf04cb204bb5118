"""One video file (or folder of frames): open, probe, index and decode frames with PyAV; typed errors.

    with open_video("clip.mp4") as video:
        for i, frame in video.frames([0, 7, 15]):
            ...

Frame numbers count decoded frames in display order, never pts * fps. The index comes from demuxing; where a frame
that it promises does not decode, `frames` raises DamagedVideo and the caller asks for `reindex`, which decodes the
file once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast

import av
import av.error
import av.logging
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ov_model.codec.bitstream import packet_reader
from ov_model.codec.decode import (
    FrameLost,
    OutOfOrder,
    PacketInspector,
    PacketSource,
    Run,
    configure,
    decode_everything,
    decode_runs,
    open_container,
    plan_runs,
    read_packets,
    restore_time,
)
from ov_model.codec.folder import check_frames, frame_files
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

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FrameIndex", "Video", "VideoInfo", "luma", "open_video", "quiet", "rgb", "rotate"]

# Demuxers that read other files, or make pictures of text: no video file, whatever its name says.
_NOT_VIDEO_FILES = {"hls", "dash", "concat", "concatf", "tty", "imf", "webm_dash_manifest"}
_PROBED_KEYS = 4
# ITU-T H.273 table 4 and FFmpeg's AVColorRange.
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
    clockwise for display (0, 90, 180, 270). fps: average frames a second, duration: seconds; None where the file
    does not say. color_space, color_range: FFmpeg's names, "unknown" where untagged. n_demuxed: frames that the
    container promises (presentable packets).
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
    """An indexed video file; no file stays open between calls.

    path: Path. info: VideoInfo. index: FrameIndex. damaged: True once decoding the whole file has shown errors or
    fewer frames than the container promises.
    """

    def __init__(self, path: Path, stream: int, table: PacketTable, info: VideoInfo) -> None:
        self.path = path
        self.info = info
        self.damaged = False
        self._lost_frame = False
        self._stream, self._table = stream, table
        # Until `_index_by_decoding` says otherwise, frames are found by the packet they come from.
        self._by_output = False
        self._packet_N = table.packets_by_pts()
        self.index = table.frame_index(self._packet_N)
        if not (table.one_to_one and table.timed):
            self._index_by_decoding()
            if not self.damaged:
                self.info = replace(info, n_demuxed=len(self.index))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __len__(self) -> int:
        return len(self.index)

    def frames(
        self,
        wanted: Sequence[int],
        *,
        motion_vectors: bool = False,
        quantizers: bool = False,
        inspect: PacketInspector | None = None,
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Decode exactly the wanted frames: (display number, frame) in display order.

        Args:
            wanted: display numbers, ascending and distinct, 0..len(index)-1.
            motion_vectors: frames carry the codec's vectors (`pixels.side_data`) where FFmpeg exports them.
            quantizers: frames carry per-block quantizers (VIDEO_ENC_PARAMS) where FFmpeg exports them.
            inspect: sees every packet read, in decode order; what it returns for a frame's packet is `frame.opaque`.

        Raises:
            DamagedVideo: a wanted frame fails, is missing or is flagged corrupt; call `reindex` and sample anew.
            DecodeError: the file changed since it was opened, or cannot be read.
        """
        ids = [int(i) for i in wanted]
        if any(a >= b for a, b in pairwise(ids)):
            raise ValueError(f"{self.path}: wanted frames must be ascending and distinct, found {ids}")
        if ids and (ids[0] < 0 or ids[-1] >= len(self)):
            raise ValueError(f"{self.path}: wanted frames {ids[0]}..{ids[-1]} lie outside 0..{len(self) - 1}")
        options: dict[str, str] = {}
        if motion_vectors:
            options["flags2"] = "+export_mvs"
        if quantizers:
            options["export_side_data"] = "+venc_params"
        if not ids:
            return iter(())
        read = self._frames_by_output if self._by_output else self._frames_by_packet
        return read(ids, options, inspect)

    def reindex(self) -> None:
        """Decode the whole file once: the index becomes what decoded. Memory does not grow with its length.

        Frames that FFmpeg flags corrupt or repairs stay in the index: they are what players show.

        Raises:
            DecodeError: no frame decodes.
        """
        self._index_by_decoding()
        self._by_output = True

    def _frames_by_packet(
        self, ids: list[int], options: dict[str, str], inspect: PacketInspector | None
    ) -> Iterator[tuple[int, VideoFrame]]:
        done = 0
        try:
            for i, frame in self._run(plan_runs(self._table, self._packet_N, ids), options, inspect, drop=True):
                done += 1
                yield i, frame
            return
        except FrameLost:
            rest = ids[done:]
            if not rest:
                return
        # Plain decoding from the start has the last word on whether the file is damaged.
        try:
            last = int(self._packet_N[rest].max())
            yield from self._run([Run(0, last, rest)], options, inspect, drop=False)
        except FrameLost as error:
            self._lost_frame = not isinstance(error, OutOfOrder)
            raise DamagedVideo(f"{self.path}: {error}") from error

    def _run(
        self, runs: list[Run], options: dict[str, str], inspect: PacketInspector | None, *, drop: bool
    ) -> Iterator[tuple[int, VideoFrame]]:
        with self._source(options, inspect) as source:
            yield from decode_runs(source, self._table, self._packet_N, runs, drop=drop)

    def _frames_by_output(
        self, ids: list[int], options: dict[str, str], inspect: PacketInspector | None
    ) -> Iterator[tuple[int, VideoFrame]]:
        left = ids[::-1]
        with self._source(options, inspect) as source:
            decoded = decode_everything(source, self._table, lambda error: None)
            for i, (packet, frame) in enumerate(decoded):
                if i == left[-1]:
                    left.pop()
                    yield i, restore_time(frame, int(self._table.pts_M[packet]), source.time_base)
                    if not left:
                        return
        raise DecodeError(f"{self.path}: frame {left[-1]} decoded before and does not now; did the file change?")

    def _index_by_decoding(self) -> None:
        packets: list[int] = []
        troubles: list[str] = []
        with self._source({}) as source:
            decoded = decode_everything(source, self._table, lambda error: troubles.append(str(error.strerror)))
            for packet, frame in decoded:
                packets.append(packet)
                if frame.is_corrupt:
                    troubles.append("a frame is flagged corrupt")
        if not packets:
            why = f" ({troubles[0]})" if troubles else ""
            raise DecodeError(f"{self.path}: none of {len(self._table)} packets decodes as {self.info.codec}{why}")
        self._packet_N = np.array(packets, np.int64)
        self.index = self._table.frame_index(self._packet_N)
        whole = not (troubles or self._lost_frame) and (
            len(packets) == self.info.n_demuxed or not self._table.one_to_one
        )
        self.damaged = not whole
        self._by_output = not (whole and self._table.one_to_one and len(np.unique(packets)) == len(packets))

    @contextlib.contextmanager
    def _source(self, options: dict[str, str], inspect: PacketInspector | None = None) -> Iterator[PacketSource]:
        with _typed_errors(self.path):
            source = PacketSource(self.path, self._stream, self._table, options, inspect)
            try:
                yield source
            finally:
                source.close()


def open_video(path: str | Path) -> Video:
    """Probe and index a video file, or a folder of JPEG frames, by demuxing it once.

    A stream whose packets do not tell the display order (no timestamps, field pictures) is decoded once instead.

    Raises:
        MissingFile, EmptyFile, UnreadableContainer, NoVideoStream, UnsupportedCodec: what the names say.
        DecodeError: it has no frame at all.
    """
    path = Path(path)
    _check_file(path)
    with _typed_errors(path, opening=True):
        container = open_container(path)
    with container, _typed_errors(path):
        if set(container.format.name.split(",")) & _NOT_VIDEO_FILES:
            raise UnreadableContainer(
                f"{path} is a {container.format.name} file, which holds no video of its own; expected a video file"
            )
        stream = _video_stream(container, path)
        context = configure(stream, {})
        reader = packet_reader(context.name, context.extradata, context.codec.intra_only)
        keys: list[Packet] = []
        packets = _until_error(read_packets(container, stream), keys)
        table = scan_packets(packets, reader, reorders=bool(context.has_b_frames))
        if not table.shown_M.any():
            raise DecodeError(f"{path}: its {context.name} stream holds no presentable packet")
        if path.is_dir() and len(table) != (count := len(frame_files(path))):
            raise DecodeError(f"{path}: only {len(table)} of its {count} frames can be read; check their permissions")
        info = _probe(container, stream, _first_frame(context, keys), table)
        if not info.width:
            raise DecodeError(f"{path}: neither its header nor its first frames tell a picture size")
        number = stream.index
    return Video(path, number, table, info)


def quiet() -> None:
    """Turn FFmpeg's log off in this process: its callback can deadlock threads. For worker initializers."""
    av.logging.set_level(None)


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            check_frames(path)
        elif not path.is_file():
            raise MissingFile(f"{path}: no such file; expected a video file")
        elif path.stat().st_size == 0:
            raise EmptyFile(f"{path}: 0 bytes; expected a video file")
        if not os.access(path, os.R_OK):
            raise MissingFile(f"{path}: no permission to read it; expected a readable video file")
    except OSError as error:
        raise MissingFile(f"{path}: {error.strerror}; expected a readable video file") from error


@contextlib.contextmanager
def _typed_errors(path: Path, opening: bool = False) -> Iterator[None]:
    """FFmpeg's errors as ours: while opening the container is at fault, afterwards the stream."""
    try:
        yield
    except av.error.MemoryError as error:
        raise OutOfMemory(f"{path}: FFmpeg ran out of memory") from error
    except (av.error.DecoderNotFoundError, av.error.PatchWelcomeError) as error:
        raise UnsupportedCodec(f"{path}: this FFmpeg cannot decode its video stream: {error.strerror}") from error
    except FFmpegError as error:
        if opening:
            raise UnreadableContainer(
                f"{path}: {error.strerror}; expected a whole container such as MP4, Matroska or AVI "
                "(a download that was cut off may lack its header)"
            ) from error
        raise DecodeError(f"{path}: {error.strerror}") from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    videos = container.streams.video
    candidates = [s for s in videos if not (s.disposition & Disposition.attached_pic).value]
    if not candidates:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        pictures = " (attached pictures, such as a cover)" if videos else ""
        raise NoVideoStream(f"{path}: no video stream among its streams; found {kinds}{pictures}")
    best = container.streams.best("video")
    stream = next((s for s in candidates if best is not None and s.index == best.index), candidates[0])
    if cast(VideoCodecContext | None, stream.codec_context) is None:
        raise UnsupportedCodec(f"{path}: this FFmpeg has no decoder for its video stream; re-encode it as H.264")
    return stream


def _until_error(packets: Iterator[Packet], keys: list[Packet]) -> Iterator[Packet]:
    """The packets up to where demuxing fails, as FFmpeg's own tools read; remembers the first key packets."""
    any_packet = False
    try:
        for packet in packets:
            if packet.is_keyframe and len(keys) < _PROBED_KEYS:
                keys.append(packet)
            any_packet = True
            yield packet
    except FFmpegError:
        if not any_packet:
            raise


def _first_frame(context: VideoCodecContext, keys: list[Packet]) -> VideoFrame | None:
    """The first key packet that decodes by itself: frames alone tell the rotation and the true pixel format."""
    for packet in keys:
        for step in (packet, None):
            with contextlib.suppress(FFmpegError):
                for frame in context.decode(step):
                    return frame
        context.flush_buffers()
    return None


def _probe(container: InputContainer, stream: VideoStream, frame: VideoFrame | None, table: PacketTable) -> VideoInfo:
    context = stream.codec_context
    picture = context if frame is None else frame
    pix_fmt = (context.pix_fmt or "yuv420p") if frame is None else frame.format.name
    rate = stream.average_rate or stream.guessed_rate
    aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio
    return VideoInfo(
        codec=stream.codec.canonical_name,
        width=picture.width,
        height=picture.height,
        rotation=0 if frame is None else round(-frame.rotation / 90) % 4 * 90,
        fps=float(rate) if rate else None,
        duration=_duration(container, stream),
        pix_fmt=pix_fmt,
        bit_depth=av.VideoFormat(pix_fmt).components[0].bits,
        color_space=_COLOR_SPACES.get(int(picture.colorspace), "unknown"),
        color_range=_COLOR_RANGES.get(int(picture.color_range), "unknown"),
        sar=(aspect.numerator, aspect.denominator) if aspect else (1, 1),
        n_demuxed=int(table.shown_M.sum()),
    )


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base
