"""The files that records point to: found, measured and hashed once, however many records share them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ov_model.codec.folder import frame_files
from ov_model.errors import EmptyFile, MissingFile, SampleError
from ov_model.lake.files import hash_file, hash_json
from ov_model.lake.records import resolve_media

KNOWN = ("path", "size", "mtime_ns", "content_hash")


@dataclass(frozen=True)
class MediaFile:
    """A video on disk, a file or a folder of frames: resolved path, bytes, newest modification time in ns, SHA-256."""

    path: Path
    size: int
    mtime_ns: int
    content_hash: str


@dataclass(frozen=True)
class MediaPolicy:
    """Where media paths are resolved and where they may lead."""

    dataset_path: Path | None = None
    media_root: Path | None = None
    allowed_roots: tuple[Path, ...] = ()

    def resolve(self, media: str) -> Path:
        """The file a media path means; see `resolve_media`."""
        return resolve_media(
            media,
            media_root=self.media_root,
            allowed_roots=self.allowed_roots,
            dataset_path=self.dataset_path,
        )


def known_hashes(ledgers: Iterable[pl.DataFrame]) -> dict[tuple[str, int, int], str]:
    """(path, size, mtime_ns) -> content hash, from ledgers of earlier runs: an unchanged file is not read again."""
    known: dict[tuple[str, int, int], str] = {}
    for ledger in ledgers:
        rows = ledger.filter(pl.col("content_hash") != "")
        states = zip(rows["path"], rows["size"], rows["mtime_ns"], strict=True)
        known.update(zip(states, rows["content_hash"], strict=True))
    return known


def examine(
    media: Sequence[str], policy: MediaPolicy, known: Mapping[tuple[str, int, int], str], threads: int
) -> dict[str, MediaFile | SampleError]:
    """Find and hash the files of distinct media paths. A file that cannot be used maps to its error."""

    def look(path: str) -> MediaFile | SampleError:
        try:
            return _look(path, policy, known)
        except SampleError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        return dict(zip(media, pool.map(look, media), strict=True))


def hash_media(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a video file; of a folder of frames, over the name and SHA-256 of each frame in order.

    Raises:
        SampleError: the folder holds no usable frames.
    """
    if not path.is_dir():
        return path.stat().st_size, hash_file(path)
    frames = frame_files(path)
    return sum(frame.stat().st_size for frame in frames), hash_json([[f.name, hash_file(f)] for f in frames])


def _look(media: str, policy: MediaPolicy, known: Mapping[tuple[str, int, int], str]) -> MediaFile:
    path = policy.resolve(media)
    try:
        frames = frame_files(path) if path.is_dir() else []
        for frame in frames:
            if frame.is_symlink():
                policy.resolve(os.path.abspath(frame))
        stats = [frame.stat() for frame in frames] or [path.stat()]
        if not frames and not path.is_file():
            raise MissingFile(f"{media}: {path} is not a file; give the path of a video file")
        size = sum(stat.st_size for stat in stats)
        if size == 0:
            raise EmptyFile(f"{media}: the file has 0 bytes; fetch it again")
        newest = max(stat.st_mtime_ns for stat in [*stats, path.stat()])
        content = known.get((str(path), size, newest)) or hash_media(path)[1]
    except (FileNotFoundError, PermissionError) as error:
        raise MissingFile(f"{media}: {path} cannot be read ({error.strerror}); check it and its permissions") from error
    return MediaFile(path, size, newest, content)
