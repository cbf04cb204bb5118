"""Answers as they come: a line for each, on disk before the next is asked for, so that a killed run resumes."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Key = tuple[str, str, int, int, int]


@dataclass(frozen=True)
class Entry:
    """An answered request.

    Args:
        type: generate_until or loglikelihood.
        idx, repeat: of the request among those of its document, and of the same request among its repetitions.
        prompt_hash: of all that was asked, how, and of which checkpoint. visual_hash: of what was shown.
        answer: text, or [log-probability, whether greedy].
        visual: codec, frames, image or text; visual_tokens: how many the model read.
    """

    type: str
    task: str
    doc_id: int
    idx: int
    repeat: int
    prompt_hash: str
    visual_hash: str
    answer: Any
    visual: str = ""
    visual_tokens: int = 0

    @property
    def key(self) -> Key:
        return self.type, self.task, self.doc_id, self.idx, self.repeat


class Journal:
    """Answers of this run and of those before it on the same path.

    Several processes write `answers.rank0.jsonl` …, and each reads all of them; the number of processes may change.
    Raises OSError where the folder cannot be written.
    """

    def __init__(self, path: Path, rank: int = 0, world: int = 1) -> None:
        self.path = path if world == 1 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")
        self._known: dict[Key, list[Entry]] = {}
        for one in (path, *sorted(path.parent.glob(f"{path.stem}.rank*{path.suffix}"))):
            for entry in _read(one):
                self._known.setdefault(entry.key, []).append(entry)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(self.path)
        self._stream = open(self.path, "ab")

    def find(self, key: Key, prompt_hash: str) -> Entry | None:
        """The newest answer to the same request."""
        for entry in reversed(self._known.get(key, [])):
            if entry.prompt_hash == prompt_hash:
                return entry
        return None

    def append(self, entries: Sequence[Entry]) -> None:
        """Record answers; on return they are on disk."""
        for entry in entries:
            self._known.setdefault(entry.key, []).append(entry)
            self._stream.write(json.dumps(asdict(entry)).encode() + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._stream.close()


def _read(path: Path) -> list[Entry]:
    """Entries of a file; a torn last line and lines of another format are left out."""
    if not path.is_file():
        return []
    entries, refused = [], 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            entries.append(Entry(**json.loads(line)))
        except (ValueError, TypeError):
            refused += 1
    if refused:
        log.warning("%s: %d lines are no answers and are asked for again", path, refused)
    return entries


def _cut_torn_line(path: Path) -> None:
    if path.is_file():
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            with open(path, "rb+") as stream:
                stream.truncate(whole)
                os.fsync(stream.fileno())
