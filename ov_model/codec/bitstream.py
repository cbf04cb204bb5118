"""What a compressed packet says about its picture, read from its first bytes without decoding it.

Only facts that allow the decoder to do less are read here: may decoding start at this packet, does any other
picture refer to it, is it a frame of its own. Whatever is not understood is answered so that the caller decodes
more, never wrongly.

Sources: ITU-T H.264 (7.3.1 NAL unit, 7.3.2.1.1 SPS, 7.3.3 slice header, D.1.8 recovery point), H.265 (7.3.1.2,
table 7-1), ISO/IEC 14496-2 (6.2.5 VOP), ISO/IEC 13818-2 (6.2.3 picture header), RFC 6386 (9.1 VP8 frame tag),
ISO/IEC 14496-15 (avcC, hvcC).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HEAD = 64
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_SLICE_TYPES_I = {2, 7}
# The largest packet that may be a "not coded" MPEG-4 picture; the bound of FFmpeg's mpeg4_unpack_bframes.
_MAX_NVOP = 19


@dataclass(frozen=True)
class PictureFacts:
    """One packet's picture.

    entry: decoding may start here, given that the container flags the packet as a key. reference: False only where
    certainly no other picture refers to it. shown: False where the packet yields no frame. one_to_one: False where
    it may be half a frame, or two.
    """

    entry: bool = False
    reference: bool = True
    shown: bool = True
    one_to_one: bool = True


_PLAIN = PictureFacts()
_ENTRY = PictureFacts(entry=True)
_NON_REFERENCE = PictureFacts(reference=False)
_HIDDEN = PictureFacts(shown=False)
_UNSURE = PictureFacts(one_to_one=False)


class PacketReader:
    """Reads the facts of one stream's packets; this base knows nothing, so every packet is needed.

    trusts_container: whether the container's own mark for disposable packets may be believed.
    """

    trusts_container = True

    def read(self, packet: memoryview, key: bool) -> PictureFacts:
        """The facts of one packet, of which only the head is copied; key: the container's key flag."""
        return _PLAIN


class _IntraOnly(PacketReader):
    def read(self, packet: memoryview, key: bool) -> PictureFacts:
        return PictureFacts(entry=True, reference=False)


class _KeyIsEntry(PacketReader):
    """Codecs whose key packets reset every reference (VP9, AV1, Theora-like)."""

    def read(self, packet: memoryview, key: bool) -> PictureFacts:
        return _ENTRY if key else _PLAIN


class _Vp8(PacketReader):
    def read(self, packet: memoryview, key: bool) -> PictureFacts:
        if len(packet) and not packet[0] & 0x10:
            return _HIDDEN
        return _ENTRY if key else _PLAIN


class _Mpeg4(PacketReader):
    """MPEG-4 part 2: B-VOPs (coding type 2) are never referred to."""

    trusts_container = False

    def read(self, packet: memoryview, key: bool) -> PictureFacts:
        if len(packet) <= _MAX_NVOP:
            return _UNSURE
        head = bytes(packet[:256])
        at = head.find(b"\x00\x00\x01\xb6")
        if at < 0 or at + 4 >= len(head):
            return _PLAIN
        coding = head[at + 4] >> 6
        if coding == 2:
            return _NON_REFERENCE
        return _ENTRY if coding == 0 else _PLAIN


class _Mpeg12(PacketReader):
    """MPEG-1 and MPEG-2: B pictures (coding type 3) are never referred to; a field may be half a frame."""

    trusts_container = False

    def read(self, packet: memoryview, key: bool) -> PictureFacts:
        head = bytes(packet[:512])
        at = head.find(b"\x00\x00\x01\x00")
        if at < 0 or at + 5 >= len(head):
            return _PLAIN
        extension = head.find(b"\x00\x00\x01\xb5", at)
        if 0 <= extension < len(head) - 6 and head[extension + 4] >> 4 == 8 and head[extension + 6] & 3 != 3:
            return _UNSURE
        coding = head[at + 5] >> 3 & 7
        if coding == 3:
            return _NON_REFERENCE
        return _ENTRY if coding == 1 and b"\x00\x00\x01\xb3" in head[:at] else _PLAIN


class _H264(PacketReader):
    """H.264, length-prefixed (avcC) or annex B.

    Decoding starts at IDR pictures and at intra pictures with an immediate recovery point (open GOP), in annex B
    only where the SPS comes along. Non-reference pictures have nal_ref_idc 0; streams that may hold fields are
    taken whole.
    """

    trusts_container = False

    def __init__(self, extradata: bytes) -> None:
        self._length_size = _length_size(extradata, 4)
        self._sps: _Sps | None = None
        self._mixed = False
        units = _avcc_parameter_sets(extradata) if self._length_size else _annexb(memoryview(extradata))
        for unit in units:
            self._learn(unit)

    def _learn(self, unit: memoryview) -> None:
        if not len(unit) or unit[0] & 31 != 7:
            return
        sps = _Sps.parse(bytes(unit[:256]))
        if self._sps is not None and sps != self._sps:
            self._mixed = True
        self._sps = sps

    def read(self, packet: memoryview, key: bool) -> PictureFacts:
        first: memoryview | None = None
        has_sps, recovers, intra = self._length_size > 0, False, True
        for unit in _units(packet, self._length_size):
            kind = unit[0] & 31 if len(unit) else 0
            if kind == 7:
                self._learn(unit)
                has_sps = True
            elif kind == 6 and key:
                recovers = recovers or _recovers_at_once(unit)
            elif kind in (1, 2, 5):
                first = unit if first is None else first
                recovers = recovers or kind == 5
                if not key:
                    break
                if kind != 5 and _slice_type(unit) not in _SLICE_TYPES_I:
                    intra = False
                    break
        if first is None or self._sps is None or self._mixed:
            return _PLAIN if self._sps is None or self._sps.frames_only else _UNSURE
        if not self._sps.frames_only and _is_field(first, self._sps):
            return _UNSURE
        if key and intra and recovers and has_sps:
            return _ENTRY
        return _NON_REFERENCE if self._sps.frames_only and not first[0] >> 5 & 3 else _PLAIN


class _Hevc(PacketReader):
    """H.265: decoding starts at IDR, BLA and CRA pictures; in annex B only where the SPS comes along."""

    def __init__(self, extradata: bytes) -> None:
        self._length_size = _length_size(extradata, 21)

    def read(self, packet: memoryview, key: bool) -> PictureFacts:
        if not key:
            return _PLAIN
        has_sps = self._length_size > 0
        for unit in _units(packet, self._length_size):
            kind = unit[0] >> 1 & 63 if len(unit) else 63
            if kind == 33:
                has_sps = True
            elif kind < 32:
                return _ENTRY if has_sps and 16 <= kind <= 21 else _PLAIN
        return _PLAIN


def packet_reader(codec: str, extradata: bytes | None, intra_only: bool) -> PacketReader:
    """The reader for a codec by its FFmpeg decoder name ("h264", "hevc", "mpeg4", "libdav1d", …)."""
    extra = extradata or b""
    if codec == "h264":
        return _H264(extra)
    if codec == "hevc":
        return _Hevc(extra)
    if codec == "mpeg4":
        return _Mpeg4()
    if codec in ("mpeg1video", "mpeg2video", "mpegvideo"):
        return _Mpeg12()
    if codec in ("vp8", "libvpx"):
        return _Vp8()
    if codec in ("vp9", "libvpx-vp9", "av1", "libdav1d", "libaom-av1"):
        return _KeyIsEntry()
    return _IntraOnly() if intra_only else PacketReader()


@dataclass(frozen=True)
class _Sps:
    frames_only: bool
    frame_num_bits: int
    separate_planes: bool

    @classmethod
    def parse(cls, unit: bytes) -> _Sps | None:
        try:
            return cls._parse(_Bits(unit[1:]))
        except IndexError:
            return None

    @classmethod
    def _parse(cls, bits: _Bits) -> _Sps:
        profile = bits.take(8)
        bits.take(16)
        bits.golomb()
        separate = False
        if profile in _HIGH_PROFILES:
            chroma = bits.golomb()
            separate = chroma == 3 and bool(bits.take(1))
            bits.golomb()
            bits.golomb()
            bits.take(1)
            if bits.take(1):
                for i in range(8 if chroma != 3 else 12):
                    if bits.take(1):
                        _skip_scaling_list(bits, 16 if i < 6 else 64)
        frame_num_bits = bits.golomb() + 4
        order = bits.golomb()
        if order == 0:
            bits.golomb()
        elif order == 1:
            bits.take(1)
            bits.golomb()
            bits.golomb()
            for _ in range(bits.golomb()):
                bits.golomb()
        bits.golomb()
        bits.take(1)
        bits.golomb()
        bits.golomb()
        return cls(frames_only=bool(bits.take(1)), frame_num_bits=frame_num_bits, separate_planes=separate)


class _Bits:
    """Reads bits and Exp-Golomb codes of a NAL unit's payload; IndexError past its end."""

    def __init__(self, payload: bytes) -> None:
        self._bytes = payload.replace(b"\x00\x00\x03", b"\x00\x00")
        self._at = 0

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._bytes[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed_golomb(self) -> int:
        code = self.golomb()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed_golomb()) & 255
        last = following or last


def _slice_type(unit: memoryview) -> int | None:
    bits = _Bits(bytes(unit[1:HEAD]))
    try:
        bits.golomb()
        return bits.golomb()
    except IndexError:
        return None


def _recovers_at_once(unit: memoryview) -> bool:
    """Whether an SEI unit holds a recovery point (payload type 6) with recovery_frame_cnt 0."""
    body = bytes(unit[1:4096]).replace(b"\x00\x00\x03", b"\x00\x00")
    at = 0
    while at + 2 < len(body):
        header = []
        for _ in range(2):
            value = 0
            while at < len(body) and body[at] == 255:
                value, at = value + 255, at + 1
            if at >= len(body):
                return False
            header.append(value + body[at])
            at += 1
        if header[0] == 6:
            return at < len(body) and bool(body[at] & 0x80)
        at += header[1]
    return False


def _is_field(unit: memoryview, sps: _Sps) -> bool:
    """Whether a slice of an interlaced stream is of a field; a header that cannot be read counts as one."""
    bits = _Bits(bytes(unit[1:HEAD]))
    try:
        for _ in range(3):
            bits.golomb()
        bits.take((2 if sps.separate_planes else 0) + sps.frame_num_bits)
        return bool(bits.take(1))
    except IndexError:
        return True


def _length_size(extradata: bytes, at: int) -> int:
    """Bytes of a NAL unit's length prefix from avcC (at 4) or hvcC (at 21); 0 for annex B."""
    return (extradata[at] & 3) + 1 if len(extradata) > at + 1 and extradata[0] == 1 else 0


def _avcc_parameter_sets(extradata: bytes) -> Iterator[memoryview]:
    view, at = memoryview(extradata), 6
    for _ in range(extradata[5] & 31):
        size = int.from_bytes(view[at : at + 2], "big")
        yield view[at + 2 : at + 2 + size]
        at += 2 + size


def _units(packet: memoryview, length_size: int) -> Iterator[memoryview]:
    return _length_prefixed(packet, length_size) if length_size else _annexb(packet)


def _length_prefixed(packet: memoryview, length_size: int) -> Iterator[memoryview]:
    at = 0
    while at + length_size < len(packet):
        size = int.from_bytes(packet[at : at + length_size], "big")
        at += length_size
        yield packet[at : at + size]
        at += size


def _annexb(packet: memoryview, chunk: int = 4096) -> Iterator[memoryview]:
    """NAL units after each start code; a unit runs to the packet's end (only its head is read by anyone)."""
    at = 0
    while at < len(packet):
        window = bytes(packet[at : at + chunk])
        found = window.find(b"\x00\x00\x01")
        if found < 0:
            at += max(len(window) - 2, 1)
            continue
        at += found + 3
        yield packet[at:]
