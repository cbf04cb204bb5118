"""The operator's commands of `ov`: adopt, remove, gc, du, reshard, plan, verify. Argument parsing and printing only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter
from rich.table import Table
from rich.text import Text

from ov_model.errors import UsageError
from ov_model.precompute import PrecomputeConfig
from ov_model.stage1 import Stage1Config
from ov_model.stage2 import Stage2Config
from ov_model.status import size_text
from ov_model.terminal import console, print_json

if TYPE_CHECKING:
    from ov_model.ops.adopt import Adopted
    from ov_model.ops.plan import Estimate, Plan

_SHOWN = 20
_STYLE = Parameter(name_transform=lambda name: name, negative_bool="no-", negative_iterable=())
Kind = Literal["orphan", "superseded_options", "superseded_split", "old_run", "left_over"]

OPERATE = Group.create_ordered("Operate a lake")

adopt_app = App(
    name="adopt",
    help="Check existing outputs of the reference's tools and enter them in the ledger, not to be made again.",
    group=OPERATE,
    default_parameter=_STYLE,
)
plan_app = App(
    name="plan",
    help="Say what a run will take: samples, hours and bytes, from 20 samples done for real in a temporary folder.",
    group=OPERATE,
    default_parameter=_STYLE,
)


def register(app: App) -> None:
    """Add the operator's commands to `ov`."""
    for tool in (adopt_app, plan_app):
        app.command(tool)
    for command in (remove, gc, du, reshard, verify):
        app.command(command, group=OPERATE)


@adopt_app.command(name="stage1")
def adopt_stage1(*, config: Annotated[Stage1Config, Parameter(name="*")], json: bool = False) -> int:
    """Adopt stage-1 files below OUT_ROOT; give the options that `ov stage1` will have."""
    from ov_model.ops.adopt import adopt_stage1

    return _print_adopted(adopt_stage1(config), json=json)


@adopt_app.command(name="stage2")
def adopt_stage2(*, config: Annotated[Stage2Config, Parameter(name="*")], json: bool = False) -> int:
    """Adopt mosaics below OUT_IMAGE_ROOT, and check OUT_JSONL; give the options that `ov stage2` will have."""
    from ov_model.ops.adopt import adopt_stage2

    return _print_adopted(adopt_stage2(config), json=json)


@adopt_app.command(name="precompute")
def adopt_precompute(*, config: Annotated[PrecomputeConfig, Parameter(name="*")], json: bool = False) -> int:
    """Adopt benchmark assets below OUT_ROOT/assets; give the options that `ov precompute` will have."""
    from ov_model.ops.adopt import adopt_precompute

    return _print_adopted(adopt_precompute(config), json=json)


@plan_app.command(name="stage1")
def plan_stage1(*, config: Annotated[Stage1Config, Parameter(name="*")], samples: int = 20, json: bool = False) -> None:
    """Plan `ov stage1` with the same options; --samples are tried."""
    from ov_model.ops.plan import plan_stage1

    _print_plan(plan_stage1(config, samples), json=json)


@plan_app.command(name="stage2")
def plan_stage2(*, config: Annotated[Stage2Config, Parameter(name="*")], samples: int = 20, json: bool = False) -> None:
    """Plan `ov stage2` with the same options; --samples are tried."""
    from ov_model.ops.plan import plan_stage2

    _print_plan(plan_stage2(config, samples), json=json)


@plan_app.command(name="precompute")
def plan_precompute(
    *, config: Annotated[PrecomputeConfig, Parameter(name="*")], samples: int = 20, json: bool = False
) -> None:
    """Plan `ov precompute` with the same options; --samples are tried."""
    from ov_model.ops.plan import plan_precompute

    _print_plan(plan_precompute(config, samples), json=json)


def remove(
    dataset: Path,
    /,
    *samples: str,
    media: tuple[str, ...] = (),
    content_hash: tuple[str, ...] = (),
    restore: bool = False,
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Take records out of a dataset for good: their files, rows and lines. Raw data and media stay.

    Parameters
    ----------
    dataset
        One dataset of a lake, LAKE/DATASET.
    samples
        Ids, or keys `media|id|row`.
    media
        A medium's path; every record that uses it goes, later ones too. May be given several times.
    content_hash
        The same by SHA-256.
    restore
        Let what is named come back instead, with the next materialization of `records`.
    dry_run
        Only list what would go.
    json
        Print JSON instead.
    """
    from ov_model.ops.remove import What
    from ov_model.ops.remove import remove as take_out
    from ov_model.ops.remove import restore as bring_back

    what = What(samples, media, content_hash)
    if what == What():
        raise UsageError("nothing to remove: give ids, keys, --media or --content_hash")
    out = console()
    if restore:
        stones = bring_back(dataset, what)
        for stone in stones:
            out.print(Text(f"restored {stone.key or stone.media}"), soft_wrap=True)
        out.print("materialize records and what follows it, and they are back")
        return 0
    done = take_out(dataset, what, dry_run=dry_run)
    if json:
        plain = {"records": [{"row": r.row, "id": r.id, "media": r.media} for r in done.records]}
        print_json({**asdict(done), **plain})
        return 0
    verb = "would remove" if dry_run else "removed"
    for record in done.records[:_SHOWN]:
        out.print(Text(f"{verb} record {record.row}  id {record.id}  {record.media}"), soft_wrap=True)
    _more(len(done.records))
    if dry_run:
        for path in done.files:
            out.print(Text(f"    {path}"), soft_wrap=True)
    lines = ", ".join(f"{count} of {name}" for name, count in done.lines.items()) or "none"
    rows = ", ".join(f"{count} {stage}" for stage, count in done.rows.items() if count) or "none"
    out.print(
        f"{len(done.records)} records, {len(done.files)} files, {size_text(done.bytes)}; lines: {lines}; rows: {rows}"
    )
    for path in done.rebuild:
        out.print(f"{path} was not up to date and {verb.split()[-1]}d as a whole; materialize it again", soft_wrap=True)
    if not dry_run:
        out.print("mixtures and checkpoints made from it are stale: materialize them again")
    return 0


def gc(
    lake: Path, /, *, yes: bool = False, dry_run: bool = False, kind: tuple[Kind, ...] = (), json: bool = False
) -> int:
    """List what a lake holds that nothing needs any more; with --yes, remove it.

    Parameters
    ----------
    lake
        A lake, one dataset of it, or the output folder of a stage.
    yes
        Remove it. Results of other options go only when --kind superseded_options asks for them.
    dry_run
        Only list, which is what happens without --yes too.
    kind
        Only this kind; may be given several times.
    json
        Print JSON instead.
    """
    from ov_model.ops.gc import DEFAULT_KINDS, KINDS, collect

    if yes and dry_run:
        raise UsageError("--yes and --dry_run contradict each other; give one of them")
    found = collect(lake, kinds=kind or (DEFAULT_KINDS if yes else KINDS), dry_run=not yes)
    if json:
        print_json(asdict(found))
        return 0
    out = console()
    for item in found.items:
        out.print(Text(f"{item.kind:18}  {item.path}  ({item.why})"), soft_wrap=True)
    for text in found.spared:
        out.print(Text(f"not judged: {text}"), soft_wrap=True)
    verb = "removed" if yes else "could be removed with --yes"
    out.print(f"{len(found.items):,} {verb}, {size_text(found.bytes)}")
    if not yes and not kind and any(item.kind == "superseded_options" for item in found.items):
        out.print("results of other options (superseded_options) go only with --kind superseded_options --yes")
    return 0


def du(lake: Path, /, *, json: bool = False) -> None:
    """Say what each dataset, stage and shard takes on disk.

    Parameters
    ----------
    lake
        A lake, one dataset of it, or the output folder of a stage.
    json
        Print JSON instead.
    """
    from ov_model.ops.du import usage

    rows = usage(lake)
    if json:
        print_json([asdict(row) for row in rows])
        return
    table = Table("dataset", "stage", "shard", show_edge=False, pad_edge=False)
    for name in ("samples", "files", "size", "shared", "missing"):
        table.add_column(name, justify="right")
    for row in rows:
        numbers = (
            f"{row.samples:,}",
            f"{row.files:,}",
            size_text(row.bytes),
            size_text(row.shared),
            f"{row.missing:,}",
        )
        table.add_row(Text(row.dataset), row.stage, row.shard, *numbers)
    total = size_text(sum(row.bytes for row in rows))
    table.add_row("all", "", "", "", f"{sum(row.files for row in rows):,}", total, "", "", style="bold")
    console().print(table)


def reshard(dataset: Path, shards: int, /, *, json: bool = False) -> None:
    """Move finished samples to another number of shards; nothing is decoded.

    Parameters
    ----------
    dataset
        One dataset of a lake, or the output folder of a stage.
    shards
        How many there are to be; give the next runs (num_shards) the same number.
    json
        Print JSON instead.
    """
    from ov_model.ops.reshard import reshard as deal

    done = deal(dataset, shards)
    if json:
        print_json(asdict(done))
        return
    before = " and ".join(map(str, done.before))
    rows = ", ".join(f"{count:,} {stage}" for stage, count in done.rows.items())
    console().print(f"{done.root}: {before} shards are {done.shards} now ({rows}); set num_shards to {done.shards}")


def verify(lake: Path, /, *, hash: bool = False, repair: bool = False, threads: int = 4, json: bool = False) -> int:  # noqa: A002
    """Check that every file the ledgers name is there and of its size.

    Parameters
    ----------
    lake
        A lake, one dataset of it, or the output folder of a stage.
    hash
        Read the files, and raw media, and compare their hashes too.
    repair
        Mark rows with faults, so that the next run makes them anew.
    threads
        Files looked at together.
    json
        Print JSON instead.
    """
    from ov_model.ops.verify import verify as check

    found = check(lake, hashes=hash, repair=repair, threads=threads)
    if json:
        print_json(asdict(found))
        return found.exit_code
    out = console()
    for fault in found.faults[:_SHOWN]:
        where = f"{fault.ledger.parent.parent.name}/{fault.stage} {fault.shard}  id {fault.id}"
        out.print(Text.assemble(f"{where}  ", (fault.code, "bold red"), f": {fault.message}"), soft_wrap=True)
    _more(len(found.faults))
    marked = f"; {found.marked} rows marked, the next run makes them anew" if found.marked else ""
    size = size_text(found.bytes)
    out.print(f"{found.rows:,} rows, {found.files:,} files, {size}: {len(found.faults)} with faults{marked}")
    return found.exit_code


def _more(count: int) -> None:
    if count > _SHOWN:
        console().print(f"... and {count - _SHOWN:,} more; --json lists all")


def _print_adopted(adopted: Adopted, *, json: bool) -> int:
    from ov_model.ops.adopt import as_dict, problem_counts

    if json:
        print_json(as_dict(adopted))
        return adopted.exit_code
    out = console()
    for problem in adopted.problems[:_SHOWN]:
        out.print(
            Text.assemble(f"{problem.sample_id}  ", (problem.code, "bold red"), f": {problem.message}"), soft_wrap=True
        )
    _more(len(adopted.problems))
    left = sum(adopted.left_out.values())
    counts = f" ({problem_counts(adopted.problems)})" if adopted.problems else ""
    out.print(
        f"{adopted.stage}: {adopted.adopted} adopted, {adopted.already} were in the ledger, {left} left out, "
        f"{len(adopted.problems)} problems{counts}",
        soft_wrap=True,
    )
    return adopted.exit_code


def _print_plan(plan: Plan, *, json: bool) -> None:
    if json:
        print_json(asdict(plan))
        return
    table = Table(title=f"plan of {plan.stage}", title_justify="left", show_header=False)
    table.add_row("records", f"{plan.records:,} with {plan.media:,} videos")
    table.add_row("done already", f"{plan.done:,} videos")
    table.add_row("to do", f"{plan.todo:,} videos")
    table.add_row("tried", f"{plan.tried}, of them {plan.failed} failed")
    table.add_row("seconds each", _span(plan.seconds_each, lambda value: f"{value:.2f}"))
    table.add_row("hours", f"{_span(plan.hours, lambda value: f'{value:.2f}')} with {plan.workers} workers")
    table.add_row("bytes", _span(plan.bytes, lambda value: size_text(int(value)) if value < 1e18 else "?"))
    console().print(table)


def _span(estimate: Estimate, show: Callable[[float], str]) -> str:
    return f"{show(estimate.value)} ({show(estimate.low)} to {show(estimate.high)})"
