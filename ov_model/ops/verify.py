"""Hold every ledger row against the files that it names: `ov verify LAKE [--hash] [--repair]`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.errors import DamagedOutput
from ov_model.lake.files import hash_arrays, hash_file, read_array
from ov_model.lake.layout import ASSET_META
from ov_model.lake.ledger import FAILED, OK, read_ledger, rewrite_ledger
from ov_model.lake.media import hash_media
from ov_model.lake.progress import Progress
from ov_model.lake.stages import ASSETS, MOSAICS, RAW, VISIDX
from ov_model.ops.roots import Root, find_roots, held
from ov_model.status import LedgerFile

_COLUMNS = ("key", "id", "media", "status", "path", "size", "content_hash", "outputs", "output_hash", "bytes")
_NPY_HEADER = 128
_BATCH = 10_000
_LOG_EVERY = 10_000


@dataclass(frozen=True)
class Fault:
    """A row whose files are not what it says.

    code: missing_output, wrong_size, wrong_hash, unreadable_output; of raw media missing_media, changed_media.
    """

    ledger: Path
    stage: str
    shard: str
    key: str
    id: str
    code: str
    message: str


@dataclass
class Verification:
    """rows: finished ones that were looked at; marked: how many the next run will redo."""

    rows: int = 0
    files: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    marked: int = 0

    @property
    def exit_code(self) -> int:
        """0 all is well, 3 some rows have faults, 1 all of them."""
        if not self.faults:
            return 0
        return 1 if self.rows and len(self.faults) >= self.rows else 3


def verify(lake: Path, *, hashes: bool = False, repair: bool = False, threads: int = 4) -> Verification:
    """Look every finished row's outputs up: there, of the recorded size and, asked for, of the recorded hash.

    Args:
        repair: mark the rows with faults as failed (`damaged_output`), so that the next run makes them anew. Raw media
            are not ours: their rows are marked too, and the next `raw_videos` says what became of them.
    Raises:
        UsageError: no ledger there. LockedError: to be repaired, but a stage is at work.
    """
    result = Verification()
    for root in find_roots(lake):
        ledgers = [ledger for ledger in root.ledgers if ledger.stage in _CHECKS]
        total = sum(read_ledger(ledger.path, ("status",)).filter(status=OK).height for ledger in ledgers)
        with Progress(f"verify {root.name}", total, _LOG_EVERY) as progress:
            for ledger in ledgers:
                faults = list(_verify(root, ledger, result, progress, hashes=hashes, threads=threads))
                result.faults += faults
                if repair and faults:
                    result.marked += _mark(ledger, faults)
    return result


def _verify(
    root: Root, ledger: LedgerFile, result: Verification, progress: Progress, *, hashes: bool, threads: int
) -> Iterator[Fault]:
    rows = read_ledger(ledger.path, _COLUMNS).filter(status=OK)
    check = partial(_CHECKS[ledger.stage], root.path, hashes)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        for start in range(0, rows.height, _BATCH):
            batch = list(rows[start : start + _BATCH].iter_rows(named=True))
            for row, (problem, size) in zip(batch, pool.map(check, batch), strict=True):
                result.rows += 1
                result.files += len(row["outputs"])
                result.bytes += size
                progress.advance(ok=problem is None)
                if problem is not None:
                    yield Fault(ledger.path, ledger.stage, ledger.shard, row["key"], row["id"], *problem)


def _mark(ledger: LedgerFile, faults: Sequence[Fault]) -> int:
    """Mark rows that still say what was found to be wrong; those of a run that came between stay."""
    problems = {fault.key: f"{fault.code}: {fault.message}" for fault in faults}
    with held([ledger.path]):
        frame = read_ledger(ledger.path)
        bad = pl.col("key").is_in(list(problems)) & (pl.col("status") == OK)
        detail = pl.col("key").replace_strict(problems, default="", return_dtype=pl.String)
        marks: dict[str, Any] = {"status": pl.lit(FAILED), "reason": pl.lit(DamagedOutput.reason), "detail": detail}
        marks |= {"input_hash": pl.lit("")}
        count = frame.filter(bad).height
        changed = [pl.when(bad).then(value).otherwise(pl.col(name)).alias(name) for name, value in marks.items()]
        rewrite_ledger(ledger.path, frame.with_columns(changed))
    return count


Checked = tuple[tuple[str, str] | None, int]


def _files(root: Path, row: dict[str, Any]) -> tuple[list[Path], list[int], tuple[str, str] | None]:
    paths = [root / output for output in row["outputs"]]
    sizes = []
    for path in paths:
        try:
            sizes.append(os.stat(path).st_size)
        except OSError as error:
            return paths, sizes, ("missing_output", f"{path}: {error.strerror}")
    return paths, sizes, None


def _check_raw(_: Path, hashes: bool, row: dict[str, Any]) -> Checked:
    path = Path(row["path"])
    try:
        size, content = hash_media(path) if hashes or path.is_dir() else (path.stat().st_size, row["content_hash"])
    except OSError as error:
        return ("missing_media", f"{path}: {error.strerror}"), 0
    if size != row["size"] or content != row["content_hash"]:
        found = f"{size} bytes, SHA-256 {content[:12]}" if size == row["size"] else f"{size} bytes"
        wanted = f"{row['size']} bytes, SHA-256 {row['content_hash'][:12]}"
        return ("changed_media", f"{path}: {found}; the ledger says {wanted}"), 0
    return None, 0


def _check_visidx(root: Path, hashes: bool, row: dict[str, Any]) -> Checked:
    paths, sizes, problem = _files(root, row)
    if problem is None and sizes[2] == 0:
        problem = ("wrong_size", f"{paths[2]}: 0 bytes")
    if problem is None and sum(sizes[:2]) != row["bytes"] + 2 * _NPY_HEADER:
        problem = (
            "wrong_size",
            f"{paths[0]} and {paths[1].name}: {sum(sizes[:2])} bytes, expected {row['bytes']} + 256",
        )
    if problem is None and hashes:
        try:
            content = hash_arrays(read_array(paths[0]), read_array(paths[1]))
        except (OSError, ValueError, EOFError) as error:
            return ("unreadable_output", f"{paths[0]}: {error}"), sum(sizes)
        problem = _compare(content, row, paths[0])
    return problem, sum(sizes)


def _check_pack(root: Path, hashes: bool, row: dict[str, Any]) -> Checked:
    paths, sizes, problem = _files(root, row)
    made = [(path, size) for path, size in zip(paths, sizes, strict=False) if path.name != ASSET_META]
    if problem is None and sum(size for _, size in made) != row["bytes"]:
        found = sum(size for _, size in made)
        problem = ("wrong_size", f"{paths[0].parent}: {found} bytes in {len(made)} files, expected {row['bytes']}")
    if problem is None and hashes:
        problem = _compare(hash_files([path for path, _ in made]), row, paths[0].parent)
    return problem, sum(sizes)


def hash_files(paths: Sequence[Path]) -> str:
    """The content hash that `write_pack` records: SHA-256 over the files' SHA-256 in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(hash_file(path)))
    return digest.hexdigest()


def _compare(content: str, row: dict[str, Any], where: Path) -> tuple[str, str] | None:
    if content == row["output_hash"]:
        return None
    return "wrong_hash", f"{where}: content hash {content[:12]}, the ledger says {row['output_hash'][:12]}"


_CHECKS: dict[str, Callable[[Path, bool, dict[str, Any]], Checked]] = {
    RAW: _check_raw,
    VISIDX: _check_visidx,
    MOSAICS: _check_pack,
    ASSETS: _check_pack,
}
