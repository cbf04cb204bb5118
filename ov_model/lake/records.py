"""Reading a raw dataset: a JSON array (streamed) or JSONL of video, image and text records.

A record that cannot be used is still a Record, with its error: the ledger counts it, nothing is skipped in silence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import ijson
import ijson.backends.python as ijson_python

from ov_model.errors import BadRecord, MissingFile, OutsideRoot, SampleError, UsageError
from ov_model.lake.files import hash_json
from ov_model.lake.layout import sample_key
from ov_model.lake.urls import Location, Url, location

ROW_FIELD = "_row_idx"
BAD_FIELD = "_bad_record"


@dataclass(frozen=True)
class Record:
    """One row of a raw dataset.

    row: its number in the dataset (position, or `_row_idx` where the row carries one).
    kind: video | image | text | bad. media: the path as given (first image), empty for text.
    data: the record without bookkeeping fields. error: why it is bad.
    """

    row: int
    kind: str
    id: str
    media: str
    data: Any = field(repr=False)
    error: SampleError | None = None

    @property
    def key(self) -> str:
        """`media|id|row`, unique in a dataset."""
        return sample_key(self.media, self.id, self.row)

    @property
    def content_hash(self) -> str:
        """Hash of what the record says, without its row number."""
        return hash_json(self.data)

    @property
    def images(self) -> list[str]:
        """Image paths of an image record as given."""
        image = self.data.get("image") if isinstance(self.data, dict) else None
        return [image] if isinstance(image, str) else list(image or [])


def read_records(path: Path, *, own_index: bool = False) -> Iterator[Record]:
    """Stream the records of a `.json` array or a `.jsonl` file, in file order.

    Raises:
        UsageError: no such file, neither an array nor JSON lines, or an array that breaks off (the records before the
            break are delivered first).
    """
    for position, value in enumerate(read_values(Path(path))):
        yield parse_record(value, position, own_index=own_index)


def parse_record(value: Any, position: int, *, own_index: bool = False) -> Record:
    """Classify and check one decoded record. A bad one carries its error instead of raising it.

    own_index: the record comes from an index that we wrote, where bad records are kept in a field of their own.
    """
    if isinstance(value, BrokenLine):
        return Record(position, "bad", "", "", value.text, BadRecord(value.message))
    if not isinstance(value, dict):
        shown = json.dumps(value, ensure_ascii=False)[:80]
        message = f"record {position} is {type(value).__name__} {shown}, expected an object with id and conversations"
        return Record(position, "bad", "", "", value, BadRecord(message))
    row = value.get(ROW_FIELD, position)
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < 2**62:
        error = BadRecord(f"record {position}: {ROW_FIELD} is {row!r}, expected a whole number from 0")
        return Record(position, "bad", str(value.get("id", "")), "", value, error)
    if own_index and BAD_FIELD in value:
        return Record(row, "bad", "", "", value[BAD_FIELD]["data"], BadRecord(value[BAD_FIELD]["message"]))
    data = {name: item for name, item in value.items() if name != ROW_FIELD}
    sample_id = data.get("id")
    video, image = data.get("video"), data.get("image")
    media = video if isinstance(video, str) else ""
    problem = _problem(data)
    if problem:
        shown_id = "" if sample_id is None else str(sample_id)
        error = BadRecord(f"record {row} (id {shown_id!r}): {problem}")
        return Record(row, "bad", shown_id, media, data, error)
    if media:
        kind = "video"
    elif image:
        kind, media = "image", image if isinstance(image, str) else image[0]
    else:
        kind = "text"
    return Record(row, kind, str(sample_id), media, data)


def _problem(data: dict[str, Any]) -> str | None:
    """What keeps a record from being used, or None."""
    sample_id, conversations = data.get("id"), data.get("conversations")
    if sample_id is None or isinstance(sample_id, (dict, list)) or str(sample_id) == "":
        return "no id; every record needs one"
    for name in ("video", "image"):
        if name in data and not data[name]:
            return f"{name} is {data[name]!r}: no media; give a path, or leave the field out of a text-only record"
    if "video" in data and not isinstance(data["video"], str):
        return f"video is {type(data['video']).__name__}, expected one path"
    image = data.get("image")
    paths = [image] if isinstance(image, str) else image
    if paths is not None and not (isinstance(paths, list) and all(isinstance(item, str) and item for item in paths)):
        return "image is neither a path nor a list of paths"
    if conversations is None and "video" not in data and image is None:
        return "neither media nor conversations"
    if conversations is None:
        return "no conversations"
    if not isinstance(conversations, list) or not conversations:
        return "conversations is not a non-empty list"
    for turn in conversations:
        if (
            not isinstance(turn, dict)
            or turn.get("from") not in ("human", "gpt", "system")
            or not isinstance(turn.get("value"), str)
        ):
            return f"a turn is not {{from: human|gpt, value: text}}: {str(turn)[:80]}"
    if "video" not in data:
        expected = len(paths or [])
        found = count_placeholders(conversations)
        if found != expected:
            return f"{found} <image> in the human turns for {expected} images"
    return None


def count_placeholders(conversations: Sequence[dict[str, str]]) -> int:
    """Number of `<image>` in the human turns."""
    return sum(turn["value"].count("<image>") for turn in conversations if turn["from"] == "human")


def resolve_media(
    media: str,
    *,
    media_root: Location | None,
    allowed_roots: Sequence[Location] = (),
    dataset_path: Location | None = None,
) -> Location:
    """The file that a media path means: relative to `media_root`, else to the current folder. A URL is not looked up.

    Raises:
        OutsideRoot: `media_root` or `allowed_roots` is set and the path, links followed, leads out of it.
        MissingFile: nothing there; says so when the file stands beside the dataset file instead.
    """
    if "\0" in media:
        raise BadRecord(f"media path {media!r} contains a NUL character")
    roots = [*([media_root] if media_root else []), *allowed_roots]
    place = location(media)
    if isinstance(media_root, Url) and isinstance(place, Path) and not place.is_absolute():
        place = media_root / media
    if isinstance(place, Url):
        _refuse_outside(media, place, roots, any(place.is_below(root) for root in roots if isinstance(root, Url)))
        return place
    folder = media_root if isinstance(media_root, Path) else None
    try:
        real = Path(os.path.realpath((folder or Path()) / place))
        found = real.exists()
    except (OSError, ValueError) as error:
        raise MissingFile(f"{media[:200]}: cannot be looked up ({error}); check the path") from error
    inside = any(real.is_relative_to(root.resolve()) for root in roots if isinstance(root, Path))
    _refuse_outside(media, real, roots, inside)
    if not found:
        where = f"the media root {folder}" if folder else f"the current folder {Path.cwd()}"
        hint = "check the path, or set --media_root"
        beside = isinstance(dataset_path, Path) and (dataset_path.parent / media).exists()
        if dataset_path is not None and not os.path.isabs(media) and beside:
            hint = f"it stands beside the dataset file: use --media_root {dataset_path.parent}"
        raise MissingFile(f"{media}: no such file in {where}; {hint}")
    return real


def _refuse_outside(media: str, real: Location, roots: Sequence[Location], inside: bool) -> None:
    if roots and not inside:
        shown = [str(root.resolve() if isinstance(root, Path) else root) for root in roots]
        raise OutsideRoot(
            f"{media}: leads to {real}, outside {', '.join(shown)}; move it inside, or allow its folder "
            "with allowed_roots"
        )


@dataclass(frozen=True)
class BrokenLine:
    """A line that is not JSON: its beginning, and what is wrong with it."""

    text: str
    message: str


def read_values(path: Path) -> Iterator[Any]:
    """The decoded items of a JSON array or of JSON lines; a line that is not JSON comes as a BrokenLine.

    Raises:
        UsageError: as `read_records`.
    """
    try:
        stream = open(path, "rb")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{path}: not a dataset file (JSON array or JSONL)") from error
    with stream:
        first = _first_byte(stream)
        stream.seek(0)
        if first == b"[":
            yield from _read_array(stream, path)
        elif path.suffix == ".json" and first not in (b"{", b""):
            raise UsageError(f"{path}: begins with {first!r}, expected a JSON array or one object a line")
        else:
            yield from _read_lines(stream)


def _read_array(stream: Any, path: Path) -> Iterator[Any]:
    """Items of a top-level array. The quick parser refuses integers over 64 bits; the slow one then goes on."""
    delivered = 0
    for parser in (ijson, ijson_python):
        stream.seek(0)
        try:
            for value in islice(parser.items(stream, "item", use_float=True), delivered, None):
                delivered += 1
                yield value
            return
        except ijson.JSONError as error:
            if parser is ijson_python or "overflow" not in str(error):
                raise UsageError(f"{path}: the JSON array breaks near byte {stream.tell()}: {error}") from error


def _read_lines(stream: Any) -> Iterator[Any]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except ValueError as error:
            text = line[:200].decode("utf-8", "replace")
            yield BrokenLine(text, f"line {number} is not JSON ({error}): {text[:80]!r}")


def _first_byte(stream: Any) -> bytes:
    while (byte := stream.read(1)) and byte.isspace():
        pass
    return byte
