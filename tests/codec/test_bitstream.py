"""Facts read from the first bytes of a packet; where they are not certain, the answer is the cautious one."""

from __future__ import annotations

import pytest

from ov_model.codec.bitstream import packet_reader

START = b"\x00\x00\x00\x01"


def golomb(value: int) -> str:
    """Unsigned Exp-Golomb code as a string of bits (H.264, 9.1)."""
    code = bin(value + 1)[2:]
    return "0" * (len(code) - 1) + code


def unit(header: int, bits: str) -> bytes:
    """One annex-B NAL unit from its header byte and its payload bits."""
    bits += "1" + "0" * (-(len(bits) + 1) % 8)
    payload = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    return START + bytes([header]) + payload.replace(b"\x00\x00\x01", b"\x00\x00\x03\x01")


def sps(*, frames_only: bool) -> bytes:
    """Main profile, frame_num of 4 bits, picture order type 2, 4 x 3 macroblocks."""
    start = f"{77:08b}{0:08b}{30:08b}" + golomb(0)
    return unit(0x67, start + golomb(0) + golomb(2) + golomb(1) + "0" + golomb(3) + golomb(2) + str(int(frames_only)))


def slice_unit(*, field: bool | None, reference: bool = True, idr: bool = False, kind: int = 0) -> bytes:
    """A slice header up to field_pic_flag; `field` None where the SPS allows frames only."""
    bits = golomb(0) + golomb(kind) + golomb(0) + "0011" + ("" if field is None else str(int(field)))
    return unit((0x60 if reference else 0) | (5 if idr else 1), bits + "1" * 40)


def read(reader_packets: list[tuple[bytes, bool]], codec: str = "h264"):
    reader = packet_reader(codec, None, False)
    return [reader.read(memoryview(packet), key) for packet, key in reader_packets]


def test_h264_frames_of_a_progressive_stream() -> None:
    key, p, b = read(
        [
            (sps(frames_only=True) + slice_unit(field=None, idr=True, kind=7), True),
            (slice_unit(field=None), False),
            (slice_unit(field=None, reference=False, kind=1), False),
        ]
    )
    assert (key.entry, key.reference, key.one_to_one) == (True, True, True)
    assert (p.entry, p.reference) == (False, True)
    assert (b.entry, b.reference) == (False, False)


def test_h264_fields_are_not_taken_for_frames() -> None:
    key, field, frame = read(
        [
            (sps(frames_only=False) + slice_unit(field=True, idr=True, kind=7), True),
            (slice_unit(field=True, reference=False), False),
            (slice_unit(field=False, reference=False), False),
        ]
    )
    assert not key.one_to_one
    assert not field.one_to_one
    assert frame.one_to_one
    assert frame.reference, "packets of an interlaced stream are never left out"


def test_h264_intra_pictures_without_a_recovery_point_are_no_entry() -> None:
    recovery = unit(0x06, f"{6:08b}{1:08b}" + "1" + "0000000")
    slow_recovery = unit(0x06, f"{6:08b}{2:08b}" + golomb(12) + "1")
    i, p = slice_unit(field=None, kind=7), slice_unit(field=None, kind=5)
    head = sps(frames_only=True)
    packets = [head + i, head + recovery + i, head + slow_recovery + i, head + recovery + p, recovery + i]
    facts = read([(packet, True) for packet in packets])
    assert [f.entry for f in facts] == [False, True, False, False, False]


def test_h264_without_parameter_sets_is_taken_whole() -> None:
    (facts,) = read([(slice_unit(field=None, reference=False), False)])
    assert (facts.entry, facts.reference) == (False, True)


@pytest.mark.parametrize(("first", "shown"), [(0x10, True), (0x00, False)])
def test_vp8_says_which_frames_are_hidden(first: int, shown: bool) -> None:
    (facts,) = read([(bytes([first]) + bytes(40), False)], codec="vp8")
    assert facts.shown == shown


@pytest.mark.parametrize(("coding", "entry", "reference"), [(0, True, True), (1, False, True), (2, False, False)])
def test_mpeg4_b_pictures_are_free(coding: int, entry: bool, reference: bool) -> None:
    (facts,) = read([(b"\x00\x00\x01\xb6" + bytes([coding << 6]) + bytes(40), True)], codec="mpeg4")
    assert (facts.entry, facts.reference, facts.one_to_one) == (entry, reference, True)


def test_mpeg4_packets_that_may_hold_no_picture_are_doubted() -> None:
    (facts,) = read([(b"\x00\x00\x01\xb6\x40\x00", False)], codec="mpeg4")
    assert not facts.one_to_one


@pytest.mark.parametrize(("structure", "one_to_one"), [(3, True), (1, False), (2, False)])
def test_mpeg2_field_pictures_are_doubted(structure: int, one_to_one: bool) -> None:
    picture = b"\x00\x00\x01\x00\x00\x18\xff\xf8"
    extension = b"\x00\x00\x01\xb5\x8f\xff" + bytes([0xF0 | structure]) + bytes(20)
    (facts,) = read([(picture + extension, False)], codec="mpeg2video")
    assert facts.one_to_one == one_to_one
    assert facts.reference == (not one_to_one)


def test_unknown_codecs_need_every_packet() -> None:
    (facts,) = read([(bytes(40), True)], codec="wmv2")
    assert (facts.entry, facts.reference, facts.shown, facts.one_to_one) == (False, True, True, True)
