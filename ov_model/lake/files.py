"""Atomic files and content hashes: an output either stands whole under its name or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ov_model.lake.processes import process_start

_CHUNK = 1 << 20
_TEMP = re.compile(r"^\..*\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)\.tmp$", re.DOTALL)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary neighbor for writing; on success fsync it and rename it over `path`, on error remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = temporary(path)
    try:
        with open(temp, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temp, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temp.unlink()
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_write(path) as stream:
        stream.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON atomically."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A value as indented JSON."""
    return json.dumps(value, ensure_ascii=False, indent=2).encode()


def array_bytes(array: NDArray[Any]) -> bytes:
    """The content of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy atomically."""
    with atomic_write(path) as stream:
        np.save(stream, array, allow_pickle=False)


def read_array(path: Path) -> NDArray[Any]:
    """Read one .npy array; pickled objects are refused."""
    return np.load(path, allow_pickle=False)


def link_or_copy(source: Path, target: Path) -> None:
    """Put the content of `source` under `target` atomically: a hard link where the file system allows, else a copy."""
    if target.exists() and os.path.samefile(source, target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = temporary(target)
    with suppress(FileNotFoundError):
        temp.unlink()
    try:
        os.link(source, temp)
    except OSError:
        shutil.copyfile(source, temp)
        with open(temp, "rb+") as stream:
            os.fsync(stream.fileno())
    os.replace(temp, target)


def folds_case(folder: Path) -> bool:
    """Whether the file system takes names that differ in case only for one."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = temporary(folder / "Probe")
    probe.touch()
    try:
        return probe.with_name(probe.name.swapcase()).exists()
    finally:
        probe.unlink()


def temporary(path: Path) -> Path:
    """The name under which this process writes what will become `path`."""
    return path.with_name(f".{path.name[:180]}.{_host()}-{os.getpid()}.tmp")


def remove_temporaries(folder: Path, *, deep: bool = False) -> int:
    """Remove what processes of this host that are gone left half-written in `folder` (and below). Returns the count."""
    removed = 0
    for path in folder.rglob(".*.tmp") if deep else folder.glob(".*.tmp"):
        if is_left_over(path):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def is_left_over(path: Path) -> bool:
    """Whether a name is that of a temporary file of a process of this host that is gone."""
    match = _TEMP.match(path.name)
    return bool(match and match["host"] == _host() and process_start(int(match["pid"])) is None)


@cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def hash_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys, no spaces), hexadecimal."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_arrays(*arrays: NDArray[Any]) -> str:
    """SHA-256 over dtype, shape and bytes of arrays, hexadecimal."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write several files of one folder: all are on disk before the first takes its name."""
    folder.mkdir(parents=True, exist_ok=True)
    temps = {name: temporary(folder / str(i)) for i, name in enumerate(files)}
    try:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with open(temps[name], "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for name, temp in temps.items():
            os.replace(temp, folder / name)
    except BaseException:
        for temp in temps.values():
            temp.unlink(missing_ok=True)
        raise
    sync_folder(folder)
