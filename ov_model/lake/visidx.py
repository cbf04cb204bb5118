"""Finding a record's stage-1 files in a folder: one listing, then O(1) a record."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.errors import MissingVisidx
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_arrays
from ov_model.lake.layout import (
    META_SUFFIX,
    media_stem,
    parse_stage1_meta_name,
    short_sha1,
    stage1_lookup_name,
)
from ov_model.lake.ledger import FAILED, read_ledger
from ov_model.lake.records import Record
from ov_model.lake.stages import VisidxRef
from ov_model.lake.work import read_meta, read_stage1, stage1_files


class VisidxIndex:
    """Stage-1 files below `root`, ours or the reference's, by what their meta files say.

    A sample matches by id, stem, video, T, patch and square; among several, the row's hash, then the path's, decides.
    The reference writes ids and stems into names as they are, so both spellings are looked for.
    """

    def __init__(self, root: Path, geometry: Geometry) -> None:
        self.root = root
        wanted = (str(geometry.sequence_length), str(geometry.square_size), str(geometry.patch_size))
        self._names: dict[str, list[dict[str, str]]] = defaultdict(list)
        with os.scandir(root) as entries:
            for entry in entries:
                name = parse_stage1_meta_name(entry.name)
                if name and (name["T"], name["square"], name["patch"]) == wanted:
                    self._names[name["name"]].append({**name, "file": entry.name})
        self._failed = _failures(root)
        self._num_patches = str(geometry.num_patches)

    def find(self, record: Record) -> VisidxRef:
        """The stage-1 files of a record.

        Raises:
            MissingVisidx: none match, or several that differ do.
        """
        if record.key in self._failed:
            raise MissingVisidx(f"{record.id}: stage 1 failed on {record.media} ({self._failed[record.key]})")
        spelled = dict.fromkeys(
            (stage1_lookup_name(record.media, record.id), f"{record.id}__{media_stem(record.media)}")
        )
        candidates = [
            (name, meta)
            for lookup in spelled
            for name in self._names.get(lookup, [])
            if (meta := self._meta(name))["video"] == record.media
            and str(meta["sample_id"]) == record.id
            and media_stem(meta["video"]) == media_stem(record.media)
        ]
        if not candidates:
            raise MissingVisidx(
                f"{record.id}: no stage-1 files for {record.media} below {self.root}; run stage 1 on this dataset first"
            )
        candidates = [c for c in candidates if c[0]["K"] == self._num_patches] or candidates
        row_hash, path_hash = short_sha1(record.key), short_sha1(record.media)
        candidates.sort(key=lambda c: (c[0]["h2"] != row_hash, c[0]["h1"] != path_hash, c[0]["file"]))
        best = [c for c in candidates if (c[0]["h2"], c[0]["h1"]) == (candidates[0][0]["h2"], candidates[0][0]["h1"])]
        refs = [self._ref(name, meta) for name, meta in best]
        if len({ref.hash for ref in refs}) > 1:
            files = ", ".join(name["file"] for name, _ in best)
            raise MissingVisidx(f"{record.id}: {len(refs)} stage-1 results differ ({files}); remove all but one")
        return refs[0]

    def _meta(self, name: dict[str, str]) -> dict[str, Any]:
        return read_meta(self.root / name["file"].removesuffix(META_SUFFIX))

    def _ref(self, name: dict[str, str], meta: dict[str, Any]) -> VisidxRef:
        prefix = self.root / name["file"].removesuffix(META_SUFFIX)
        visidx, frame_ids, _ = stage1_files(prefix)
        content = meta.get("visidx_hash") or hash_arrays(read_stage1(visidx), read_stage1(frame_ids))
        return VisidxRef(prefix, content, bool(meta["keep_first_full_frame"]), meta.get("content_hash", ""))


def _failures(root: Path) -> dict[str, str]:
    """Samples whose newest row in any of stage 1's ledgers says failed: key -> reason and detail."""
    columns = ("key", "status", "reason", "detail", "finished_at")
    frames = [read_ledger(path, columns) for path in sorted((root / "ledger").glob("visidx.shard*.parquet"))]
    if not frames:
        return {}
    newest = pl.concat(frames).sort("finished_at").unique("key", keep="last").filter(pl.col("status") == FAILED)
    return {key: f"{reason}: {detail}" for key, reason, detail in newest.select("key", "reason", "detail").iter_rows()}
