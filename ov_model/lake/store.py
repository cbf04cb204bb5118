"""The root of a dataset, local or behind a URL, as the engine sees it: what is there, share it, send it.

Both kinds have a local folder `local` in which outputs are made under their keys (paths relative to the root). Of a
local root that folder is the root itself. Of a remote one it is a staging folder of the process: `publish` sends what
was made there and removes it, `pull` fetches what is read from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ov_model.errors import UsageError
from ov_model.lake.files import link_or_copy, write_bytes
from ov_model.lake.scratch import Scratch
from ov_model.lake.urls import Location, ObjectState, StorageError, Url, filesystem, state, storage_errors

EXCLUSIVE = ("s3", "memory")
_THREADS = 16


class Store(Protocol):
    """What the engine asks of a root."""

    @property
    def local(self) -> Path:
        """Folder that outputs are made in and pulled to."""
        ...

    @property
    def place(self) -> Location:
        """The root itself, for messages."""
        ...

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        ...

    def look(self, keys: Iterable[str]) -> None:
        """Find out about many files at once, before `exists` is asked one by one."""
        ...

    def read_bytes(self, key: str) -> bytes:
        """Content of a file; FileNotFoundError where there is none."""
        ...

    def write_bytes(self, key: str, data: bytes) -> None:
        """Put a file whole under its key, or not at all."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file if it is there."""
        ...

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; none where there is no folder."""
        ...

    def share(self, source: str, target: str) -> None:
        """Put the content of one key under another as well."""
        ...

    def pull(self, key: str) -> Path:
        """The file of a key in `local`, as it is now; the path of nothing where there is none."""
        ...

    def push(self, key: str) -> None:
        """Send the file of a key from `local`."""
        ...


@dataclass(frozen=True)
class LocalStore:
    """A root on a local (or mounted) file system."""

    local: Path

    @property
    def place(self) -> Path:
        return self.local

    def exists(self, key: str) -> bool:
        return (self.local / key).exists()

    def look(self, keys: Iterable[str]) -> None:
        return

    def read_bytes(self, key: str) -> bytes:
        return (self.local / key).read_bytes()

    def write_bytes(self, key: str, data: bytes) -> None:
        write_bytes(self.local / key, data)

    def remove(self, key: str) -> None:
        (self.local / key).unlink(missing_ok=True)

    def names(self, folder: str) -> list[str]:
        there = self.local / folder
        return sorted(path.name for path in there.iterdir() if path.is_file()) if there.is_dir() else []

    def share(self, source: str, target: str) -> None:
        link_or_copy(self.local / source, self.local / target)

    def pull(self, key: str) -> Path:
        return self.local / key

    def push(self, key: str) -> None:
        return


@dataclass(frozen=True)
class RemoteStore:
    """A root behind a URL. `local` is a staging folder of the process that made it, which workers share.

    Raises:
        UsageError: a backend without an exclusive create, on which one writer at a time could not be had.
    """

    place: Url
    local: Path
    scratch: Scratch
    _seen: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)
    _pulled: dict[str, ObjectState] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.place.scheme not in EXCLUSIVE:
            raise UsageError(
                f"{self.place}: a lake's root may be local or s3://; {self.place.scheme}:// is good for raw media only"
            )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_seen": {}, "_pulled": {}}

    def url(self, key: str) -> Url:
        """Where a key lies."""
        return self.place / key if key else self.place

    def state(self, key: str) -> ObjectState | None:
        """Size and ETag of a file; None where there is none."""
        try:
            with _reach(self.url(key)):
                return state(self.url(key))
        except FileNotFoundError:
            return None

    def forget(self) -> None:
        """Forget what `look` found."""
        self._seen.clear()

    def exists(self, key: str) -> bool:
        return self._seen[key] if key in self._seen else self.state(key) is not None

    def look(self, keys: Iterable[str]) -> None:
        listed = list(keys)
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda key: self.state(key) is not None, listed)
            self._seen.update(zip(listed, found, strict=True))

    def read_bytes(self, key: str) -> bytes:
        url = self.url(key)
        with _reach(url):
            return filesystem(url.scheme).cat_file(url.path)

    def write_bytes(self, key: str, data: bytes) -> None:
        url = self.url(key)
        with _reach(url):
            filesystem(url.scheme).pipe_file(url.path, data)
        self._seen.pop(key, None)

    def create(self, key: str, data: bytes) -> bool:
        """Put a file under a key that must be free; False when it is not."""
        return self._put_if(key, data, {"mode": "create"})

    def remove(self, key: str) -> None:
        url = self.url(key)
        self._seen.pop(key, None)
        try:
            with _reach(url):
                filesystem(url.scheme).rm_file(url.path)
        except FileNotFoundError:
            return

    def names(self, folder: str) -> list[str]:
        return self._entries(folder, "file")

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in a folder, sorted."""
        return self._entries(folder, "directory")

    def _entries(self, folder: str, kind: str) -> list[str]:
        url = self.url(folder)
        try:
            with _reach(url):
                found = filesystem(url.scheme).ls(url.path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == kind)

    def replace(self, key: str, data: bytes, known: ObjectState | None) -> bool:
        """Put a file in the place of one that is still as known (None: of nothing); False when it is not."""
        if known is None:
            return self.create(key, data)
        return self._put_if(key, data, {"IfMatch": known.etag} if self.place.scheme == "s3" else {})

    def _put_if(self, key: str, data: bytes, condition: dict[str, str]) -> bool:
        url = self.url(key)
        try:
            with _reach(url):
                # One request, so that the condition holds for all of it.
                filesystem(url.scheme).pipe_file(url.path, data, chunksize=len(data) + 1, **condition)
        except (FileExistsError, FileNotFoundError):
            return False
        except StorageError as error:
            if _code(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
                return False
            raise
        self._seen.pop(key, None)
        return True

    def share(self, source: str, target: str) -> None:
        url = self.url(target)
        if source != target:
            with _reach(url):
                filesystem(url.scheme).cp_file(self.url(source).path, url.path)
        self._seen.pop(target, None)

    def pull(self, key: str) -> Path:
        path = self.local / key
        found = self.state(key)
        if found is None:
            path.unlink(missing_ok=True)
            self._pulled.pop(key, None)
        elif self._pulled.get(key) != found or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with _reach(found.url):
                filesystem(found.url.scheme).get_file(found.url.path, str(path))
            self._pulled[key] = found
        return path

    def pull_all(self, keys: Collection[str]) -> None:
        """Fetch many files; those that are not there are not there."""
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self.pull, keys))

    def push(self, key: str) -> None:
        url = self.url(key)
        with _reach(url):
            filesystem(url.scheme).put_file(str(self.local / key), url.path)
        self._pulled.pop(key, None)
        self._seen.pop(key, None)

    def publish(self, paths: Sequence[Path]) -> None:
        """Send files that were made in `local`, and remove them there."""
        keys = [path.relative_to(self.local).as_posix() for path in paths]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self.push, keys))
        for path in paths:
            path.unlink()

    def remove_all(self, keys: Collection[str]) -> None:
        """Remove many files."""
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self.remove, keys))


@contextmanager
def _reach(url: Url) -> Iterator[None]:
    """As `storage_errors`; that a root may not be read or written is no sample's fault either."""
    try:
        with storage_errors(url):
            yield
    except PermissionError as error:
        raise StorageError(f"{url}: access denied ({error}); check keys and bucket policy") from error


def _code(error: BaseException | None) -> str:
    """The storage's own code for what went wrong, from wherever in the chain of causes it is."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


def open_store(root: Location, scratch: Scratch) -> Store:
    """The store of a root."""
    if isinstance(root, Path):
        return LocalStore(root)
    return RemoteStore(root, scratch.staging(root), scratch)
