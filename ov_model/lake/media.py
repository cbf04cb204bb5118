"""The files that records point to: found, measured and hashed once, however many records share them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import polars as pl

from ov_model.codec.folder import frame_files
from ov_model.errors import EmptyFile, MissingFile, SampleError
from ov_model.lake.files import hash_file, hash_json
from ov_model.lake.records import resolve_media
from ov_model.lake.scratch import Scratch
from ov_model.lake.urls import Location, ObjectState, Url, state

KNOWN = ("path", "size", "mtime_ns", "etag", "content_hash")
State: TypeAlias = tuple[str, int, int | str]
"""(path, size, mtime_ns) of a file, (URL, size, ETag) of a file behind a URL: while it stays, so do the bytes."""


@dataclass(frozen=True)
class MediaFile:
    """A video, a file or a folder of frames: resolved place, bytes, newest modification time in ns, SHA-256.

    etag: of a file behind a URL, which has no time of modification here.
    """

    path: Location
    size: int
    mtime_ns: int
    content_hash: str
    etag: str = ""

    @property
    def remote(self) -> ObjectState | None:
        """The state of a file behind a URL."""
        return ObjectState(self.path, self.size, self.etag) if isinstance(self.path, Url) else None


@dataclass(frozen=True)
class MediaPolicy:
    """Where media paths are resolved, where they may lead, and where copies of files behind URLs go."""

    dataset_path: Location | None = None
    media_root: Location | None = None
    allowed_roots: tuple[Location, ...] = ()
    scratch: Scratch = field(default_factory=Scratch)

    def resolve(self, media: str) -> Location:
        """The file a media path means; see `resolve_media`."""
        return resolve_media(
            media,
            media_root=self.media_root,
            allowed_roots=self.allowed_roots,
            dataset_path=self.dataset_path,
        )

    def find(self, media: str) -> Location:
        """As `resolve`, and a file behind a URL must be there too."""
        place = self.resolve(media)
        if isinstance(place, Url):
            find_object(media, place)
        return place


def known_hashes(ledgers: Iterable[pl.DataFrame]) -> dict[State, str]:
    """State -> content hash, from ledgers of earlier runs: an unchanged file is not read again."""
    known: dict[State, str] = {}
    for ledger in ledgers:
        rows = ledger.filter(pl.col("content_hash") != "")
        states = zip(rows["path"], rows["size"], rows["mtime_ns"], strict=True)
        known.update(zip(states, rows["content_hash"], strict=True))
        remote = rows.filter(pl.col("etag") != "")
        known.update(
            zip(zip(remote["path"], remote["size"], remote["etag"], strict=True), remote["content_hash"], strict=True)
        )
    return known


def examine(
    media: Sequence[str], policy: MediaPolicy, known: Mapping[State, str], threads: int
) -> dict[str, MediaFile | SampleError]:
    """Find and hash the files of distinct media paths. A file that cannot be used maps to its error.

    Raises:
        StorageError: the storage behind a URL cannot be reached; nothing is known of its files then.
    """
    started = time.time()

    def look(path: str) -> MediaFile | SampleError:
        try:
            return _look(path, policy, known, started)
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


def find_object(media: str, url: Url) -> ObjectState:
    """A file behind a URL as it is now.

    Raises:
        MissingFile: not there, or not ours to read. StorageError: nobody answers.
    """
    try:
        return state(url)
    except FileNotFoundError as error:
        raise MissingFile(f"{media}: nothing at {url}; check the path, or set --media_root") from error
    except PermissionError as error:
        cause = error.strerror or error
        raise MissingFile(
            f"{media}: {url} may not be read ({cause}); check the keys and the bucket's policy"
        ) from error


def _look_remote(media: str, url: Url, policy: MediaPolicy, known: Mapping[State, str], started: float) -> MediaFile:
    found = find_object(media, url)
    if found.size == 0:
        raise EmptyFile(f"{media}: {url} has 0 bytes; fetch it again")
    try:
        content = known.get((str(url), found.size, found.etag)) or policy.scratch.digest(found, started)
    except (FileNotFoundError, PermissionError) as error:
        raise MissingFile(f"{media}: {url} cannot be read ({error.strerror or error}); check it") from error
    return MediaFile(url, found.size, 0, content, found.etag)


def _look(media: str, policy: MediaPolicy, known: Mapping[State, str], started: float) -> MediaFile:
    path = policy.resolve(media)
    if isinstance(path, Url):
        return _look_remote(media, path, policy, known, started)
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
