"""One H.264 picture's packet -> the absolute residual of its luma, exactly as coded, from entropy decoding alone.

stream = StreamReader(extradata)
coded = stream.see(packet)              # every packet, in order: parameter sets are learned on the way
residual_HW = coded.residual(height, width)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ov_model.codec.h264.entropy import CONTEXT_0, open_reader
from ov_model.codec.h264.headers import (
    IDR,
    PARTITIONS,
    PPS,
    SLICE,
    SPS,
    Pps,
    Slice,
    Sps,
    Unreadable,
    parse_pps,
    parse_slice,
    parse_sps,
    split_extradata,
    split_units,
)
from ov_model.codec.h264.macroblocks import read_slice
from ov_model.codec.h264.memory import FLAGS, INTRA, Picture, SliceFacts, blank_picture, workspace
from ov_model.codec.h264.tables import initial_states


@dataclass(frozen=True, eq=False)
class CodedPicture:
    """A packet and the parameter sets in force when it came."""

    packet: bytes
    length_size: int
    pps_by_id: dict[int, Pps]

    def read(self, *, whole: bool = True) -> tuple[Picture, Sps]:
        """Read all slices of the picture.

        Raises:
            Unreadable: interlaced, 4:2:2, 4:4:4, slice groups, switching slices; or, with `whole`, data that are broken
                or incomplete (without, what was read until there stands).
        """
        picture: Picture | None = None
        sps: Sps | None = None
        done = number = 0
        for unit in split_units(self.packet, self.length_size):
            kind = unit[0] & 31 if unit else 0
            if kind in PARTITIONS:
                raise Unreadable("the stream has data partitions")
            if kind not in (SLICE, IDR):
                continue
            header = parse_slice(unit, self.pps_by_id)
            if header.redundant:
                continue
            if picture is None:
                sps = header.pps.sps
                picture = blank_picture(sps.width_mbs, sps.height_mbs)
            reader = open_reader(header.payload, header.at)
            if header.pps.cabac:
                reader.state[CONTEXT_0:] = initial_states()[header.cabac_init, min(max(header.qp, 0), 51)]
            count = read_slice(reader, picture, _facts(header, number), workspace())
            if count < 0 and whole:
                raise Unreadable(f"slice {number} breaks off after {-1 - count} macroblocks")
            done, number = done + count, number + 1
        if picture is None or sps is None:
            raise Unreadable("the packet holds no slice")
        if done != len(picture.macro_MF) and whole:
            raise Unreadable(f"the slices hold {done} of {len(picture.macro_MF)} macroblocks")
        return picture, sps

    def residual(self, height: int, width: int, *, whole: bool = True) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Absolute residual (clipped to 128), uint8 [height, width], and which pixels are of intra macroblocks.

        Cropped at the left and top as the SPS says. Raises Unreadable as `read`.
        """
        picture, sps = self.read(whole=whole)
        rows, columns = picture.residual_HW.shape
        if sps.crop_top + height > rows or sps.crop_left + width > columns:
            raise Unreadable(f"the stream codes {columns}x{rows}, but the frame is {width}x{height}")
        window = np.s_[sps.crop_top : sps.crop_top + height, sps.crop_left : sps.crop_left + width]
        intra_mb = (picture.macro_MF[:, FLAGS] & INTRA > 0).reshape(rows // 16, columns // 16)
        intra_HW = intra_mb.repeat(16, 0).repeat(16, 1)[window]
        return np.ascontiguousarray(picture.residual_HW[window]), intra_HW


class StreamReader:
    """Follows a stream's parameter sets, in extradata and between the packets."""

    def __init__(self, extradata: bytes | None) -> None:
        self._length_size, units = split_extradata(extradata or b"")
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, Pps] = {}
        for unit in units:
            self._learn(unit)

    def see(self, packet: bytes) -> CodedPicture:
        """Take the next packet of the stream in decode order."""
        for unit in split_units(packet, self._length_size):
            kind = unit[0] & 31 if unit else 0
            if kind in (SPS, PPS):
                self._learn(unit)
            elif kind in (SLICE, IDR):
                break
        return CodedPicture(packet, self._length_size, self._pps)

    def _learn(self, unit: bytes) -> None:
        if not unit:
            return
        try:
            if unit[0] & 31 == SPS:
                sps = parse_sps(unit)
                self._sps = {**self._sps, sps.id: sps}
            elif unit[0] & 31 == PPS:
                pps_id, pps = parse_pps(unit, self._sps)
                self._pps = {**self._pps, pps_id: pps}
        except Unreadable:
            return


def _facts(header: Slice, number: int) -> SliceFacts:
    sps = header.pps.sps
    return SliceFacts(
        number=number,
        first_mb=header.first_mb,
        kind=header.kind,
        refs_0=header.refs[0],
        refs_1=header.refs[1],
        qp=header.qp,
        cabac=header.pps.cabac,
        transform_8x8=header.pps.transform_8x8,
        direct_8x8=sps.direct_8x8,
        gray=sps.chroma == 0,
        depth=sps.bit_depth,
        bypass=sps.bypass,
        scale_4=header.pps.scales[0],
        scale_8=header.pps.scales[1],
    )
