"""Parameter sets and slice headers of H.264: what is needed to read a slice's macroblocks.

Source: ITU-T H.264, 7.3.2.1 (SPS), 7.3.2.2 (PPS), 7.3.3 (slice header), 7.4.1.1 (emulation prevention), 8.5.9 (scales).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ov_model.codec.h264 import tables

_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
# NAL unit types, and slice types.
SLICE, IDR, SPS, PPS = 1, 5, 7, 8
PARTITIONS = (2, 3, 4)
P_SLICE, B_SLICE, I_SLICE = 0, 1, 2
_HEADER_BYTES = 512


class Unreadable(Exception):
    """The stream uses what is not read here, or is broken; the message says what."""


@dataclass(frozen=True)
class Sps:
    """Sequence parameter set. lists: the 4x4 (intra, inter) and 8x8 (intra, inter) luma scaling lists, None = flat."""

    id: int
    profile: int
    chroma: int
    bit_depth: int
    bypass: bool
    frame_num_bits: int
    poc_type: int
    poc_bits: int
    delta_pic_order_always_zero: bool
    width_mbs: int
    height_mbs: int
    frames_only: bool
    direct_8x8: bool
    crop_left: int
    crop_top: int
    lists: tuple[list[int] | None, ...]
    separate_planes: bool = False


@dataclass(frozen=True)
class Pps:
    """Picture parameter set. lists: as in Sps, after falling back on the SPS's where it says so."""

    sps: Sps
    cabac: bool
    bottom_field_order: bool
    slice_groups: int
    refs: tuple[int, int]
    weighted_p: bool
    weighted_b: int
    qp: int
    deblocking_control: bool
    redundant: bool
    transform_8x8: bool
    scales: tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True)
class Slice:
    """Slice header; `payload` is the NAL unit without emulation prevention, `at` the first bit of the slice data."""

    pps: Pps
    first_mb: int
    kind: int
    refs: tuple[int, int]
    cabac_init: int
    qp: int
    redundant: bool
    payload: bytes
    at: int


class Bits:
    """Reads bits and Exp-Golomb codes; Unreadable past the end."""

    def __init__(self, payload: bytes) -> None:
        self._value = int.from_bytes(payload, "big")
        self._size = self._left = 8 * len(payload)

    @property
    def at(self) -> int:
        return self._size - self._left

    @property
    def left(self) -> int:
        return self._left

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise Unreadable("a header ends too early")
        return self._value >> self._left & ((1 << count) - 1)

    def flag(self) -> bool:
        return self.take(1) == 1

    def ue(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)

    def more_data(self) -> bool:
        """Whether anything comes before the trailing bits (more_rbsp_data)."""
        rest = self._value & ((1 << self._left) - 1)
        return rest & (rest - 1) != 0


def unescape(unit: bytes) -> bytes:
    """A NAL unit without its emulation prevention bytes."""
    return unit.replace(b"\0\0\3", b"\0\0")


def split_units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The NAL units of a packet, length-prefixed (avcC) or, with length_size 0, after start codes (annex B)."""
    if not length_size:
        for unit in data.split(b"\0\0\1")[1:]:
            yield unit.rstrip(b"\0")
        return
    at = 0
    while at + length_size < len(data):
        size = int.from_bytes(data[at : at + length_size], "big")
        at += length_size
        yield data[at : at + size]
        at += size


def split_extradata(extra: bytes) -> tuple[int, list[bytes]]:
    """Length of the packets' size prefix (0: annex B) and the parameter sets in a stream's extradata."""
    if len(extra) < 7 or extra[0] != 1:
        return 0, list(split_units(extra, 0))
    units, at = [], 5
    for mask in (31, 255):
        if at >= len(extra):
            break
        count, at = extra[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(extra[at : at + 2], "big")
            units.append(extra[at + 2 : at + 2 + size])
            at += 2 + size
    return (extra[4] & 3) + 1, units


def parse_sps(unit: bytes) -> Sps:
    bits = Bits(unescape(unit)[1:])
    profile = bits.take(8)
    bits.take(16)
    sps_id = bits.ue()
    chroma, separate, depth, bypass = 1, False, 8, False
    lists: tuple[list[int] | None, ...] = (None, None, None, None)
    if profile in _HIGH_PROFILES:
        chroma = bits.ue()
        separate = chroma == 3 and bits.flag()
        depth = 8 + bits.ue()
        bits.ue()
        bypass = bits.flag()
        if bits.flag():
            lists = _scaling_lists(bits, 12 if chroma == 3 else 8, _DEFAULT_LISTS)
    frame_num_bits = bits.ue() + 4
    poc_type, poc_bits, always_zero = bits.ue(), 0, False
    if poc_type == 0:
        poc_bits = bits.ue() + 4
    elif poc_type == 1:
        always_zero = bits.flag()
        bits.se()
        bits.se()
        for _ in range(bits.ue()):
            bits.se()
    bits.ue()
    bits.flag()
    width, height = bits.ue() + 1, bits.ue() + 1
    frames_only = bits.flag()
    if not frames_only:
        bits.flag()
    direct_8x8 = bits.flag()
    left = top = 0
    if bits.flag():
        left, _, top, _ = bits.ue(), bits.ue(), bits.ue(), bits.ue()
    return Sps(
        id=sps_id,
        profile=profile,
        chroma=chroma,
        bit_depth=depth,
        bypass=bypass,
        frame_num_bits=frame_num_bits,
        poc_type=poc_type,
        poc_bits=poc_bits,
        delta_pic_order_always_zero=always_zero,
        width_mbs=width,
        height_mbs=height * (1 if frames_only else 2),
        frames_only=frames_only,
        direct_8x8=direct_8x8,
        crop_left=left * (2 if chroma in (1, 2) else 1),
        crop_top=top * (2 if chroma == 1 else 1) * (1 if frames_only else 2),
        lists=lists,
        separate_planes=separate,
    )


def parse_pps(unit: bytes, sps_by_id: dict[int, Sps]) -> tuple[int, Pps]:
    bits = Bits(unescape(unit)[1:].rstrip(b"\0"))
    pps_id, sps_id = bits.ue(), bits.ue()
    if sps_id not in sps_by_id:
        raise Unreadable(f"picture parameter set {pps_id} names sequence parameter set {sps_id}, which is missing")
    sps = sps_by_id[sps_id]
    cabac, bottom = bits.flag(), bits.flag()
    groups = bits.ue() + 1
    if groups > 1:
        raise Unreadable(f"the stream has {groups} slice groups (flexible macroblock order)")
    refs = (bits.ue() + 1, bits.ue() + 1)
    weighted_p, weighted_b = bits.flag(), bits.take(2)
    qp = 26 + bits.se()
    bits.se()
    bits.se()
    deblocking = bits.flag()
    bits.flag()
    redundant = bits.flag()
    transform_8x8, lists = False, sps.lists
    if bits.more_data():
        transform_8x8 = bits.flag()
        if bits.flag():
            count = 6 + (6 if sps.chroma == 3 else 2) * transform_8x8
            flat = all(entry is None for entry in sps.lists)
            lists = _scaling_lists(bits, count, _DEFAULT_LISTS if flat else sps.lists)
    return pps_id, Pps(
        sps=sps,
        cabac=cabac,
        bottom_field_order=bottom,
        slice_groups=groups,
        refs=refs,
        weighted_p=weighted_p,
        weighted_b=weighted_b,
        qp=qp,
        deblocking_control=deblocking,
        redundant=redundant,
        transform_8x8=transform_8x8,
        scales=_scales(lists),
    )


def parse_slice(unit: bytes, pps_by_id: dict[int, Pps]) -> Slice:
    """Read a slice header (NAL unit types 1 and 5).

    Raises:
        Unreadable: a missing parameter set, a field picture, or a header that ends too early.
    """
    payload = unescape(unit)
    bits = Bits(payload[:_HEADER_BYTES])
    nal = bits.take(8)
    idr, reference = nal & 31 == IDR, nal >> 5 & 3
    first_mb, kind, pps_id = bits.ue(), bits.ue() % 5, bits.ue()
    if pps_id not in pps_by_id:
        raise Unreadable(f"a slice names picture parameter set {pps_id}, which is missing")
    pps = pps_by_id[pps_id]
    sps = pps.sps
    if kind > I_SLICE:
        raise Unreadable("the stream has switching slices (SP or SI)")
    if not sps.frames_only or sps.chroma > 1:
        raise Unreadable("interlaced, 4:2:2 and 4:4:4 streams are not read")
    bits.take(sps.frame_num_bits)
    if idr:
        bits.ue()
    if sps.poc_type == 0:
        bits.take(sps.poc_bits)
        if pps.bottom_field_order:
            bits.se()
    elif sps.poc_type == 1 and not sps.delta_pic_order_always_zero:
        bits.se()
        if pps.bottom_field_order:
            bits.se()
    redundant = pps.redundant and bits.ue() > 0
    if kind == B_SLICE:
        bits.flag()
    refs = pps.refs
    if kind != I_SLICE and bits.flag():
        refs = (bits.ue() + 1, bits.ue() + 1 if kind == B_SLICE else refs[1])
    for _ in range((1, 2, 0)[kind]):
        if bits.flag():
            while bits.ue() != 3:
                bits.ue()
    if (pps.weighted_p and kind == P_SLICE) or (pps.weighted_b == 1 and kind == B_SLICE):
        _skip_weights(bits, refs[: 1 + kind], sps.chroma)
    if reference:
        _skip_marking(bits, idr)
    cabac_init = bits.ue() + 1 if pps.cabac and kind != I_SLICE else 0
    qp = pps.qp + bits.se()
    if pps.deblocking_control and bits.ue() != 1:
        bits.se()
        bits.se()
    return Slice(
        pps=pps,
        first_mb=first_mb,
        kind=kind,
        refs=refs,
        cabac_init=cabac_init,
        qp=qp,
        redundant=redundant,
        payload=payload,
        at=bits.at,
    )


def _skip_weights(bits: Bits, refs: tuple[int, ...], chroma: int) -> None:
    bits.ue()
    if chroma:
        bits.ue()
    for count in refs:
        for _ in range(count):
            if bits.flag():
                bits.se()
                bits.se()
            if chroma and bits.flag():
                for _ in range(4):
                    bits.se()


def _skip_marking(bits: Bits, idr: bool) -> None:
    if idr:
        bits.take(2)
    elif bits.flag():
        while operation := bits.ue():
            if operation != 5:
                bits.ue()
            if operation == 3:
                bits.ue()


_DEFAULT_LISTS = (
    tables.DEFAULT_4_INTRA,
    tables.DEFAULT_4_INTER,
    tables.DEFAULT_8_INTRA,
    tables.DEFAULT_8_INTER,
)


def _scaling_lists(bits: Bits, count: int, fallback: tuple[list[int] | None, ...]) -> tuple[list[int] | None, ...]:
    """The luma lists (4x4 intra, 4x4 inter, 8x8 intra, 8x8 inter) of the coded ones; absent luma lists fall back."""
    luma: list[list[int] | None] = list(fallback)
    kept = {0: 0, 3: 1, 6: 2, 7: 3}
    for i in range(count):
        present = bits.flag()
        if not present:
            continue
        entries = _scaling_list(bits, 16 if i < 6 else 64)
        if i in kept:
            luma[kept[i]] = entries if entries is not None else _DEFAULT_LISTS[kept[i]]
    return tuple(luma)


def _scaling_list(bits: Bits, size: int) -> list[int] | None:
    """Entries in scan order, or None for the default list."""
    entries: list[int] = []
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) & 255
            if not entries and following == 0:
                return None
        last = following or last
        entries.append(last)
    return entries


def _scales(lists: tuple[list[int] | None, ...]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """LevelScale of luma: int32 [2 (intra, inter), 6, 16] and [2, 6, 64], by QP % 6 and raster position."""

    def scale(norm: NDArray[np.int32], entries: list[int] | None, scan: NDArray[np.int64]) -> NDArray[np.int32]:
        weights = np.full(len(scan), 16, np.int32)
        if entries is not None:
            weights[scan] = entries
        return norm * weights

    four = np.stack([scale(tables.NORM_4, entries, tables.ZIGZAG_4) for entries in lists[:2]])
    eight = np.stack([scale(tables.NORM_8, entries, tables.ZIGZAG_8) for entries in lists[2:]])
    return four, eight
