"""A bounded folder for local copies of files behind URLs: whole, checked, shared by all processes of a machine.

    objects/{hash of URL, size, ETag}{suffix}    copies, the longest unused goes first
    in_use/{host-pid}/{n}-{name}                 a hard link while a process works on a copy

A copy that is evicted while it is linked lives on under the link, so nobody loses a file that is open. The folder is
local by definition: its admission is serialized with flock.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ov_model.errors import OvError, SampleError, UsageError
from ov_model.lake.files import hash_file, is_left_over, temporary
from ov_model.lake.processes import process_start
from ov_model.lake.urls import Location, ObjectState, Url, read_object, state

DEFAULT_GB = 20.0
_WAIT, _PATIENCE = 0.2, 3600.0
_numbers = itertools.count()


class ScratchFull(SampleError):
    """A file is larger than the scratch folder may become, or others keep it full."""

    reason = "scratch_full"


def default_scratch() -> Path:
    """Below the system's folder for temporary files, one per user."""
    return Path(tempfile.gettempdir()) / f"ov-scratch-{os.getuid()}"


@dataclass(frozen=True)
class Scratch:
    """Where copies lie and how many GB (10^9 bytes) of them at most."""

    folder: Path = field(default_factory=default_scratch)
    limit_gb: float = DEFAULT_GB

    def __post_init__(self) -> None:
        if not self.limit_gb > 0:
            raise UsageError(f"scratch_gb is {self.limit_gb}; it must be more than 0")

    @contextmanager
    def borrow(self, found: ObjectState) -> Iterator[Path]:
        """A local copy of a file, which stays until the context ends; downloaded unless it lies here already.

        Raises:
            ScratchFull, FileNotFoundError, PermissionError, StorageError.
        """
        link = self._own_folder() / f"{next(_numbers)}-{self._name(found)}"
        cached = self.folder / "objects" / self._name(found)
        try:
            started = time.monotonic()
            while not _link(cached, link):
                if self._fetch(found, None) is None:
                    if time.monotonic() - started > _PATIENCE:
                        raise ScratchFull(f"{found.url}: no room in {self.folder} for an hour; raise --scratch_gb")
                    time.sleep(_WAIT)
                self._own_folder()
            os.utime(link)
            yield link
        finally:
            link.unlink(missing_ok=True)
            with suppress(OSError):
                link.parent.rmdir()

    def digest(self, found: ObjectState, since: float = 0.0) -> str:
        """SHA-256 of a file's bytes; its copy is kept where there is room.

        Args:
            since: copies used after this time (of `time.time`) are not evicted for it: a scan over more than fits keeps
                the first, which are worked on first.
        """
        cached = self.folder / "objects" / self._name(found)
        with suppress(FileNotFoundError):
            os.utime(cached)
            return hash_file(cached)
        kept = self._fetch(found, since) if found.size <= self._limit else None
        if kept is not None:
            return kept
        digest = hashlib.sha256()
        for chunk in read_object(found):
            digest.update(chunk)
        return digest.hexdigest()

    def staging(self, url: Url) -> Path:
        """A folder of this process for what it makes before it is sent to `url`; it goes with the process."""
        atexit.register(self.drop_staging)
        own = self._own_folder() / f"root-{hashlib.sha256(str(url).encode()).hexdigest()[:16]}"
        own.mkdir(exist_ok=True)
        return own

    def drop_staging(self) -> None:
        """Remove this process's folder with all that it staged."""
        shutil.rmtree(self._own_folder(), ignore_errors=True)

    @property
    def _limit(self) -> int:
        return int(self.limit_gb * 1e9)

    def _own_folder(self) -> Path:
        own = self.folder / "in_use" / f"{os.getpid()}-{process_start(os.getpid())}"
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "objects").mkdir(exist_ok=True, mode=0o700)
        return own

    @staticmethod
    def _name(found: ObjectState) -> str:
        identity = f"{found.url}\n{found.size}\n{found.etag}"
        return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:40] + found.url.suffix[:16]

    def _fetch(self, found: ObjectState, since: float | None) -> str | None:
        """Download a file among the copies; its SHA-256, or None when there is no room now."""
        self._own_folder()
        cached = self.folder / "objects" / self._name(found)
        temp = temporary(cached.with_name(f"{cached.name}-{next(_numbers)}"))
        if not self._admit(found, temp, since):
            return None
        try:
            digest = hashlib.sha256()
            with open(temp, "rb+") as target:
                for chunk in read_object(found):
                    digest.update(chunk)
                    target.write(chunk)
                if target.tell() != found.size:
                    raise FileNotFoundError(2, f"broke off after {target.tell()} of {found.size} bytes", str(found.url))
            os.replace(temp, cached)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
        return digest.hexdigest()

    def _admit(self, found: ObjectState, temp: Path, since: float | None) -> bool:
        """Make room for a file and reserve it with a sparse file of its size; False when there is none now."""
        if found.size > self._limit:
            raise ScratchFull(
                f"{found.url}: {found.size:,} bytes, and {self.folder} may hold {self._limit:,}; raise --scratch_gb"
            )
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._sweep()
            sizes: dict[int, int] = {}
            copies: list[tuple[float, int, Path]] = []
            for path in (*(self.folder / "objects").iterdir(), *(self.folder / "in_use").glob("*/*")):
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    if path.is_file():
                        sizes[stat.st_ino] = stat.st_size
                        if path.parent.name == "objects" and stat.st_nlink == 1 and not path.name.startswith("."):
                            copies.append((stat.st_mtime, stat.st_size, path))
            used = sum(sizes.values())
            copies.sort()
            free = [c for c in copies if since is None or c[0] < since]
            if used + found.size - sum(size for _, size, _ in free) > self._limit:
                return False
            for _, size, path in free:
                if used + found.size <= self._limit:
                    break
                path.unlink(missing_ok=True)
                used -= size
            with open(temp, "wb") as stream:
                stream.truncate(found.size)
        return True

    def _sweep(self) -> None:
        """Remove what processes that are gone left: half-written copies, links, staged outputs."""
        for path in (self.folder / "objects").glob(".*.tmp"):
            if is_left_over(path):
                path.unlink(missing_ok=True)
        for own in (self.folder / "in_use").iterdir():
            pid, _, started = own.name.partition("-")
            if not pid.isdigit() or process_start(int(pid)) != started:
                shutil.rmtree(own, ignore_errors=True)


@contextmanager
def local_copy(place: Location, scratch: Scratch) -> Iterator[Path]:
    """A location as a local file: a path as it is, a URL as a copy for as long as the context lasts.

    Raises:
        UsageError: nothing there, or no permission.
    """
    if isinstance(place, Path):
        yield place
        return
    try:
        found = state(place)
    except (FileNotFoundError, PermissionError) as error:
        raise UsageError(
            f"{place}: cannot be read ({error.strerror or error}); check the URL and your access"
        ) from error
    with scratch.borrow(found) as path:
        try:
            yield path
        except OvError as error:
            error.args = (str(error).replace(str(path), str(place)),)
            raise


def _link(cached: Path, link: Path) -> bool:
    try:
        os.link(cached, link)
    except FileNotFoundError:
        return False
    return True
