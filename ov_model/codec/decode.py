"""Decoding exactly the wanted frames: which packets to feed, where to jump, how to notice a lost frame.

The decoder runs on one thread. Every packet is given its own number as its timestamp before it is decoded, so
that a frame says which packet it came from, whatever the file's timestamps are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ov_model.codec.folder import open_folder
from ov_model.codec.index import NO_PTS, PacketTable
from ov_model.errors import DecodeError

# Reading on without decoding costs microseconds a packet and cannot land wrong, so seek only over long stretches.
_SEEK_OVER_PACKETS = 512
_SEEK_OVER_BYTES = 8 << 20


# Given a stream's extradata, makes what is called with each of its packets.
PacketInspector = Callable[[bytes | None], Callable[[Packet], object]]


class FrameLost(Exception):
    """A frame did not come out of the decoder as the index promised; the message says which and how."""


class OutOfOrder(FrameLost):
    """Frames come in another order than their timestamps say; nothing need be damaged."""


class _JumpFailed(Exception):
    """Seeking did not land on a packet known to lie at or before the target."""


@dataclass
class Run:
    """Packets `entry`..`last` are read one after the other; `wanted` are the display numbers to take."""

    entry: int
    last: int
    wanted: list[int]


def open_container(path: Path) -> InputContainer:
    """Open a local file (or folder of frames) for demuxing: no network, whatever its name or content says."""
    if path.is_dir():
        return open_folder(path)
    return av.open(
        f"file:{os.path.abspath(path)}",
        mode="r",
        metadata_errors="replace",
        # Not `options`, with which PyAV below 18 crashes on FLV.
        container_options={"protocol_whitelist": "file"},
    )


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The stream's packets from the container's position on, without the empty ones that end PyAV's iteration."""
    while True:
        try:
            for packet in container.demux(stream):
                if packet.size:
                    yield packet
            return
        except IndexError:
            # PyAV trips over the first packet of a stream that appears in the middle of the file, and only there.
            continue


def configure(stream: VideoStream, options: dict[str, str]) -> VideoCodecContext:
    """Make the stream's decoder single-threaded and give it its options, before it opens."""
    context = stream.codec_context
    context.thread_type = "NONE"
    context.thread_count = 1
    if options:
        context.options = options
    return context


class PacketSource:
    """The packets of one stream in order, checked against the table, with jumps ahead.

    inspect: made anew with the stream's extradata, then called with every packet in order; what it returns travels
    with the packet's frame as `frame.opaque`. decoder: the stream's codec context; it changes when a jump fails, so
    take it anew after `skip_to`.

    Raises:
        DecodeError: a packet is not what it was when the file was indexed.
    """

    def __init__(
        self,
        path: Path,
        stream: int,
        table: PacketTable,
        options: dict[str, str],
        inspect: PacketInspector | None = None,
    ) -> None:
        self._path, self._index, self._table, self._options = path, stream, table, options
        self._inspect = inspect
        self._seekable = table.timed
        self._open()

    def _open(self) -> None:
        self._container = open_container(self._path)
        self._stream = cast(VideoStream, self._container.streams[self._index])
        self.decoder = configure(self._stream, self._options)
        self._see = None if self._inspect is None else self._inspect(self.decoder.extradata)
        if self._see is not None:
            self.decoder.flags |= Flags.copy_opaque
        self.time_base = self._stream.time_base
        self.position = 0
        self._jumped = False
        self._begin()

    def _begin(self) -> None:
        self._peeked: Packet | None = None
        self._packets = read_packets(self._container, self._stream)

    def close(self) -> None:
        self._container.close()

    def next(self) -> Packet:
        """The packet number `position`, its pts replaced by that number."""
        at = self.position
        packet = self._read()
        if packet is None or not self._is(packet, at):
            if self._jumped:
                raise FrameLost(f"packet {at} does not follow after a seek")
            raise DecodeError(f"{self._path}: packet {at} is not what it was when indexed; did the file change?")
        if self._see is not None:
            packet.opaque = self._see(packet)
        packet.pts = at
        self.position = at + 1
        return packet

    def skip_to(self, position: int) -> None:
        """Go forward to a packet without decoding what lies between; the decoder forgets what it held."""
        far = (
            position - self.position > _SEEK_OVER_PACKETS
            or int(self._table.size_M[self.position : position].sum()) > _SEEK_OVER_BYTES
        )
        if far and self._seekable:
            try:
                self._jump(position)
            except (_JumpFailed, FFmpegError):
                self._seekable = False
                self.close()
                self._open()
        while self.position < position:
            self.next()

    def _read(self) -> Packet | None:
        packet, self._peeked = self._peeked, None
        return packet if packet is not None else next(self._packets, None)

    def _is(self, packet: Packet, at: int) -> bool:
        pts = NO_PTS if packet.pts is None else packet.pts
        return bool(packet.size == self._table.size_M[at] and pts == self._table.pts_M[at])

    def _jump(self, position: int) -> None:
        """Seek to a packet known to lie at or before `position`; decoding times never land behind it."""
        table = self._table
        target = table.dts_M[position] if table.dts_M[position] != NO_PTS else table.pts_M[position]
        self._container.seek(int(target), stream=self._stream)
        self._begin()
        packet = self._read()
        if packet is None or packet.pts is None:
            raise _JumpFailed
        landed = [int(m) for m in np.flatnonzero(table.pts_M == packet.pts) if self._is(packet, int(m))]
        if len(landed) != 1 or landed[0] > position:
            raise _JumpFailed
        self.position, self._peeked, self._jumped = landed[0], packet, True


def plan_runs(table: PacketTable, packet_N: NDArray[np.int64], wanted: Sequence[int]) -> list[Run]:
    """Group wanted frames (display numbers, ascending) into runs that begin where decoding may begin.

    A frame may be decoded from an entry that comes before it both in the file and on the screen. A new run begins
    only where it skips packets; otherwise reading on costs the same.
    """
    display_M = _display_numbers(table, packet_N)
    entries = np.flatnonzero(table.entry_M & (display_M >= 0))
    runs: list[Run] = []
    for i in wanted:
        packet = int(packet_N[i])
        at = int(np.searchsorted(entries, packet, side="right")) - 1
        while at >= 0 and display_M[entries[at]] > i:
            at -= 1
        entry = int(entries[at]) if at >= 0 else 0
        if runs and entry <= runs[-1].last + 1:
            runs[-1].last = max(runs[-1].last, packet)
            runs[-1].wanted.append(i)
        else:
            runs.append(Run(entry, packet, [i]))
    return runs


def decode_runs(
    source: PacketSource, table: PacketTable, packet_N: NDArray[np.int64], runs: Sequence[Run], *, drop: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield (display number, frame) for the wanted frames of each run, in display order.

    drop: leave out packets that are not wanted and that no other frame refers to.

    Raises:
        FrameLost: a needed packet did not decode, or a wanted or referenced frame is missing or flagged corrupt.
        OutOfOrder: frames come in another order than the index has them.
    """
    display_M = _display_numbers(table, packet_N)
    for run in runs:
        if run.entry > source.position:
            source.skip_to(run.entry)
        # Frames shown before the entry may refer to what was skipped: they are fed, but not believed.
        cutoff = int(display_M[run.entry]) if run.entry else 0
        taker = _Taker(run.wanted, table, display_M, cutoff, source.time_base)
        needed = {int(packet_N[i]) for i in run.wanted}
        while source.position <= run.last:
            at = source.position
            packet = source.next()
            spare = at not in needed and not table.reference_M[at]
            if spare and drop:
                continue
            try:
                frames = source.decoder.decode(packet)
            except FFmpegError as error:
                if spare or 0 <= display_M[at] < cutoff:
                    continue
                message = f"frame {display_M[at]} (packet {at}) did not decode: {error.strerror}"
                raise FrameLost(message) from error
            yield from taker.take(frames)
        try:
            frames = source.decoder.decode(None)
        except FFmpegError as error:
            raise FrameLost(f"the decoder failed after packet {run.last}: {error.strerror}") from error
        yield from taker.take(frames)
        taker.finish()
        source.decoder.flush_buffers()


class _Taker:
    """Picks a run's wanted frames out of what the decoder returns; frames shown before `cutoff` are ignored."""

    def __init__(
        self,
        wanted: list[int],
        table: PacketTable,
        display_M: NDArray[np.int64],
        cutoff: int,
        time_base: Fraction | None,
    ) -> None:
        self._left = wanted[::-1]
        self._table, self._display_M, self._time_base = table, display_M, time_base
        self._cutoff, self._newest = cutoff, cutoff - 1

    def take(self, frames: Sequence[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        for frame in frames:
            at = frame.pts
            if at is None or not 0 <= at < len(self._table):
                continue
            i = int(self._display_M[at])
            if i < self._cutoff:
                continue
            if i <= self._newest:
                raise OutOfOrder(f"frame {i} (packet {at}) is shown after frame {self._newest}")
            self._newest = i
            wanted = bool(self._left) and i >= self._left[-1]
            if frame.is_corrupt and (wanted or self._table.reference_M[at]):
                raise FrameLost(f"frame {i} (packet {at}) is flagged corrupt")
            if wanted:
                if i > self._left[-1]:
                    self.finish()
                self._left.pop()
                yield i, restore_time(frame, int(self._table.pts_M[at]), self._time_base)

    def finish(self) -> None:
        if self._left:
            raise FrameLost(f"frame {self._left[-1]} did not come out of the decoder")


def decode_everything(
    source: PacketSource, table: PacketTable, on_error: Callable[[FFmpegError], None]
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield (packet number, frame) of all that decodes, in the decoder's order; errors are reported, not raised."""
    last = -1
    for step in range(len(table) + 1):
        packet = source.next() if step < len(table) else None
        try:
            frames = source.decoder.decode(packet)
        except FFmpegError as error:
            on_error(error)
            continue
        for frame in frames:
            known = frame.pts is not None and 0 <= frame.pts < len(table)
            last = cast(int, frame.pts) if known else min(last + 1, len(table) - 1)
            if table.shown_M[last]:
                yield last, frame


def restore_time(frame: VideoFrame, pts: int, time_base: Fraction | None) -> VideoFrame:
    """Give a frame its file's timestamp back."""
    frame.pts = None if pts == NO_PTS else pts
    if time_base is not None:
        frame.time_base = time_base
    return frame


def _display_numbers(table: PacketTable, packet_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [M]: the display number of each packet's frame, -1 where it gives none."""
    display_M = np.full(len(table), -1, np.int64)
    display_M[packet_N] = np.arange(len(packet_N))
    return display_M
