"""Bring the ledgers of one shard up to date: plan what is missing, run it in workers, share it, record it.

Whatever stages are given run on one decode per medium. A sample is done when its ledger row's input and configuration
hashes match; a failed one is done too until its input changes or `retry_failed` asks for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from ov_model.errors import DuplicateRecord, MissingFile, MissingVisidx, SampleError, UsageError
from ov_model.lake.files import remove_temporaries
from ov_model.lake.layout import Shard
from ov_model.lake.ledger import (
    COUNTED,
    DUPLICATE,
    FAILED,
    OK,
    PASSED,
    SKIPPED,
    Report,
    Row,
    read_ledger,
    row_error,
    summarize,
)
from ov_model.lake.media import KNOWN, MediaFile, MediaPolicy, examine, known_hashes
from ov_model.lake.progress import Progress, log
from ov_model.lake.records import Record
from ov_model.lake.remote_ledger import open_ledger, pull_ledgers
from ov_model.lake.remote_work import do_anywhere
from ov_model.lake.stages import (
    ASSETS,
    MOSAICS,
    RAW,
    VISIDX,
    AssetsStage,
    MosaicsStage,
    Stage,
    VisidxRef,
    VisidxStage,
    ref_from_row,
)
from ov_model.lake.store import RemoteStore
from ov_model.lake.work import Job, Result, Sample, failed_result
from ov_model.lake.workers import Outcome, RunOptions, run_tasks


@dataclass
class _Todo:
    """A sample that a stage has yet to do; `upstream` is None while this run's stage 1 has yet to say."""

    record: Record
    media: MediaFile
    upstream: str | None


@dataclass
class _Group:
    """The samples, by stage, whose media hold the same bytes."""

    todo: dict[str, list[_Todo]] = field(default_factory=dict)


def run_shard(
    records: Iterable[Record],
    stages: Sequence[Stage],
    shard: Shard,
    policy: MediaPolicy,
    options: RunOptions,
    *,
    hints: Sequence[Path] = (),
    title: str = "",
) -> dict[str, Report]:
    """Run stages on a shard's records.

    Args:
        stages: any of raw, visidx, mosaics, in this order (the last two together decode each video once), or assets.
        policy: how media paths are resolved.
        hints: ledgers of other stages whose content hashes may be trusted.
    Returns:
        a Report by stage name.
    Raises:
        LockedError: another process is writing this shard. UsageError: options contradict stage 1's files.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        run = _ShardRun(stages, shard, policy, options, stack)
        run.plan(list(_limited(records, options.max_samples)), hints)
        run.execute(title or shard.key)
        return run.finish(start)


def _limited(records: Iterable[Record], limit: int | None) -> Iterator[Record]:
    for count, record in enumerate(records):
        if limit and count >= limit:
            return
        yield record


class _ShardRun:
    def __init__(
        self,
        stages: Sequence[Stage],
        shard: Shard,
        policy: MediaPolicy,
        options: RunOptions,
        stack: ExitStack,
    ) -> None:
        self.stages = {stage.name: stage for stage in stages}
        self.ledgers = {
            stage.name: stack.enter_context(open_ledger(stage.store, stage.name, shard)) for stage in stages
        }
        self.policy, self.options = policy, options
        self.remote_store = next((stage.store for stage in stages if isinstance(stage.store, RemoteStore)), None)
        self.groups: dict[str, _Group] = {}
        self.refs: dict[str, VisidxRef] = {}
        self.pending: set[str] = set()
        self.reused = dict.fromkeys(self.stages, 0)
        self.computed = dict.fromkeys(self.stages, 0)

    def plan(self, records: Sequence[Record], hints: Sequence[Path]) -> None:
        """Settle what needs no worker; gather the rest by content."""
        for stage in self.stages.values():
            if self.ledgers[stage.name].interrupted and stage.folder.is_dir():
                remove_temporaries(stage.folder, deep=True)
        earlier = [ledger.previous(*KNOWN) for ledger in self.ledgers.values()]
        known = known_hashes([*earlier, *(read_ledger(hint, KNOWN) for hint in hints)])
        self._look_at_outputs()
        media = list(dict.fromkeys(record.media for record in records if record.kind == "video"))
        files = examine(media, self.policy, known, self.options.num_workers)
        seen: set[str] = set()
        keys: set[str] = set()
        for record in records:
            if record.key in keys:
                raise UsageError(f"{record.key}: two records carry this row number, id and medium; number them anew")
            keys.add(record.key)
            error: SampleError | None = record.error
            if record.content_hash in seen:
                error = DuplicateRecord(f"record {record.row} (id {record.id!r}) repeats an earlier one byte for byte")
            seen.add(record.content_hash)
            error = error or self._image_error(record)
            found = files.get(record.media) if record.kind == "video" else None
            for stage in self.stages.values():
                self._plan_sample(stage, record, found, error)

    def _look_at_outputs(self) -> None:
        """Ask a remote root at once for the outputs that will be asked for one by one."""
        if self.remote_store is not None:
            self.remote_store.forget()
        for name, stage in self.stages.items():
            if isinstance(stage.store, RemoteStore):
                done = self.ledgers[name].previous("status", "outputs").filter(pl.col("status") == OK)
                stage.store.look(done["outputs"].list.first().drop_nulls())

    def _image_error(self, record: Record) -> SampleError | None:
        """Why an image of an image record cannot be used, or None."""
        try:
            for image in record.images if record.kind == "image" else []:
                self.policy.find(image)
        except SampleError as error:
            return error
        return None

    def _plan_sample(
        self, stage: Stage, record: Record, found: MediaFile | SampleError | None, error: SampleError | None
    ) -> None:
        media = found if isinstance(found, MediaFile) else None
        if error is None and isinstance(found, SampleError):
            error = found
        upstream: str | None = ""
        if error is None and media is not None:
            try:
                stage.check(record)
                upstream = self._upstream(stage, record, media.content_hash)
            except SampleError as unusable:
                error = unusable
        prior = self.ledgers[stage.name].find(record.key)
        if error is not None or media is None:
            self._settle(stage, prior, sample_row(stage, record, media, error))
        elif upstream is not None and self._is_done(
            stage, prior, stage.input_hash(record, media.content_hash, upstream)
        ):
            self.reused[stage.name] += 1
            self._keep(stage, record, prior)
        elif self.options.retry_failed and upstream is not None and (prior is None or prior.status != FAILED):
            self._keep(stage, record, prior)
        else:
            group = self.groups.setdefault(f"{media.content_hash} {upstream or ''}", _Group())
            group.todo.setdefault(stage.name, []).append(_Todo(record, media, upstream))
            if stage.name == VISIDX:
                self.pending.add(record.key)

    def _upstream(self, stage: Stage, record: Record, content_hash: str) -> str | None:
        """Hash of what stage 2 builds on; None when this run's stage 1 has yet to make it."""
        if not isinstance(stage, MosaicsStage) or VISIDX not in self.stages:
            return stage.upstream(record, content_hash)
        if record.key in self.pending:
            return None
        ref = self.refs.get(record.key)
        if ref is not None:
            return stage.use(ref, content_hash)
        prior = self.ledgers[VISIDX].find(record.key)
        raise (
            row_error(prior) if prior else MissingVisidx(f"{record.id}: stage 1 has no row for it; run stage 1 first")
        )

    def _is_done(self, stage: Stage, prior: Row | None, wanted: str) -> bool:
        if prior is None or prior.input_hash != wanted or prior.config_hash != stage.config_hash:
            return False
        if prior.reason in (MissingVisidx.reason, MissingFile.reason):  # it is there now
            return False
        if prior.status == OK and not stage.stands(prior):
            return False
        return not self.options.overwrite and not (prior.status == FAILED and self.options.retry_failed)

    def _keep(self, stage: Stage, record: Record, prior: Row | None) -> None:
        if prior is None:
            return
        self.ledgers[stage.name].keep(record.key)
        if isinstance(stage, VisidxStage) and prior.status == OK:
            self.refs[record.key] = ref_from_row(prior, stage.root)

    def _settle(self, stage: Stage, prior: Row | None, row: Row) -> None:
        """Record a sample that needs no worker, unless the ledger says the same already."""
        compared = ("row", "status", "reason", "detail", "config_hash", "input_hash")
        if prior is not None and all(getattr(prior, name) == getattr(row, name) for name in compared):
            self.reused[stage.name] += 1
            self.ledgers[stage.name].keep(row.key)
        else:
            self.ledgers[stage.name].append(row)

    def execute(self, title: str) -> None:
        """Share what exists, run the rest in workers, record each sample as it is finished."""
        total = sum(len(samples) for group in self.groups.values() for samples in group.todo.values())
        if not total:
            return
        finished = {name: self._finished_rows(stage) for name, stage in self.stages.items()}
        with Progress(title, total, self.options.log_every) as self.progress:
            jobs: dict[int, tuple[Job, _Group]] = {}
            for group in self.groups.values():
                self._share_finished(group, finished)
                job = self._job(group)
                if job is not None:
                    jobs[id(job)] = (job, group)
            died = False
            with closing(run_tasks(do_anywhere, [job for job, _ in jobs.values()], self.options)) as outcomes:
                for job, outcome in outcomes:
                    self._record(jobs[id(job)][1], outcome)
                    died |= outcome.attempts > 1
        for stage in self.stages.values() if died else ():
            remove_temporaries(stage.folder, deep=True)

    def _finished_rows(self, stage: Stage) -> dict[str, Row]:
        """Outputs that exist already of media to do, by media key, from all shards' ledgers of this stage."""
        if self.options.overwrite:
            return {}
        media = [todo.media.content_hash for group in self.groups.values() for todo in group.todo.get(stage.name, ())]
        usable = (pl.col("status") == OK) & (pl.col("config_hash") == stage.config_hash)
        usable &= pl.col("content_hash").is_in(list(set(media)))
        rows: dict[str, Row] = {}
        for path in pull_ledgers(stage.store, stage.name):
            where = read_ledger(path, ("status", "config_hash", "content_hash")).select(usable).to_series()
            if not where.any():
                continue
            for values in read_ledger(path).filter(where).iter_rows(named=True):
                rows.setdefault(values["media_key"], Row(**values))
        return {key: row for key, row in rows.items() if self._stands(stage, row)}

    def _stands(self, stage: Stage, row: Row) -> bool:
        """Whether a row's outputs are there and no newer row names the same sample."""
        newest = self.ledgers[stage.name].newest(row.key)
        there = stage.stands(row) and all(stage.store.exists(output) for output in row.outputs)
        return there and row.finished_at >= newest

    def _share_finished(self, group: _Group, finished: dict[str, dict[str, Row]]) -> None:
        """Take what another record, an earlier run or another shard has made from the same bytes."""
        for name, samples in group.todo.items():
            stage = self.stages[name]
            left = []
            for todo in samples:
                if todo.upstream is None and todo.record.key in self.refs:
                    todo.upstream = self.refs[todo.record.key].hash
                source = None
                if todo.upstream is not None:
                    source = finished[name].get(stage.media_key(todo.media.content_hash, todo.upstream))
                if source is None:
                    left.append(todo)
                else:
                    self._share(stage, todo, source)
            group.todo[name] = left

    def _job(self, group: _Group) -> Job | None:
        first = {name: samples[0] for name, samples in group.todo.items() if samples}
        if not first:
            return None
        todo = next(iter(first.values()))
        visidx = mosaics = assets = None
        stage = self.stages.get(VISIDX)
        if isinstance(stage, VisidxStage) and VISIDX in first:
            visidx = stage.task(todo.media.content_hash)
        stage = self.stages.get(MOSAICS)
        if isinstance(stage, MosaicsStage) and MOSAICS in first:
            record = first[MOSAICS].record
            ref = None if visidx else self.refs.get(record.key) or stage.find(record)
            mosaics = stage.task(record, ref.prefix if ref else None)
        stage = self.stages.get(ASSETS)
        if isinstance(stage, AssetsStage) and ASSETS in first:
            assets = stage.task(todo.record, todo.media)
        sample = Sample(todo.record.id, todo.record.media, todo.record.row)
        remote = todo.media.remote
        return Job(
            path=todo.media.path if isinstance(todo.media.path, Path) else Path(todo.media.path.name),
            sample=sample,
            timeout=self.options.timeout,
            probe=RAW in first,
            visidx=visidx,
            mosaics=mosaics,
            assets=assets,
            remote=remote,
            store=self.remote_store,
            scratch=self.policy.scratch,
        )

    def _record(self, group: _Group, outcome: Outcome) -> None:
        for name, samples in group.todo.items():
            stage, source = self.stages[name], None
            for todo in samples:
                result = outcome.value[name] if outcome.value else failed_result(outcome.error)
                if todo.upstream is None and todo.record.key in self.refs:
                    todo.upstream = self.refs[todo.record.key].hash
                if source is not None:
                    self._share(stage, todo, source)
                    continue
                row = sample_row(stage, todo.record, todo.media, result.error, todo.upstream or "", result, outcome)
                self._append(stage, row)
                if result.error is None:
                    source = row
                    self.computed[name] += 1

    def _share(self, stage: Stage, todo: _Todo, source: Row) -> None:
        record = todo.record
        outputs = [stage.key(path) for path in stage.share(source, record)]
        row = sample_row(stage, record, todo.media, None, todo.upstream or "")
        taken = ("signal", "output_hash", "bytes", "facts")
        row = replace(row, outputs=outputs, **{name: getattr(source, name) for name in taken})
        self._append(stage, row)

    def _append(self, stage: Stage, row: Row) -> None:
        self.ledgers[stage.name].append(row)
        if isinstance(stage, VisidxStage) and row.status == OK:
            self.refs[row.key] = ref_from_row(row, stage.root)
        self.progress.advance(ok=row.status == OK)

    def finish(self, start: float) -> dict[str, Report]:
        """Compact the ledgers and count."""
        partial = bool(self.options.max_samples)
        reports = {}
        for name, stage in self.stages.items():
            frame = self.ledgers[name].compact(keep_unseen=partial, columns=COUNTED)
            mixed = frame.filter((pl.col("status") == OK) & (pl.col("config_hash") != stage.config_hash)).height
            if mixed:
                log.warning(
                    "%s: %d samples were made with other options; a run without limits redoes them", name, mixed
                )
            reports[name] = summarize(
                frame,
                stage=name,
                computed=self.computed[name],
                reused=self.reused[name],
                seconds=time.perf_counter() - start,
                config_hash=stage.config_hash,
                ledger=self.ledgers[name].path,
            )
        return reports


def sample_row(
    stage: Stage,
    record: Record,
    media: MediaFile | None,
    error: SampleError | None,
    upstream: str = "",
    result: Result | None = None,
    outcome: Outcome | None = None,
) -> Row:
    """The ledger row of a sample: what it is, what went in, what came out."""
    content_hash = media.content_hash if media else ""
    if error is None:
        status = OK if media else PASSED
    elif isinstance(error, DuplicateRecord):
        status = DUPLICATE
    else:
        status = SKIPPED if isinstance(error, stage.skippable) else FAILED
    row = Row(
        row=record.row,
        key=record.key,
        id=record.id,
        media=record.media,
        kind=record.kind,
        status=status,
        reason=error.reason if error else "",
        detail=str(error) if error else "",
        path=str(media.path) if media else "",
        size=media.size if media else 0,
        mtime_ns=media.mtime_ns if media else 0,
        etag=media.etag if media else "",
        content_hash=content_hash,
        input_hash=stage.input_hash(record, content_hash, upstream),
        config_hash=stage.config_hash,
        stage_version=stage.version,
        media_key=stage.media_key(content_hash, upstream) if status == OK else "",
    )
    if result is not None and outcome is not None:
        row.signal = result.signal
        row.computed = error is None
        row.outputs = [stage.key(path) for path in result.outputs]
        row.output_hash = result.output_hash if error or result.output_hash else content_hash
        row.bytes = result.bytes
        row.facts = json.dumps(result.facts, sort_keys=True, default=str)
        row.attempts = outcome.attempts
        row.seconds = round(result.seconds or outcome.seconds, 4)
    return row
