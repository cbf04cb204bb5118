"""What a lake holds that nothing needs any more: `ov gc LAKE` lists it, `ov gc LAKE --yes` removes it.

Only files that bear our names are ever judged, and a stage's only when every shard of its split has a ledger: what an
unfinished run, or other tools beside ours, made is no orphan.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from ov_model.errors import LockedError
from ov_model.lake.files import is_left_over
from ov_model.lake.layout import (
    ASSET_META,
    ASSETS_FOLDER,
    FRAME_IDS,
    FRAME_IDS_SUFFIX,
    META_SUFFIX,
    POSITIONS,
    VISIBLE_INDICES,
    VISIDX_SUFFIX,
    Shard,
    file_identity,
    parse_stage1_meta_name,
)
from ov_model.lake.ledger import OK, read_ledger, rewrite_ledger
from ov_model.lake.lock import refuse_live_owner
from ov_model.lake.stages import ASSETS, MOSAICS, VISIDX
from ov_model.ops.roots import TRACKED, Root, file_size, find_roots, held, newest_rows, remove_file
from ov_model.status import LedgerFile

KINDS = ("orphan", "superseded_options", "superseded_split", "old_run", "left_over")
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind != "superseded_options")
_PACK = re.compile(r"sample_.*__[0-9a-f]{8}", re.DOTALL)
_PACK_FILE = re.compile(rf".*_\d{{3}}\.jpg|{re.escape(POSITIONS)}", re.DOTALL)
_ASSET_FILES = (POSITIONS, VISIBLE_INDICES, FRAME_IDS, ASSET_META)
_RUN_STAGES = ("projector", "checkpoint")


@dataclass(frozen=True)
class Garbage:
    """One thing that can go: a file, or a training run's folder. why: what superseded it, or whose it was."""

    kind: str
    path: Path
    why: str


@dataclass
class Collected:
    """What was found (and, unless it was a dry run, removed). spared: what was not judged, and why."""

    items: list[Garbage]
    bytes: int
    spared: list[str]


def collect(lake: Path, *, kinds: Iterable[str] = KINDS, dry_run: bool = True) -> Collected:
    """Find, and unless `dry_run` remove, what nothing needs. A file of several names counts when its last one goes.

    Raises:
        UsageError: no ledger there. LockedError: something is to be removed while a stage is at work on it.
    """
    wanted = set(kinds)
    collected = Collected([], 0, [])
    for root in find_roots(lake):
        if dry_run:
            _collect_root(root, wanted, collected)
        else:
            with held(ledger.path for ledger in root.ledgers):
                _remove(root, _collect_root(root, wanted, collected))
    if "old_run" in wanted:
        runs = list(_old_runs(lake))
        collected.items += runs
        collected.bytes += sum(_folder_size(item.path) for item in runs)
        for item in runs if not dry_run else ():
            shutil.rmtree(item.path)
    return collected


def _collect_root(root: Root, wanted: set[str], collected: Collected) -> list[Garbage]:
    items: list[Garbage] = []
    if "left_over" in wanted:
        items += _left_over(root)
    stages = [stage for stage in root.stages if stage in _FILES]
    judged = []
    for stage in stages:
        spared = _why_spared(root, stage)
        if spared:
            collected.spared.append(f"{root.name}/{stage}: {spared}")
        else:
            judged.append(stage)
    newest = {stage: newest_rows(root.of(stage), TRACKED) for stage in judged}
    needed = {file_identity(name) for frame in newest.values() for name in _needed(frame)}
    if "superseded_split" in wanted:
        for stage in [stage for stage in root.stages if stage in judged or stage not in _FILES]:
            items += _older_splits(root, stage)
    for stage, frame in newest.items():
        older = frame.filter((pl.col("status") == OK) & (pl.col("config_hash") != _current_options(frame)))
        theirs = {file_identity(name): config for config, names in older.select("config_hash", "outputs").iter_rows()
                  for name in names}  # fmt: skip
        for path in _FILES[stage](root):
            name = file_identity(path.relative_to(root.path).as_posix())
            if name in needed:
                continue
            if name in theirs and "superseded_options" in wanted:
                items.append(Garbage("superseded_options", path, f"made with options {theirs[name]}"))
            elif name not in theirs and "orphan" in wanted:
                if stage == VISIDX and not _is_ours(path):
                    collected.spared.append(f"{path}: made by another tool; `ov adopt stage1` enters it")
                else:
                    items.append(Garbage("orphan", path, f"no row of {stage} names it"))
    collected.items += items
    collected.bytes += _freed(item.path for item in items)
    return items


def _remove(root: Root, items: list[Garbage]) -> None:
    """Remove files first, then the rows that named them; ledgers of older splits last."""
    for item in sorted(items, key=lambda item: item.kind == "superseded_split"):
        remove_file(item.path)
    if any(item.kind == "superseded_options" for item in items):
        for ledger in root.ledgers:
            if ledger.stage in _FILES and ledger.path.exists():
                options = _current_options(newest_rows(root.of(ledger.stage), TRACKED))
                rows = read_ledger(ledger.path)
                left = rows.filter((pl.col("status") != OK) | (pl.col("config_hash") == options))
                if left.height < rows.height:
                    rewrite_ledger(ledger.path, left)


def _why_spared(root: Root, stage: str) -> str:
    """Why a stage's files are not judged, or nothing."""
    for ledger in root.of(stage):
        try:
            refuse_live_owner(ledger.path.with_suffix(".lock"))
        except LockedError:
            if not _held_by_us(ledger):
                return f"{ledger.shard} is being written; try again when it is done"
    if not _whole_splits(root, stage):
        shards = ", ".join(ledger.shard for ledger in root.of(stage)[:4])
        return f"no split into shards is complete ({shards}): files of the others cannot be told from orphans"
    return ""


def _held_by_us(ledger: LedgerFile) -> bool:
    with suppress(OSError, ValueError):
        return json.loads(ledger.path.with_suffix(".lock").read_text()).get("pid") == os.getpid()
    return False


def _whole_splits(root: Root, stage: str) -> dict[int, list[LedgerFile]]:
    """The splits of a stage, by number of shards, all of whose shards have a ledger."""
    splits: dict[int, list[LedgerFile]] = {}
    for ledger in root.of(stage):
        splits.setdefault(Shard.parse(ledger.shard).count, []).append(ledger)
    return {count: ledgers for count, ledgers in splits.items() if len(ledgers) == count}


def _current_options(frame: pl.DataFrame) -> str:
    """The configuration of the row that was finished last."""
    done = frame.filter(pl.col("status") == OK).sort("finished_at")
    return "" if done.is_empty() else str(done["config_hash"][-1])


def _needed(frame: pl.DataFrame) -> Iterator[str]:
    rows = frame.filter((pl.col("status") == OK) & (pl.col("config_hash") == _current_options(frame)))
    yield from rows["outputs"].explode().drop_nulls()


def _older_splits(root: Root, stage: str) -> Iterator[Garbage]:
    """Ledgers of a split none of whose rows is the newest of its sample, where a later split is complete."""
    whole = _whole_splits(root, stage)
    if not whole or len({Shard.parse(ledger.shard).count for ledger in root.of(stage)}) < 2:
        return
    newest = newest_rows(root.of(stage), ("key", "finished_at"))
    alive = set(newest["shard"].to_list())
    dates = {
        count: max(
            (str(read_ledger(one.path, ("finished_at",))["finished_at"].max() or "") for one in ledgers), default=""
        )
        for count, ledgers in whole.items()
    }
    kept = max(dates, key=lambda count: (dates[count], count))
    for ledger in root.of(stage):
        if Shard.parse(ledger.shard).count != kept and ledger.shard not in alive:
            why = f"every sample has a newer row in {kept} shards"
            yield from (
                Garbage("superseded_split", path, why)
                for path in (ledger.path.with_suffix(".journal.jsonl"), ledger.path)
                if path.exists()
            )


def _left_over(root: Root) -> Iterator[Garbage]:
    for path in root.path.rglob(".*.tmp"):
        if is_left_over(path):
            yield Garbage("left_over", path, "half-written by a process that is gone")
    for path in (root.path / "ledger").glob("*.lock"):
        with suppress(LockedError):
            refuse_live_owner(path)
            yield Garbage("left_over", path, "lock of a process that is gone")


def _is_ours(path: Path) -> bool:
    """Whether a stage-1 file was made by us: its meta names the options."""
    name = path.name
    for suffix in (VISIDX_SUFFIX, FRAME_IDS_SUFFIX, META_SUFFIX):
        name = name.removesuffix(suffix)
    try:
        return "config_hash" in json.loads(path.with_name(name + META_SUFFIX).read_text())
    except (OSError, ValueError):
        return not path.with_name(name + META_SUFFIX).exists()


def _visidx_files(root: Root) -> Iterator[Path]:
    folder = root.path / VISIDX if root.records is not None else root.path
    for path in _files_in(folder):
        for suffix in (VISIDX_SUFFIX, FRAME_IDS_SUFFIX, META_SUFFIX):
            if path.name.endswith(suffix) and parse_stage1_meta_name(path.name.removesuffix(suffix) + META_SUFFIX):
                yield path


def _pack_files(root: Root) -> Iterator[Path]:
    parents = sorted((root.path / "images").glob("shard*")) if root.records is not None else [root.path]
    for parent in parents:
        for folder in _folders_in(parent):
            if _PACK.fullmatch(folder.name):
                yield from (path for path in _files_in(folder) if _PACK_FILE.fullmatch(path.name))
                yield from (path for path in _files_in(folder / "patches") if path.suffix == ".jpg")


def _asset_files(root: Root) -> Iterator[Path]:
    for folder in _folders_in(root.path / ASSETS_FOLDER):
        for path in _files_in(folder):
            if path.name in _ASSET_FILES or re.fullmatch(r"mosaic_\d{3}\.jpg", path.name):
                yield path


def _files_in(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False))
    return []


def _folders_in(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    return []


_FILES = {VISIDX: _visidx_files, MOSAICS: _pack_files, ASSETS: _asset_files}


def _old_runs(lake: Path) -> Iterator[Garbage]:
    """Training runs older than the one that `current` names. A younger one may be at work, or go on."""
    for home in [path for stage in _RUN_STAGES for path in (*lake.glob(f"*/{stage}"), *lake.glob(stage))]:
        current = home / "current"
        if not current.is_symlink() or not (current / "run.json").is_file():
            continue
        newest, target = (current / "run.json").stat().st_mtime_ns, current.resolve()
        for folder in _folders_in(home):
            run = folder / "run.json"
            if not run.is_file() or folder.resolve() == target or run.stat().st_mtime_ns > newest:
                continue
            with suppress(LockedError):
                refuse_live_owner(folder / "train.lock")
                yield Garbage("old_run", folder, f"{home.parent.name}/{home.name} now is {target.name}")


def _freed(paths: Iterable[Path]) -> int:
    """Bytes that come free when these names go: those of files that keep no other."""
    names: dict[tuple[int, int], int] = {}
    size = 0
    for path in paths:
        found = file_size(path)
        if found is not None:
            names[found[1]] = names.get(found[1], 0) + 1
            if names[found[1]] == path.lstat().st_nlink:
                size += found[0]
    return size


def _folder_size(folder: Path) -> int:
    return _freed(Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
