"""What is done in a lake, and what failed: `ov status LAKE`, `ov failures LAKE`.

Both read the ledgers (Parquet, overlaid with the journals of shards that run or were cut off) and nothing else, column
by column. A lake, one dataset's folder and the output folder of `ov stage1`, `ov stage2` or `ov precompute` are read
alike.
"""

from __future__ import annotations

import io
import json
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ov_model.errors import UsageError
from ov_model.lake.layout import Shard
from ov_model.lake.ledger import DUPLICATE, FAILED, OK, PASSED, SCHEMA, SKIPPED, read_journal
from ov_model.lake.lock import EXPIRY
from ov_model.lake.processes import process_start
from ov_model.lake.urls import need_path

STAGE_ORDER = ("raw_videos", "visidx", "mosaics", "training_jsonl", "assets")
_JOURNAL = ".journal.jsonl"
_FAILURE_COLUMNS = ("row", "key", "id", "media", "reason", "detail", "attempts", "finished_at")


@dataclass(frozen=True)
class ShardStatus:
    """One stage of one shard. Counts are of records; bytes: of all outputs; finished_at: newest row, ISO 8601, UTC.

    state: `done`, `running` (by whom), or `cut off` when a run left a journal and nobody is at work. unsaved: rows that
    are still in the journal.
    """

    dataset: str
    stage: str
    shard: str
    rows: int
    ok: int
    passed: int
    failed: int
    duplicates: int
    skipped: int
    reasons: dict[str, int]
    signals: dict[str, int]
    bytes: int
    finished_at: str
    unsaved: int
    state: str


@dataclass(frozen=True)
class LedgerFile:
    """A ledger on disk. path: its Parquet file, perhaps not written yet; root: what its outputs are relative to."""

    dataset: str
    stage: str
    shard: str
    path: Path

    @property
    def root(self) -> Path:
        return self.path.parent.parent

    @property
    def order(self) -> tuple[str, int, str, int, int]:
        """Datasets by name, stages as they run, shards by number."""
        known = STAGE_ORDER.index(self.stage) if self.stage in STAGE_ORDER else len(STAGE_ORDER)
        shard = Shard.parse(self.shard)
        return self.dataset, known, self.stage, shard.count, shard.index


def status(lake: Path) -> list[ShardStatus]:
    """Count every ledger below a lake, those of its benchmarks included, by dataset, stage and shard.

    Raises:
        UsageError: no ledger there.
    """
    return [_count(ledger) for ledger in find_all_ledgers(lake)]


def failures(
    lake: Path,
    *,
    reason: str | None = None,
    dataset: str | None = None,
    stage: str | None = None,
    every_stage: bool = False,
) -> pl.DataFrame:
    """The failed rows of a lake: dataset, stage, shard, row, id, media, reason, detail, attempts, finished_at.

    A sample that failed in one stage fails in those after it too: only the first is listed, unless `every_stage` or a
    stage is asked for.

    Raises:
        UsageError: no ledger there.
    """
    frames = []
    for ledger in find_all_ledgers(lake):
        if (dataset or ledger.dataset) != ledger.dataset or (stage or ledger.stage) != ledger.stage:
            continue
        rows = scan_ledger(ledger.path, (*_FAILURE_COLUMNS, "status")).filter(pl.col("status") == FAILED)
        if reason is not None:
            rows = rows.filter(pl.col("reason") == reason)
        where = [pl.lit(getattr(ledger, name)).alias(name) for name in ("dataset", "stage", "shard")]
        frames.append(rows.select(*where, *_FAILURE_COLUMNS).collect())
    schema = dict.fromkeys(("dataset", "stage", "shard"), pl.String) | {n: SCHEMA[n] for n in _FAILURE_COLUMNS}
    found = pl.concat(frames) if frames else pl.DataFrame(schema=schema)
    if not every_stage and stage is None:
        found = found.unique(["dataset", "key"], keep="first", maintain_order=True)
    return found.drop("key")


def as_dicts(rows: Sequence[ShardStatus]) -> list[dict[str, Any]]:
    """Plain values, for JSON."""
    return [asdict(row) for row in rows]


def find_ledgers(lake: Path) -> list[LedgerFile]:
    """Every ledger below a lake or an output folder, in order.

    Raises:
        UsageError: there is none.
    """
    lake = need_path(lake, "the lake")
    folders = [lake / "ledger"] if (lake / "ledger").is_dir() else sorted(lake.glob("*/ledger"))
    found = sorted((ledger for folder in folders for ledger in _ledgers_in(folder)), key=lambda one: one.order)
    if not found:
        raise UsageError(
            f"{lake}: no ledger below it; give a lake (LAKE/DATASET/ledger) or the output folder of a stage "
            "(OUT_ROOT/ledger)"
        )
    return found


def find_all_ledgers(lake: Path) -> list[LedgerFile]:
    """As `find_ledgers`, with those of a lake's benchmarks (LAKE/benchmarks/<task>_offline/ledger)."""
    nested = [] if (lake / "ledger").is_dir() else sorted(path.parent for path in lake.glob("*/*_offline/ledger"))
    direct = find_ledgers(lake) if not nested or any(lake.glob("*/ledger")) else []
    return [*direct, *(ledger for root in nested for ledger in find_ledgers(root))]


def _ledgers_in(folder: Path) -> Iterator[LedgerFile]:
    """A ledger for each Parquet file, and for each journal of a shard that has none yet."""
    names = {path.name.removesuffix(".parquet") for path in folder.glob("*.shard*.parquet")}
    names |= {path.name.removesuffix(_JOURNAL) for path in folder.glob(f"*.shard*{_JOURNAL}")}
    for name in names:
        stage, _, shard = name.rpartition(".")
        yield LedgerFile(folder.absolute().parent.name, stage, shard, folder / f"{name}.parquet")


def _count(ledger: LedgerFile) -> ShardStatus:
    columns = ("status", "reason", "signal", "bytes", "finished_at")
    groups = (
        scan_ledger(ledger.path, columns)
        .group_by("status", "reason", "signal")
        .agg(pl.len().alias("rows"), pl.col("bytes").sum(), pl.col("finished_at").max())
        .collect()
    )
    by_status = _sums(groups, "status")
    unsaved = len(_read_journal(ledger.path, ("key",)))
    return ShardStatus(
        dataset=ledger.dataset,
        stage=ledger.stage,
        shard=ledger.shard,
        rows=sum(by_status.values()),
        ok=by_status.get(OK, 0),
        passed=by_status.get(PASSED, 0),
        failed=by_status.get(FAILED, 0),
        duplicates=by_status.get(DUPLICATE, 0),
        skipped=by_status.get(SKIPPED, 0),
        reasons=_sums(groups.filter(pl.col("status") == FAILED), "reason"),
        signals=_sums(groups.filter((pl.col("status") == OK) & (pl.col("signal") != "")), "signal"),
        bytes=int(groups.filter(pl.col("status") == OK)["bytes"].sum()),
        finished_at=str(groups["finished_at"].max() or ""),
        unsaved=unsaved,
        state=_state(ledger.path.with_suffix(".lock"), unsaved),
    )


def _sums(groups: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(groups.group_by(column).agg(pl.col("rows").sum()).sort(column).iter_rows())


def scan_ledger(path: Path, columns: Sequence[str]) -> pl.LazyFrame:
    """Some columns of a ledger. The journal is read first: a row compacted meanwhile is seen in both, not in none."""
    journal = _read_journal(path, ("key", *columns))
    wanted = list(dict.fromkeys(("key", *columns)))
    if not path.exists():
        return journal.lazy().select(columns)
    saved = pl.scan_parquet(path)
    if journal.is_empty():
        return saved.select(columns)
    older = saved.select(wanted).join(journal.lazy().select("key"), on="key", how="anti")
    return pl.concat([older, journal.lazy().select(wanted)]).select(columns)


def _read_journal(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Some columns of a ledger's journal: the last line of each sample, without a torn end."""
    schema = {name: SCHEMA[name] for name in columns}
    try:
        data = path.with_suffix(_JOURNAL).read_bytes()
    except FileNotFoundError:
        return pl.DataFrame(schema=schema)
    whole = data[: data.rfind(b"\n") + 1]
    if not whole:
        return pl.DataFrame(schema=schema)
    try:
        rows = pl.read_ndjson(io.BytesIO(whole), schema=schema)
    except pl.exceptions.ComputeError:
        return read_journal(path).select(list(schema))
    return rows.unique("key", keep="last", maintain_order=True)


def _state(lock: Path, unsaved: int) -> str:
    try:
        owner, beat = json.loads(lock.read_text()), lock.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return "cut off" if unsaved else "done"
    here = owner.get("host") == socket.gethostname()
    gone = here and process_start(int(owner.get("pid", 0))) != owner.get("started")
    if gone or time.time() - beat > EXPIRY:
        return "cut off"
    return f"running (process {owner.get('pid')} on {owner.get('host')})"


def print_status(rows: Sequence[ShardStatus], console: Console | None = None) -> None:
    """Print a line per dataset, stage and shard, and a line of totals per stage of more than one shard."""
    console = console or Console()
    numbers = ("rows", "ok", "failed")
    table = Table("dataset", "stage", "shard", show_edge=False, pad_edge=False)
    for name in (*numbers, "size"):
        table.add_column(name, justify="right")
    for name in ("of them", "signal", "newest (UTC)", "state"):
        table.add_column(name)
    stages: dict[tuple[str, str], list[ShardStatus]] = {}
    for row in rows:
        stages.setdefault((row.dataset, row.stage), []).append(row)
    previous = ""
    for (dataset, stage), shards in stages.items():
        if previous and dataset != previous:
            table.add_section()
        for row in shards:
            first = row is shards[0]
            names = (dataset if first and dataset != previous else "", stage if first else "", row.shard)
            table.add_row(*map(Text, (*names, *_cells([row]), row.finished_at[:16].replace("T", " "))), _styled(row))
        if len(shards) > 1:
            table.add_row("", "", "all", *_cells(shards), style="bold")
        previous = dataset
    console.print(table)


def _cells(rows: Sequence[ShardStatus]) -> tuple[str, ...]:
    """rows, ok, failed, size, of them, signal."""
    passed = sum(row.passed for row in rows)
    why = _merged(row.reasons for row in rows)
    for name in ("duplicates", "skipped"):
        if count := sum(getattr(row, name) for row in rows):
            why[name] = count
    if passed:
        why["without video"] = passed
    signals = _merged(row.signals for row in rows)
    return (
        f"{sum(row.rows for row in rows):,}",
        f"{sum(row.ok + row.passed for row in rows):,}",
        f"{sum(row.failed for row in rows):,}",
        size_text(size) if (size := sum(row.bytes for row in rows)) else "",
        ", ".join(f"{count:,} {name}" for name, count in why.items()),
        ", ".join(f"{count:,} {name}" for name, count in signals.items()),
    )


def _merged(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _styled(row: ShardStatus) -> Text:
    state = f"{row.state}, {row.unsaved:,} rows in the journal" if row.unsaved else row.state
    style = {"done": "green", "cut off": "yellow"}.get(row.state, "cyan")
    return Text(state, style)


def size_text(count: int) -> str:
    """Bytes for people: 1.2 GB."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def print_failures(found: pl.DataFrame, *, limit: int = 100, console: Console | None = None) -> None:
    """Print failed rows, the first `limit`, and how many there are by reason."""
    console = console or Console()
    for row in found.head(limit).iter_rows(named=True):
        head = f"{row['dataset']}/{row['stage']} {row['shard']} row {row['row']}  id {row['id']}  {row['media']}"
        console.print(Text(head), soft_wrap=True)
        console.print(Text.assemble("    ", (row["reason"], "bold red"), f": {row['detail']}"), soft_wrap=True)
    if found.height > limit:
        console.print(f"... and {found.height - limit:,} more; --limit shows more, --reason picks")
    counts = found["reason"].value_counts(sort=True).iter_rows()
    by_reason = ", ".join(f"{count:,} {reason}" for reason, count in counts)
    console.print(f"{found.height:,} failed" + (f": {by_reason}" if by_reason else ""))
