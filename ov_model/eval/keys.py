"""The name of a video's asset folder: its file stem, as in the reference, made longer where two videos share one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from ov_model.lake.layout import short_sha1


def video_stem(path: str | os.PathLike[str]) -> str:
    """File name without its last suffix; of a folder of frames, its whole name."""
    name = PurePosixPath(path).name
    return name if os.path.isdir(path) else PurePosixPath(name).stem


def shared_stems(paths: Iterable[str]) -> set[str]:
    """Stems that more than one of the paths has; two that differ in case only count as one, as on a Mac's disk."""
    stems = [video_stem(path) for path in set(paths)]
    counts = Counter(stem.casefold() for stem in stems)
    return {stem for stem in stems if counts[stem.casefold()] > 1}


def video_key(path: str, root: Path, shared: Collection[str] = ()) -> str:
    """A video's key: its stem, or where that is `shared`, its path below `root` without suffix, `__` for `/`."""
    stem = video_stem(path)
    if stem not in shared:
        return stem
    return "__".join([*_below(path, root).parent.parts, stem])


def video_keys(paths: Iterable[str], root: Path) -> dict[str, str]:
    """Path -> key, all different: of keys that are still equal, all but the first path's get its hash at the end."""
    ordered = sorted(set(paths))
    shared = shared_stems(ordered)
    keys: dict[str, str] = {}
    used: set[str] = set()
    for path in ordered:
        key = video_key(path, root, shared)
        if key.casefold() in used:
            key = f"{key}__{short_sha1(str(_below(path, root)))}"
        used.add(key.casefold())
        keys[path] = key
    return keys


def _below(path: str, root: Path) -> PurePosixPath:
    relative = os.path.relpath(path, root)
    if relative.startswith(".."):
        return PurePosixPath(short_sha1(str(PurePosixPath(path).parent))) / PurePosixPath(path).name
    return PurePosixPath(relative)
