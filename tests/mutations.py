"""Damaged videos, made on the spot and by seed: clips of every codec and container, and ways to spoil their bytes.

A container's own pieces (MP4 boxes, Matroska elements, RIFF chunks, TS packets, start codes) are swapped, doubled
and left out; bits are flipped, ranges zeroed, fields set to extremes, the end cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.factories import make_video

Span = tuple[int, int]

CLIPS: dict[str, dict[str, object]] = {
    "h264.mp4": {"options": {"bf": "2"}},
    "h264_audio.mov": {"audio": True, "rotation": 90},
    "h264.mkv": {"pattern": "pan"},
    "h264.ts": {},
    "h264.h264": {},
    "hevc.mp4": {"codec": "libx265"},
    "hevc.ts": {"codec": "libx265"},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "av1.mp4": {"codec": "libsvtav1"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "ffv1.mkv": {"codec": "ffv1"},
}

_BOXES = {b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts", b"udta", b"mvex", b"moof", b"traf"}
_ELEMENTS = {0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE, 0xE0, 0x1C53BB6B, 0xBB, 0xA0}
_CHUNKS = {b"RIFF", b"LIST"}
_PACKET = 188


def make_clips(folder: Path) -> list[Path]:
    """One small clip of every kind in CLIPS, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        make_video(folder / name, seed=seed, frames=14, **options)  # pyright: ignore[reportArgumentType]
        for seed, (name, options) in enumerate(CLIPS.items())
    ]


def mutate(data: bytes, suffix: str, seed: int) -> tuple[bytes, str]:
    """Spoiled bytes of a clip, and the kind of damage: the same for the same seed."""
    rng = np.random.default_rng(seed)
    while True:
        kind = list(MUTATIONS)[int(rng.integers(len(MUTATIONS)))]
        spoiled = MUTATIONS[kind](data, suffix, rng)
        if spoiled != data:
            return spoiled, kind


def spans(data: bytes, suffix: str) -> list[Span]:
    """The pieces that a container is made of, nested ones too: (start, end)."""
    if suffix in (".mp4", ".mov"):
        return list(_boxes(data, 0, len(data)))
    if suffix in (".mkv", ".webm"):
        return list(_elements(data, 0, len(data)))
    if suffix == ".avi":
        return list(_chunks(data, 0, len(data)))
    if suffix == ".ts":
        return [(at, at + _PACKET) for at in range(0, len(data), _PACKET)]
    starts = [at for at in range(len(data) - 3) if data[at : at + 3] == b"\0\0\1"]
    return list(zip(starts, [*starts[1:], len(data)], strict=True))


def _boxes(data: bytes, start: int, end: int) -> Iterator[Span]:
    while start + 8 <= end:
        size = int.from_bytes(data[start : start + 4], "big")
        size = size if 8 <= size <= end - start else end - start
        yield start, start + size
        if data[start + 4 : start + 8] in _BOXES:
            yield from _boxes(data, start + 8, start + size)
        start += size


def _elements(data: bytes, start: int, end: int) -> Iterator[Span]:
    while start < end:
        width = 9 - data[start].bit_length()
        at = start + width
        if width > 4 or at >= end:
            return
        length = 9 - data[at].bit_length()
        size = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
        body = at + length
        stop = min(body + size, end)
        yield start, stop
        if int.from_bytes(data[start:at], "big") in _ELEMENTS:
            yield from _elements(data, body, stop)
        start = stop


def _chunks(data: bytes, start: int, end: int) -> Iterator[Span]:
    while start + 8 <= end:
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        stop = min(start + 8 + size + size % 2, end)
        yield start, stop
        if data[start : start + 4] in _CHUNKS:
            yield from _chunks(data, start + 12, stop)
        start = stop


def _flip_bits(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    spoiled = np.frombuffer(data, np.uint8).copy()
    at = rng.integers(len(data), size=int(2 ** rng.integers(0, 9)))
    np.bitwise_xor.at(spoiled, at, (1 << rng.integers(8, size=len(at))).astype(np.uint8))
    return spoiled.tobytes()


def _flip_header(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    """Bits of small pieces only: sizes, counts, offsets, parameter sets."""
    small = [span for span in spans(data, suffix) if span[1] - span[0] <= 400] or [(0, min(400, len(data)))]
    spoiled = bytearray(data)
    for _ in range(int(rng.integers(1, 12))):
        start, end = small[int(rng.integers(len(small)))]
        spoiled[int(rng.integers(start, end))] ^= 1 << int(rng.integers(8))
    return bytes(spoiled)


def _extreme_field(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    """A field of 1 to 8 bytes at its least or largest, most of them near the start or the end (where headers are)."""
    spoiled = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        width = int(2 ** rng.integers(0, 4))
        near = int(rng.integers(min(2000, len(data))))
        at = near if rng.random() < 0.5 else len(data) - 1 - near
        value = [b"\xff", b"\x7f", b"\x00", b"\x80"][int(rng.integers(4))]
        spoiled[at : at + width] = (value + b"\xff" * (width - 1))[: len(data) - at]
    return bytes(spoiled)


def _truncate(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def _zero(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    size = min(int(2 ** rng.integers(3, 14)), len(data) - start)
    return data[:start] + bytes(size) + data[start + size :]


def _swap(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    pieces = spans(data, suffix)
    for _ in range(50):
        (a, b), (c, d) = sorted(pieces[int(i)] for i in rng.integers(len(pieces), size=2))
        if b <= c:
            return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]
    return data[::-1]


def _double(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    pieces = spans(data, suffix)
    a, b = pieces[int(rng.integers(len(pieces)))]
    return data[:b] + data[a:b] + data[b:]


def _leave_out(data: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    pieces = spans(data, suffix)
    a, b = pieces[int(rng.integers(len(pieces)))]
    return data[:a] + data[b:] if b - a < len(data) else data[: len(data) // 2]


MUTATIONS: dict[str, Callable[[bytes, str, np.random.Generator], bytes]] = {
    "bits": _flip_bits,
    "header bits": _flip_header,
    "extreme field": _extreme_field,
    "cut off": _truncate,
    "zeroed": _zero,
    "swapped": _swap,
    "doubled": _double,
    "left out": _leave_out,
}
