"""A folder of JPEG frames as a video: which files are its frames, and how FFmpeg is told to read them.

MVBench's episodic reasoning hands such folders over (frames at 3 a second, named in order).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import av
from av.container import InputContainer

from ov_model.errors import DecodeError, EmptyFile, MissingFile, UnreadableContainer

FRAME_RATE = 3
_SUFFIXES = (".jpg", ".jpeg")
# JPEG markers: start and end of image, start of scan; within a scan's data none of them occurs.
_START, _END, _SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder, in the byte order of their names.

    Raises:
        MissingFile: no JPEG file in it. EmptyFile: one has 0 bytes. UnreadableContainer: their suffixes differ, or one
            is no file.
    """
    frames = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.name[0] != "."]
    frames.sort(key=lambda path: os.fsencode(path.name))
    if not frames:
        raise MissingFile(f"{folder}: a directory without JPEG frames; expected a video file or a folder of .jpg files")
    suffixes = sorted({path.suffix for path in frames})
    if len(suffixes) > 1:
        raise UnreadableContainer(f"{folder}: frames end in {' and '.join(suffixes)}; give all of them one suffix")
    for path in frames:
        if not path.is_file():
            raise UnreadableContainer(f"{path} is no file; expected a folder of JPEG frames")
        if path.stat().st_size == 0:
            raise EmptyFile(f"{path}: a frame of 0 bytes; fetch it again")
    return frames


def check_frames(folder: Path) -> None:
    """Raise DecodeError at a frame that is no whole JPEG: FFmpeg would fill the rest with gray and say nothing."""
    for path in frame_files(folder):
        data = path.read_bytes()
        if not data.startswith(_START) or data.rfind(_END) < max(2, data.rfind(_SCAN)):
            found = "is cut off" if data.startswith(_START) else f"begins with {data[:4]!r}"
            raise DecodeError(f"{path}: {found}, expected a whole JPEG; fetch or extract it again")


def open_folder(folder: Path) -> InputContainer:
    """Open a folder's frames as one MJPEG stream; no file but the frames is read."""
    suffix = frame_files(folder)[0].suffix
    escaped = re.sub(r"([*?\[\]{}\\~])", r"\\\1", os.path.abspath(folder))
    return av.open(
        f"{escaped}/*{suffix}",
        mode="r",
        format="image2",
        container_options={"pattern_type": "glob", "framerate": str(FRAME_RATE), "protocol_whitelist": "file"},
    )
