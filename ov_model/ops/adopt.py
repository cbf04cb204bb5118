"""Enter existing outputs of the reference's tools (or of ours, without their ledger) into the ledger, after checks.

`ov adopt stage1|stage2|precompute` takes the options of that command; a later run of it with the same options makes
only what was not adopted. Nothing is moved or rewritten; a sample with a problem is left out, and every problem named.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ov_model.checks import Problem
from ov_model.errors import SampleError
from ov_model.lake.layout import key_folder, media_stem, mosaic_name, pack_folder, short_sha1
from ov_model.lake.ledger import COUNTED, OK, Ledger, Report, read_ledger, summarize
from ov_model.lake.media import KNOWN, MediaFile, examine, known_hashes
from ov_model.lake.progress import Progress
from ov_model.lake.records import Record, read_values
from ov_model.lake.run import sample_row
from ov_model.lake.stages import AssetsStage, MosaicsStage, Stage, VisidxStage
from ov_model.lake.urls import need_path
from ov_model.lake.visidx import VisidxIndex
from ov_model.lake.work import Result
from ov_model.lake.workers import Outcome, run_tasks
from ov_model.ops.adopt_checks import AssetCandidate, Candidate, PackCandidate, VisidxCandidate, check
from ov_model.precompute import PrecomputeConfig, read_lines
from ov_model.shard_config import ShardConfig
from ov_model.stage1 import Stage1Config, shard_records
from ov_model.stage2 import Stage2Config, mosaics_stage, row_maker, stage2_records


@dataclass
class Adopted:
    """What became of a shard's videos. already: rows that the ledger had; left_out: samples by the problem that each
    was met with first."""

    stage: str
    adopted: int = 0
    already: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    report: Report | None = None

    @property
    def exit_code(self) -> int:
        """0 all adopted, 3 some left out or a problem elsewhere, 1 nothing adopted."""
        if not self.adopted + self.already:
            return 1
        return 3 if self.problems else 0


def adopt_stage1(config: Stage1Config) -> Adopted:
    """Adopt stage-1 files below `out_root`.

    Raises:
        UsageError: options that contradict each other. LockedError: another process is writing this shard.
    """
    options = config.choose_options()
    stage = VisidxStage(config.out_root, config.out_root, options)
    index = VisidxIndex(config.out_root, options.geometry)

    def candidate(record: Record, media: MediaFile) -> Candidate:
        prefix = index.find(record).prefix
        return VisidxCandidate(
            record.key, need_path(media.path, record.media), media.content_hash, stage.config_hash, prefix, options
        )

    return _adopt(
        shard_records(config.dataset_path, config.shard),
        stage,
        config,
        need_path(config.dataset_path, "--dataset_path"),
        [],
        candidate,
    )


def adopt_stage2(config: Stage2Config) -> Adopted:
    """Adopt mosaics below `out_image_root`, and hold an existing training JSONL against what stage 2 would write.

    Raises:
        UsageError, LockedError: as `adopt_stage1`.
    """
    stage, hints = mosaics_stage(config)

    def candidate(record: Record, media: MediaFile) -> Candidate:
        ref, video = stage.find(record), need_path(media.path, record.media)
        return PackCandidate(
            record.key, video, media.content_hash, stage.config_hash, _pack_folder(stage, record), record.media,
            ref.prefix, ref.first_full, stage.options,
        )  # fmt: skip

    adopted = _adopt(
        stage2_records(config), stage, config, need_path(config.input_dataset, "--input_dataset"), hints, candidate
    )
    if config.jsonl_path().exists():
        adopted.problems += _jsonl_problems(config, adopted)
    return adopted


def adopt_precompute(config: PrecomputeConfig) -> Adopted:
    """Adopt benchmark assets below `out_root/assets`.

    Raises:
        UsageError, LockedError: as `adopt_stage1`.
    """
    options = config.asset_options()
    stage = AssetsStage(config.out_root, options)
    lines = read_lines(config.jsonl, only_exists=config.only_exists, media_root=config.local_media_root)
    records = (record for record in lines if record.row % config.num_shards == config.shard_id)

    def candidate(record: Record, media: MediaFile) -> Candidate:
        folder = (
            stage.folder / record.id if (stage.folder / record.id).is_dir() else stage.folder / key_folder(record.id)
        )
        path = need_path(media.path, record.media)
        return AssetCandidate(record.key, path, media.content_hash, stage.config_hash, folder, record.id, options)

    return _adopt(records, stage, config, config.jsonl, [], candidate)


def _pack_folder(stage: MosaicsStage, record: Record) -> Path:
    """The folder of a record's mosaics, in our spelling or, where only that is there, the reference's."""
    ours = stage.folder / pack_folder(record.media, record.id)
    stem = media_stem(record.media)
    theirs = f"sample_{record.id}__{stem}__{short_sha1(record.media)}"
    spelled = stage.folder / theirs
    plain = "/" not in theirs and "\0" not in theirs and mosaic_name(record.media, 0).startswith(stem)
    return spelled if plain and not ours.is_dir() and spelled.is_dir() else ours


def _adopt(
    records: Iterable[Record],
    stage: Stage,
    config: ShardConfig,
    source: Path,
    hints: Iterable[Path],
    candidate: Callable[[Record, MediaFile], Candidate],
) -> Adopted:
    start = time.perf_counter()
    options, policy, result = config.run_options(), config.media_policy(source), Adopted(stage.name)
    with Ledger(stage.root, stage.name, config.shard) as ledger:
        known = known_hashes([ledger.previous(*KNOWN), *(read_ledger(hint, KNOWN) for hint in hints)])
        usable = _usable(records, options.max_samples)
        media = list(dict.fromkeys(record.media for record in usable))
        files = examine(media, policy, known, options.num_workers)
        upstreams: dict[str, str] = {}
        tasks: dict[str, tuple[Record, MediaFile, Candidate]] = {}
        for record in usable:
            try:
                found = files[record.media]
                if not isinstance(found, MediaFile):
                    raise found
                stage.check(record)
                upstream = upstreams[record.key] = stage.upstream(record, found.content_hash)
                prior = ledger.find(record.key)
                wanted = (stage.input_hash(record, found.content_hash, upstream), stage.config_hash, OK)
                if prior and (prior.input_hash, prior.config_hash, prior.status) == wanted and stage.stands(prior):
                    result.already += 1
                else:
                    tasks[record.key] = (record, found, candidate(record, found))
            except SampleError as error:
                _leave_out(result, record, [Problem(0, "", error.reason, str(error))])
        with (
            Progress(f"adopt {stage.name}", len(tasks), options.log_every) as progress,
            closing(run_tasks(check, [task for _, _, task in tasks.values()], options)) as outcomes,
        ):
            for task, outcome in outcomes:
                record, found, _ = tasks[task.key]
                done = outcome.value
                if isinstance(done, Result):
                    row = sample_row(stage, record, found, None, upstreams[record.key], done, outcome)
                    row.computed = False
                    ledger.append(row)
                    result.adopted += 1
                else:
                    _leave_out(result, record, done or [_died(outcome)])
                progress.advance(ok=isinstance(done, Result))
        frame = ledger.compact(keep_unseen=True, columns=COUNTED)
        result.report = summarize(
            frame, stage=stage.name, computed=0, reused=result.already, seconds=time.perf_counter() - start,
            config_hash=stage.config_hash, ledger=ledger.path,
        )  # fmt: skip
    return result


def _usable(records: Iterable[Record], limit: int | None) -> list[Record]:
    """The video records that have outputs: not those in error, nor repeated byte for byte."""
    seen: set[str] = set()
    usable = []
    for count, record in enumerate(records):
        if limit and count >= limit:
            break
        if record.kind == "video" and record.error is None and record.content_hash not in seen:
            usable.append(record)
        seen.add(record.content_hash)
    return usable


def _died(outcome: Outcome) -> Problem:
    error = outcome.error
    return Problem(0, "", error.reason if error else "error", str(error))


def _leave_out(result: Adopted, record: Record, problems: list[Problem]) -> None:
    first = problems[0].code
    result.left_out[first] = result.left_out.get(first, 0) + 1
    result.problems += [replace(problem, sample_id=record.id) for problem in problems]


def _jsonl_problems(config: Stage2Config, adopted: Adopted) -> Iterator[Problem]:
    """Where the training JSONL differs from what stage 2 would write of the adopted rows."""
    assert adopted.report is not None
    assert adopted.report.ledger is not None
    rows = read_ledger(adopted.report.ledger, ("key", "status", "outputs")).filter(status=OK)
    outputs = dict(rows.select("key", "outputs").iter_rows())
    make_row, path = row_maker(config), config.jsonl_path()
    found: dict[str, list[tuple[int, Any]]] = {}
    for line, value in enumerate(read_values(path), start=1):
        row_id = str(value.get("id")) if isinstance(value, dict) else ""
        found.setdefault(row_id, []).append((line, value))
    for record in stage2_records(config):
        if record.error is not None or (record.kind == "video" and record.key not in outputs):
            continue
        lines = found.get(record.id, [])
        expected = _comparable(make_row(record, outputs.get(record.key, [])))
        matching = next((at for at in range(len(lines)) if _comparable(lines[at][1]) == expected), None)
        if matching is not None:
            lines.pop(matching)
        elif lines:
            line, value = lines.pop(0)
            names = sorted(n for n in expected if _comparable(value).get(n) != expected[n])
            message = f"{path} line {line}: {', '.join(names) or 'fields'} differ from what stage 2 writes"
            yield Problem(line, record.id, "jsonl_row", message)
        else:
            yield Problem(0, record.id, "jsonl_row_missing", f"{path}: no row of {record.id}; stage 2 writes one")
    for lines in found.values():
        for line, value in lines:
            row_id = str(value.get("id")) if isinstance(value, dict) else ""
            yield Problem(line, row_id, "jsonl_row_unknown", f"{path} line {line}: of no adopted sample")


def _comparable(row: Any) -> dict[str, Any]:
    """A row with its paths cut to folder and name: they may be written from another folder."""
    if not isinstance(row, dict):
        return {}
    cut = partial(_tail, parts=2)
    image = row.get("image")
    shown = [cut(path) for path in image] if isinstance(image, list) else cut(image)
    return {**row, "image": shown, "positions_thw": cut(row.get("positions_thw"))}


def _tail(path: Any, parts: int) -> Any:
    return "/".join(path.replace("\\", "/").split("/")[-parts:]) if isinstance(path, str) else path


def as_dict(adopted: Adopted) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {
        "stage": adopted.stage,
        "adopted": adopted.adopted,
        "already": adopted.already,
        "left_out": adopted.left_out,
        "problems": [vars(problem) for problem in adopted.problems],
        "ledger": str(adopted.report.ledger) if adopted.report else None,
    }


def problem_counts(problems: Iterable[Problem]) -> str:
    """`3 other_video, 1 missing_image`, the most frequent first."""
    counts = Counter(problem.code for problem in problems)
    return ", ".join(f"{count} {code}" for code, count in counts.most_common())
