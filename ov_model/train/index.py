"""Random access to the rows of a JSONL without loading it: the offsets of its lines, kept on disk.

The cache holds for the file it was made from: same size and modification time, else same content.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ov_model.errors import BadRecord, UsageError
from ov_model.lake.files import hash_file, hash_json, read_array, write_array, write_json
from ov_model.lake.mixture import line_spans


class JsonlRows:
    """The rows of a JSONL by number; blank lines don't count. Safe across fork, spawn and threads.

    Args:
        cache: folder of the offsets; None keeps none on disk.

    Raises:
        UsageError: no such file.
    """

    def __init__(self, path: Path, cache: Path | None = None) -> None:
        if not path.is_file():
            raise UsageError(f"{path}: no such file; expected a training JSONL")
        self.path = path
        self.span_R2, self.content_hash = _open_index(path, cache)
        self._file: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.span_R2)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Raises BadRecord: the line is no JSON object."""
        start, end = self.span_R2[row].tolist()
        try:
            value = json.loads(os.pread(self._descriptor(), end - start, start))
        except ValueError as error:
            raise BadRecord(f"{self.path}: row {row}: not JSON: {error}") from None
        if not isinstance(value, dict):
            raise BadRecord(f"{self.path}: row {row} is a {type(value).__name__}; expected an object")
        return value

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        held = getattr(self, "_file", None)
        if held is not None and held[0] == os.getpid():
            os.close(held[1])

    def _descriptor(self) -> int:
        if self._file is None or self._file[0] != os.getpid():
            self._file = (os.getpid(), os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
        return self._file[1]


def _open_index(path: Path, cache: Path | None) -> tuple[np.ndarray, str]:
    stat = path.stat()
    seen = {"path": str(path.absolute()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    if cache is None:
        return line_spans(path), hash_file(path)
    stem = cache / f"rows-{hash_json(seen['path'])[:16]}"
    offsets, note = stem.with_suffix(".npy"), stem.with_suffix(".json")
    known = json.loads(note.read_bytes()) if note.is_file() and offsets.is_file() else {}
    if known and all(known.get(key) == value for key, value in seen.items()):
        return read_array(offsets), known["sha256"]
    content = hash_file(path)
    if known.get("sha256") == content:
        write_json(note, seen | {"sha256": content})
        return read_array(offsets), content
    note.unlink(missing_ok=True)
    span_R2 = line_spans(path)
    write_array(offsets, span_R2)
    write_json(note, seen | {"sha256": content})
    return span_R2, content
