"""The index of a video: which packets it has and in which order their frames are shown, from demuxing alone.

N counts frames in display order, M packets in decode order. A packet is *presentable* unless an edit list
discards it or its codec hides it. Memory is a few integers per packet.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from ov_model.codec.bitstream import PacketReader

NO_PTS = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The presentable frames of a video in display order.

    pts_N: int64, ascending, in the stream's time base (frame numbers where the file has no timestamps). decode_N:
    int32, rank in decode order, a permutation of 0..n-1. key_N: bool, the container's key flag. reference_N: bool,
    False where it is certain that no other frame refers to it. size_N: int64, bytes of the frame's packet.
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

    pts_M, dts_M: int64 or NO_PTS. size_M: int64 bytes. key_M, shown_M, reference_M: bool. entry_M: bool, decoding
    may start here for frames shown no earlier. one_to_one: each shown packet is one frame. timed: each shown packet
    has a pts of its own, so that display order is the order of pts.
    """

    pts_M: NDArray[np.int64]
    dts_M: NDArray[np.int64]
    size_M: NDArray[np.int64]
    key_M: NDArray[np.bool_]
    shown_M: NDArray[np.bool_]
    reference_M: NDArray[np.bool_]
    entry_M: NDArray[np.bool_]
    one_to_one: bool
    timed: bool

    def __len__(self) -> int:
        return len(self.pts_M)

    def packets_by_pts(self) -> NDArray[np.int64]:
        """int64 [N]: packet number of each presentable frame in display order; true where one_to_one and timed."""
        shown = np.flatnonzero(self.shown_M)
        return shown[np.argsort(self.pts_M[shown], kind="stable")]

    def frame_index(self, packet_N: NDArray[np.int64]) -> FrameIndex:
        """The index of the frames that the given packets, in display order, became."""
        n = len(packet_N)
        pts_N = np.sort(self.pts_M[packet_N])
        if NO_PTS in pts_N:
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


def scan_packets(packets: Iterable[Packet], reader: PacketReader, *, reorders: bool) -> PacketTable:
    """Read every packet's timestamps, flags and first bytes; payloads are not kept.

    reorders: the decoder delays frames to reorder them. Timestamps that then only rise, in a stream with pictures
    that nothing refers to, are decoding times (H.264 in AVI) and not `timed`.
    """
    pts_M, dts_M, size_M, flags_M = array("q"), array("q"), array("q"), bytearray()
    one_to_one = True
    for packet in packets:
        key = packet.is_keyframe
        facts = reader.read(memoryview(cast(Any, packet)), key)
        pts, dts = packet.pts, packet.dts
        pts_M.append(NO_PTS if pts is None else pts)
        dts_M.append(NO_PTS if dts is None else dts)
        size_M.append(packet.size)
        is_shown = facts.shown and not packet.is_discard
        referred = facts.reference and not (reader.trusts_container and packet.is_disposable)
        one_to_one = one_to_one and facts.one_to_one
        flags_M.append(key | is_shown << 1 | referred << 2 | (facts.entry and key) << 3)
    flags = np.frombuffer(bytes(flags_M), np.uint8)
    pts, shown, reference = np.array(pts_M, np.int64), flags & 2 > 0, flags & 4 > 0
    pts_shown = pts[shown]
    unique = len(np.unique(pts_shown)) == len(pts_shown) and NO_PTS not in pts_shown
    decoding_times = reorders and not reference.all() and bool((np.diff(pts_shown) > 0).all())
    return PacketTable(
        pts_M=pts,
        dts_M=np.array(dts_M, np.int64),
        size_M=np.array(size_M, np.int64),
        key_M=flags & 1 > 0,
        shown_M=shown,
        reference_M=reference,
        entry_M=flags & 8 > 0,
        one_to_one=one_to_one,
        timed=unique and not decoding_times,
    )
