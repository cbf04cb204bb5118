"""Decoding exactly the wanted frames: which packets to feed, where to jump, how to notice that a frame was lost.

The decoder runs on one thread. Every packet is given its own number as its timestamp before it is decoded, so that a
frame says which packet it came from, whatever the file's timestamps are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ov_model.codec.index import NO_PTS, PacketTable

# Reading on without decoding is safer than seeking and nearly as cheap, so seek only over long stretches.
_SEEK_OVER_PACKETS = 512
_SEEK_OVER_BYTES = 8 << 20
# Frames that may arrive before one that is shown earlier; a correct decoder needs none.
_MAX_HELD = 8


class FrameLost(Exception):
    """A frame did not come out of the decoder as the index promised; the message says which and how."""


class _JumpFailed(Exception):
    """Seeking did not land on a packet known to lie at or before the target."""


@dataclass(frozen=True)
class Run:
    """Packets `entry`..`last` are read one after the other; `wanted` are the display numbers to take from them."""

    entry: int
    last: int
    wanted: list[int]


def open_stream(path: Path, stream: int | None = None) -> av.container.InputContainer:
    """Open a local file for demuxing; no network, no other protocol, whatever the file's name or content says."""
    return av.open(f"file:{path}", mode="r", options={"protocol_whitelist": "file"})


class PacketSource:
    """Packets of one stream in order, checked against the table, with jumps ahead."""

    def __init__(self, path: Path, stream: int, table: PacketTable, options: dict[str, str]) -> None:
        self._path, self._index, self._table, self._options = path, stream, table, options
        self._seekable = table.sure
        self._open()

    def _open(self) -> None:
        self._container = open_stream(self._path)
        self._stream = self._container.streams[self._index]
        self.decoder = configure(self._stream, self._options)
        self.time_base = self._stream.time_base
        self._packets = self._container.demux(self._stream)
        self.position = 0

    def close(self) -> None:
        self._container.close()

    def next(self) -> av.Packet:
        """The packet number `position`, its pts replaced by that number; raises FrameLost where the file changed."""
        at = self.position
        packet = self._read()
        if packet is None or not self._is(packet, at):
            raise FrameLost(
                f"packet {at} is not what it was when {self._path} was indexed; did the file change?"
            )
        packet.pts = at
        self.position = at + 1
        return packet

    def skip_to(self, position: int) -> None:
        """Go forward to a packet without decoding what lies between; use `decoder` anew afterwards."""
        far = position - self.position > _SEEK_OVER_PACKETS or (
            int(self._table.size_M[self.position : position].sum()) > _SEEK_OVER_BYTES
        )
        if far and self._seekable:
            try:
                self._jump(position)
            except (_JumpFailed, av.FFmpegError):
                self._seekable = False
                self.close()
                self._open()
        while self.position < position:
            self.next()

    def _read(self) -> av.Packet | None:
        for packet in self._packets:
            if packet.size:
                return packet
        return None

    def _is(self, packet: av.Packet, at: int) -> bool:
        if at >= len(self._table) or packet.size != self._table.size_M[at]:
            return False
        pts = NO_PTS if packet.pts is None else packet.pts
        return bool(pts == self._table.pts_M[at])

    def _jump(self, position: int) -> None:
        table = self._table
        target = table.dts_M[position] if table.dts_M[position] != NO_PTS else table.pts_M[position]
        self._container.seek(int(target), stream=self._stream)
        self._packets = self._container.demux(self._stream)
        packet = self._read()
        if packet is None or packet.pts is None:
            raise _JumpFailed
        landed = [int(m) for m in np.flatnonzero(table.pts_M == packet.pts) if self._is(packet, int(m))]
        if len(landed) != 1 or not self.position <= landed[0] <= position:
            raise _JumpFailed
        self.position = landed[0]
        if landed[0] == position:
            self._container.seek(int(target), stream=self._stream)
            self._packets = self._container.demux(self._stream)
        else:
            self.position += 1


def configure(stream: av.VideoStream, options: dict[str, str]) -> av.VideoCodecContext:
    """Make the stream's decoder single-threaded and give it its options, before it opens."""
    context = stream.codec_context
    stream.thread_type = "NONE"
    context.thread_count = 1
    if options:
        context.options = options
    return context


def plan_runs(table: PacketTable, packet_N: NDArray[np.int64], wanted: Sequence[int]) -> list[Run]:
    """Group wanted frames (display numbers, ascending) into runs that begin where decoding may begin.

    A frame may be decoded from an entry that comes before it both in the file and on the screen. A new run begins
    only where it skips packets; otherwise reading on is as cheap.
    """
    display_M = np.full(len(table), -1, np.int64)
    display_M[packet_N] = np.arange(len(packet_N))
    entries = np.flatnonzero(table.entry_M & table.shown_M)
    runs: list[Run] = []
    for i in wanted:
        packet = int(packet_N[i])
        at = int(np.searchsorted(entries, packet, side="right")) - 1
        while at >= 0 and display_M[entries[at]] > i:
            at -= 1
        entry = int(entries[at]) if at >= 0 else 0
        if runs and entry <= runs[-1].last + 1:
            runs[-1] = Run(runs[-1].entry, max(runs[-1].last, packet), [*runs[-1].wanted, i])
        else:
            runs.append(Run(entry, packet, [i]))
    return runs


def decode_runs(
    source: PacketSource, table: PacketTable, packet_N: NDArray[np.int64], runs: Sequence[Run], *, drop: bool
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (display number, frame) for the wanted frames of each run, in display order.

    drop: leave out packets that no other frame refers to and that are not wanted.

    Raises:
        FrameLost: a packet that is needed did not decode, or a wanted or referenced frame is missing or flagged.
    """
    display_M = np.full(len(table), -1, np.int64)
    display_M[packet_N] = np.arange(len(packet_N))
    for run in runs:
        if run.entry > source.position:
            source.skip_to(run.entry)
        # Frames shown before the entry may refer to what was skipped: they are fed, but not believed.
        cutoff = int(display_M[run.entry]) if run.entry else -1
        taker = _Taker(run.wanted, table, packet_N, display_M, cutoff, source.time_base)
        wanted_packets = {int(packet_N[i]) for i in run.wanted}
        while source.position <= run.last:
            at = source.position
            packet = source.next()
            spare = at not in wanted_packets and not table.reference_M[at]
            if spare and drop:
                continue
            try:
                frames = source.decoder.decode(packet)
            except av.FFmpegError as error:
                if spare or (display_M[at] >= 0 and display_M[at] < cutoff):
                    continue
                raise FrameLost(
                    f"frame {display_M[at]} (packet {at}) did not decode: {error.strerror}"
                ) from error
            yield from taker.take(frames)
        try:
            frames = source.decoder.decode(None)
        except av.FFmpegError as error:
            raise FrameLost(
                f"the decoder failed to finish after packet {run.last}: {error.strerror}"
            ) from error
        yield from taker.take(frames)
        taker.finish()
        source.decoder.flush_buffers()


class _Taker:
    """Picks a run's wanted frames out of what the decoder returns and hands them on in display order."""

    def __init__(
        self,
        wanted: list[int],
        table: PacketTable,
        packet_N: NDArray[np.int64],
        display_M: NDArray[np.int64],
        cutoff: int,
        time_base: object,
    ) -> None:
        self._open = list(reversed(wanted))
        self._left = set(wanted)
        self._table, self._packet_N, self._display_M = table, packet_N, display_M
        self._cutoff, self._time_base = cutoff, time_base
        self._held: dict[int, av.VideoFrame] = {}

    def take(self, frames: Sequence[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
        for frame in frames:
            at = frame.pts
            if at is None or not 0 <= at < len(self._table):
                continue
            i = int(self._display_M[at])
            if frame.is_corrupt and i >= self._cutoff and (i in self._left or self._table.reference_M[at]):
                raise FrameLost(f"frame {i} (packet {at}) is flagged corrupt")
            if i not in self._left:
                continue
            self._left.remove(i)
            self._held[i] = restore_time(frame, int(self._table.pts_M[at]), self._time_base)
            while self._open and self._open[-1] in self._held:
                first = self._open.pop()
                yield first, self._held.pop(first)
            if len(self._held) > _MAX_HELD:
                raise FrameLost(f"frame {self._open[-1]} did not come out of the decoder")

    def finish(self) -> None:
        if self._open:
            raise FrameLost(f"frame {self._open[-1]} did not come out of the decoder")


def restore_time(frame: av.VideoFrame, pts: int, time_base: object) -> av.VideoFrame:
    """Give a frame its file's timestamp back."""
    frame.pts = None if pts == NO_PTS else pts
    frame.time_base = time_base
    return frame


def decode_everything(
    source: PacketSource, table: PacketTable, on_error: Callable[[av.FFmpegError], None]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (packet number, frame) of every frame that decodes, in the decoder's order; errors are reported, not raised."""
    last = -1
    for _ in range(len(table)):
        packet = source.next()
        try:
            frames = source.decoder.decode(packet)
        except av.FFmpegError as error:
            on_error(error)
            continue
        for frame in frames:
            last = frame.pts if frame.pts is not None and 0 <= frame.pts < len(table) else last + 1
            if table.shown_M[last]:
                yield last, frame
    try:
        frames = source.decoder.decode(None)
    except av.FFmpegError as error:
        on_error(error)
        return
    for frame in frames:
        last = frame.pts if frame.pts is not None and 0 <= frame.pts < len(table) else last + 1
        if last < len(table) and table.shown_M[last]:
            yield last, frame
