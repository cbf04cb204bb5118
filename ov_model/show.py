"""`ov show SAMPLE`: a picture of one sample, its frames with the chosen patches outlined, its mosaics beside them.

A sample is named by its stage-1 files (`….meta.json`, or their prefix), ours or the reference's; or, in a lake, by
its id or key (`media|id|row`).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from ov_model.codec.choose import read_contents
from ov_model.codec.energy import SquareMap
from ov_model.errors import MissingFile, UsageError
from ov_model.image_files import read_image
from ov_model.lake.files import read_array, write_bytes
from ov_model.lake.layout import FRAME_IDS_SUFFIX, META_SUFFIX, VISIDX_SUFFIX, pack_folder
from ov_model.lake.ledger import OK
from ov_model.mosaic.pack import sort_positions
from ov_model.picture import Sheet, draw_sheet
from ov_model.status import LedgerFile, find_ledgers, scan_ledger

_MOSAIC = re.compile(r".*_(\d{3,})\.jpg")
_SUFFIXES = (META_SUFFIX, VISIDX_SUFFIX, FRAME_IDS_SUFFIX)
_COLUMNS = ("row", "key", "id", "media", "status", "reason", "detail", "path", "media_key", "outputs")


@dataclass(frozen=True)
class StoredSample:
    """Where a sample's files lie. mosaics: in order, empty where there are none."""

    prefix: Path
    meta: dict[str, Any]
    video: Path
    mosaics: tuple[Path, ...]


def show_sample(
    sample: str | Path,
    out_png: Path,
    *,
    lake: Path | None = None,
    media_root: Path | None = None,
    mosaics: Path | None = None,
) -> StoredSample:
    """Write the picture of a sample.

    Args:
        sample, lake, media_root, mosaics: see `find_sample`.
    Raises:
        UsageError: no such sample, or several. SampleError: its video cannot be read.
    """
    found = find_sample(sample, lake=lake, media_root=media_root, mosaics=mosaics)
    stream = io.BytesIO()
    draw_sheet(make_sheet(found)).save(stream, "PNG")
    write_bytes(out_png, stream.getvalue())
    return found


def find_sample(
    sample: str | Path, *, lake: Path | None = None, media_root: Path | None = None, mosaics: Path | None = None
) -> StoredSample:
    """Find a sample's files.

    Args:
        sample: a stage-1 file or prefix; with `lake`, an id or key.
        lake: a lake, one dataset's folder in it, or the output folder of stage 1.
        media_root: where the video's relative path starts, when the ledger does not tell where it was.
        mosaics: the output folder of stage 2, or the sample's own folder in it; needed outside a lake.
    Raises:
        UsageError: no such sample, several that differ, or one that stage 1 failed on. MissingFile: its video is gone.
    """
    if lake is not None:
        ledger, row = _look_up(lake, str(sample))
        stored = sample_at(ledger, row, media_root)
        if mosaics is None and stored.mosaics:
            return stored
        prefix, meta, found = stored.prefix, stored.meta, []
    else:
        prefix, row, found = _prefix(Path(sample)), None, []
        meta = _read_meta(prefix)
        ledger = next(iter(_ledgers_around(prefix)), None)
        if ledger is not None:
            rows = scan_ledger(ledger.path, _COLUMNS).filter(pl.col("key") == meta["sample_key"]).collect()
            row = next(rows.iter_rows(named=True), None)
            found = [ledger.root / output for output in _outputs(ledger, meta["sample_key"])]
    if mosaics is not None or not found:
        found = _mosaics_below(mosaics, meta)
    return StoredSample(prefix, meta, _video(meta, row, media_root), tuple(found))


def sample_at(ledger: LedgerFile, row: dict[str, Any], media_root: Path | None = None) -> StoredSample:
    """The files of a row of a stage-1 ledger.

    Raises:
        UsageError: its meta file is gone. MissingFile: its video is.
    """
    prefix = ledger.root / row["outputs"][0].removesuffix(VISIDX_SUFFIX)
    meta = _read_meta(prefix)
    mosaics = [ledger.root / output for output in _outputs(ledger, row["key"])]
    return StoredSample(prefix, meta, _video(meta, row, media_root), tuple(mosaics))


def make_sheet(sample: StoredSample) -> Sheet:
    """Read what the picture shows.

    Raises:
        SampleError: the video cannot be read.
    """
    meta = sample.meta
    square = SquareMap(**{name: meta["pad_info"][name] for name in SquareMap.__dataclass_fields__})
    pos_K3 = sort_positions(read_array(_with_suffix(sample.prefix, VISIDX_SUFFIX)))
    frame_ids_T = read_array(_with_suffix(sample.prefix, FRAME_IDS_SUFFIX))
    frames = dict(read_contents(sample.video, frame_ids_T, square, damaged=bool(meta.get("damaged"))))
    signal = meta.get("signal", "not recorded")
    details = [
        f"{meta['W0']} x {meta['H0']} pixels",
        *([str(meta["codec"])] if "codec" in meta else []),
        f"signal {signal}",
        f"{len(frame_ids_T)} frames sampled",
        f"{len(pos_K3):,} patches chosen, {_padding(meta, pos_K3):,} on the padding or its edge",
        f"padding policy {meta['padding_policy']}",
    ]
    lines = [
        " · ".join(details),
        "lit and outlined: chosen; gray: left out. Above each frame: t, its number in the video, patches chosen of it",
    ]
    return Sheet(
        title=f"{meta['sample_id']}  ·  {meta['video']}",
        lines=lines,
        frames=frames,
        frame_ids_T=frame_ids_T,
        pos_K3=pos_K3,
        square=square,
        grid=meta["hb"],
        mosaics=_captioned(sample.mosaics, pos_K3),
    )


def _padding(meta: dict[str, Any], pos_K3: NDArray[np.int32]) -> int:
    """How many chosen patches lie outside the whole content patches."""
    valid = meta["valid_ranges"]
    h, w = pos_K3[:, 1], pos_K3[:, 2]
    inside = (h >= valid["valid_h_start"]) & (h < valid["valid_h_end"])
    inside &= (w >= valid["valid_w_start"]) & (w < valid["valid_w_end"])
    return int((~inside).sum())


def _captioned(paths: Sequence[Path], pos_K3: NDArray[np.int32]) -> list[tuple[str, Image.Image]]:
    mosaics = []
    for path, rows in zip(paths, np.array_split(pos_K3[:, 0], max(1, len(paths))), strict=False):
        first, last = int(rows[0]), int(rows[-1])
        span = f"t={first}" if first == last else f"t={first} to {last}"
        mosaics.append((f"mosaic {len(mosaics)}: {span}", read_image(path)))
    return mosaics


def _look_up(lake: Path, sample: str) -> tuple[LedgerFile, dict[str, Any]]:
    """The stage-1 row of a sample, by id or key, in a lake."""
    matches: list[tuple[LedgerFile, dict[str, Any]]] = []
    for ledger in find_ledgers(lake):
        if ledger.stage == "visidx":
            named = (pl.col("id") == sample) | (pl.col("key") == sample)
            rows = scan_ledger(ledger.path, _COLUMNS).filter(named).collect()
            matches += [(ledger, row) for row in rows.iter_rows(named=True)]
    if not matches:
        raise UsageError(f"{sample}: no sample of this id or key in the stage-1 ledgers of {lake}")
    usable = [(ledger, row) for ledger, row in matches if row["status"] == OK]
    if not usable:
        row = matches[0][1]
        why = f"{row['reason']}: {row['detail']}" if row["reason"] else f"it is {row['status']}: it has no video"
        raise UsageError(f"{sample}: stage 1 chose nothing for it ({why})")
    if len({(ledger.dataset, row["media_key"]) for ledger, row in usable}) > 1:
        keys = "\n  ".join(f"{ledger.dataset}: {row['key']}" for ledger, row in usable[:10])
        raise UsageError(f"{sample}: {len(usable)} samples have this id; name one by its key\n  {keys}")
    return usable[0]


def _outputs(ledger: LedgerFile, key: str) -> list[str]:
    """The mosaics that stage 2's ledger beside a stage-1 ledger names for a sample."""
    path = ledger.path.with_name(f"mosaics.{ledger.shard}.parquet")
    rows = scan_ledger(path, ("key", "status", "outputs")).filter(pl.col("key") == key, pl.col("status") == OK)
    return [
        output for outputs in rows.collect()["outputs"].to_list() for output in outputs if _MOSAIC.fullmatch(output)
    ]


def _ledgers_around(prefix: Path) -> list[LedgerFile]:
    """The stage-1 ledgers of the folder that a prefix lies in."""
    for root in (prefix.parent, prefix.parent.parent):
        if (root / "ledger").is_dir():
            return [ledger for ledger in find_ledgers(root) if ledger.stage == "visidx"]
    return []


def _prefix(path: Path) -> Path:
    name = path.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return path.with_name(name)


def _with_suffix(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)


def _read_meta(prefix: Path) -> dict[str, Any]:
    path = _with_suffix(prefix, META_SUFFIX)
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            f"{path}: no such file; name a sample by its stage-1 files, or by its id with --lake"
        ) from error


def _video(meta: dict[str, Any], row: dict[str, Any] | None, media_root: Path | None) -> Path:
    """The sample's video: under the given root, where stage 1 found it, or by its path as given."""
    candidates = [(media_root or Path()) / meta["video"]]
    if row is not None and media_root is None:
        candidates.insert(0, Path(row["path"]))
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise MissingFile(f"{meta['sample_id']}: no video at {candidates[0]}; set --media_root")
    return found


def _mosaics_below(root: Path | None, meta: dict[str, Any]) -> list[Path]:
    """A sample's mosaics in a folder of its own or in stage 2's output; none where nothing was given."""
    if root is None:
        return []
    folder = pack_folder(meta["video"], str(meta["sample_id"]))
    for candidate in (root, root / folder, *root.glob(f"shard*/{folder}"), *root.glob(f"images/shard*/{folder}")):
        found = sorted(path for path in candidate.glob("*.jpg") if _MOSAIC.fullmatch(path.name))
        if found:
            return found
    raise UsageError(f"{root}: no mosaics of {meta['sample_id']}; give the output folder of stage 2, or {folder} in it")


def print_shown(sample: StoredSample, out_png: Path, console: Console | None = None) -> None:
    """Print what was drawn and where it is."""
    console = console or Console()
    beside = f"{len(sample.mosaics)} mosaics" if sample.mosaics else "no mosaics (give their folder with --mosaics)"
    console.print(f"{sample.meta['sample_id']}: {sample.video}, {beside}", soft_wrap=True, markup=False)
    console.print(str(out_png), soft_wrap=True, markup=False)
