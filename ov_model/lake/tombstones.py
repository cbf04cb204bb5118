"""Records that `ov remove` took out of a dataset: their numbers are never given again, and no run brings them back.

One line each in `records/removed.jsonl`; the index leaves out what a tombstone names, though the raw file still has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ov_model.lake.files import atomic_write
from ov_model.lake.records import Record

REMOVED = "removed.jsonl"


@dataclass(frozen=True)
class Tombstone:
    """A removed record: its number, key, hash of what it said and what names it (see `lake.index`); or, with row -1, a
    medium that is not to be used by any record, by its path as given."""

    row: int
    key: str
    id: str
    media: str
    content: str
    occurrence: int
    identity: str
    removed_at: str


@dataclass(frozen=True)
class Tombstones:
    """All of a dataset's."""

    records: dict[int, Tombstone]
    media: dict[str, Tombstone]

    @classmethod
    def read(cls, folder: Path) -> Tombstones:
        """Those of an index folder; none where nothing was removed."""
        path = folder / REMOVED
        lines = path.read_bytes().splitlines() if path.is_file() else []
        return cls.of(Tombstone(**json.loads(line)) for line in lines)

    @classmethod
    def of(cls, stones: Iterable[Tombstone]) -> Tombstones:
        listed = list(stones)
        return cls({s.row: s for s in listed if s.row >= 0}, {s.media: s for s in listed if s.row < 0})

    def write(self, folder: Path) -> None:
        """Write them whole; no file where there are none."""
        stones = [*(self.records[row] for row in sorted(self.records)), *(self.media[m] for m in sorted(self.media))]
        if not stones:
            (folder / REMOVED).unlink(missing_ok=True)
            return
        with atomic_write(folder / REMOVED) as stream:
            for stone in stones:
                stream.write(json.dumps(asdict(stone), ensure_ascii=True).encode() + b"\n")

    def cover(self, record: Record, row: int) -> bool:
        """Whether a record is not to come back."""
        return row in self.records or record.media in self.media or any(image in self.media for image in record.images)
