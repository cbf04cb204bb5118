"""Places behind a URL (`s3://bucket/folder/file`), through fsspec. Credentials and endpoint are the backend's affair.

A location is a Path, or a Url where `location` found a scheme. Keys are compared in their plain form: `..` is resolved,
nothing is ever asked for outside of what a Url says.
"""

from __future__ import annotations

import errno
import posixpath
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from ov_model.errors import OvError, UsageError
from ov_model.extras import require

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.DOTALL)
_READ_TIMEOUT, _CONNECT_TIMEOUT = 60, 10
_BLOCK, _PIECE = 16 << 20, 1 << 20


class StorageError(OvError, OSError):
    """The storage behind a URL cannot be reached or refuses what was asked; nothing is known of the file itself."""


@dataclass(frozen=True)
class Url:
    """A place behind a URL: `base / "name"`, `name`, `suffix` and `parent` work as those of a Path."""

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str) -> Url:
        return Url(self.scheme, _plain(f"{self.path}/{name}"))

    @property
    def name(self) -> str:
        """Last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """Suffix of the name, with its dot."""
        return PurePosixPath(self.path).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.path).stem

    @property
    def parent(self) -> Url:
        """The folder that this lies in."""
        return Url(self.scheme, posixpath.dirname(self.path) or self.path)

    def is_below(self, root: Url) -> bool:
        """Whether this lies in `root`, or is it."""
        return self.scheme == root.scheme and f"{self.path}/".startswith(f"{root.path}/")


Location: TypeAlias = Path | Url


@dataclass(frozen=True)
class ObjectState:
    """What identifies a file behind a URL: where, how many bytes, which content (an ETag where the backend has one)."""

    url: Url
    size: int
    etag: str


def location(text: str | Path | Url) -> Location:
    """A Path, or a Url where the text begins with a scheme.

    Raises:
        UsageError: a URL without a path.
    """
    if not isinstance(text, str):
        return text
    match = _SCHEME.fullmatch(text)
    if match is None:
        return Path(text)
    scheme, path = match.groups()
    if scheme == "file":
        return Path(path)
    plain = _plain(path)
    if plain in ("", ".", ".."):
        raise UsageError(f"{text}: names no bucket; expected a URL like {scheme}://bucket/folder")
    return Url({"s3a": "s3"}.get(scheme, scheme), plain)


def place(base: Path, text: str) -> Location:
    """A location given in a file: a URL, an absolute path, or a path relative to `base`."""
    found = location(text)
    return base / found if isinstance(found, Path) else found


def need_path(place: Location, what: str) -> Path:
    """A location as a local path.

    Raises:
        UsageError: it is a URL.
    """
    shown = str(place) if isinstance(place, Url) else re.sub(r"^([a-z][a-z0-9+.-]+):/", r"\1://", str(place))
    if isinstance(place, Url) or _SCHEME.match(shown):
        raise UsageError(f"{what} is {shown}, it must be local here; raw media and a dataset's root may be URLs")
    return place


def state(url: Url) -> ObjectState:
    """Size and ETag of a file as they are now.

    Raises:
        FileNotFoundError, PermissionError, StorageError.
    """
    with storage_errors(url):
        info = filesystem(url.scheme).info(url.path)
    if info["type"] != "file":
        raise FileNotFoundError(errno.ENOENT, "a folder, not a file", str(url))
    return _state(url, info)


def read_object(found: ObjectState) -> Iterator[bytes]:
    """The bytes of a file from start to end, in pieces.

    Raises:
        FileNotFoundError, PermissionError, StorageError; FileNotFoundError also when it is no longer as found.
    """
    url = found.url
    with storage_errors(url):
        # Each block is asked for by the ETag seen at opening.
        stream = filesystem(url.scheme).open(url.path, "rb", block_size=_BLOCK, cache_type="readahead")
        now = _state(url, stream.details) if getattr(stream, "details", None) else state(url)
    with closing(stream):
        if now != found:
            raise FileNotFoundError(errno.ENOENT, "changed while it was looked at; run again", str(url))
        while True:
            with storage_errors(url):
                data = stream.read(_PIECE)
            if not data:
                return
            yield data


@cache
def filesystem(scheme: str) -> Any:
    """fsspec's file system of a scheme, without its cache of listings; one for the whole process.

    Raises:
        UsageError: no such scheme, or what it needs is not installed.
    """
    require("s3", "fsspec", *(["s3fs"] if scheme == "s3" else []))
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        options["config_kwargs"] = {"connect_timeout": _CONNECT_TIMEOUT, "read_timeout": _READ_TIMEOUT}
    try:
        return fsspec.filesystem(scheme, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{scheme}://: {error}") from error


@contextmanager
def storage_errors(url: Url) -> Iterator[None]:
    """Any failure but "is not there", "may not" and "is there already" becomes a StorageError that names the URL."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, PermissionError, OvError):
        raise
    except Exception as error:
        cause = str(error) or type(error).__name__
        raise StorageError(
            f"{url}: {cause}; check the network, the endpoint (AWS_ENDPOINT_URL) and the keys"
        ) from error


def _state(url: Url, info: dict[str, Any]) -> ObjectState:
    etag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or str(info.get("mtime") or info.get("created"))
    return ObjectState(url, int(info["size"]), str(etag).strip('"'))


def _plain(path: str) -> str:
    if "\0" in path:
        raise UsageError(f"{path!r}: a URL with a NUL character")
    return posixpath.normpath(path).strip("/")
