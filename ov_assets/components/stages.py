"""The stages of a lane as assets: what each says about itself, what it stands on, what is checked of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import dagster as dg

from ov_assets.checks import (
    COUNTS_AGREE,
    FAILURES_UNDER_LIMIT,
    IMAGES_OPEN,
    ONE_SIGNAL,
    PLACEHOLDERS_MATCH,
    POSITIONS_VALID,
    Check,
)


def _columns(*columns: tuple[str, str, str]) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(name, kind, description) for name, kind, description in columns])


_POSITIONS = _columns(
    ("t", "int32", "index of the sampled frame, from 0"),
    ("h", "int32", "grid row in the frame"),
    ("w", "int32", "grid column in the frame"),
)
_ID = ("id", "str", "the record's own name, not unique")
_MEDIA = ("media", "str", "path as the record gives it")
_ROW = ("row", "int64", "number of the record, assigned once")
TRAINING_ROW = _columns(
    _ID,
    ("conversations", "list", "turns {from: human or gpt, value}; `<image>` stands for an image"),
    ("image", "str | list[str]", "mosaics in order, or the images of an image record; none for text"),
    ("positions_thw", "str", "int32 [K, 3], row j is tile j of the mosaics; videos only"),
)


@dataclass(frozen=True)
class Stage:
    """One asset of a lane. `step`: stages of one name run as one. `deps`: what it builds on, what it reads first.

    `reads_media`: in the dataset's workers.
    """

    name: str
    step: str
    description: str
    deps: tuple[str, ...]
    kinds: tuple[str, ...]
    columns: dg.TableSchema
    checks: tuple[Check, ...]
    sharded: bool = True
    pool: str | None = None
    reads_media: bool = False


RECORDS = Stage(
    "records",
    "records",
    "The raw dataset, streamed once into an index file per shard; a bad record is a row with its reason.",
    deps=(),
    kinds=("json",),
    columns=_columns(_ROW, _ID, _MEDIA, ("kind", "str", "video, image, text or bad")),
    checks=(FAILURES_UNDER_LIMIT,),
    sharded=False,
)
RAW_VIDEOS = Stage(
    "raw_videos",
    "raw_videos",
    "Each medium of a shard, hashed and probed. Materialize it to have changed files noticed.",
    deps=("records",),
    kinds=("mp4",),
    columns=_columns(
        _ROW,
        _ID,
        _MEDIA,
        ("path", "str", "the file, links followed"),
        ("size", "int64", "bytes"),
        ("content_hash", "str", "SHA-256 of the file"),
    ),
    checks=(COUNTS_AGREE, FAILURES_UNDER_LIMIT),
    reads_media=True,
)
VISIDX = Stage(
    "visidx",
    "visidx_mosaics",
    "The patches of each video that its codec spent effort on: positions (t, h, w), one file per video.",
    deps=("raw_videos",),
    kinds=("numpy",),
    columns=_POSITIONS,
    checks=(COUNTS_AGREE, FAILURES_UNDER_LIMIT, POSITIONS_VALID, ONE_SIGNAL),
    pool="decode",
    reads_media=True,
)
MOSAICS = Stage(
    "mosaics",
    "visidx_mosaics",
    "The chosen patches packed into square pictures, with the position of every tile.",
    deps=("visidx", "raw_videos"),
    kinds=("jpeg", "numpy"),
    columns=_POSITIONS,
    checks=(COUNTS_AGREE, FAILURES_UNDER_LIMIT, POSITIONS_VALID, IMAGES_OPEN),
    pool="decode",
    reads_media=True,
)
TRAINING_JSONL = Stage(
    "training_jsonl",
    "training_jsonl",
    "The training rows of a shard, paths relative to the dataset's folder in the lake.",
    deps=("mosaics", "raw_videos"),
    kinds=("json",),
    columns=TRAINING_ROW,
    checks=(COUNTS_AGREE, FAILURES_UNDER_LIMIT, PLACEHOLDERS_MATCH),
)
TRAIN_JSONL = Stage(
    "train_jsonl",
    "train_jsonl",
    "All shards' rows in the order of the raw dataset: what a trainer reads.",
    deps=("training_jsonl", "raw_videos"),
    kinds=("json",),
    columns=TRAINING_ROW,
    checks=(COUNTS_AGREE, PLACEHOLDERS_MATCH),
    sharded=False,
)

IMAGE_TRAINING_JSONL = replace(
    TRAINING_JSONL,
    description="The records of a shard as training rows; images stay where they are.",
    deps=("records",),
)
IMAGE_TRAIN_JSONL = replace(TRAIN_JSONL, deps=("training_jsonl",))

VIDEO_STAGES = (RECORDS, RAW_VIDEOS, VISIDX, MOSAICS, TRAINING_JSONL, TRAIN_JSONL)
IMAGE_STAGES = (RECORDS, IMAGE_TRAINING_JSONL, IMAGE_TRAIN_JSONL)
