"""Check a training JSONL and every file it names: `ov validate train.jsonl`.

The file is streamed: memory holds a window of rows, 8 bytes a row for finding repeated ones, and, where
stage-1 files are compared, one name per sample. What is checked is in `ov_model.checks`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from array import array
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from ov_model.checks import (
    JPEG_QUALITY,
    Problem,
    check_against_visidx,
    check_image,
    check_images,
    check_padding_black,
    check_positions,
    check_row,
    read_positions,
    row_images,
    row_kind,
)
from ov_model.errors import UsageError
from ov_model.geometry import Geometry
from ov_model.lake.files import read_array
from ov_model.lake.layout import META_SUFFIX, VISIDX_SUFFIX, parse_stage1_meta_name

_PACK_FOLDER = re.compile(r"sample_(?P<name>.*)__(?P<h1>[0-9a-f]{8})", re.DOTALL)
_WINDOW = 64
_SHARED_PACKS = 256
_PROGRESS_EVERY = 200
_LOADERS = 4
_JPEG_BLOCK = 8

OnProgress = Callable[[int, int, int], None]
"""Told (rows read, bytes read, bytes in all)."""


@dataclass(frozen=True)
class Validation:
    """What was found. `problems` holds the first of each code only; `counts` has all of them by code.

    rows: lines in the file. compared: video rows whose positions were held against stage 1's choice.
    """

    path: Path
    geometry: Geometry
    rows: int
    video_rows: int
    image_rows: int
    text_rows: int
    images: int
    compared: int
    bad_rows: int
    problems: tuple[Problem, ...]
    counts: dict[str, int]

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.counts

    @property
    def exit_code(self) -> int:
        """0 nothing wrong, 1 problems."""
        return 0 if self.ok else 1

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "path": str(self.path), "ok": self.ok}


@dataclass(frozen=True)
class _Media:
    """The files of one row, as given there."""

    kind: str
    images: tuple[str, ...]
    positions: str | None


def validate_jsonl(
    path: str | Path,
    *,
    image_root: Path | None = None,
    remap: Sequence[tuple[str, str]] = (),
    geometry: Geometry | None = None,
    first_full: bool | None = None,
    visidx_root: Path | None = None,
    jpeg_quality: int | None = JPEG_QUALITY,
    unique_rows: bool | None = None,
    keep: int = 20,
    on_progress: OnProgress | None = None,
) -> Validation:
    """Check every row of a training JSONL and every file that it names.

    Args:
        image_root: where relative paths start; else the JSONL's folder, for a shard's file its dataset's
            root, and the current folder, whichever has the file.
        remap: (old, new) path prefixes, for a JSONL written elsewhere.
        geometry: None takes that of the stage-1 files compared with, else the published one.
        first_full: whether mosaic 0 must be the whole first frame; None takes what stage 1 recorded, or True.
        visidx_root: stage-1 files to compare positions with (every video row must be found there); None takes
            the `visidx` folder of the dataset that the JSONL lies in, where there is one.
        jpeg_quality: what the mosaics must be compressed with; None accepts any.
        unique_rows: whether two equal rows are a problem; None means yes, except in a mixture.
        keep: problems kept per code.
    Raises:
        UsageError: no such file, or a visidx_root that is not a folder.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; give the path of a training JSONL")
    if visidx_root is not None and not visidx_root.is_dir():
        raise UsageError(f"{visidx_root}: not a folder; give the output folder of stage 1")
    places = _Places(path, image_root, remap)
    stage1 = Stage1Index(visidx_root or places.visidx_root)
    geometry = geometry or stage1.geometry() or Geometry()
    checker = _MediaChecker(geometry, places, stage1, first_full, jpeg_quality, must_find=visidx_root is not None)
    if unique_rows is None:
        unique_rows = not path.with_name(path.name + ".manifest.json").is_file()

    found: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    kept: list[Problem] = []
    images = compared = bad_rows = 0
    digests = array("Q")

    def record(problems: Iterable[Problem]) -> None:
        for problem in problems:
            found[problem.code] += 1
            if found[problem.code] <= keep:
                kept.append(problem)

    for row in _checked_rows(path, checker, digests, on_progress):
        kinds[row.kind] += 1
        images += row.images
        compared += row.compared
        bad_rows += bool(row.problems)
        record(replace(problem, line=row.line, sample_id=row.id) for problem in row.problems)
    if unique_rows:
        repeated = _repeated_rows(digests)
        bad_rows += len(repeated)
        record(repeated)
    return Validation(
        path=path,
        geometry=geometry,
        rows=len(digests),
        video_rows=kinds["video"],
        image_rows=kinds["image"],
        text_rows=kinds["text"],
        images=images,
        compared=compared,
        bad_rows=bad_rows,
        problems=tuple(kept),
        counts=dict(sorted(found.items())),
    )


@dataclass(frozen=True)
class _CheckedRow:
    line: int
    id: str
    kind: str
    images: int
    problems: list[Problem]
    compared: bool = False


def _checked_rows(
    path: Path, checker: _MediaChecker, digests: array[int], on_progress: OnProgress | None
) -> Iterator[_CheckedRow]:
    """Yield rows in file order; their files are read by threads, a window of rows ahead."""
    total, done = path.stat().st_size, 0
    window: deque[tuple[_CheckedRow, Future[_Found] | None]] = deque()
    shared: OrderedDict[_Media, Future[_Found]] = OrderedDict()

    def finish() -> _CheckedRow:
        row, pending = window.popleft()
        if pending is None:
            return row
        found = pending.result()
        return replace(row, problems=row.problems + found.problems, compared=found.compared)

    with path.open("rb") as stream, ThreadPoolExecutor(_LOADERS) as pool:
        for line, raw in enumerate(stream, start=1):
            done += len(raw)
            digests.append(int.from_bytes(hashlib.blake2b(raw.strip(), digest_size=8).digest(), "little"))
            value, problems = _parse_line(raw)
            if not problems:
                problems = check_row(value, checker.geometry)
            row, pending = _CheckedRow(line, "", "bad", 0, problems), None
            if isinstance(value, dict):
                positions = value.get("positions_thw")
                media = _Media(row_kind(value), row_images(value), positions if isinstance(positions, str) else None)
                row = replace(row, id=str(value.get("id", "")), kind=media.kind, images=len(media.images))
                if (pending := shared.get(media)) is None:
                    pending = shared[media] = pool.submit(checker.check, media)
                shared.move_to_end(media)
                while len(shared) > _SHARED_PACKS:
                    shared.popitem(last=False)
            window.append((row, pending))
            if on_progress and line % _PROGRESS_EVERY == 0:
                on_progress(line, done, total)
            if len(window) > _WINDOW:
                yield finish()
        while window:
            yield finish()
    if on_progress:
        on_progress(len(digests), done, total)


def _parse_line(raw: bytes) -> tuple[Any, list[Problem]]:
    if not raw.strip():
        return None, [Problem(0, "", "blank_line", "the line is blank, expected a JSON object; remove it")]
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return None, [Problem(0, "", "not_utf8", f"the line is not UTF-8 ({error.reason} at byte {error.start})")]
    try:
        return json.loads(text), []
    except (ValueError, RecursionError) as error:
        shown = text.strip()[:60]
        return None, [Problem(0, "", "not_json", f"the line is not JSON ({error}): {shown!r}")]


def _repeated_rows(digests: array[int]) -> list[Problem]:
    digest_R = np.array(digests, np.uint64)
    order_R = np.argsort(digest_R, kind="stable")
    same_R = np.flatnonzero(digest_R[order_R][1:] == digest_R[order_R][:-1])
    pairs = sorted((int(order_R[i + 1]) + 1, int(order_R[i]) + 1) for i in same_R)
    advice = "remove it, or allow such rows with --no-unique_rows"
    return [
        Problem(line, "", "repeated_row", f"the same as line {before}, byte for byte; {advice}")
        for line, before in pairs
    ]


class _Places:
    """Where the paths in a JSONL lead."""

    def __init__(self, path: Path, image_root: Path | None, remap: Sequence[tuple[str, str]]) -> None:
        here = path.absolute().parent
        around = [here, here.parent] if here.name == "jsonl" else [here]
        self.bases = [image_root] if image_root is not None else [*around, Path.cwd()]
        self.visidx_root = next((base / "visidx" for base in around if (base / "visidx").is_dir()), None)
        self.remap = sorted(((old.rstrip("/"), new) for old, new in remap), key=lambda pair: -len(pair[0]))

    def find(self, given: str) -> Path:
        """The file meant by a path; where no base has it, its place under the first."""
        for old, new in self.remap:
            if given == old or given.startswith(old + "/"):
                given = new + given[len(old) :]
                break
        candidates = [base / given for base in self.bases]
        return next((path for path in candidates if path.is_file()), candidates[0])

    def hint(self, given: str) -> str:
        """What to do when a path leads nowhere."""
        if PurePosixPath(given).is_absolute():
            return "if the data moved, check with --remap OLD=NEW"
        return f"relative paths start at {' or '.join(map(str, self.bases))}; set --image_root"


@dataclass(frozen=True, eq=False)
class _Stage1Choice:
    """What stage 1 recorded of a sample; box: see `check_padding_black`."""

    visidx_K3: NDArray[np.int32]
    first_full: bool
    repeated: int
    box: tuple[int, int, int, int]


class Stage1Index:
    """Stage-1 files below a folder, found by sample id and video stem; h1 breaks ties."""

    def __init__(self, root: Path | None) -> None:
        self._by_name: dict[str, list[Path]] = {}
        for folder, _, names in os.walk(root) if root else ():
            for name in names:
                if fields := parse_stage1_meta_name(name):
                    self._by_name.setdefault(fields["name"], []).append(Path(folder, name))

    def geometry(self) -> Geometry | None:
        """That of any one of the samples, None when there is none."""
        if not self._by_name:
            return None
        meta = json.loads(next(iter(self._by_name.values()))[0].read_text())
        return Geometry(meta["T"], meta["keep_frames_equiv"], meta["square_size"], meta["patch"])

    def find(self, pack_folder: str, geometry: Geometry) -> Path | None:
        """The meta file of the sample that a folder of mosaics is named after; None where it is not clear."""
        match = _PACK_FOLDER.fullmatch(pack_folder)
        if match is None:
            return None
        wanted = (str(geometry.sequence_length), str(geometry.square_size), str(geometry.patch_size))
        by_h1: dict[str, Path] = {}
        for path in sorted(self._by_name.get(match["name"], [])):
            fields = parse_stage1_meta_name(path.name)
            if fields and (fields["T"], fields["square"], fields["patch"]) == wanted:
                by_h1.setdefault(fields["h1"], path)
        if len(by_h1) == 1:
            return next(iter(by_h1.values()))
        return by_h1.get(match["h1"])

    def read(self, pack_folder: str, geometry: Geometry) -> _Stage1Choice | None:
        """What stage 1 recorded of the sample that a folder of mosaics is named after, None where not found.

        Raises:
            OSError, ValueError, KeyError: the files are there but broken.
        """
        path = self.find(pack_folder, geometry)
        if path is None:
            return None
        meta = json.loads(path.read_text())
        pad = meta["pad_info"]
        return _Stage1Choice(
            visidx_K3=read_array(path.with_name(path.name.removesuffix(META_SUFFIX) + VISIDX_SUFFIX)),
            first_full=bool(meta["keep_first_full_frame"]),
            repeated=int(meta.get("repeated_tail", 0)),
            box=(pad["pad_top"], pad["pad_top"] + pad["Hn"], pad["pad_left"], pad["pad_left"] + pad["Wn"]),
        )


@dataclass(frozen=True)
class _Found:
    """What the files of a row gave; compared: with the choice of stage 1."""

    problems: list[Problem]
    compared: bool = False


@dataclass(frozen=True)
class _MediaChecker:
    """Checks the files of rows; called from several threads."""

    geometry: Geometry
    places: _Places
    stage1: Stage1Index
    first_full: bool | None
    jpeg_quality: int | None
    must_find: bool

    def check(self, media: _Media) -> _Found:
        """All problems of one row's files."""
        paths = [self.places.find(given) for given in media.images]
        if media.kind == "video":
            image_problems = check_images(paths, self.geometry, quality=self.jpeg_quality)
        else:
            image_problems = [problem for path in paths for problem in check_image(path)]
        image_problems = self._with_hints(image_problems, media.images)
        if media.positions is None:
            return _Found(image_problems)
        complete = not image_problems and len(paths) == self.geometry.num_images
        found = self._check_positions(media.positions, paths if complete else None)
        return replace(found, problems=image_problems + found.problems)

    def _check_positions(self, given: str, paths: Sequence[Path] | None) -> _Found:
        """`paths`: the mosaics, None where they cannot be compared with."""
        path = self.places.find(given)
        pos, problems = read_positions(path)
        if pos is None:
            return _Found(self._with_hints(problems, [given]))
        try:
            choice = self.stage1.read(PurePosixPath(given).parent.name, self.geometry)
        except (OSError, ValueError, KeyError) as error:
            broken = f"{path}: its stage-1 files cannot be read ({error}); run stage 1 again"
            return _Found([Problem(0, "", "unreadable_visidx", broken)])
        first_full, repeated = True, 0
        if choice is not None:
            first_full, repeated = choice.first_full, choice.repeated
        if self.first_full is not None:
            first_full = self.first_full
        problems = check_positions(pos, self.geometry, first_full=first_full, repeated=repeated, name=str(path))
        if choice is None:
            if self.must_find:
                advice = "run stage 1, or check without --visidx_root"
                missing = f"{path}: no stage-1 files of this sample; {advice}"
                problems.append(Problem(0, "", "missing_visidx", missing))
            return _Found(problems)
        if problems:
            return _Found(problems)
        problems = check_against_visidx(pos, choice.visidx_K3, str(path))
        if not problems and paths is not None and self.geometry.patch_size % _JPEG_BLOCK == 0:
            problems = check_padding_black(paths, pos, choice.box, self.geometry)
        return _Found(problems, compared=True)

    def _with_hints(self, problems: list[Problem], given: Sequence[str]) -> list[Problem]:
        return [
            replace(problem, message=f"{problem.message}; {self.places.hint(given[0])}")
            if problem.code in ("missing_image", "missing_positions")
            else problem
            for problem in problems
        ]


def print_validation(validation: Validation, console: Console | None = None) -> None:
    """Print the first problem of each code with how many there are, and a line of summary."""
    console = console or Console()
    first = {problem.code: problem for problem in reversed(validation.problems)}
    for code, count in validation.counts.items():
        problem = first[code]
        console.print(Text.assemble((code, "bold red"), f" × {count}"))
        where = f"  line {problem.line}" + (f", id {problem.sample_id}" if problem.sample_id else "")
        console.print(_printable(f"{where}: {problem.message}"), soft_wrap=True)
    kinds = f"{validation.video_rows} video, {validation.image_rows} image, {validation.text_rows} text"
    verdict = "all well" if validation.ok else f"{validation.bad_rows} rows with problems"
    compared = f", {validation.compared} compared with stage 1" if validation.compared else ""
    counted = f"{validation.rows} rows ({kinds}), {validation.images} images{compared}"
    console.print(_printable(f"{validation.path}: {counted}: {verdict}"), soft_wrap=True)


def _printable(text: str) -> Text:
    """Lone surrogates, legal in JSON, cannot be written to a terminal."""
    return Text(text.encode("utf-8", "replace").decode())
