"""The files that records point to: found, measured and hashed once, however many records share them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ov_model.errors import EmptyFile, MissingFile, SampleError
from ov_model.lake.files import hash_file
from ov_model.lake.records import resolve_media


@dataclass(frozen=True)
class MediaFile:
    """A file on disk: resolved path, bytes, modification time in ns, SHA-256."""

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
        rows = ledger.filter(pl.col("content_hash") != "").select("path", "size", "mtime_ns", "content_hash")
        known.update({(path, size, mtime): content for path, size, mtime, content in rows.iter_rows()})
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


def _look(media: str, policy: MediaPolicy, known: Mapping[tuple[str, int, int], str]) -> MediaFile:
    path = policy.resolve(media)
    try:
        stat = path.stat()
        if not path.is_file():
            raise MissingFile(f"{media}: {path} is not a file; give the path of a video file")
        if stat.st_size == 0:
            raise EmptyFile(f"{media}: the file has 0 bytes; fetch it again")
        content = known.get((str(path), stat.st_size, stat.st_mtime_ns)) or hash_file(path)
    except (FileNotFoundError, PermissionError) as error:
        raise MissingFile(f"{media}: {path} cannot be read ({error.strerror}); check it and its permissions") from error
    return MediaFile(path, stat.st_size, stat.st_mtime_ns, content)
