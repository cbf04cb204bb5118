"""The page: what a lake's ledgers and score tables say, with pictures of samples, in one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined

from ov_model import __version__
from ov_model.errors import UsageError
from ov_model.lake.files import write_bytes
from ov_model.lake.ledger import OK
from ov_model.plots import BAD, draw_counts, draw_spread
from ov_model.report.samples import Picked, failed_rows, pick_samples
from ov_model.status import LedgerFile, ShardStatus, find_all_ledgers, scan_ledger, size_text, status

TEMPLATE = "report.html.j2"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """How much a report shows.

    samples: pictures of each dataset and signal. at_most: pictures in all. failures: rows of each dataset and reason.
    """

    samples: int = 3
    at_most: int = 24
    failures: int = 20

    def __post_init__(self) -> None:
        for name in ("samples", "at_most", "failures"):
            if getattr(self, name) < 0:
                raise UsageError(f"--{name} is {getattr(self, name)}; it must be at least 0")


def write_report(lake: Path, out: Path, options: ReportOptions | None = None) -> int:
    """Write the page about a lake, a dataset of it, or the output folder of a stage; returns its size in bytes.

    Raises:
        UsageError: no ledger and no scores there.
    """
    html = make_report(lake, options or ReportOptions()).encode()
    write_bytes(out, html)
    return len(html)


def make_report(lake: Path, options: ReportOptions) -> str:
    """The page as text."""
    board, board_plot = _board(lake)
    try:
        ledgers, rows = find_all_ledgers(lake), status(lake)
    except UsageError:
        if board is None:
            raise
        ledgers, rows = [], []
    picked = pick_samples(ledgers, options.samples, options.at_most)
    failed, reasons = failed_rows(ledgers, options.failures)
    environment = Environment(loader=PackageLoader("ov_model.report", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"number": lambda value: f"{value:,}", "size": size_text}
    return environment.get_template(TEMPLATE).render(
        lake=lake.absolute(),
        version=__version__,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        totals=_totals(rows),
        stages=_stages(rows),
        shards=rows,
        samples=[_card(shown) for shown in picked.shown],
        left_out=_left_out(picked),
        failed=failed,
        failed_in_all=sum(reasons.values()),
        reasons=reasons,
        reasons_plot=_uri(draw_counts(reasons, "failed samples by reason", BAD, 760)) if reasons else "",
        signals=sorted({shown.signal for shown in picked.shown if shown.signal}),
        speeds=_speeds(ledgers),
        board=board,
        board_plot=board_plot,
    )


def _totals(rows: Sequence[ShardStatus]) -> list[tuple[str, str]]:
    """The page's first figures: of first stages, for a sample passes several."""
    datasets = sorted({row.dataset for row in rows})
    first = {name: next(row.stage for row in rows if row.dataset == name) for name in datasets}
    records = sum(row.rows for row in rows if row.stage == first[row.dataset])
    busy = sum(row.state != "done" for row in rows)
    return [
        ("datasets", f"{len(datasets):,}"),
        ("records", f"{records:,}"),
        ("shards", f"{len({(row.dataset, row.shard) for row in rows}):,}"),
        ("made", size_text(sum(row.bytes for row in rows))),
        ("shards at work or cut off", f"{busy:,}"),
    ]


def _stages(rows: Sequence[ShardStatus]) -> list[dict[str, Any]]:
    """A line per dataset and stage."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        line = found.setdefault(
            (row.dataset, row.stage),
            {"dataset": row.dataset, "stage": row.stage, "shards": 0, "rows": 0, "ok": 0, "failed": 0, "bytes": 0}
            | {"reasons": {}, "signals": {}, "newest": ""},
        )
        line["shards"] += 1
        line["rows"] += row.rows
        line["ok"] += row.ok + row.passed
        line["failed"] += row.failed
        line["bytes"] += row.bytes
        line["newest"] = max(line["newest"], row.finished_at[:16].replace("T", " "))
        for name in ("reasons", "signals"):
            for key, count in getattr(row, name).items():
                line[name][key] = line[name].get(key, 0) + count
    return list(found.values())


def _speeds(ledgers: Sequence[LedgerFile]) -> list[dict[str, Any]]:
    """Per dataset and stage: seconds a medium in its worker, and their spread."""
    groups: dict[tuple[str, str], list[float]] = {}
    for ledger in ledgers:
        rows = scan_ledger(ledger.path, ("status", "computed", "seconds"))
        worked = rows.filter(pl.col("status") == OK, pl.col("computed"), pl.col("seconds") > 0).collect()
        groups.setdefault((ledger.dataset, ledger.stage), []).extend(worked["seconds"].to_list())
    found = []
    for (dataset, stage), seconds in groups.items():
        if seconds:
            series = pl.Series(seconds)
            title = f"{dataset}/{stage}: seconds of work a video"
            found.append(
                {
                    "dataset": dataset,
                    "stage": stage,
                    "media": len(seconds),
                    "median": series.median(),
                    "p95": series.quantile(0.95),
                    "rate": len(seconds) / sum(seconds),
                    "plot": _uri(draw_spread(seconds, title, "seconds", 560, 180)) if len(seconds) > 7 else "",
                }
            )
    return found


def _card(shown: Any) -> dict[str, Any]:
    about = {name: getattr(shown, name) for name in ("dataset", "stage", "shard", "id", "media", "signal", "note")}
    return about | {"picture": _uri(shown.picture, "jpeg"), "energy": _uri(shown.energy)}


def _left_out(picked: Picked) -> list[str]:
    """What of the samples is not shown, in words."""
    return [
        f"{dataset}/{stage}{f', signal {signal}' if signal else ''}: {shown:,} of {total:,} samples shown"
        for (dataset, stage, signal), (shown, total) in sorted(picked.counts.items())
        if shown < total
    ]


def _board(lake: Path) -> tuple[Mapping[str, Any] | None, str]:
    """The score table of finished runs below the lake, and its plot; nothing where there are none."""
    from ov_model.eval.leaderboard import as_table, draw, leaderboard, read_scores

    folders = [path for path in (lake / "scores", *sorted(lake.glob("*/scores"))) if path.is_dir()]
    scores = read_scores(folders or ([] if (lake / "ledger").is_dir() else [lake]))
    if not scores.height:
        return None, ""
    table = as_table(leaderboard(scores))
    return {"header": table.header, "rows": table.rows}, _uri(draw(scores))


def _uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}" if data else ""
