"""Which samples a report shows, and how each is drawn: a few of each dataset and signal, a few of each reason."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from ov_model.codec.choose import read_contents
from ov_model.codec.energy import SquareMap
from ov_model.codec.video import open_video
from ov_model.energy_plot import energy_plot
from ov_model.errors import OvError, SampleError
from ov_model.image_files import read_image
from ov_model.lake.files import read_array
from ov_model.lake.layout import ASSET_META, FRAME_IDS, POSITIONS
from ov_model.lake.ledger import FAILED, OK
from ov_model.lake.stages import ASSETS, MOSAICS, VISIDX
from ov_model.mosaic.pack import sort_positions
from ov_model.picture import Sheet, draw_sheet
from ov_model.show import make_sheet, sample_at
from ov_model.status import LedgerFile, scan_ledger

_COLUMNS = ("row", "key", "id", "media", "kind", "status", "signal", "path", "media_key", "outputs", "seconds")
_WIDTH, _MOSAIC_SIDE, _QUALITY = 1500, 320, 72


@dataclass(frozen=True)
class Shown:
    """A sample with its pictures.

    picture: JPEG of its frames and mosaics, empty where it could not be drawn: `note` says why. energy: PNG, or empty.
    """

    dataset: str
    stage: str
    shard: str
    id: str
    media: str
    signal: str
    picture: bytes = b""
    energy: bytes = b""
    note: str = ""


@dataclass(frozen=True)
class Picked:
    """The samples of a report, and of how many they are: (dataset, stage, signal) -> shown, all."""

    shown: tuple[Shown, ...]
    counts: dict[tuple[str, str, str], tuple[int, int]]


def pick_samples(ledgers: Sequence[LedgerFile], per_group: int, at_most: int) -> Picked:
    """Draw the first `per_group` videos of each dataset and signal, `at_most` in all, each content once.

    The stage that knows most of a dataset is asked: stage 1's choice, codec assets, or mosaics alone.
    """
    groups: dict[tuple[str, str, str], list[tuple[LedgerFile, dict[str, Any]]]] = {}
    totals: dict[tuple[str, str, str], int] = {}
    by_dataset: dict[str, set[str]] = {}
    for ledger in ledgers:
        by_dataset.setdefault(ledger.dataset, set()).add(ledger.stage)
    for ledger in ledgers:
        stage = next((name for name in (VISIDX, ASSETS, MOSAICS) if name in by_dataset[ledger.dataset]), None)
        if ledger.stage != stage:
            continue
        videos = scan_ledger(ledger.path, _COLUMNS).filter(pl.col("status") == OK, pl.col("kind") != "image")
        rows = videos.filter(pl.col("outputs").list.len() > 0)
        for signal, count in rows.group_by("signal").len().collect().iter_rows():
            group = ledger.dataset, ledger.stage, signal
            totals[group] = totals.get(group, 0) + count
            known = groups.setdefault(group, [])
            first = rows.filter(pl.col("signal") == signal).unique("media_key", keep="first", maintain_order=True)
            known += [(ledger, row) for row in first.head(per_group).collect().iter_rows(named=True)]
    chosen = [(group, entry) for group, entries in groups.items() for entry in entries[:per_group]][:at_most]
    shown = [draw_sample(ledger, row) for _, (ledger, row) in chosen]
    counts = {group: (sum(one == group for one, _ in chosen), total) for group, total in totals.items()}
    return Picked(tuple(shown), counts)


def draw_sample(ledger: LedgerFile, row: dict[str, Any]) -> Shown:
    """A sample with its pictures; what cannot be read any more is said, not raised."""
    about = Shown(ledger.dataset, ledger.stage, ledger.shard, row["id"], row["media"], row["signal"])
    try:
        if ledger.stage == VISIDX:
            stored = sample_at(ledger, row)
            sheet, meta, pos_K3 = make_sheet(stored), stored.meta, read_array(ledger.root / row["outputs"][0])
            frame_ids_T = read_array(ledger.root / row["outputs"][1])
        elif ledger.stage == ASSETS:
            folder = (ledger.root / row["outputs"][0]).parent
            meta = json.loads((folder / ASSET_META).read_bytes())
            pos_K3, frame_ids_T = read_array(folder / POSITIONS), read_array(folder / FRAME_IDS)
            sheet = _asset_sheet(ledger, row, meta, pos_K3, frame_ids_T)
        else:
            return replace(about, picture=_as_jpeg(_row_of(_mosaics(ledger, row))))
    except (OvError, OSError, ValueError, KeyError) as error:
        return replace(about, note=_why(error))
    energy = energy_plot(meta, pos_K3, frame_ids_T, "energy over time, and how much of each frame was chosen", 760)
    note = "" if energy else "its meta file has no energy over time: made by an earlier version, or by other tools"
    return replace(about, picture=_as_jpeg(draw_sheet(sheet)), energy=energy or b"", note=note)


def failed_rows(ledgers: Sequence[LedgerFile], per_group: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The first failed rows of each dataset, stage and reason, and how many there are by reason."""
    shown: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    taken: dict[tuple[str, str], int] = {}
    for ledger in ledgers:
        columns = ("key", "row", "id", "media", "reason", "detail", "attempts", "status")
        rows = scan_ledger(ledger.path, columns).filter(pl.col("status") == FAILED).collect()
        for row in rows.iter_rows(named=True):
            if (ledger.dataset, row["key"]) in seen:
                continue
            seen.add((ledger.dataset, row["key"]))
            group = ledger.dataset, row["reason"]
            counts[row["reason"]] = counts.get(row["reason"], 0) + 1
            taken[group] = taken.get(group, 0) + 1
            if taken[group] <= per_group:
                shown.append({"dataset": ledger.dataset, "stage": ledger.stage, "shard": ledger.shard, **row})
    return shown, counts


def _asset_sheet(
    ledger: LedgerFile,
    row: dict[str, Any],
    meta: dict[str, Any],
    pos_K3: NDArray[np.int32],
    frame_ids_T: NDArray[np.int32],
) -> Sheet:
    """A codec asset's frames and mosaics."""
    video = Path(row["path"])
    if not video.exists():
        raise SampleError(f"{video} is gone")
    geometry = meta["cfg"]
    with open_video(video) as opened:
        info = opened.info
    square = SquareMap.fit(info.display_height, info.display_width, geometry["square_size"])
    frames = dict(read_contents(video, frame_ids_T, square, damaged=bool(meta.get("damaged"))))
    mosaics = _mosaics(ledger, row)
    return Sheet(
        title=f"{row['id']}  ·  {row['media']}",
        lines=[f"{info.display_width} x {info.display_height} pixels · {info.codec} · signal {row['signal']}"],
        frames=frames,
        frame_ids_T=frame_ids_T,
        pos_K3=sort_positions(pos_K3),
        square=square,
        grid=geometry["square_size"] // geometry["patch_size"],
        mosaics=[(f"mosaic {number}", image) for number, image in enumerate(mosaics)],
    )


def _mosaics(ledger: LedgerFile, row: dict[str, Any]) -> list[Image.Image]:
    return [
        read_image(ledger.root / output)
        for output in row["outputs"]
        if output.endswith(".jpg") and "/patches/" not in output
    ]


def _row_of(images: Sequence[Image.Image]) -> Image.Image:
    """Mosaics side by side, four in a line."""
    columns = min(4, max(1, len(images)))
    lines = -(-len(images) // columns)
    canvas = Image.new("RGB", (columns * _MOSAIC_SIDE, max(1, lines) * _MOSAIC_SIDE))
    for number, image in enumerate(images):
        place = number % columns * _MOSAIC_SIDE, number // columns * _MOSAIC_SIDE
        canvas.paste(image.resize((_MOSAIC_SIDE - 6, _MOSAIC_SIDE - 6), Image.Resampling.LANCZOS), place)
    return canvas


def _as_jpeg(image: Image.Image) -> bytes:
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()


def _why(error: Exception) -> str:
    return f"cannot be drawn: {type(error).__name__}: {error}"
