"""The index of a video: which packets it has and in which order their frames are shown, from demuxing alone.

N counts frames in display order, M packets in decode order. A packet is *presentable* unless an edit list discards
it or its codec hides it. Memory is a few integers per packet.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace

import av
import numpy as np
from numpy.typing import NDArray

from ov_model.codec.bitstream import PacketReader

NO_PTS = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The presentable frames of a video in display order.

    pts_N: int64, in the stream's time base (frame numbers where the file has no timestamps). decode_N: int32, rank in
    decode order, a permutation of 0..n-1. key_N: bool, the container's key flag. reference_N: bool, False where it is
    certain that no other frame refers to it. size_N: int64, bytes of the frame's packet.
    """

    pts_N: NDArray[np.int64]
    decode_N: NDArray[np.int32]
    key_N: NDArray[np.bool_]
    reference_N: NDArray[np.bool_]
    size_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pts_N)


@dataclass(frozen=True, eq=False)
class PacketTable:
    """Every packet of the video stream in decode order, as demuxed.

    pts_M, dts_M: int64 or NO_PTS. size_M: int64 bytes. key_M, shown_M, reference_M: bool. entry_M: bool, decoding may
    start here for frames shown no earlier. sure: one packet is one frame and every shown packet has its own pts, so
    that display order is the order of pts.
    """

    pts_M: NDArray[np.int64]
    dts_M: NDArray[np.int64]
    size_M: NDArray[np.int64]
    key_M: NDArray[np.bool_]
    shown_M: NDArray[np.bool_]
    reference_M: NDArray[np.bool_]
    entry_M: NDArray[np.bool_]
    sure: bool

    def __len__(self) -> int:
        return len(self.pts_M)

    def display_order(self) -> NDArray[np.int64]:
        """Packet number of each presentable frame in display order (int64 [N]); meaningful where `sure`."""
        shown = np.flatnonzero(self.shown_M)
        return shown[np.argsort(self.pts_M[shown], kind="stable")]

    def frame_index(self, packet_N: NDArray[np.int64]) -> FrameIndex:
        """The index of the frames that the given packets (in display order) became."""
        n = len(packet_N)
        pts_N = self.pts_M[packet_N]
        if n and (pts_N == NO_PTS).any():
            pts_N = np.arange(n, dtype=np.int64)
        decode_N = np.empty(n, np.int32)
        decode_N[np.argsort(packet_N, kind="stable")] = np.arange(n, dtype=np.int32)
        return FrameIndex(
            pts_N=pts_N,
            decode_N=decode_N,
            key_N=self.key_M[packet_N],
            reference_N=self.reference_M[packet_N],
            size_N=self.size_M[packet_N],
        )


def scan_packets(packets: Iterable[av.Packet], reader: PacketReader) -> PacketTable:
    """Read every packet's timestamps, flags and first bytes; payloads are not kept."""
    pts_M, dts_M, size_M, flags_M = array("q"), array("q"), array("q"), bytearray()
    sure = True
    for packet in packets:
        size = packet.size
        if not size:
            continue
        key = packet.is_keyframe
        facts = reader.read(memoryview(packet), key)
        pts, dts = packet.pts, packet.dts
        pts_M.append(NO_PTS if pts is None else pts)
        dts_M.append(NO_PTS if dts is None else dts)
        size_M.append(size)
        shown = facts.shown and not packet.is_discard
        reference = facts.reference and not packet.is_disposable
        sure = sure and facts.sure
        flags_M.append(key | shown << 1 | reference << 2 | (facts.entry and key) << 3)
    flags = np.frombuffer(bytes(flags_M), np.uint8)
    table = PacketTable(
        pts_M=np.array(pts_M, np.int64),
        dts_M=np.array(dts_M, np.int64),
        size_M=np.array(size_M, np.int64),
        key_M=flags & 1 > 0,
        shown_M=flags & 2 > 0,
        reference_M=flags & 4 > 0,
        entry_M=flags & 8 > 0,
        sure=sure,
    )
    pts_shown = table.pts_M[table.shown_M]
    unique = len(np.unique(pts_shown)) == len(pts_shown) and not (pts_shown == NO_PTS).any()
    return table if unique else replace(table, sure=False)
