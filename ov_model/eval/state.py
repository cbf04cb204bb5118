"""What a preparation has done so far: `prepared.json`, and whether all of it still lies there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ov_model.eval.benchmarks import Benchmark, Places
from ov_model.lake.files import write_json

_VERSION = 1


@dataclass
class State:
    """A preparation's progress.

    Args:
        repository, asked, revision: the data set, the revision that was asked for, the commit that it was.
        files: repository path -> [oid, size] of what was downloaded and checked.
        archives: archive -> {"parts": {path: oid}, "members": [[path below the videos' folder, size], ...]}.
        media: repository path -> size, of videos that lie in the repository unpacked.
        complete: all was done. videos, missing, shared: counts of the list of videos.
    """

    repository: str = ""
    asked: str = ""
    revision: str = ""
    files: dict[str, list[Any]] = field(default_factory=dict)
    archives: dict[str, dict[str, Any]] = field(default_factory=dict)
    media: dict[str, int] = field(default_factory=dict)
    complete: bool = False
    videos: int = 0
    missing: list[str] = field(default_factory=list)
    shared: int = 0
    size: int = 0
    version: int = _VERSION

    @classmethod
    def read(cls, path: Path) -> State:
        """The state that was written last; an empty one where there is none, or one of another version."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return cls()
        return cls(**value) if isinstance(value, dict) and value.get("version") == _VERSION else cls()

    def write(self, path: Path) -> None:
        """Write it atomically."""
        write_json(path, asdict(self))

    def unpacked(self, name: str, parts: dict[str, str], videos: Path) -> bool:
        """Whether an archive of these parts was unpacked and what it gave still lies there."""
        archive = self.archives.get(name)
        return (
            archive is not None
            and archive["parts"] == parts
            and all(has_size(videos / path, size) for path, size in archive["members"])
        )

    def intact(self, places: Places) -> bool:
        """Whether all was done and still lies there."""
        return (
            self.complete
            and places.videos_jsonl.is_file()
            and all(self.unpacked(name, archive["parts"], places.videos) for name, archive in self.archives.items())
            and all(has_size(places.videos / path, size) for path, size in self.media.items())
            and all(has_size(places.dataset / path, self.files[path][1]) for path in self.data_files())
        )

    def data_files(self) -> list[str]:
        """Repository paths of the downloaded files that are neither archives nor videos."""
        parts = {path for archive in self.archives.values() for path in archive["parts"]}
        return [path for path in self.files if path not in parts and path not in self.media]


@dataclass(frozen=True)
class LocalState:
    """What lies at a home of one benchmark: `state` is absent, part, damaged or prepared; sizes in bytes."""

    state: str
    videos: int = 0
    missing: int = 0
    assets: int = 0
    size: int = 0
    revision: str = ""


def local_state(benchmark: Benchmark, home: Path) -> LocalState:
    """Look at what a home holds of a benchmark, from its preparation's record and its folders."""
    places = Places(benchmark, home)
    assets = sum(1 for entry in places.assets.iterdir() if entry.is_dir()) if places.assets.is_dir() else 0
    state = State.read(places.state)
    if not state.revision and not places.videos_jsonl.is_file():
        return LocalState("absent", assets=assets)
    if not state.revision:
        rows = places.videos_jsonl.read_text(encoding="utf-8").splitlines()
        return LocalState("prepared", videos=len(rows), assets=assets)
    word = "prepared" if state.intact(places) else "damaged" if state.complete else "part"
    return LocalState(word, state.videos, len(state.missing), assets, state.size, state.revision)


def has_size(path: Path, size: int) -> bool:
    """Whether a file of this size lies there."""
    try:
        return path.stat().st_size == size
    except (FileNotFoundError, NotADirectoryError):
        return False
