"""Finding a record's stage-1 files in a folder: one listing, then O(1) a record."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import polars as pl

from ov_model.errors import MissingVisidx
from ov_model.geometry import Geometry
from ov_model.lake.files import hash_arrays, read_array
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
from ov_model.lake.work import stage1_files


class VisidxIndex:
    """Stage-1 files below `root`, ours or the reference's, by what their meta files say.

    A sample matches by id, stem, video, T, patch and square; among several, the row's hash, then the path's, decides.
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
        self._failed: dict[str, str] | None = None

    def find(self, record: Record) -> VisidxRef:
        """The stage-1 files of a record.

        Raises:
            MissingVisidx: none match, or several that differ do.
        """
        candidates = [
            (name, meta)
            for name in self._names.get(stage1_lookup_name(record.media, record.id), [])
            if (meta := self._meta(name))["video"] == record.media
            and str(meta["sample_id"]) == record.id
            and media_stem(meta["video"]) == media_stem(record.media)
        ]
        if not candidates:
            raise MissingVisidx(self._missing(record))
        row_hash, path_hash = short_sha1(record.key), short_sha1(record.media)
        candidates.sort(key=lambda c: (c[0]["h2"] != row_hash, c[0]["h1"] != path_hash, c[0]["file"]))
        best = [c for c in candidates if (c[0]["h2"], c[0]["h1"]) == (candidates[0][0]["h2"], candidates[0][0]["h1"])]
        refs = [self._ref(name, meta) for name, meta in best]
        if len({ref.hash for ref in refs}) > 1:
            files = ", ".join(name["file"] for name, _ in best)
            raise MissingVisidx(f"{record.id}: {len(refs)} stage-1 results differ ({files}); remove all but one")
        return refs[0]

    def _meta(self, name: dict[str, str]) -> dict[str, Any]:
        return json.loads((self.root / name["file"]).read_text())

    def _ref(self, name: dict[str, str], meta: dict[str, Any]) -> VisidxRef:
        prefix = self.root / name["file"].removesuffix(META_SUFFIX)
        visidx, frame_ids, _ = stage1_files(prefix)
        content = meta.get("visidx_hash") or hash_arrays(read_array(visidx), read_array(frame_ids))
        return VisidxRef(prefix, content, bool(meta["keep_first_full_frame"]))

    def _missing(self, record: Record) -> str:
        if self._failed is None:
            self._failed = {}
            for path in sorted((self.root / "ledger").glob("visidx.shard*.parquet")):
                rows = read_ledger(path).filter(pl.col("status") == FAILED)
                self._failed.update(
                    {
                        key: f"{reason}: {detail}"
                        for key, reason, detail in rows.select("key", "reason", "detail").iter_rows()
                    }
                )
        failed = self._failed.get(record.key)
        if failed:
            return f"{record.id}: stage 1 failed on {record.media} ({failed})"
        return f"{record.id}: no stage-1 files for {record.media} below {self.root}; run stage 1 on this dataset first"
