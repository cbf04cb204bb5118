"""Test data made on the spot: videos of every kind (PyAV's encoders), images, records, ways to damage a file.

Everything is small, deterministic and single-threaded. The default picture is a textured square that moves by a
known step over a textured background.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import OutputContainer
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

TICKS = 12800
# x264's mbtree reads vector registers that other libraries leave dirty: with it, the bytes differ from call to call.
_X264 = {"preset": "veryfast", "threads": "1", "mbtree": "0"}
_DEFAULT_OPTIONS: dict[str, dict[str, str]] = {
    "libx264": _X264,
    "libx265": {"preset": "ultrafast", "x265-params": "pools=none:frame-threads=1:log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "threads": "1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "threads": "1"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
}


def texture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Smooth random texture, uint8 [height, width, 3], values 32..223."""
    coarse = np.random.default_rng(seed).integers(32, 224, (height // 4 + 2, width // 4 + 2, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def square_box(
    t: int, width: int, height: int, *, velocity: tuple[int, int] = (2, 1), side: int = 16
) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of the moving square in frame t; it starts at (8, 8) and wraps inside the picture."""
    x = (8 + velocity[0] * t) % (width - side)
    y = (8 + velocity[1] * t) % (height - side)
    return x, y, x + side, y + side


def picture(
    pattern: str,
    t: int,
    width: int,
    height: int,
    *,
    velocity: tuple[int, int] = (2, 1),
    side: int = 16,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Frame t of a pattern, RGB uint8 [height, width, 3].

    square: a textured square moving `velocity` pixels a frame over a fixed texture. pan: one texture moving as a
    whole. noise: fresh noise in each frame. still: the fixed texture. gray: one flat value per frame, 16 + 3t
    (mod 224).
    """
    if pattern == "noise":
        return np.random.default_rng([seed, t]).integers(0, 256, (height, width, 3)).astype(np.uint8)
    if pattern == "gray":
        return np.full((height, width, 3), 16 + 3 * t % 224, np.uint8)
    background = texture(height, width, seed)
    if pattern == "pan":
        return np.roll(background, (velocity[1] * t, velocity[0] * t), (0, 1))
    if pattern == "square":
        x0, y0, x1, y1 = square_box(t, width, height, velocity=velocity, side=side)
        background = background.copy()
        background[y0:y1, x0:x1] = 255 - texture(side, side, seed + 1)
        return background
    if pattern == "still":
        return background
    raise ValueError(f"pattern is {pattern!r}; expected square, pan, noise, still or gray")


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    width: int = 96,
    height: int = 64,
    frames: int = 12,
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    pattern: str = "square",
    velocity: tuple[int, int] = (2, 1),
    side: int = 16,
    seed: int = 0,
    images: Iterable[NDArray[np.uint8]] | None = None,
    pts: Sequence[int] | None = None,
    rotation: int = 0,
    audio: bool = False,
    cover: bool = False,
    color_space: int | None = None,
    color_range: int | None = None,
    sar: tuple[int, int] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> Path:
    """Encode a clip; the container follows the suffix (.mp4 .mkv .webm .avi .ts .mov .h264 .hevc ...).

    Args:
        options: encoder options, over small single-threaded defaults. x264's own go in "x264-params".
        images: RGB frames to encode instead of a pattern.
        pts: a timestamp per frame in units of 1/12800 s instead of a constant rate (VFR, offsets).
        rotation: clockwise degrees written to the display matrix (.mp4, .mov).
        cover: an attached picture beside the video (.mkv, .mp4); it comes first in the file.
        color_space, color_range: ITU-T H.273 codes, AVColorRange codes (1 tv, 2 pc).
    """
    if images is None:
        images = (picture(pattern, t, width, height, velocity=velocity, side=side, seed=seed) for t in range(frames))
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        attached = _add_cover(container, width, height) if cover else None
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.options = {**_DEFAULT_OPTIONS.get(codec, {}), **(options or {})}
        stream.thread_type = "NONE"
        context = stream.codec_context
        context.thread_count = 1
        context.time_base = Fraction(1, TICKS) if pts is not None else Fraction(1, fps)
        if color_space is not None:
            context.colorspace = color_space
        if color_range is not None:
            context.color_range = color_range
        if sar is not None:
            context.sample_aspect_ratio = Fraction(*sar)
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        if attached is not None:
            container.mux(_cover_packet(attached, width, height))
        count = 0
        for count, image in enumerate(images, 1):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                format=pix_fmt, dst_color_range=color_range
            )
            frame.pts = count - 1 if pts is None else pts[count - 1]
            frame.time_base = context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _write_sound(container, sound, count / fps)
    if rotation:
        set_rotation(path, rotation)
    return path


def make_audio(path: Path, seconds: float = 1.0, *, cover: bool = False) -> Path:
    """A file with sound and no video, but for an attached picture if asked for."""
    with av.open(str(path), "w") as container:
        attached = _add_cover(container, 96, 64) if cover else None
        sound = container.add_stream("aac", rate=16000, layout="mono")
        if attached is not None:
            container.mux(_cover_packet(attached, 96, 64))
        _write_sound(container, sound, seconds)
    return path


def make_image(path: Path, width: int = 96, height: int = 64, *, seed: int = 0, mode: str = "RGB") -> Path:
    """A textured picture; the format follows the suffix."""
    Image.fromarray(texture(height, width, seed)).convert(mode).save(path)
    return path


def make_frames(folder: Path, frames: int = 12, width: int = 96, height: int = 64, *, suffix: str = ".jpg") -> Path:
    """A folder of JPEG frames of the moving square, 00000.jpg on."""
    folder.mkdir(parents=True)
    for t in range(frames):
        Image.fromarray(picture("square", t, width, height)).save(folder / f"{t:05d}{suffix}", "JPEG", quality=95)
    return folder


def make_record(
    media: str | Path | Sequence[str | Path] | None,
    *,
    id: str = "sample",  # noqa: A002 - the field's name in the format
    kind: str = "video",
    question: str = "What moves?",
    answer: str = "A square.",
    **more: Any,
) -> dict[str, Any]:
    """One record of a raw dataset; kind is video, image or text (then `media` is None)."""
    several = media is not None and not isinstance(media, str | Path)
    paths = [str(m) for m in cast(Sequence[Any], media)] if several else [str(media)]
    marks = {"video": "<video>\n", "image": "<image>\n" * len(paths), "text": ""}[kind]
    record: dict[str, Any] = {
        "id": id,
        "conversations": [{"from": "human", "value": marks + question}, {"from": "gpt", "value": answer}],
        **more,
    }
    if kind != "text":
        record[kind] = paths if several else paths[0]
    return record


def make_records(videos: Sequence[str | Path], **more: Any) -> list[dict[str, Any]]:
    """One record per video, ids v0, v1, ..."""
    return [make_record(video, id=f"v{i}", **more) for i, video in enumerate(videos)]


def write_dataset(path: Path, records: Iterable[Any]) -> Path:
    """Write records as a JSON array (.json) or as JSON lines (.jsonl)."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    else:
        path.write_text(json.dumps(list(records), indent=1), encoding="utf-8")
    return path


def truncate(path: Path, share: float) -> Path:
    """Cut a file to a share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def overwrite(path: Path, at: float, size: int, value: int = 0) -> Path:
    """Write `size` bytes of one value over the file, starting at a share of its length."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * at)
    data[start : start + size] = bytes([value]) * len(data[start : start + size])
    path.write_bytes(data)
    return path


def set_rotation(path: Path, rotation: int) -> Path:
    """Write a clockwise display rotation into the video track's header of an MP4 file."""
    one = 1 << 16
    a, b = {0: (one, 0), 90: (0, one), 180: (-one, 0), 270: (0, -one)}[rotation]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    for i, value in enumerate((a, b, 0, -b, a, 0, 0, 0, 1 << 30)):
        data[at + 4 * i : at + 4 * i + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    return path


def set_edit_list(path: Path, skip: int) -> Path:
    """Move the start of an MP4's edit list by `skip` ticks of the media's time base, hiding what comes before."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4 + 8 + 4
    start = int.from_bytes(data[at : at + 4], "big") + skip
    data[at : at + 4] = start.to_bytes(4, "big")
    path.write_bytes(data)
    return path


def set_fourcc(path: Path, old: bytes, new: bytes) -> Path:
    """Rename a codec's four-character code everywhere in the file."""
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


def _write_sound(container: OutputContainer, stream: Any, seconds: float) -> None:
    rate = stream.codec_context.sample_rate
    wave = (np.sin(np.arange(int(seconds * rate)) * 0.17) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate = rate
    frame.pts = 0
    resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
    for resampled in resampler.resample(frame):
        container.mux(stream.encode(resampled))
    container.mux(stream.encode(None))


def _add_cover(container: OutputContainer, width: int, height: int) -> Any:
    stream = container.add_stream("mjpeg", rate=1)
    stream.width, stream.height, stream.pix_fmt = width * 2, height * 2, "yuvj420p"
    stream.disposition = cast(Any, Disposition.attached_pic.value)
    return stream


def _cover_packet(stream: Any, width: int, height: int) -> list[av.Packet]:
    image = av.VideoFrame.from_ndarray(texture(height * 2, width * 2, 99), format="rgb24")
    frame = image.reformat(format="yuvj420p")
    frame.pts = 0
    return [*stream.encode(frame), *stream.encode(None)]
