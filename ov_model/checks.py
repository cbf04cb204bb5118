"""What a row of a training JSONL promises, one check at a time: the row, its images, its positions.

Every check returns a list of Problem, empty when all is well; none raises for bad data. `ov_model.validate`
runs them over a file, asset checks run them on samples.
Shapes: K rows (t, h, w) · N mosaics · G patches a side · S square side in pixels.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from ov_model.errors import BadImage
from ov_model.geometry import Geometry
from ov_model.image_files import open_image, read_image

PACK_FIELDS = ("id", "conversations", "image", "positions_thw")
PLACEHOLDER = "<image>"
JPEG_QUALITY = 95
_MOSAIC_NAME = re.compile(r"(?P<stem>.*)_(?P<index>\d{3,})\.jpg", re.DOTALL)
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0", -1: "neither 4:4:4, 4:2:2 nor 4:2:0"}
_BLACK = 24


@dataclass(frozen=True)
class Problem:
    """One broken promise; `line` is the 1-based line of the JSONL, 0 where there is none."""

    line: int
    sample_id: str
    code: str
    message: str


def _problem(code: str, message: str) -> Problem:
    return Problem(0, "", code, message)


def row_images(row: dict[str, Any]) -> tuple[str, ...]:
    """Image paths of a row as given; empty for a text-only row or a field of another type."""
    image = row.get("image")
    if isinstance(image, str):
        return (image,)
    if isinstance(image, list) and all(isinstance(item, str) for item in image):
        return tuple(image)
    return ()


def row_kind(row: dict[str, Any]) -> str:
    """`video` (mosaics with positions), `image` or `text`.

    A row without `positions_thw` whose images are named as a pack is a video row too: its positions got lost.
    """
    if row.get("positions_thw") is not None:
        return "video"
    images = row_images(row)
    if not images:
        return "text"
    named_as_pack = len(images) > 1 and all(
        _MOSAIC_NAME.fullmatch(PurePosixPath(path).name) and PurePosixPath(path).parent.name.startswith("sample_")
        for path in images
    )
    return "video" if named_as_pack else "image"


def check_row(row: Any, geometry: Geometry) -> list[Problem]:
    """Check one decoded line without its files: fields, turns, `<image>` count, images' number and order."""
    if not isinstance(row, dict):
        return [_problem("not_object", f"the line holds a {type(row).__name__}, expected a JSON object")]
    kind = row_kind(row)
    problems = _check_id(row)
    turns = _check_conversations(row, problems)
    images = _check_image_field(row, kind, geometry, problems)
    if turns is not None and images is not None:
        _check_placeholders(turns, len(images), problems)
    if kind == "video" and images is not None:
        _check_pack(row, images, problems)
    return problems


def _check_id(row: dict[str, Any]) -> list[Problem]:
    sample_id = row.get("id")
    if sample_id is None or sample_id == "":
        return [_problem("missing_id", "no id; every row needs one")]
    if not isinstance(sample_id, (str, int)) or isinstance(sample_id, bool):
        return [
            _problem(
                "bad_id",
                f"id is {type(sample_id).__name__} {sample_id!r:.80}, expected a text or a whole number",
            )
        ]
    return []


def _check_conversations(row: dict[str, Any], problems: list[Problem]) -> list[dict[str, str]] | None:
    """The turns when they can be read further, else None."""
    turns = row.get("conversations")
    if turns is None:
        problems.append(_problem("missing_conversations", "no conversations; expected a list of {from, value} turns"))
        return None
    if not isinstance(turns, list) or not turns:
        shown = "an empty list" if turns == [] else type(turns).__name__
        problems.append(
            _problem("bad_conversations", f"conversations is {shown}, expected a list with at least one exchange")
        )
        return None
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not all(isinstance(turn.get(name), str) for name in ("from", "value")):
            problems.append(
                _problem(
                    "bad_turn",
                    f"turn {number} is {turn!r:.80}, expected an object with texts `from` and `value`",
                )
            )
            return None
    speakers = [turn["from"] for turn in turns]
    unknown = sorted(set(speakers) - {"human", "gpt", "system"})
    if unknown:
        problems.append(_problem("bad_role", f"a turn is from {unknown[0]!r:.40}, expected human or gpt"))
        return turns
    spoken = speakers[1:] if speakers[0] == "system" else speakers
    for number, speaker in enumerate(spoken):
        expected = "gpt" if number % 2 else "human"
        if speaker != expected:
            problems.append(
                _problem(
                    "turn_order",
                    f"turn {number + len(speakers) - len(spoken)} is from {speaker}, expected {expected}: "
                    "turns alternate and a human begins",
                )
            )
            return turns
    if "gpt" not in spoken:
        problems.append(_problem("unanswered", "no turn is from gpt, so there is nothing to learn; add an answer"))
    return turns


def _check_image_field(
    row: dict[str, Any], kind: str, geometry: Geometry, problems: list[Problem]
) -> tuple[str, ...] | None:
    """The image paths when the field has a usable type, else None."""
    image = row.get("image")
    if image is not None and (not image or not row_images(row) or not all(row_images(row))):
        problems.append(
            _problem("bad_image_field", f"image is {image!r:.80}, expected a path or a list of paths, none empty")
        )
        return None
    images = row_images(row)
    if kind == "video" and len(images) != geometry.num_images:
        problems.append(
            _problem("image_count", f"{len(images)} images with positions, expected {geometry.num_images} mosaics")
        )
    return images


def _check_placeholders(turns: list[dict[str, str]], num_images: int, problems: list[Problem]) -> None:
    asked = [turn["value"] for turn in turns if turn["from"] == "human"]
    found = sum(value.count(PLACEHOLDER) for value in asked)
    if found != num_images:
        hint = "; a <video> was left in place of them" if any("<video>" in value for value in asked) else ""
        problems.append(
            _problem(
                "placeholder_count",
                f"{found} {PLACEHOLDER} in the human turns for {num_images} images; must be equal{hint}",
            )
        )
    if any(PLACEHOLDER in turn["value"] for turn in turns if turn["from"] != "human"):
        problems.append(
            _problem(
                "placeholder_in_answer",
                f"a turn that is not from human has {PLACEHOLDER}; it stands for no image",
            )
        )


def _check_pack(row: dict[str, Any], images: Sequence[str], problems: list[Problem]) -> None:
    """Fields, names, order and folder of a video row's files."""
    if extra := sorted(set(row) - set(PACK_FIELDS)):
        problems.append(
            _problem(
                "extra_field",
                f"field {extra[0]!r:.40}, expected {', '.join(PACK_FIELDS)} only; run stage 2 again",
            )
        )
    positions = row.get("positions_thw")
    if positions is None:
        problems.append(
            _problem(
                "no_positions",
                "mosaics without positions_thw; run stage 2 with --write_positions (rewrite: --include_positions)",
            )
        )
    elif not isinstance(positions, str) or not positions:
        problems.append(
            _problem("bad_positions_field", f"positions_thw is {positions!r:.80}, expected the path of a .npy file")
        )
    if not images:
        return
    stems = set()
    for expected, path in enumerate(images):
        match = _MOSAIC_NAME.fullmatch(PurePosixPath(path).name)
        if match is None or int(match["index"]) != expected:
            problems.append(
                _problem(
                    "image_order",
                    f"image {expected} is {PurePosixPath(path).name}, expected a name ending in "
                    f"_{expected:03d}.jpg: mosaics come in order, as the rows of positions do",
                )
            )
            return
        stems.add(match["stem"])
    files = [*images, positions] if isinstance(positions, str) and positions else list(images)
    folders = {os.path.normpath(PurePosixPath(path).parent) for path in files}
    if len(folders) > 1 or len(stems) > 1:
        problems.append(
            _problem(
                "mixed_pack",
                f"files of {max(len(folders), len(stems))} samples in one row "
                f"({', '.join(sorted(folders))[:160]}); mosaics and positions of a row come from one folder",
            )
        )


def check_image(path: Path) -> list[Problem]:
    """Check that an image of an image-only row exists and decodes to its end."""
    return _read_image(path)[1]


def check_images(paths: Sequence[Path], geometry: Geometry, *, quality: int | None = JPEG_QUALITY) -> list[Problem]:
    """Check the mosaics of one video: they decode to their end, RGB JPEG 4:2:0, S x S pixels, of one quality.

    Args:
        quality: what the JPEG tables must belong to; None accepts any.
    """
    side = geometry.square_size
    problems = []
    for path in paths:
        image, faults = _read_image(path)
        problems += faults
        if image is None:
            continue
        if not isinstance(image, JpegImagePlugin.JpegImageFile):
            problems.append(_problem("image_format", f"{path}: {image.format} file, expected JPEG; run stage 2 again"))
            continue
        if image.mode != "RGB":
            problems.append(_problem("image_mode", f"{path}: mode {image.mode}, expected RGB; run stage 2 again"))
            continue
        if image.size != (side, side):
            problems.append(
                _problem("image_size", f"{path}: {image.width} x {image.height} pixels, expected {side} x {side}")
            )
        if (sampling := JpegImagePlugin.get_sampling(image)) != 2:
            problems.append(
                _problem(
                    "image_subsampling",
                    f"{path}: chroma {_SUBSAMPLING[sampling]}, expected 4:2:0; run stage 2 again",
                )
            )
        if quality is not None and image.quantization != _quantization(quality):
            problems.append(
                _problem(
                    "image_quality",
                    f"{path}: quantization tables are not those of JPEG quality {quality}; "
                    "it was compressed again or otherwise, run stage 2 again",
                )
            )
    return problems


def _read_image(path: Path) -> tuple[Image.Image | None, list[Problem]]:
    if not path.is_file():
        return None, [_problem("missing_image", f"{path}: no such file")]
    try:
        with open_image(path) as image:
            image.load()
    except (OSError, BadImage) as error:
        size = path.stat().st_size
        return None, [_problem("unreadable_image", f"{path}: {size} bytes that do not decode to the end ({error})")]
    return image, []


@cache
def _quantization(quality: int) -> dict[int, list[int]]:
    """The tables that libjpeg derives from a quality, as Pillow reports them."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", quality=quality)
    image = Image.open(stream)
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return image.quantization


def read_positions(path: Path) -> tuple[NDArray[Any] | None, list[Problem]]:
    """The array of a positions file, or why it cannot be had. Pickled objects are refused."""
    if not path.is_file():
        return None, [_problem("missing_positions", f"{path}: no such file")]
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, [_problem("unreadable_positions", f"{path}: not a plain .npy array ({reason:.120})")]
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        return None, [_problem("unreadable_positions", f"{path}: an archive of arrays, expected one .npy array")]
    return loaded, []


def check_positions(
    pos: NDArray[Any],
    geometry: Geometry,
    *,
    first_full: bool,
    unique: bool = True,
    ordered: bool = True,
    repeated: int = 0,
    name: str = "positions",
) -> list[Problem]:
    """Check the positions of one video.

    Args:
        pos: expected int32 [K, 3], K = N*G*G, rows (t, h, w) with t < T and h, w < G.
        first_full: the first G*G rows must be frame 0 in raster order.
        unique: no row may occur twice, but for `repeated` copies of one row (padding_policy repeat).
        ordered: rows sorted by (t, h, w), so that row j belongs to tile j % (G*G) of mosaic j // (G*G). Off
            for the rows of stage 1, which come by score.
        name: how messages call the array.
    """
    if pos.dtype != np.int32:
        return [_problem("positions_dtype", f"{name}: {pos.dtype}, expected int32; run stage 2 again")]
    if pos.shape != (geometry.num_patches, 3):
        per_mosaic = f"{geometry.patches_per_image} for each of {geometry.num_images} mosaics"
        expected = f"[{geometry.num_patches}, 3], {per_mosaic}"
        return [_problem("positions_shape", f"{name}: shape {list(pos.shape)}, expected {expected}")]
    problems = []
    for axis, limit in enumerate((geometry.sequence_length, geometry.grid, geometry.grid)):
        outside = np.flatnonzero((pos[:, axis] < 0) | (pos[:, axis] >= limit))
        if outside.size:
            row = int(outside[0])
            code = "positions_time_range" if axis == 0 else "positions_grid_range"
            found = f"row {row} has {'thw'[axis]} = {int(pos[row, axis])}"
            problems.append(
                _problem(code, f"{name}: {found}, expected 0..{limit - 1} ({outside.size} rows are outside)")
            )
    if problems:
        return problems
    flat_K = np.ravel_multi_index(
        (pos[:, 0], pos[:, 1], pos[:, 2]), (geometry.sequence_length, geometry.grid, geometry.grid)
    )
    if unique:
        problems += _check_unique(flat_K, pos, repeated, name)
    if ordered and (breaks := np.flatnonzero(np.diff(flat_K) < 0)).size:
        row = int(breaks[0]) + 1
        problems.append(
            _problem(
                "positions_order",
                f"{name}: row {row} {_thw(pos[row])} comes after {_thw(pos[row - 1])}; rows are sorted by "
                "(t, h, w), else they do not name the tiles of the mosaics; run stage 2 again",
            )
        )
    block = geometry.patches_per_image
    if first_full and not np.array_equal(flat_K[:block], np.arange(block)):
        row = int(np.flatnonzero(flat_K[:block] != np.arange(block))[0])
        problems.append(
            _problem(
                "positions_first_full",
                f"{name}: row {row} is {_thw(pos[row])}; the first {block} rows must be the whole frame t=0 "
                "in raster order (if stage 1 ran without keep_first_full_frame, check with --no-first_full)",
            )
        )
    return problems


def _check_unique(flat_K: NDArray[np.intp], pos: NDArray[Any], repeated: int, name: str) -> list[Problem]:
    values, first, counts = np.unique(flat_K, return_index=True, return_counts=True)
    copies = len(flat_K) - len(values)
    doubled = np.flatnonzero(counts > 1)
    if copies == repeated and len(doubled) <= 1:
        return []
    if not copies:
        return [_problem("positions_repeated", f"{name}: no row is repeated, but stage 1 recorded {repeated} copies")]
    row = pos[first[doubled[0]]]
    expected = f"expected {repeated} copies of one row" if repeated else "each patch is chosen once"
    return [
        _problem(
            "positions_repeated",
            f"{name}: {_thw(row)} occurs {counts[doubled[0]]} times ({copies} rows are copies of others); {expected}",
        )
    ]


def _thw(row: NDArray[Any]) -> str:
    return f"({', '.join(str(int(value)) for value in row)})"


def check_against_visidx(pos: NDArray[np.int32], visidx: NDArray[np.int32], name: str = "positions") -> list[Problem]:
    """Check that positions are exactly the rows that stage 1 chose, int32 [K, 3] each, in any order."""
    chosen = visidx[np.lexsort(visidx.T[::-1])]
    given = pos[np.lexsort(pos.T[::-1])]
    if np.array_equal(chosen, given):
        return []
    if chosen.shape != given.shape:
        detail = f"{len(given)} rows for {len(chosen)} of stage 1"
    else:
        common = len({*map(tuple, chosen.tolist())} & {*map(tuple, given.tolist())})
        detail = f"{len(given) - common} of {len(given)} rows are not among those of stage 1"
    return [_problem("positions_not_chosen", f"{name}: {detail}; run stage 2 again")]


def check_padding_black(
    paths: Sequence[Path], pos: NDArray[np.int32], box: tuple[int, int, int, int], geometry: Geometry
) -> list[Problem]:
    """Check that tiles which stand for padding are black: mosaics and positions belong together.

    Args:
        box: where the content lies in the square, pixels (top, bottom, left, right), ends excluded.
    """
    top, bottom, left, right = box
    y, x = pos[:, 1] * geometry.patch_size, pos[:, 2] * geometry.patch_size
    side = geometry.patch_size
    outside = (y + side <= top) | (y >= bottom) | (x + side <= left) | (x >= right)
    grid, patch, block = geometry.grid, geometry.patch_size, geometry.patches_per_image
    for index, path in enumerate(paths):
        tiles = np.flatnonzero(outside[index * block : (index + 1) * block])
        if not tiles.size:
            continue
        luma = np.asarray(read_image(path, "L"))
        mean = luma.reshape(grid, patch, grid, patch).mean(axis=(1, 3)).ravel()
        bright = tiles[mean[tiles] > _BLACK]
        if bright.size:
            tile = int(bright[0])
            row = pos[index * block + tile]
            return [
                _problem(
                    "padding_not_black",
                    f"{path}: tile {tile} stands for padding at {_thw(row)}, expected black, but its "
                    f"mean is {mean[tile]:.0f}: mosaics and positions do not belong together, run stage 2 again",
                )
            ]
    return []
