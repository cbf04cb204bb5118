"""The pictures of docs/how-patches-are-chosen.md, from the demo's clips: `.venv/bin/python docs/make_pictures.py`."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ov_model.codec.choose import Choice, ChooseOptions, choose_patches
from ov_model.codec.energy import EnergyOptions
from ov_model.codec.signals import SignalOptions, resolve
from ov_model.codec.video import open_video
from ov_model.demo import write_videos
from ov_model.energy_plot import energy_plot
from ov_model.lake.files import write_bytes
from ov_model.picture import ACCENT, chosen_cells, light_chosen

HERE = Path(__file__).parent
CLIP = "bikes.mp4"
FRAMES = (18, 24, 40, 52)
CELL, GAP, HEAD = (300, 128), 8, 22
COLUMNS = ("frame", "motion", "residual", "score of each patch", "chosen")


def main() -> None:
    """Write signals.jpg, normalization.png and padding.jpg beside this file."""
    with tempfile.TemporaryDirectory() as folder:
        write_videos(Path(folder))
        clip = Path(folder) / CLIP
        choices = {
            name: choose_patches(clip, ChooseOptions(energy=EnergyOptions(normalize=name)), keep_frames=True)
            for name in ("frame", "clip")
        }
        write_bytes(HERE / "signals.jpg", signals(clip, choices["frame"]))
        write_bytes(HERE / "normalization.png", normalization(choices))
        write_bytes(HERE / "padding.jpg", padding(choices["frame"]))
    for name in ("signals.jpg", "normalization.png", "padding.jpg"):
        print(name, (HERE / name).stat().st_size)


def signals(clip: Path, choice: Choice) -> bytes:
    """A row per sampled frame: what was seen, what the codec said of it, what was chosen."""
    ids = [int(choice.frame_ids_T[t]) for t in FRAMES]
    with open_video(clip) as video:
        signal = resolve("auto", video, SignalOptions())
        maps = {index: maps for index, _, maps in signal.measure(video, ids)}
    grid = choice.score_THW.shape[1]
    chosen_TGG = chosen_cells(choice.pos_K3, len(choice.frame_ids_T), grid)
    top = np.percentile(choice.score_THW, 99.5)
    width = len(COLUMNS) * (CELL[0] + GAP) - GAP
    sheet = Image.new("RGB", (width, HEAD + len(FRAMES) * (CELL[1] + GAP + HEAD)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(COLUMNS):
        draw.text((column * (CELL[0] + GAP), 2), name, "black", ImageFont.load_default(14))
    for row, (t, index) in enumerate(zip(FRAMES, ids, strict=True)):
        said = maps[index]
        assert said.motion_hw2 is not None
        assert said.residual_HW is not None
        motion = np.hypot(*np.moveaxis(said.motion_hw2.astype(np.float32), -1, 0))
        square = choice.square
        inside = choice.score_THW[t][_rows(choice)][:, _columns(choice)]
        cells = (
            Image.fromarray(choice.contents[index]).resize(CELL, Image.Resampling.LANCZOS),
            _heat(motion, np.percentile(motion, 99)),
            _heat(said.residual_HW.astype(np.float32), np.percentile(said.residual_HW, 99)),
            _heat(inside, top, nearest=True),
            light_chosen(choice.contents[index], chosen_TGG[t], square, CELL),
        )
        y = HEAD + row * (CELL[1] + GAP + HEAD)
        text = f"t = {t}, frame {index} ({choice.picture_T[t]}), {int(chosen_TGG[t].sum())} patches of it chosen"
        draw.text((0, y), text, "#555", ImageFont.load_default(12))
        for column, cell in enumerate(cells):
            sheet.paste(cell, (column * (CELL[0] + GAP), y + HEAD - 4))
    return _jpeg(sheet)


def normalization(choices: dict[str, Choice]) -> bytes:
    """Energy over time and what was chosen, normalized frame by frame and over the clip."""
    titles = {
        "frame": "--normalize frame (the default): each frame by its own 95th percentile",
        "clip": "--normalize clip: all frames by one 95th percentile",
    }
    plots = []
    for name, choice in choices.items():
        meta = {"hb": choice.score_THW.shape[1], **choice.over_time()}
        png = energy_plot(meta, choice.pos_K3, choice.frame_ids_T, titles[name], 800)
        assert png is not None
        plots.append(Image.open(io.BytesIO(png)).convert("RGB"))
    sheet = Image.new("RGB", (plots[0].width, sum(plot.height for plot in plots)), "white")
    top = 0
    for plot in plots:
        sheet.paste(plot, (0, top))
        top += plot.height
    return _png(sheet)


def padding(choice: Choice) -> bytes:
    """A frame in the square: content, whole content patches (lit), the edge and the bars."""
    square, grid = choice.square, choice.score_THW.shape[1]
    side = square.out_size
    canvas = np.full((side, side, 3), 24, np.uint8)
    content = choice.contents[int(choice.frame_ids_T[FRAMES[0]])]
    canvas[square.pad_top : square.pad_top + square.Hn, square.pad_left : square.pad_left + square.Wn] = content
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    patch = side // grid
    for at in range(0, side, patch):
        draw.line((at, 0, at, side), "#666")
        draw.line((0, at, side, at), "#666")
    rows, columns = np.flatnonzero(choice.valid_HW.any(axis=1)), np.flatnonzero(choice.valid_HW.any(axis=0))
    box = columns[0] * patch, rows[0] * patch, (columns[-1] + 1) * patch, (rows[-1] + 1) * patch
    draw.rectangle(tuple(int(edge) for edge in box), outline=ACCENT, width=3)
    font = ImageFont.load_default(16)
    valid, cells = int(choice.valid_HW.sum()), grid * grid
    draw.text((10, 6), f"bars: {cells - valid} of {cells} patches, in each frame", "white", font)
    draw.text((10, side - 28), f"inside the line: {valid} patches wholly in the content", "#ffb020", font)
    return _jpeg(picture)


def _rows(choice: Choice) -> NDArray[np.bool_]:
    return choice.valid_HW.any(axis=1)


def _columns(choice: Choice) -> NDArray[np.bool_]:
    return choice.valid_HW.any(axis=0)


def _heat(value_HW: NDArray[np.float32], top: float, *, nearest: bool = False) -> Image.Image:
    """Dark to bright, `top` and above brightest."""
    level_HW = np.clip(value_HW / max(float(top), 1e-6), 0, 1)
    ramp = np.array([[10, 8, 30], [90, 20, 110], [220, 70, 60], [250, 230, 120]], np.float32)
    at = level_HW * (len(ramp) - 1)
    low = np.clip(at.astype(int), 0, len(ramp) - 2)
    color = ramp[low] + (ramp[low + 1] - ramp[low]) * (at - low)[..., None]
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return Image.fromarray(color.astype(np.uint8)).resize(CELL, how)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=74, optimize=True)
    return file.getvalue()


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.quantize(64, Image.Quantize.MAXCOVERAGE).save(file, "PNG", optimize=True)
    return file.getvalue()


if __name__ == "__main__":
    main()
