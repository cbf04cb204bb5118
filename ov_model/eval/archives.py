"""Archives of a benchmark, unpacked where lmms-eval looks: nothing outside the folder, no links, no bombs, resumable.

All members are checked before the first is written. A file that lies there with its member's size is left alone, and
each file appears whole under its name, so a cut extraction goes on where it stopped.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from ov_model.errors import OvError
from ov_model.lake.files import temporary

_CHUNK = 1 << 20
_READ_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError)
_DRIVE = re.compile(r"^[A-Za-z]:")


class ArchiveError(OvError):
    """An archive cannot be read, or holds what must not be unpacked."""


class DiskFull(OvError):
    """There is no room for what is to be written."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: `ratio` times its own bytes (and never less than `allowance`), `size`, `files`.

    Videos hardly compress, so an archive that promises 20 times its own size is no archive of videos.
    """

    ratio: float = 20.0
    allowance: int = 64 << 20
    size: int = 4 << 40
    files: int = 2_000_000


@dataclass(frozen=True)
class Member:
    """One file of an archive, its path checked."""

    path: str
    size: int


def group_archives(paths: Sequence[str]) -> dict[str, list[str]]:
    """Archives of a repository by what makes them one: `x.tar.part.aa`, `x.tar.part.ab` and `x_1.tar`, `x_2.tar`.

    Returns the name of each (`x.zip`, `x.tar`) and its parts in order. Whether the parts of the second kind are one
    archive cut in pieces or several archives is seen when they are read.
    """
    groups: dict[str, list[str]] = {}
    for path in sorted(paths, key=_part_order):
        head, mark, tail = path.partition(".tar")
        if mark and not path.endswith(".zip"):
            packed = ".gz" if tail.startswith(".gz") else ""
            name = re.sub(r"_\d+$", "", head) + ".tar" + packed
        else:
            name = path
        groups.setdefault(name, []).append(path)
    return groups


def safe_path(name: str, source: str) -> str:
    """A member's path, in normal form.

    Raises:
        ArchiveError: it is absolute, leads out of its folder, or is none.
    """
    path = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or path.is_absolute() or _DRIVE.match(name) or ".." in path.parts:
        raise ArchiveError(
            f"{source}: member {name!r} leads out of the folder; nothing of it was unpacked. "
            "Do not use this archive; tell whoever publishes it."
        )
    return str(path)


def extract(
    parts: Sequence[Path],
    target: Path,
    *,
    limits: Limits = Limits(),
    taken: Collection[str] = (),
    progress: Callable[[int], None] | None = None,
) -> list[Member]:
    """Unpack an archive, given as its parts, into `target`.

    Args:
        taken: paths that another archive has already given; they are left alone, as lmms-eval leaves them.
        progress: called with the bytes of each file that is written.

    Returns the files that lie below `target` for it, `taken` left out.

    Raises:
        ArchiveError: unreadable, or a member that must not be unpacked: nothing of it was written then.
        DiskFull: no room; what was written stays, and the next call goes on.
    """
    source = parts[0].name if len(parts) == 1 else f"{parts[0].name} and {len(parts) - 1} more parts"
    try:
        with ExitStack() as stack:
            archives = [stack.enter_context(_open(group)) for group in _separate(parts)]
            members = _checked(archives, sum(part.stat().st_size for part in parts), limits, source, target)
            wanted = {path: size for path, size in members.items() if path not in taken}
            missing = {path for path, size in wanted.items() if _size(target / path) != size}
            _room(target, sum(wanted[path] for path in missing), source)
            real = os.path.realpath(target)
            for archive in archives:
                for entry in archive.entries():
                    path = safe_path(entry.name, source)
                    if entry.kind == "file" and path in missing:
                        _write(target / path, archive, entry, real, source)
                        missing.discard(path)
                        if progress is not None:
                            progress(entry.size)
    except _READ_ERRORS as error:
        raise unreadable(parts, error) from error
    except OSError as error:
        if is_full(error):
            raise DiskFull(
                f"{source}: no room left at {target} ({error.strerror}); what was unpacked stays: free some space and "
                "run the same command to go on"
            ) from error
        if isinstance(error, (tarfile.ReadError, zipfile.BadZipFile)) or error.errno is None:
            raise unreadable(parts, error) from error
        raise
    os.sync()
    return [Member(path, size) for path, size in wanted.items()]


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of room: the disk's, a quota's, or a limit's on a file's size."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unreadable(parts: Sequence[Path], error: BaseException) -> ArchiveError:
    """The error of an archive that cannot be read."""
    names = " ".join(str(part) for part in parts)
    return ArchiveError(
        f"{parts[0]}: cannot be read as an archive ({str(error) or type(error).__name__}): damaged, or none. "
        f"Delete it and run the same command to download it again: rm {names}"
    )


@dataclass(frozen=True)
class _Entry:
    name: str
    kind: str
    size: int
    handle: zipfile.ZipInfo | tarfile.TarInfo


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def entries(self) -> Iterator[_Entry]:
        for info in self.archive.infolist():
            mode = info.external_attr >> 16
            if info.is_dir():
                kind = "folder"
            elif mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                kind = "link" if stat.S_ISLNK(mode) else "device"
            elif info.flag_bits & 1:
                kind = "encrypted"
            else:
                kind = "file"
            yield _Entry(info.filename, kind, info.file_size, info)

    def open(self, entry: _Entry) -> IO[bytes]:
        return self.archive.open(cast(zipfile.ZipInfo, entry.handle))


class _Tar:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self.archive = archive

    def entries(self) -> Iterator[_Entry]:
        for info in self.archive:
            if info.isdir():
                kind = "folder"
            elif info.issym() or info.islnk():
                kind = "link"
            elif info.isreg():
                kind = "file"
            else:
                kind = "device"
            yield _Entry(info.name, kind, info.size, info)

    def open(self, entry: _Entry) -> IO[bytes]:
        stream = self.archive.extractfile(cast(tarfile.TarInfo, entry.handle))
        assert stream is not None
        return stream


class _Joined(io.RawIOBase):
    """Files read as one, without a joined copy on disk."""

    def __init__(self, parts: Sequence[BinaryIO]) -> None:
        self.parts = list(parts)
        self.ends: list[int] = []
        for part in self.parts:
            self.ends.append((self.ends[-1] if self.ends else 0) + part.seek(0, os.SEEK_END))
        self.at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.ends[-1]}[whence] + offset
        return self.at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        for part, start, end in zip(self.parts, [0, *self.ends], self.ends, strict=False):
            if start <= self.at < end:
                part.seek(self.at - start)
                data = part.read(min(len(buffer), end - self.at))
                buffer[: len(data)] = data
                self.at += len(data)
                return len(data)
        return 0


def _part_order(path: str) -> tuple[str, int, str]:
    match = re.search(r"^(.*)_(\d+)(\.tar.*)$", path)
    return (match[1], int(match[2]), match[3]) if match else (path, -1, "")


def _separate(parts: Sequence[Path]) -> list[list[Path]]:
    """Parts that belong together: a part that begins like an archive of its own is one."""
    groups: list[list[Path]] = []
    for part in parts:
        if not groups or (".part" not in part.name and _begins_archive(part)):
            groups.append([])
        groups[-1].append(part)
    return groups


def _begins_archive(part: Path) -> bool:
    with open(part, "rb") as stream:
        head = stream.read(512)
    if head[:2] == b"\x1f\x8b":
        return True
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


@contextmanager
def _open(parts: Sequence[Path]) -> Iterator[_Zip | _Tar]:
    if parts[0].suffix.lower() == ".zip":
        with zipfile.ZipFile(parts[0]) as archive:
            yield _Zip(archive)
        return
    with ExitStack() as stack:
        joined = io.BufferedReader(_Joined([stack.enter_context(open(part, "rb")) for part in parts]), _CHUNK)
        packed = joined.peek(2)[:2] == b"\x1f\x8b"
        archive = stack.enter_context(tarfile.open(fileobj=joined, mode="r:gz" if packed else "r:"))
        yield _Tar(archive)


def _checked(archives: Sequence[_Zip | _Tar], packed: int, limits: Limits, source: str, target: Path) -> dict[str, int]:
    """Paths and sizes of the files of an archive, every member fit to be unpacked."""
    most = min(max(limits.ratio * packed, limits.allowance), limits.size)
    members: dict[str, int] = {}
    total = count = 0
    for archive in archives:
        for entry in archive.entries():
            path = safe_path(entry.name, source)
            if entry.kind == "folder":
                continue
            if entry.kind != "file":
                raise ArchiveError(
                    f"{source}: member {entry.name!r} is {_ARTICLE[entry.kind]}, not a file; nothing was unpacked. "
                    "Do not use this archive; tell whoever publishes it."
                )
            count += 1
            total += entry.size
            if total > most or count > limits.files:
                raise ArchiveError(
                    f"{source}: {packed} bytes promise at least {total} bytes in {count} files, more than the "
                    f"{most:.0f} bytes and {limits.files} files that are allowed; nothing was unpacked. "
                    "It is no archive of videos; tell whoever publishes it."
                )
            if members.get(path, entry.size) != entry.size:
                raise ArchiveError(f"{source}: holds {path!r} twice, with different sizes; nothing was unpacked")
            members[path] = entry.size
    _refuse_collisions(members, source, target)
    return members


_ARTICLE = {"link": "a link", "device": "a device", "encrypted": "encrypted"}


def _refuse_collisions(members: dict[str, int], source: str, target: Path) -> None:
    folders = {str(parent) for path in members for parent in PurePosixPath(path).parents}
    for path in members:
        if path in folders:
            raise ArchiveError(f"{source}: {path!r} is a file and a folder; nothing was unpacked")
    folded = Counter(path.casefold() for path in members)
    alike = sorted(path for path in members if folded[path.casefold()] > 1)
    if alike and not case_sensitive(target):
        raise ArchiveError(
            f"{source}: {alike[0]!r} and {alike[1]!r} differ in case only, and {target} takes them for one; "
            "choose a --home on a file system that tells them apart"
        )


def case_sensitive(folder: Path) -> bool:
    """Whether a folder's file system tells names apart that differ in case only."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = temporary(folder / "case-probe-a")
    probe.touch()
    try:
        return not probe.with_name(probe.name.replace("case-probe-a", "case-probe-A")).exists()
    finally:
        probe.unlink()


def _write(path: Path, archive: _Zip | _Tar, entry: _Entry, root: str, source: str) -> None:
    parent = os.path.realpath(path.parent)
    if parent != root and not parent.startswith(root + os.sep):
        raise ArchiveError(
            f"{source}: {path} would be written through a link, to {parent}; remove the link and run the same command"
        )
    if path.is_symlink():
        raise ArchiveError(f"{path}: is a link where {source} has a file; remove it and run the same command")
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = temporary(path)
    try:
        left = entry.size
        with archive.open(entry) as stream, open(temp, "wb") as out:
            while chunk := stream.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                out.write(chunk)
        if left:
            raise ArchiveError(f"{source}: member {entry.name!r} does not hold the {entry.size} bytes that it promises")
        os.replace(temp, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temp.unlink()
        raise


def _size(path: Path) -> int | None:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _room(target: Path, need: int, source: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target).free
    if need > free:
        raise DiskFull(
            f"{source}: unpacking needs {need / 1e9:.2f} GB at {target}, {free / 1e9:.2f} GB are free; free some space "
            "or choose another --home"
        )
